"""The token server, and the challenge that leads to it (Docker Registry v2 authentication).

Clients that speak Bearer ask here, with a password, a token or nothing, before they pull or push;
docker pulls anonymously in no other way. A token is good for what was asked for and what its
bearer may do, both; at each request the rights of that moment are looked at again.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from cypd.access import Action, Authenticator, Grant, Policy, Principal
from cypd.oci.endpoints import TOKEN_PATH, Endpoint
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.v2.call import Call

# A host and port that need no quoting in a challenge.
_AUTHORITY = re.compile(r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
# What docker calls the rights that an action needs.
_NEEDED = {Action.PULL: "pull", Action.PUSH: "pull,push", Action.DELETE: "delete"}
_ACTIONS = {"pull": Action.PULL, "push": Action.PUSH, "delete": Action.DELETE}
_MAX_SCOPES = 100
_MAX_FORM = 16 << 10
_NO_STORE = (b"cache-control", b"no-store")


class TokenHandlers:
    """The endpoint ``/v2/auth``."""

    def __init__(self, authenticator: Authenticator, allows: Policy) -> None:
        self._authenticator = authenticator
        self._allows = allows

    async def get(self, call: Call) -> None:
        """Give whoever asks a token for what they may do of what they ask for."""
        scopes = call.query().get("scope", [])
        await call.answer_json(self._document(call.principal, scopes), [_NO_STORE])

    async def exchange(self, call: Call) -> None:
        """Do so by OAuth2: for a password, or for the refresh token that came with one."""
        form = await _form(call)
        kind = _one(form, "grant_type")
        if kind == "password":
            principal = await self._by_password(call, form)
            offline = form.get("access_type") == ["offline"]
            identity = self._authenticator.issue_identity(principal) if offline else ""
        elif kind == "refresh_token":
            identity = _one(form, "refresh_token")
            principal = self._authenticator.authenticate_identity(identity)
        else:
            raise _malformed("grant_type must be password or refresh_token")
        document = self._document(principal, form.get("scope", []))
        if identity:
            document["refresh_token"] = identity
        await call.answer_json(document, [_NO_STORE])

    async def _by_password(self, call: Call, form: dict[str, list[str]]) -> Principal:
        name, password = _one(form, "username"), _one(form, "password")
        basic = b64encode(f"{name}:{password}".encode()).decode()
        return await self._authenticator.authenticate(
            f"Basic {basic}", address=call.address, password=True
        )

    def _document(self, principal: Principal, scopes: Iterable[str]) -> dict[str, Any]:
        grants = self._granted(principal, scopes)
        token = self._authenticator.issue_token(principal, grants)
        return {
            "token": token.text,
            "access_token": token.text,
            "token_type": "Bearer",
            "expires_in": token.lifetime,
            "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": " ".join(
                f"repository:{name}:{','.join(sorted(actions))}" for name, actions in grants
            ),
        }

    def _granted(self, principal: Principal, scopes: Iterable[str]) -> tuple[Grant, ...]:
        """Return what of the scopes the principal may do now; what is not known grants nothing."""
        wanted = [scope for text in scopes for scope in text.split()]
        if len(wanted) > _MAX_SCOPES:
            raise _malformed(f"at most {_MAX_SCOPES} scopes at a time")
        granted: dict[str, set[str]] = {}
        for scope in wanted:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if (kind, name) == ("registry", "catalog"):
                granted["*"] = {"*"}
            elif kind == "repository":
                granted.setdefault(name, set()).update(self._allowed(principal, name, actions))
        return tuple(
            Grant(name, frozenset(actions)) for name, actions in granted.items() if actions
        )

    def _allowed(self, principal: Principal, name: str, actions: str) -> Iterable[str]:
        try:
            repository = RepositoryName.parse(name)
        except OCIError:
            return ()
        asked = set(_ACTIONS) & set(_ACTIONS if actions == "*" else actions.split(","))
        allowed = {it for it in asked if self._allows(principal, _ACTIONS[it], repository)}
        # Every role that may push may pull. Of a repository whose project the push is to create
        # nobody may, and yet clients ask what is there already.
        return asked & {*allowed, "pull"} if "push" in allowed else allowed


async def _form(call: Call) -> dict[str, list[str]]:
    """Return the fields of a form (RFC 6749 section 4.3.2)."""
    body = bytearray()
    async for piece in call.body():
        body += piece
        if len(body) > _MAX_FORM:
            raise OCIError(Code.UNSUPPORTED, "the form is too large", status=413)
    try:
        return parse_qs(body.decode(), errors="strict", max_num_fields=_MAX_SCOPES)
    except ValueError:  # not UTF-8, or too many fields
        raise _malformed("the body is not a form") from None


def _one(form: dict[str, list[str]], name: str) -> str:
    values = form.get(name, [])
    if len(values) != 1:
        raise _malformed(f"the form needs {name} once")
    return values[0]


def _malformed(message: str) -> OCIError:
    return OCIError(Code.UNSUPPORTED, message, status=400)


def challenge(call: Call, action: Action | None, external_url: str) -> bytes:
    """Return the ``WWW-Authenticate`` of a 401: Basic where tokens are made, else Bearer."""
    target = call.target
    if target.endpoint is Endpoint.TOKEN:
        return b'Basic realm="cypd", charset="UTF-8"'
    fields = [f'realm="{external_url or _own_address(call)}{TOKEN_PATH}"', 'service="cypd"']
    if target.repository and action in _NEEDED:
        fields.append(f'scope="repository:{target.repository}:{_NEEDED[action]}"')
    elif action is Action.CATALOG:
        fields.append('scope="registry:catalog:*"')
    if call.principal.grants is not None:  # RFC 6750 section 3.1
        fields.append('error="insufficient_scope"')
    return f"Bearer {','.join(fields)}".encode()


def _own_address(call: Call) -> str:
    """Return the address that the client's connection ended at.

    Not what the client says it is (``Host``): who can set that for somebody else would be sent
    their password. By TLS it is: nobody between can set it, and the client has checked that the
    certificate is good for it, which it seldom is for an IP address.
    """
    scheme = call.scope["scheme"]
    asked_for = call.header(b"host") or ""
    if scheme == "https" and _AUTHORITY.fullmatch(asked_for):
        return f"https://{asked_for}"
    host, port = call.scope["server"]
    host = host.removeprefix("::ffff:")  # an IPv4 client of a socket for both (RFC 4291 2.5.5.2)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
