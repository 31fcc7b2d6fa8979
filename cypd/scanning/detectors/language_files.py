"""Which paths packages of programming languages have, whoever installed them."""

import re

PYTHON = re.compile(r"(?:.*/)?[^/]+(?:\.dist-info/METADATA|\.egg-info/PKG-INFO|\.egg-info)")
NODE_MODULE = re.compile(r"(?:.*/)?node_modules/(?:@[^/]+/)?[^/@.][^/]*/package\.json")
GEM = re.compile(r"(?:.*/)?specifications/(?:default/)?[^/]+\.gemspec")
JAVA = re.compile(r".*\.(?:jar|war|ear|par|hpi|jpi)", re.IGNORECASE)


def is_one(path: str) -> bool:
    """Tell whether a path is one of them."""
    # Most are none, and an ending tells that faster than four patterns.
    return path.endswith(_ENDINGS) and any(
        pattern.fullmatch(path) for pattern in (PYTHON, NODE_MODULE, GEM, JAVA)
    )


_ENDINGS = ("METADATA", "PKG-INFO", ".egg-info", "package.json", ".gemspec", ".jar", ".war",
            ".ear", ".par", ".hpi", ".jpi")  # fmt: skip
