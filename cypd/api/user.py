"""Oneself: ``/api/v1/user``, and the same at ``/api/v1/users/me``."""

from typing import Annotated, Any

from msgspec import Meta

from cypd.access import Scope
from cypd.accounts.personal_tokens import PersonalTokens
from cypd.accounts.ports import PersonalToken
from cypd.accounts.second_factor import SecondFactor
from cypd.accounts.users import Users
from cypd.api.people import Code as FactorCode
from cypd.api.people import Nickname, Password, Profile, moment, profile
from cypd.api.routes import PREFIX, Answer, Call, Input, Route, Time, signed_in
from cypd.refusals import Code

_PASSWORD = (
    Code.WRONG_PASSWORD,
    Code.ACCOUNT_DISABLED,
    Code.TOO_MANY_FAILURES,
    Code.ADDRESS_BLOCKED,
    Code.TOO_MANY_REQUESTS,
)


class ProfileChanges(Input, frozen=True):
    """What is to change; what is left away stays."""

    nickname: Nickname | None = None
    email: Annotated[str, Meta(max_length=254)] | None = None


class PasswordChange(Input, frozen=True):
    """The old one proves who asks."""

    old_password: Password
    new_password: Password


class NewToken(Input, frozen=True):
    """A personal access token to be made."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    scopes: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(min_length=1)]
    project_ids: (
        Annotated[
            tuple[Annotated[str, Meta(max_length=64)], ...], Meta(min_length=1, max_length=100)
        ]
        | None
    ) = None
    expire_in: Annotated[int, Meta(ge=-1)] = 0
    """Seconds; 0: 30 days, -1: never."""


class Token(Answer, frozen=True):
    """A personal access token, without itself."""

    id: str
    name: str
    scopes: list[str]
    project_ids: list[str] | None
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None


class CreatedToken(Token, frozen=True):
    """A personal access token; it is shown this once."""

    token: str


class Tokens(Answer, frozen=True):
    """One's personal access tokens, the newest first."""

    tokens: list[Token]
    total: int


class Enrolment(Answer, frozen=True):
    """What an authenticator app is given; a code of it has to be proved next."""

    secret: str
    otpauth_uri: str
    qr_png: str
    """A data URI."""


class FactorProof(Input, frozen=True):
    """A code of the app."""

    code: FactorCode


class RecoveryCodes(Answer, frozen=True):
    """Each stands in for a code once; they are shown this once."""

    recovery_codes: list[str]


class FactorRemoval(Input, frozen=True):
    """Both factors prove who asks."""

    password: Password
    code: FactorCode


class Own:
    """The handlers."""

    def __init__(self, users: Users, tokens: PersonalTokens, second_factor: SecondFactor) -> None:
        self._users = users
        self._tokens = tokens
        self._second_factor = second_factor

    def routes(self) -> list[Route]:
        """Return what the API serves of it, at both addresses."""
        user, me = f"{PREFIX}/user", f"{PREFIX}/users/me"
        return [
            *self._account_routes(f"{user}/profile", f"{user}/password"),
            *self._account_routes(me, f"{me}/password"),
            *self._token_routes(f"{user}/tokens"),
            *self._token_routes(f"{me}/pat"),
            *self._factor_routes(f"{user}/mfa"),
        ]

    def _account_routes(self, profile_path: str, password_path: str) -> list[Route]:
        return [
            Route(
                "GET", profile_path, self.profile, signed_in(Scope.READ),
                answer=Profile, tag="user", summary="Tell who one is",
            ),
            Route(
                "PUT", profile_path, self.update, signed_in(Scope.ADMIN),
                body=ProfileChanges, answer=Profile, refusals=(Code.USER_EXISTS,),
                tag="user", summary="Change what one says of oneself",
            ),
            Route(
                "PUT", password_path, self.change_password, signed_in(Scope.ADMIN),
                body=PasswordChange, refusals=_PASSWORD,
                tag="user", summary="Change one's password, which ends all other sessions",
            ),
        ]  # fmt: skip

    def _token_routes(self, path: str) -> list[Route]:
        return [
            Route(
                "GET", path, self.tokens, signed_in(Scope.READ),
                answer=Tokens, tag="user", summary="List one's personal access tokens",
            ),
            Route(
                "POST", path, self.create_token, signed_in(Scope.ADMIN),
                body=NewToken, answer=CreatedToken, status=201,
                refusals=(Code.UNKNOWN_SCOPE, Code.NOT_IN_THIS_STATE),
                tag="user", summary="Make a personal access token",
            ),
            Route(
                "DELETE", f"{path}/{{id}}", self.delete_token, signed_in(Scope.ADMIN),
                refusals=(Code.TOKEN_NOT_FOUND,),
                tag="user", summary="Remove a personal access token, at once",
            ),
        ]  # fmt: skip

    def _factor_routes(self, path: str) -> list[Route]:
        return [
            Route(
                "POST", path, self.enrol, signed_in(Scope.ADMIN),
                answer=Enrolment, refusals=(Code.NOT_IN_THIS_STATE,),
                tag="user", summary="Begin to enrol a second factor",
            ),
            Route(
                "POST", f"{path}/activate", self.activate, signed_in(Scope.ADMIN),
                body=FactorProof, answer=RecoveryCodes,
                refusals=(Code.NOT_IN_THIS_STATE, Code.SECOND_FACTOR_WRONG),
                tag="user", summary="Put the enrolled second factor in force",
            ),
            Route(
                "DELETE", path, self.remove_factor, signed_in(Scope.ADMIN),
                body=FactorRemoval,
                refusals=(Code.NOT_IN_THIS_STATE, Code.SECOND_FACTOR_WRONG, *_PASSWORD),
                tag="user", summary="Do without a second factor",
            ),
        ]  # fmt: skip

    async def profile(self, call: Call) -> Profile:
        """Return who asks."""
        return profile(self._users.get(call.principal.user_id))

    async def update(self, call: Call, body: ProfileChanges) -> Profile:
        """Change one's profile."""
        user = await self._users.update_profile(
            call.principal.user_id, nickname=body.nickname, email=body.email
        )
        return profile(user)

    async def change_password(self, call: Call, body: PasswordChange) -> None:
        """Change one's password."""
        await self._users.change_password(
            call.principal, body.old_password, body.new_password, call.address
        )

    async def tokens(self, call: Call) -> Tokens:
        """List one's tokens."""
        found = [Token(**_fields(it)) for it in self._tokens.list(call.principal.user_id)]
        return Tokens(tokens=found, total=len(found))

    async def create_token(self, call: Call, body: NewToken) -> CreatedToken:
        """Make a token."""
        made = await self._tokens.create(
            call.principal.user_id,
            name=body.name,
            scopes=body.scopes,
            project_ids=body.project_ids,
            expire_in=body.expire_in,
        )
        return CreatedToken(**_fields(made.token), token=made.text)

    async def delete_token(self, call: Call) -> None:
        """Remove a token."""
        await self._tokens.delete(call.principal.user_id, call.path["id"])

    async def enrol(self, call: Call) -> Enrolment:
        """Show a new secret."""
        enrolment = await self._second_factor.enrol(call.principal.user_id)
        return Enrolment(**enrolment._asdict())

    async def activate(self, call: Call, body: FactorProof) -> RecoveryCodes:
        """Prove the new secret."""
        codes = await self._second_factor.activate(call.principal.user_id, body.code)
        return RecoveryCodes(recovery_codes=codes)

    async def remove_factor(self, call: Call, body: FactorRemoval) -> None:
        """Remove the second factor."""
        await self._second_factor.remove(
            call.principal.user_id, body.password, body.code, call.address
        )


def _fields(token: PersonalToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "project_ids": None if token.project_ids is None else list(token.project_ids),
        "created_at": moment(token.created_at),
        "expires_at": None if token.expires_at is None else moment(token.expires_at),
        "last_used_at": None if token.last_used_at is None else moment(token.last_used_at),
    }
