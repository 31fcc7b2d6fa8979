"""What stands in the bucket of a store, seen past the daemon."""

from typing import Any, NamedTuple

import botocore.session

from tests.weed import Weed


class Stored(NamedTuple):
    """An object."""

    key: str
    size: int


class Bucket:
    """The bucket that a daemon of ``weed.environment`` keeps its blobs in."""

    def __init__(self, weed: Weed) -> None:
        self._name = weed.bucket
        self._client: Any = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=weed.endpoint,
            region_name="us-east-1",
            aws_access_key_id=weed.access_key,
            aws_secret_access_key=weed.secret_key,
        )

    def objects(self) -> list[Stored]:
        """Return all objects."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name)
        return [Stored(it["Key"], it["Size"]) for page in pages for it in page.get("Contents", ())]

    def multipart_uploads(self) -> list[str]:
        """Return the keys of the multipart uploads that are open."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._name)
        return [it["Key"] for page in pages for it in page.get("Uploads", ())]

    def blobs(self) -> set[str]:
        """Return the digests, without algorithm, of all blobs."""
        keys = (it.key for it in self.objects())
        return {key.rpartition("/")[2] for key in keys if key.startswith("blobs/")}

    def unfinished(self) -> list[str]:
        """Return the keys of what belongs to uploads: parts, and multipart uploads."""
        parts = [it.key for it in self.objects() if it.key.startswith("uploads/")]
        return [*parts, *self.multipart_uploads()]

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        body: bytes = self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
        return body

    def write(self, key: str, content: bytes) -> None:
        """Have other bytes in an object."""
        self._client.put_object(Bucket=self._name, Key=key, Body=content)
