"""The scrub's look at a blob that an S3 store keeps."""

from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from cypd.storage.pace import Pace
from cypd.storage.s3 import open_s3
from tests.bucket import Bucket
from tests.storage.test_contract import store
from tests.weed import Weed

CONTENT = bytes(range(256)) * 1024


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"?", CONTENT[:-1], b""])
async def test_a_damaged_object_is_set_aside(tmp_path: Path, wrong: bytes) -> None:
    """Other bytes of the same size, or fewer: missing from then on, and healed by a push."""
    with Weed(tmp_path / "store") as weed:
        async with open_s3(weed.settings(), tmp_path / "state") as storage:
            digest, bucket, spend = await store(storage, CONTENT), Bucket(weed), Pace(0).spend
            [key] = [it.key for it in bucket.objects() if it.key.endswith(digest.hex)]
            bucket.write(key, wrong)

            assert await storage.verify(digest, len(CONTENT), spend) == "damaged"
            assert not await storage.has(digest, len(CONTENT))
            assert await storage.verify(digest, len(CONTENT), spend) == "missing"
            [aside] = [it.key for it in bucket.objects() if "damaged/" in it.key]
            assert bucket.read(aside) == wrong

            assert await store(storage, CONTENT) == Digest.of(CONTENT)
            assert await storage.verify(digest, len(CONTENT), spend) == "good"
