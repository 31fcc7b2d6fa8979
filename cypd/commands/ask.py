"""Asking the daemon that runs on this host."""

from http.client import HTTPConnection, HTTPException

from cypd.commands.output import Failed

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (not bound to)
_TIMEOUT_SECONDS = 5.0


def ask(address: tuple[str, int], path: str, *, most: int, token: str = "") -> tuple[int, bytes]:
    """GET a path by plain HTTP; return the status and at most that many bytes of the body.

    Raises Failed if nobody answers.
    """
    host, port = address
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = HTTPConnection(_ANY.get(host, host), port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(most)
    except (OSError, HTTPException) as error:
        raise Failed(f"nobody answers at {host}:{port}: {error}") from None
    finally:
        connection.close()
