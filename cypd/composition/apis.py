"""Both APIs, built over engines and rules."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cypd.api.app import Api
from cypd.api.audit import AuditHandlers
from cypd.api.auth import Auth
from cypd.api.events import EventHandlers
from cypd.api.projects import ProjectHandlers
from cypd.api.repositories import RepositoryHandlers
from cypd.api.scan_policy import ScanPolicyHandlers
from cypd.api.scans import ScanHandlers
from cypd.api.system import Collection, Disk, System
from cypd.api.tag_rules import TagRulesHandlers
from cypd.api.user import Own
from cypd.api.users import Everybody
from cypd.api.webhooks import WebhookHandlers
from cypd.audit.audit import Audit
from cypd.composition.accounts import Accounts
from cypd.composition.scanning import Scanning
from cypd.composition.upkeep import OnFatal
from cypd.config import Config
from cypd.events.feed import Feed
from cypd.health import Health
from cypd.limits import Rates
from cypd.metadata.lmdb import LmdbMetadata
from cypd.projects.access import ProjectAccess
from cypd.projects.members import Members
from cypd.projects.projects import Projects
from cypd.registry.blobs import Blobs
from cypd.registry.catalog import Catalog
from cypd.registry.inventory import Inventory
from cypd.registry.manifests import Manifests
from cypd.registry.ports import BlobStorage
from cypd.registry.pulls import PullCounter
from cypd.registry.uploads import Uploads
from cypd.retention.retention import Retention
from cypd.storage.space import FreeSpace
from cypd.v2.app import V2
from cypd.webhooks.webhooks import Webhooks


@dataclass(frozen=True)
class Parts:
    """What both APIs are built of."""

    config: Config
    root: Path
    metadata: LmdbMetadata
    storage: BlobStorage
    space: FreeSpace
    health: Health
    access: ProjectAccess
    accounts: Accounts
    webhooks: Webhooks
    audit: Audit
    pulls: PullCounter
    retention: Retention
    scanning: Scanning
    on_fatal: OnFatal
    rates: Rates

    def v2(self) -> V2:
        """Return the OCI API."""
        config, store, access = self.config, self.metadata.registry, self.access
        return V2(
            Blobs(store, self.storage, access.allows, loose_grace=config.gc.loose_grace),
            Uploads(
                store,
                self.storage,
                max_sessions_per_user=config.uploads.max_sessions_per_user,
                max_sessions_per_project=config.uploads.max_sessions_per_project or None,
            ),
            Manifests(
                store,
                self.storage,
                allow_sparse=config.manifests.allow_sparse,
                allow_urls=config.manifests.allow_urls,
            ),
            Catalog(store, access.allows),
            self.pulls,
            authenticator=self.accounts.authenticator,
            allows=access.allows,
            admit=access.admit,
            external_url=config.server.external_url,
            delete_enabled=config.access.delete,
            session_ttl=config.uploads.session_ttl,
            on_fatal=self.on_fatal,
            require_space=self.space.require,
            record=self.audit.record,
            is_set_aside=access.is_set_aside,
            admit_to_project=self.rates.admit_to_project,
            guard=self.scanning.guard.check,
        )

    def api(self) -> Api:
        """Return the product's own API."""
        config, accounts = self.config, self.accounts
        projects = Projects(
            self.metadata.projects,
            self.access,
            default_quota=config.projects.default_quota,
            max_quota=config.projects.max_quota,
        )
        members = Members(self.metadata.projects, self.access, accounts.users)
        inventory = Inventory(
            self.metadata.registry,
            self.metadata.inventory,
            self.access,
            delete_enabled=config.access.delete,
        )
        collection = Collection(interval=config.gc.interval, blob_grace=config.gc.blob_grace)
        return Api(
            [
                *System(lambda: _disk(self.root), collection, config.server.workers).routes(),
                *Auth(accounts.sessions, accounts.users).routes(),
                *Own(accounts.users, accounts.personal_tokens, accounts.second_factor).routes(),
                *Everybody(accounts.users, members).routes(),
                *ProjectHandlers(projects, members).routes(),
                *TagRulesHandlers(projects, self.retention).routes(),
                *ScanPolicyHandlers(projects).routes(),
                *WebhookHandlers(self.webhooks).routes(),
                *AuditHandlers(self.audit).routes(),
                *EventHandlers(
                    Feed(self.metadata.events, lambda: self.health.is_draining),
                    self.metadata.projects,
                    self.access,
                    accounts.authenticator,
                ).routes(),
                *ScanHandlers(self.scanning.scans).routes(),
                *RepositoryHandlers(inventory).routes(),
            ],
            accounts.authenticator,
            self.audit.record,
            always_200=config.api.always_200,
            on_fatal=self.on_fatal,
        )


def _disk(root: Path) -> Disk:
    usage = shutil.disk_usage(root)
    return Disk(total=usage.total, free=usage.free)
