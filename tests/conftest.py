"""What all tests share: they run on the event loop that the daemon runs on."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "cypd", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("cypd")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run async tests on uvloop, as production does."""
    return "asyncio", {"use_uvloop": True}
