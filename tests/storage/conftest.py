"""A store that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.weed import Weed


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """An S3 store, one for each process that runs tests; engines have prefixes of their own."""
    with Weed(tmp_path_factory.mktemp("store")) as store:
        yield store
