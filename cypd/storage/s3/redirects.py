"""Which clients fetch a blob from the store themselves."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

Mode = Literal["off", "on", "auto"]

# distribution's: long enough for a client to begin, whoever finds the address later.
_VALID_SECONDS = 1200


class Redirects:
    """Sends nobody (``off``), everybody (``on``), or those of some networks (``auto``)."""

    valid = _VALID_SECONDS
    """Seconds for which an address is good."""

    def __init__(self, mode: Mode = "off", networks: Sequence[str] = ()) -> None:
        self._mode = mode
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._is_near = lru_cache(maxsize=1024)(self._look_up)

    def reach(self, client: str) -> bool:
        """Tell whether the client, an IP address, is to fetch blobs by itself."""
        if self._mode != "auto":
            return self._mode == "on"
        return self._is_near(client)

    def _look_up(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:  # a socket of another family
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)
