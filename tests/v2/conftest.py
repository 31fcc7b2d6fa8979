"""A registry to talk to: over the engines in memory, and over files and LMDB."""

import base64
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cypd.access import ANONYMOUS, Action, Grant, Policy, Principal, Token
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import UNLIMITED, ProjectStore
from cypd.refusals import Code as RefusalCode
from cypd.refusals import Refusal
from cypd.registry.blobs import Blobs
from cypd.registry.catalog import Catalog
from cypd.registry.inventory_ports import InventoryStore
from cypd.registry.manifests import Manifests
from cypd.registry.ports import BlobStorage, Fatal, MetadataStore
from cypd.registry.pulls import PullCounter
from cypd.registry.uploads import Uploads
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.memory import MemoryStorage
from cypd.v2.app import V2
from cypd.v2.manifests import Guard
from tests.samples import EMPTY, image, unrecorded
from tests.v2.client import Client, Response

Metadata = MemoryMetadata | LmdbMetadata
Engines = tuple[Metadata, BlobStorage]


@dataclass
class Registry:
    """An application with its engines, and clients for it."""

    metadata: MetadataStore
    projects: ProjectStore
    inventory: InventoryStore
    storage: BlobStorage
    application: V2
    pulls: PullCounter
    admin: Client
    other: Client
    anonymous: Client
    fatal: list[Fatal]

    async def push(self, content: bytes, repository: str = "library/app") -> Digest:
        """Push a blob as the administrator."""
        digest = Digest.of(content)
        url = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        response = await self.admin.request("POST", url, content)

        assert response.status == 201
        return digest

    async def push_image(
        self, *layers: bytes, tag: str = "latest", repository: str = "library/app"
    ) -> Digest:
        """Push an image with its blobs as the administrator."""
        for blob in (EMPTY, *layers):
            await self.push(blob, repository)
        manifest = image(*layers)
        response = await self.put(manifest, tag, repository)

        assert response.status == 201
        return Digest.of(manifest)

    async def put(
        self, manifest: bytes, reference: str, repository: str = "library/app", query: str = ""
    ) -> Response:
        """Push a manifest as the administrator; its media type stands in it."""
        url = f"/v2/{repository}/manifests/{reference}{query}"
        return await self.admin.request("PUT", url, manifest)


class _Names:
    """An authenticator that believes every name, so that tests can be several people.

    A token is what it says, readable; one with ``over`` in it is past its time.
    """

    async def authenticate(
        self,
        authorization: str | None,
        *,
        address: str = "",
        password: bool = False,
        registry: bool = False,
        grace: float = 0.0,
    ) -> Principal:
        if authorization is None:
            return ANONYMOUS
        scheme, _, credentials = authorization.partition(" ")
        text = base64.b64decode(credentials).decode()
        if scheme == "Basic":
            assert password
            name = text.partition(":")[0]
            return Principal(f"id of {name}", name, is_admin=name == "admin")
        assert registry
        token = json.loads(text)
        if token["over"] and not grace:
            raise Refusal(RefusalCode.TOKEN_EXPIRED)
        grants = tuple(Grant(name, frozenset(actions)) for name, actions in token["grants"])
        user_id = f"id of {token['name']}" if token["name"] else ""
        return Principal(user_id, token["name"], grants=grants, is_expired=token["over"])

    def issue_token(self, principal: Principal, grants: tuple[Grant, ...]) -> Token:
        return Token(bearer(principal.name, dict(grants)).removeprefix("Bearer "), 900)

    def issue_identity(self, principal: Principal) -> str:
        return f"identity of {principal.name}"

    def authenticate_identity(self, token: str) -> Principal:
        name = token.removeprefix("identity of ")
        if name == token:
            raise Refusal(RefusalCode.TOKEN_INVALID)
        return Principal(f"id of {name}", name, is_admin=name == "admin")


def bearer(name: str, grants: Mapping[str, Collection[str]], *, over: bool = False) -> str:
    """Return an ``Authorization`` with a token of the token server."""
    listed = [[repository, sorted(actions)] for repository, actions in grants.items()]
    token = json.dumps({"name": name, "grants": listed, "over": over})
    return f"Bearer {base64.b64encode(token.encode()).decode()}"


def _allows(principal: Principal, action: Action, repository: str | None) -> bool:
    """The administrator may do all, others push to their own names and pull from ``library``."""
    if principal.grants is not None and not any(
        it.repository == repository and action.value in it.actions for it in principal.grants
    ):
        return False
    if principal.is_admin or not repository:
        return principal.is_admin
    if repository.startswith(f"{principal.name}/"):
        return principal != ANONYMOUS
    return action is Action.PULL and repository.startswith("library/")


@pytest.fixture(params=["memory", "durable"])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engines]:
    """Each pair of engines."""
    if request.param == "memory":
        yield MemoryMetadata(), MemoryStorage()
        return
    metadata = LmdbMetadata(tmp_path / "metadata", 64 << 20)
    storage = FilesystemStorage(tmp_path)
    yield metadata, storage
    storage.close()
    metadata.close()


@pytest.fixture
def registry(engines: Engines) -> Registry:
    """A registry where ``admin`` may do all, ``other`` only what is theirs, and anyone pulls."""
    return build(*engines)


def build(
    metadata: Metadata,
    storage: BlobStorage,
    *,
    allow_sparse: bool = False,
    allow_urls: tuple[str, ...] = (),
    delete_enabled: bool = True,
    external_url: str = "",
    max_sessions_per_user: int = 10,
    default_quota: int = UNLIMITED,
    allows: Policy = _allows,
    require_space: Callable[[], None] = lambda: None,
    guard: Guard = lambda *_: None,
) -> Registry:
    """Return a registry over engines, where pushes create projects."""
    fatal: list[Fatal] = []
    store = metadata.registry
    access = ProjectAccess(
        metadata.projects, anonymous="none", auto_create=True, default_quota=default_quota
    )
    pulls = PullCounter(metadata.inventory)
    application = V2(
        Blobs(store, storage, allows, loose_grace=86400.0),
        Uploads(store, storage, max_sessions_per_user=max_sessions_per_user),
        Manifests(store, storage, allow_sparse=allow_sparse, allow_urls=allow_urls),
        Catalog(store, allows),
        pulls,
        authenticator=_Names(),
        allows=allows,
        admit=access.admit,
        external_url=external_url,
        delete_enabled=delete_enabled,
        session_ttl=3600.0,
        on_fatal=fatal.append,
        require_space=require_space,
        record=unrecorded,
        is_set_aside=access.is_set_aside,
        guard=guard,
    )
    admin, other, anonymous = (Client(application, user, "x") for user in ("admin", "other", ""))
    return Registry(
        store, metadata.projects, metadata.inventory, storage, application, pulls,
        admin, other, anonymous, fatal,
    )  # fmt: skip
