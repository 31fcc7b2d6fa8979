"""No engine: what says so, and what to do about it."""

from cypd.scanning.ports import Image, NotReady, Report, Say


class Off:
    """An ``Engine`` that scans nothing."""

    name = "off"

    def __init__(self, advice: str) -> None:
        self._advice = advice

    def require_ready(self) -> None:
        raise NotReady(self._advice)

    def generation(self) -> str:
        return ""

    async def scan(self, image: Image, *, say: Say) -> Report:
        raise NotReady(self._advice)
