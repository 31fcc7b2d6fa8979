"""What there is, for people: lists in pages of what each of them may read."""

from cypd.access import Act, Action, Principal
from cypd.oci import errors
from cypd.oci.errors import OCIError
from cypd.oci.names import RepositoryName, Tag
from cypd.refusals import Code, Refusal
from cypd.registry.inventory_ports import (
    Found,
    InventoryStore,
    ListedManifest,
    ProjectRights,
    Repository,
    TaggedManifest,
    Window,
)
from cypd.registry.ports import MetadataStore


class Inventory:
    """Lists repositories, tags and manifests, and deletes tags.

    What one may not read does not exist: both are refused with the same words.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        store: InventoryStore,
        rights: ProjectRights,
        *,
        delete_enabled: bool,
    ) -> None:
        self._metadata = metadata
        self._store = store
        self._rights = rights
        self._delete_enabled = delete_enabled

    async def repositories(
        self, principal: Principal, window: Window, *, project: str = ""
    ) -> Found[Repository]:
        """Return repositories by name, of all projects that the principal may read, or of one.

        Raises PROJECT_NOT_FOUND for one that is not there or not theirs to see.
        """
        if not project:
            projects = await self._rights.all_readable(principal)
            return self._store.list_repositories(projects, window)
        found = self._rights.readable(principal, project)
        if found is None:
            raise Refusal(Code.PROJECT_NOT_FOUND)
        return self._store.list_repositories([found], window)

    def tags(
        self,
        principal: Principal,
        repository: RepositoryName,
        window: Window,
        *,
        by_time: bool = False,
    ) -> Found[TaggedManifest]:
        """Return tags by name or by their last push; raise IMAGE_NOT_FOUND."""
        self._require(principal, Action.PULL, repository)
        return self._store.list_tags(repository, window, by_time=by_time)

    def manifests(
        self, principal: Principal, repository: RepositoryName, window: Window
    ) -> Found[ListedManifest]:
        """Return manifests by digest; raise IMAGE_NOT_FOUND."""
        self._require(principal, Action.PULL, repository)
        return self._store.list_manifests(repository, window)

    async def delete_tag(
        self, principal: Principal, repository: RepositoryName, tag: Tag, *, act: Act
    ) -> None:
        """Delete a tag alone; what it points at stays.

        Raises IMAGE_NOT_FOUND, TAG_NOT_FOUND, LACKS_DELETE, PERMISSION_MISSING, and
        NOT_IN_THIS_STATE where deleting is switched off or the tag is immutable.
        """
        self._require(principal, Action.DELETE, repository)
        if not self._delete_enabled:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        try:
            await self._metadata.delete_tag(repository, tag, act=act)
        except OCIError as error:  # it is not there, or immutable
            is_there = error.code is errors.Code.DENIED
            raise Refusal(Code.NOT_IN_THIS_STATE if is_there else Code.TAG_NOT_FOUND) from None

    def _require(self, principal: Principal, action: Action, repository: RepositoryName) -> None:
        project = self._rights.readable(principal, repository.project)
        if project is None or not self._metadata.repository_exists(repository):
            raise Refusal(Code.IMAGE_NOT_FOUND)
        self._rights.require(principal, action, project)
