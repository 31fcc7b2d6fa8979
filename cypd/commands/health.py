"""``cypd health``: ask the running daemon whether it is ready."""

import argparse
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from cypd.config import Config


def run(config: Config, _: argparse.Namespace) -> int:
    """Ask at the first plain address."""
    host, port = config.server.addresses()[0]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound to)
    connection = HTTPConnection(here, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        print(response.read(100).decode(errors="replace").strip())
    except (OSError, HTTPException) as error:
        print(f"cypd: nobody answers at {host}:{port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if response.status == HTTPStatus.OK else 1
