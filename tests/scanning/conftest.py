"""What the tests of scanning share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scanning.laboratory import Laboratory


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    """An engine on an empty storage and an empty database."""
    with Laboratory(tmp_path) as laboratory:
        yield laboratory
