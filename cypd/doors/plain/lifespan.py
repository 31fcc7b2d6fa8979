"""ASGI's lifespan protocol, for applications that set themselves up in it."""

import asyncio
from types import TracebackType
from typing import Self

from cypd.doors.asgi import Application, Message, Scope


class Lifespan:
    """``async with Lifespan(app):`` runs the application's startup before and shutdown after.

    An application that does not know the protocol is left alone, as ASGI asks. Raises RuntimeError
    with the application's own words if it reports a failure.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._task: asyncio.Task[None]
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._order("startup")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._order("shutdown")

    async def _run(self) -> None:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        try:
            await self._app(scope, self._orders.get, self._answers.put)
        except Exception:  # noqa: BLE001 - ASGI: whatever is raised means "not supported"
            return

    async def _order(self, what: str) -> None:
        """Send one order; returns when it is answered or nobody is there to answer."""
        self._orders.put_nowait({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait({self._task, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
        elif answer.result()["type"] == f"lifespan.{what}.failed":
            raise RuntimeError(f"{what} failed: {answer.result().get('message', '')}")
