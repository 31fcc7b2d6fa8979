"""OCI image layouts written by hand: no base image, no network, every byte known.

https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"

TAG = "v1"  # the only tag a layout here has

Descriptor = dict[str, Any]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MIB = 1 << 20
TAR_OVERHEAD = 3 * 512  # the entry's header and the two blocks that end the archive


@dataclass(frozen=True, slots=True)
class Layer:
    """A stored layer; ``diff_id`` is the digest of the tar inside."""

    descriptor: Descriptor
    diff_id: str


class Layout:
    """An OCI image layout directory: blobs by digest, and ``top``, the one thing it is about."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.top: Descriptor = {}
        self.blobs = path / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def layer(self, files: dict[str, bytes], *, compress: bool = True) -> Layer:
        """Store a layer of ``files``."""
        tar = _tar(files.items())
        diff_id = _digest(tar)
        content = gzip.compress(tar, 6, mtime=0) if compress else tar
        return Layer(self.blob(content, LAYER_GZIP if compress else LAYER), diff_id)

    def large_layer(self, size: int, seed: bytes = b"") -> Layer:
        """Store an uncompressed layer of exactly ``size`` bytes that no client can shrink.

        One random MiB repeats: longer than the window of gzip, it is incompressible all the same.
        """
        assert size % 512 == 0, "a tar archive is made of blocks"
        block = hashlib.shake_256(b"incompressible" + seed).digest(MIB)
        header = tarfile.TarInfo("large")
        header.size = size - TAR_OVERHEAD
        staged = self.path / "staged"
        digest = hashlib.sha256()
        with staged.open("wb") as file:
            for part in _large_tar(header.tobuf(tarfile.USTAR_FORMAT), block, size):
                file.write(part)
                digest.update(part)
        staged.rename(self.blobs / digest.hexdigest())
        name = f"sha256:{digest.hexdigest()}"
        return Layer({"mediaType": LAYER, "digest": name, "size": size}, name)

    def image(self, layers: Sequence[Layer], architecture: str = ARCHITECTURE) -> Descriptor:
        """Store an image made of ``layers``; it becomes the top."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created_by": f"layer {n}"} for n, _ in enumerate(layers)],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._json(config, CONFIG),
            "layers": [layer.descriptor for layer in layers],
        }
        return self._on_top(self._json(manifest, MANIFEST))

    def index(self, images: dict[str, Descriptor]) -> Descriptor:
        """Store an index of ``images`` by architecture; it becomes the top."""
        manifests = [
            image | {"platform": {"architecture": architecture, "os": "linux"}}
            for architecture, image in images.items()
        ]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self._on_top(self._json(index, INDEX))

    def blob(self, content: bytes, media_type: str) -> Descriptor:
        """Store ``content``."""
        digest = _digest(content)
        (self.blobs / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def manifest(self) -> Any:
        """Return the manifest or index on top."""
        return json.loads((self.blobs / self.top["digest"].removeprefix("sha256:")).read_bytes())

    def archive(self, path: Path, name: str) -> Path:
        """Write the layout as a tar that OCI tools understand, and for an image docker too."""
        top = self.manifest()
        if "layers" in top:
            loadable = {
                "Config": _member(top["config"]),
                "RepoTags": [name],
                "Layers": [_member(layer) for layer in top["layers"]],
            }
            (self.path / "manifest.json").write_text(json.dumps([loadable]))
        with tarfile.open(path, "w") as tar:
            tar.add(self.path, arcname="")
        return path

    def _json(self, value: object, media_type: str) -> Descriptor:
        return self.blob(json.dumps(value).encode(), media_type)

    def _on_top(self, descriptor: Descriptor) -> Descriptor:
        named = descriptor | {"annotations": {"org.opencontainers.image.ref.name": TAG}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
        (self.path / "index.json").write_text(json.dumps(index))
        self.top = descriptor
        return descriptor


def _member(descriptor: Descriptor) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _large_tar(header: bytes, block: bytes, size: int) -> Iterable[bytes]:
    yield header
    left = size - TAR_OVERHEAD
    while left:
        part = block[:left]
        yield part
        left -= len(part)
    yield bytes(1024)
