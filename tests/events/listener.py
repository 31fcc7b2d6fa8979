"""A client of server-sent events."""

import json
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.daemon import Daemon


class Told(NamedTuple):
    """One event."""

    id: str
    kind: str
    data: Any


class Listener:
    """Listens while it is entered."""

    def __init__(
        self, daemon: Daemon, token: str, *, after: str | None = None, query: str = ""
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        if after is not None:
            headers["Last-Event-ID"] = after
        self._connection = HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        self._connection.request("GET", f"/api/v1/events{query}", headers=headers)
        self.response = self._connection.getresponse()
        self.status = self.response.status

    def __enter__(self) -> Self:
        assert self.status == 200
        assert self.response.readline() == b": cypd\n"
        assert self.response.readline() == b"\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
        self.response.close()

    def next(self) -> Told:
        """Return the next event; comments are passed over."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                return Told(fields.get("id", ""), fields["event"], json.loads(fields["data"]))

    def has_ended(self) -> bool:
        """Wait for what comes next; tell whether it is the end."""
        try:
            return self.response.readline() == b""
        except HTTPException:
            return True
