"""A daemon that ends by itself."""

from tests.daemon import Daemon


class Mortal(Daemon):
    """A daemon whose exit status somebody waits for."""

    def ended(self, deadline: float = 30) -> int:
        """Return its exit status; ``start`` starts it again."""
        return self._wait(deadline)
