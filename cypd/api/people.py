"""People as the API shows them."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from cypd.accounts.ports import User
from cypd.api.routes import Answer, Time

# Bounds that only keep nonsense out; what a name, address or password must be is the rules' to say.
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Password = Annotated[str, Meta(min_length=1, max_length=1024)]
Nickname = Annotated[str, Meta(max_length=64)]
Code = Annotated[str, Meta(min_length=1, max_length=64)]


class Profile(Answer, frozen=True):
    """A user."""

    id: str
    username: str
    email: str
    nickname: str
    is_admin: bool
    is_active: bool
    mfa_enabled: bool
    created_at: Time
    updated_at: Time


def profile(user: User) -> Profile:
    """Return a user as the API shows them."""
    return Profile(
        id=user.id,
        username=user.name,
        email=user.email,
        nickname=user.nickname,
        is_admin=user.is_admin,
        is_active=user.is_active,
        mfa_enabled=user.has_second_factor,
        created_at=moment(user.created_at),
        updated_at=moment(user.updated_at),
    )


def moment(seconds: float) -> datetime:
    """Return unix seconds as RFC 3339 has them, without fractions."""
    return datetime.fromtimestamp(int(seconds), UTC)
