"""Which addresses are one client."""

import pytest

from cypd.sources import source


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("a:host", "a:host"),
        ("", ""),
    ],
)
def test_source(host: str, expected: str) -> None:
    """IPv4 addresses count each, IPv6 addresses by their /64; what is no address stays itself."""
    assert source(host) == expected
