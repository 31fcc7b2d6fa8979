"""The token server, and the challenge that leads to it (Docker Registry v2 authentication).

Clients that speak Bearer ask here, with a password or with nothing, before they pull; docker pulls
anonymously in no other way.
"""

import re
from datetime import UTC, datetime

from cypd.access import Action, Authenticator
from cypd.oci.endpoints import TOKEN_PATH, Endpoint
from cypd.v2.call import Call

# A host and port that need no quoting in a challenge.
_AUTHORITY = re.compile(r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
# What docker calls the rights that an action needs.
_RIGHTS = {Action.PULL: "pull", Action.PUSH: "pull,push", Action.DELETE: "delete"}


class TokenHandlers:
    """The endpoint ``/v2/auth``."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def get(self, call: Call) -> None:
        """Give whoever asks a token for who they are; it holds no rights of its own."""
        token = self._authenticator.issue_token(call.principal)
        document = {
            "token": token.text,
            "access_token": token.text,
            "expires_in": token.lifetime,
            "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        await call.answer_json(document, [(b"cache-control", b"no-store")])


def challenge(call: Call, action: Action | None, external_url: str) -> bytes:
    """Return the ``WWW-Authenticate`` of a 401: Basic where tokens are made, else Bearer."""
    target = call.target
    if target.endpoint is Endpoint.TOKEN:
        return b'Basic realm="cypd", charset="UTF-8"'
    fields = [f'realm="{external_url or _own_address(call)}{TOKEN_PATH}"', 'service="cypd"']
    if target.repository and action in _RIGHTS:
        fields.append(f'scope="repository:{target.repository}:{_RIGHTS[action]}"')
    elif action is Action.CATALOG:
        fields.append('scope="registry:catalog:*"')
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
