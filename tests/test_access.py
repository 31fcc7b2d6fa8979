"""The first policy: an administrator, and perhaps everybody's pulls."""

import pytest

from cypd.access import ANONYMOUS, Action, Principal, administrator_only
from tests.samples import name

ADMIN, SOMEBODY = Principal(name="admin", is_admin=True), Principal(name="somebody")


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("anonymous_pull", [True, False])
def test_who_may_do_what(action: Action, anonymous_pull: bool) -> None:
    """The administrator may do all; everybody else pulls if that is open, and nothing more."""
    allows = administrator_only(anonymous_pull=anonymous_pull)
    pulls = anonymous_pull and action is Action.PULL

    assert allows(ADMIN, action, name())
    assert allows(ADMIN, action, None)
    for principal in (ANONYMOUS, SOMEBODY):
        assert pulls == allows(principal, action, name())
        assert not allows(principal, action, None)
