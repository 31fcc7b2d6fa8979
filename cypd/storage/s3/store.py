"""The few operations of S3 that blobs need, on an S3-compatible store.

Bytes go by presigned requests over a session of our own, which costs a fraction of a call of the
client: it has neither to hash what it sends nor to look at what it gets. Everything else is the
client's.
"""

import asyncio
import contextlib
import email.utils
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from yarl import URL

from cypd.registry.ports import BlobMissing, Unavailable
from cypd.storage.s3.circuit import Circuit, Passing
from cypd.storage.s3.plain import PlainAnswer, PlainClient, UnknownLength

T = TypeVar("T")

Body = Callable[[], AsyncIterator[bytearray]]
"""Gives the bytes to send; called anew for each attempt."""

# How long a request that was signed for ourselves may be under way before the store refuses it.
_VALID_SECONDS = 60
# How many parts are sent, and copied, at a time by all uploads together. A store that is asked for
# more does not do more, and each of them has to be answered within a time.
_PUTS = 16
_COPIES = 16
_DELETES = 1000  # S3, DeleteObjects: at most a thousand keys
_TYPE = "application/octet-stream"
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
_PASSING_CODES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling"}
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_NETWORK_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class StoreRefused(Exception):
    """The store does not do what it is asked; the message names the operation and its answer."""


class Object(NamedTuple):
    """An entry of a listing."""

    key: str
    size: int
    changed_at: float
    """Unix seconds, by the store's clock."""


class Unfinished(NamedTuple):
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: float
    """Unix seconds, by the store's clock."""


class _Answer(NamedTuple):
    """What comes of a GET: one of success, or 404."""

    status: int
    pieces: AsyncGenerator[bytes, None]


class Store:
    """One bucket.

    What fails and may pass is tried again in bounds, then ``Unavailable``. Raises ``StoreRefused``
    for what the store refuses.
    """

    def __init__(
        self,
        client: Any,
        signer: Any,
        session: aiohttp.ClientSession,
        *,
        bucket: str,
        circuit: Circuit,
        plain: PlainClient | None = None,
    ) -> None:
        self._client = client
        self._signer = signer
        self._session = session
        self._bucket = bucket
        self._plain = plain
        self.circuit = circuit
        self._puts = asyncio.Semaphore(_PUTS)
        self._copies = asyncio.Semaphore(_COPIES)

    # --- one object -----------------------------------------------------------------------------

    async def put(self, key: str, size: int, body: Body) -> None:
        """Make an object of ``size`` bytes, over what is there."""
        headers = {"Content-Length": str(size), "Content-Type": _TYPE}

        async def attempt() -> None:
            data = body() if size else b""
            async with self._request("PUT", "put_object", key, data=data, headers=headers):
                pass

        async with self._puts:
            await self.circuit.call(attempt)

    async def size(self, key: str) -> int | None:
        """Return the size of an object; ``None`` if it is not there."""

        async def attempt() -> int | None:
            async with self._request("HEAD", "head_object", key) as response:
                return None if response.status == 404 else response.content_length

        return await self.circuit.call(attempt)

    async def get(self, key: str, size: int) -> bytes:
        """Return the bytes of an object of that size, or of what is there in its place."""
        pieces = [piece async for piece in self.read(key, 0, size)]
        return b"".join(pieces)

    async def read(self, key: str, start: int, count: int) -> AsyncGenerator[bytes, None]:
        """Yield ``count`` bytes of an object, in pieces as they come; raise ``BlobMissing``.

        What breaks off is gone on with where it ended.
        """
        stop = start + count
        fruitless = 0
        while start < stop:
            before = start
            try:
                async with contextlib.aclosing(self._read_once(key, start, stop)) as pieces:
                    async for piece in pieces:
                        start += len(piece)
                        yield piece
            except Passing as error:
                self.circuit.failed(error)
                fruitless = fruitless + 1 if start == before else 0
                if fruitless > 1:
                    raise Unavailable(f"the S3 store failed: {error}") from error

    async def _read_once(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        async with contextlib.AsyncExitStack() as stack:

            async def attempt() -> _Answer:
                span = {"Range": f"bytes={start}-{stop - 1}"}
                return await stack.enter_async_context(self._get(key, span))

            answer = await self.circuit.call(attempt)
            if answer.status != 206 and (answer.status != 200 or start):
                raise BlobMissing(key)
            left = stop - start
            pieces = await stack.enter_async_context(contextlib.aclosing(answer.pieces))
            with _telling():
                async for piece in pieces:
                    yield piece if len(piece) <= left else piece[:left]
                    left -= len(piece)
                    if left <= 0:
                        return
        if left:
            raise BlobMissing(key)

    @contextlib.asynccontextmanager
    async def _get(self, key: str, headers: dict[str, str]) -> AsyncIterator["_Answer"]:
        if self._plain is None:
            async with self._request("GET", "get_object", key, headers=headers) as response:
                yield _Answer(response.status, _pieces(response))
            return
        with _telling():
            url = await self._presigned("get_object", key, _VALID_SECONDS)
            async with self._plain_answer(self._plain, url, headers) as answer:
                if answer.status < 300 or answer.status == 404:
                    yield _Answer(answer.status, answer.pieces())
                    return
                async with contextlib.aclosing(answer.pieces()) as pieces:
                    found = _CODE.search(await anext(pieces, b""))
            _raise("GET", answer.status, found[1].decode() if found else "")

    @contextlib.asynccontextmanager
    async def _plain_answer(
        self, plain: PlainClient, url: str, headers: dict[str, str]
    ) -> AsyncIterator[PlainAnswer]:
        try:
            async with plain.get(url, headers) as answer:
                yield answer
        except UnknownLength:  # or a proxy before it: then all go the general way
            self._plain = None
            raise

    async def delete(self, key: str, *, valid: int) -> None:
        """Remove an object, by a request that the store refuses after ``valid`` seconds.

        Tried once: raises ``Unavailable`` if it is not known what came of it.
        """
        try:
            async with self._request("DELETE", "delete_object", key, valid=valid):
                pass
        except Passing as error:
            self.circuit.failed(error)
            raise Unavailable(f"the S3 store failed: {error}") from error

    async def address(self, key: str, *, valid: int) -> str:
        """Return an address at which clients get the object, for ``valid`` seconds."""
        parameters = {"Bucket": self._bucket, "Key": key, "ResponseContentType": _TYPE}
        url: str = await self._signer.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=valid
        )
        return url

    async def now(self) -> float:
        """Return the store's clock, unix seconds; a second ahead at most."""

        async def attempt() -> float:
            async with self._request("HEAD", "head_object", "now") as response:
                date = response.headers.get("Date")
            return email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()

        return await self.circuit.call(attempt)

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, operation: str, key: str, *, valid: int = _VALID_SECONDS, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request of an object; its answer is one of success, or 404."""
        with _telling():
            url = await self._presigned(operation, key, valid)
            async with self._session.request(method, URL(url, encoded=True), **options) as response:
                if response.status < 300 or (response.status == 404 and method != "PUT"):
                    yield response
                    return
                found = _CODE.search(await response.content.read(4096))
                code = found[1].decode() if found else ""
            _raise(method, response.status, code)

    async def _presigned(self, operation: str, key: str, valid: int) -> str:
        parameters = {"Bucket": self._bucket, "Key": key}
        url: str = await self._client.generate_presigned_url(
            operation, Params=parameters, ExpiresIn=valid
        )
        return url

    # --- many objects ---------------------------------------------------------------------------

    async def assemble(self, key: str, parts: Sequence[str]) -> None:
        """Make an object of other objects, by reference: no byte of them comes here.

        Each is at most 5 GiB, and all but the last at least 5 MiB.
        """
        target = {"Bucket": self._bucket, "Key": key}
        begun = await self._do("create_multipart_upload", **target, ContentType=_TYPE)
        target["UploadId"] = begun["UploadId"]

        async def copy(number: int, source: str) -> dict[str, Any]:
            async with self._copies:
                copied = await self._do(
                    "upload_part_copy",
                    **target,
                    PartNumber=number,
                    CopySource={"Bucket": self._bucket, "Key": source},
                )
            return {"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]}

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(copy(*it)) for it in enumerate(parts, start=1)]
            copies = [task.result() for task in tasks]
            await self._do("complete_multipart_upload", **target, MultipartUpload={"Parts": copies})
        except BaseException as error:
            with contextlib.suppress(Unavailable, StoreRefused):  # else it is the janitor's
                await self._do("abort_multipart_upload", **target)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None  # each of them would do
            raise

    async def objects(self, prefix: str, *, page: int = 1000) -> AsyncIterator[list[Object]]:
        """Yield what begins with the prefix, ascending, a page at a time."""
        following: dict[str, Any] = {}
        while True:
            found = await self._do(
                "list_objects_v2", Bucket=self._bucket, Prefix=prefix, MaxKeys=page, **following
            )
            yield [
                Object(it["Key"], it["Size"], it["LastModified"].timestamp())
                for it in found.get("Contents", ())
            ]
            if not found.get("IsTruncated"):
                return
            following = {"ContinuationToken": found["NextContinuationToken"]}

    async def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects that nobody will make again."""
        for start in range(0, len(keys), _DELETES):
            entries = [{"Key": key} for key in keys[start : start + _DELETES]]
            listed = {"Objects": entries, "Quiet": True}
            await self._do("delete_objects", Bucket=self._bucket, Delete=listed)

    async def unfinished(self, prefix: str, *, page: int = 1000) -> AsyncIterator[list[Unfinished]]:
        """Yield the multipart uploads of keys that begin with the prefix, a page at a time."""
        following: dict[str, Any] = {}
        while True:
            found = await self._do(
                "list_multipart_uploads",
                Bucket=self._bucket,
                Prefix=prefix,
                MaxUploads=page,
                **following,
            )
            yield [
                Unfinished(it["Key"], it["UploadId"], it["Initiated"].timestamp())
                for it in found.get("Uploads", ())
            ]
            if not found.get("IsTruncated"):
                return
            markers = ("KeyMarker", "UploadIdMarker")  # SeaweedFS has the second one alone
            following = {it: found[f"Next{it}"] for it in markers if f"Next{it}" in found}

    async def abort(self, unfinished: Unfinished) -> None:
        """Drop a multipart upload and its parts. Repeating it changes nothing."""
        key, upload_id = unfinished.key, unfinished.upload_id
        with contextlib.suppress(BlobMissing):
            await self._do(
                "abort_multipart_upload", Bucket=self._bucket, Key=key, UploadId=upload_id
            )

    async def require_bucket(self) -> None:
        """Raise ``StoreRefused`` if the bucket is not there, or not for us."""
        await self._do("list_objects_v2", Bucket=self._bucket, MaxKeys=1)

    async def _do(self, operation: str, **parameters: Any) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._client, operation)

        async def attempt() -> Any:
            with _telling():
                return await call(**parameters)

        return await self.circuit.call(attempt)


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    async for piece in response.content.iter_any():
        yield piece


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Give what goes wrong on the way to the store its meaning; addresses, signed, stay out."""
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        _raise(error.operation_name, status, details.get("Code", ""))
    except HTTPClientError as error:
        raise Passing(type(error).__name__) from None
    except BotoCoreError as error:
        raise StoreRefused(f"{type(error).__name__}: {error}") from None
    except _NETWORK_ERRORS as error:
        raise Passing(type(error).__name__) from None


def _raise(operation: str, status: int, code: str) -> NoReturn:
    if status in _PASSING_STATUS or code in _PASSING_CODES:
        raise Passing(f"{operation}: {status} {code}")
    if code in ("NoSuchKey", "NoSuchUpload"):
        raise BlobMissing(f"{operation}: {code}")
    raise StoreRefused(f"the S3 store refuses {operation}: {status} {code}")
