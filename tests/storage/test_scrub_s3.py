"""The scrub's look at a blob that an S3 store keeps."""

from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from cypd.storage.pace import Pace
from cypd.storage.s3 import open_s3
from tests.bucket import Bucket
from tests.storage.test_contract import store
from tests.weed import Weed

CONTENT = b"what a disk forgets " * 20_000


@pytest.mark.parametrize(
    "wrong", [CONTENT[:-1] + b"?", CONTENT[:-1], b""], ids=["changed", "cut", "emptied"]
)
async def test_a_damaged_object_is_set_aside(tmp_path: Path, weed: Weed, wrong: bytes) -> None:
    """Other bytes of the same size, or fewer: missing from then on, and healed by a push."""
    settings = weed.settings()
    async with open_s3(settings, tmp_path) as storage:
        digest, bucket, spend = await store(storage, CONTENT), Bucket(weed), Pace(0).spend
        blob = f"{settings.prefix}/blobs/sha256/{digest.hex[:2]}/{digest.hex}"
        assert bucket.read(blob) == CONTENT
        bucket.write(blob, wrong)

        assert await storage.verify(digest, len(CONTENT), spend) == "damaged"
        assert not await storage.has(digest, len(CONTENT))
        assert await storage.verify(digest, len(CONTENT), spend) == "missing"
        assert bucket.read(f"{settings.prefix}/damaged/sha256-{digest.hex}") == wrong

        assert await store(storage, CONTENT) == Digest.of(CONTENT)
        assert await storage.verify(digest, len(CONTENT), spend) == "good"
