"""A registry to talk to: over the engines in memory, and over files and LMDB."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cypd.access import ANONYMOUS, Action, Principal, Token
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.registry.blobs import Blobs
from cypd.registry.manifests import Manifests
from cypd.registry.ports import BlobStorage, Fatal, MetadataStore
from cypd.registry.uploads import Uploads
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.memory import MemoryStorage
from cypd.v2.app import V2
from tests.samples import EMPTY, image
from tests.v2.client import Client, Response


@dataclass
class Registry:
    """An application with its engines, and clients for it."""

    metadata: MetadataStore
    storage: BlobStorage
    application: V2
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
    """An authenticator that believes every name, so that tests can be several people."""

    async def authenticate(self, authorization: str | None) -> Principal:
        if authorization is None:
            return ANONYMOUS
        name = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")[0]
        return Principal(name=name, is_admin=name == "admin")

    def issue_token(self, principal: Principal) -> Token:
        return Token(f"token of {principal.name}", 900)


def _allows(principal: Principal, action: Action, repository: str | None) -> bool:
    """The administrator may do all, others push to their own names and pull from ``library``."""
    if principal.is_admin or not repository:
        return principal.is_admin
    if repository.startswith(f"{principal.name}/"):
        return principal != ANONYMOUS
    return action is Action.PULL and repository.startswith("library/")


@pytest.fixture(params=["memory", "durable"])
def engines(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[MetadataStore, BlobStorage]]:
    """Each pair of engines."""
    if request.param == "memory":
        yield MemoryMetadata().registry, MemoryStorage()
        return
    metadata = LmdbMetadata(tmp_path / "metadata", 64 << 20)
    storage = FilesystemStorage(tmp_path)
    yield metadata.registry, storage
    storage.close()
    metadata.close()


@pytest.fixture
def registry(engines: tuple[MetadataStore, BlobStorage]) -> Registry:
    """A registry where ``admin`` may do all, ``other`` only what is theirs, and anyone pulls."""
    return build(*engines)


def build(
    metadata: MetadataStore,
    storage: BlobStorage,
    *,
    allow_sparse: bool = False,
    allow_urls: tuple[str, ...] = (),
    delete_enabled: bool = True,
    external_url: str = "",
    max_sessions_per_user: int = 10,
    require_space: Callable[[int], None] = lambda _size: None,
) -> Registry:
    """Return a registry over engines."""
    fatal: list[Fatal] = []
    application = V2(
        Blobs(metadata, storage, _allows),
        Uploads(metadata, storage, max_sessions_per_user=max_sessions_per_user),
        Manifests(metadata, storage, allow_sparse=allow_sparse, allow_urls=allow_urls),
        _Names(),
        _allows,
        external_url=external_url,
        delete_enabled=delete_enabled,
        on_fatal=fatal.append,
        require_space=require_space,
    )
    admin, other, anonymous = (Client(application, user, "x") for user in ("admin", "other", ""))
    return Registry(metadata, storage, application, admin, other, anonymous, fatal)
