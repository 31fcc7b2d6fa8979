"""Strings that have led servers out of their folders, a few thousand of them."""

from itertools import product

_UPS = [
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "%25252e%25252e",
    "%c0%ae%c0%ae",  # overlong UTF-8
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae%f0%80%80%ae",
    "%uff0e%uff0e",
    "%ef%bc%8e%ef%bc%8e",  # full-width
    "...",
    "....",
    "..;",
    "..%00",
    "..%0d%0a",
    "..%09",
    ".%0a.",
    "~",
]
_SLASHES = [
    "/",
    "//",
    "%2f",
    "%2F",
    "%252f",
    "\\",
    "%5c",
    "%255c",
    "%c0%af",  # overlong UTF-8
    "%e0%80%af",
    "%c1%9c",
    "%ef%bc%8f",  # full-width
    "%e2%88%95",  # division slash
    "/./",
    ";/",
    "%3b/",
]
_GOALS = [
    "etc{}passwd",
    "canary",
    "metadata{}data.mdb",
    "proc{}self{}environ",
]
_PLAIN = [
    "%00",
    "%00canary",
    "latest%00",
    "latest%0d%0a",
    "%2f%2fetc%2fpasswd",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "c:%5cwindows%5cwin.ini",
    "%5c%5chost%5cshare",
    "%2e",
    ".",
    "-",
    "--",
    "%20",
    "%7f",
    "%ff",
    "%fe%ff",
    "%ed%a0%80",  # a lone surrogate
    "%f4%90%80%80",  # past U+10FFFF
    "%",
    "%2",
    "%zz",
    "$(id)",
    "`id`",
    "|id",
    "${jndi:ldap:%2f%2f127.0.0.1%2fa}",
    "{{7*7}}",
    "<script>",
    "'%20or%20'1'='1",
    "*",
    "%3f",
    "%23",
    "sha256:..%2f..%2fcanary",
    "sha256:%2e%2e",
    "admin-password",
    "a" * 256,
    "a" * 3000,
    "a/" * 1000 + "a",
    "%2e%2e%2f" * 600,
]


def traversals() -> list[str]:
    """Return the strings, percent-encoded as they go into a request target."""
    found = [
        (up + slash) * depth + goal.replace("{}", slash)
        for up, slash, goal, depth in product(_UPS, _SLASHES, _GOALS, (1, 4))
    ]
    return [*found, *(it for it in _PLAIN if it not in found)]
