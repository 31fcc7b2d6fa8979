"""Pushing blobs: in one request, one stream, in chunks, or by mounting (end-4 to 6, 11, 13)."""

from cypd.oci.digest import Digest, parse_algorithm
from cypd.oci.endpoints import blob_path, upload_path
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.oci.ranges import ByteRange, parse_content_range
from cypd.registry.blobs import Blobs
from cypd.registry.ports import Upload
from cypd.registry.uploads import Body, Uploads
from cypd.v2.call import Call, Headers


class UploadHandlers:
    """The endpoints below ``/v2/<name>/blobs/uploads/``."""

    def __init__(self, uploads: Uploads, blobs: Blobs) -> None:
        self._uploads = uploads
        self._blobs = blobs

    async def start(self, call: Call) -> None:
        """Mount a blob, store a whole one, or open a session for one."""
        query = call.query()
        if "mount" in query and await self._mount(call, query):
            await _answer_created(call, _digest(query, "mount"))
        elif "digest" in query:
            digest = _digest(query, "digest")
            await self._uploads.push(call.repository, call.principal, _body(call), digest)
            await _answer_created(call, digest)
        else:
            algorithm = parse_algorithm(query.get("digest-algorithm", ["sha256"])[0])
            upload = await self._uploads.start(call.repository, call.principal, algorithm)
            await _answer_session(call, 202, upload, 0)

    async def _mount(self, call: Call, query: dict[str, list[str]]) -> bool:
        digest = _digest(query, "mount")
        source = None
        if "from" in query:
            try:
                source = RepositoryName.parse(query["from"][0])
            except OCIError:  # a name that can't exist has nothing to mount
                return False
        return await self._blobs.mount(call.repository, digest, source, call.principal)

    async def status(self, call: Call) -> None:
        """Say how far an upload is."""
        upload = self._find(call)
        await _answer_session(call, 204, upload, await self._uploads.size(upload))

    async def append(self, call: Call) -> None:
        """Take a chunk, or a stream of unknown length."""
        upload = self._find(call)
        size = await self._uploads.append(upload, _body(call, _window(call)))
        await _answer_session(call, 202, upload, size)

    async def commit(self, call: Call) -> None:
        """Take the last chunk, if any, and make the blob."""
        upload = self._find(call)
        digest = _digest(call.query(), "digest")
        await self._uploads.commit(upload, _body(call, _window(call)), digest)
        await _answer_created(call, digest)

    async def cancel(self, call: Call) -> None:
        """End a session."""
        await self._uploads.cancel(self._find(call))
        await call.answer_empty(204, [])

    def _find(self, call: Call) -> Upload:
        return self._uploads.find(call.repository, call.target.upload or "", call.principal)


def _digest(query: dict[str, list[str]], name: str) -> Digest:
    values = query.get(name, [])
    if len(values) != 1:
        raise OCIError(Code.DIGEST_INVALID, f"the query needs {name}= once")
    return Digest.parse(values[0])


def _body(call: Call, window: ByteRange | None = None) -> Body:
    return Body(call.body(), call.content_length(), window)


def _window(call: Call) -> ByteRange | None:
    header = call.header(b"content-range")
    if header is None:
        return None
    window = parse_content_range(header)
    if call.content_length() not in (None, window.size):
        raise OCIError(Code.SIZE_INVALID, "Content-Length and Content-Range differ")
    return window


async def _answer_created(call: Call, digest: Digest) -> None:
    location = blob_path(call.repository, digest).encode()
    headers = [(b"location", location), (b"docker-content-digest", digest.encode())]
    await call.answer(201, headers)


async def _answer_session(call: Call, status: int, upload: Upload, size: int) -> None:
    # Spec, section Pushing a blob in chunks: Range is inclusive, so an empty upload has no right
    # one; "0-0" is what distribution has always sent and clients know.
    headers: Headers = [
        (b"location", upload_path(upload.repository, upload.id).encode()),
        (b"range", b"0-%d" % max(0, size - 1)),
        (b"docker-upload-uuid", upload.id.encode()),
    ]
    if status == 204:
        await call.answer_empty(204, headers)
    else:
        await call.answer(status, headers)
