"""User names and email addresses in the one form in which they are compared.

What looks alike must be the same: so compatibility forms are folded (NFKC), then case, and what is
not plain ASCII after that has no way in (``Admin`` and its fullwidth twin are ``admin``; Cyrillic
letters, joiners and marks of direction are refused).
"""

import re
import unicodedata

from cypd.refusals import invalid

MAX_NAME, MAX_EMAIL = 64, 254
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", re.ASCII)
# The addresses of HTML's <input type=email>, lower-cased, with at least one dot behind the @.
_EMAIL = re.compile(
    r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
    r"(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+",
    re.ASCII,
)


def canonical(text: str) -> str:
    """Return a name or address as it would be stored if it were a valid one."""
    return unicodedata.normalize("NFKC", text[: MAX_EMAIL + 1]).casefold()


def user_name(text: str) -> str:
    """Return a user name in canonical form; raise VALIDATION_FAILED."""
    name = canonical(text)
    if not 2 <= len(name) <= MAX_NAME or not _NAME.fullmatch(name):
        message = f"2 to {MAX_NAME} of a-z and 0-9, with single '.', '_' or '-' between them"
        raise invalid("username", message)
    return name


def email_address(text: str) -> str:
    """Return an email address in canonical form; raise VALIDATION_FAILED."""
    address = canonical(text)
    if len(address) > MAX_EMAIL or not _EMAIL.fullmatch(address):
        raise invalid("email", "not an email address")
    return address
