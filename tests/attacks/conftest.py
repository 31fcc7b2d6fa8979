"""One daemon for the attacks that leave it as it was; it must live through all of them."""

from collections.abc import Iterator

import pytest

from tests.attacks.watch import complaints
from tests.daemon import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon as it comes; no attack of the module may make it complain."""
    with Daemon(tmp_path_factory.mktemp("attacked")) as daemon:
        yield daemon
        assert complaints(daemon) == []
