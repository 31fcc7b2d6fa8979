"""What a project may be called."""

from cypd.oci.errors import OCIError
from cypd.oci.names import RepositoryName

MIN_LENGTH, MAX_LENGTH = 2, 63


def check_name(name: str) -> str | None:
    """Return what is wrong with a project's name, ``None`` if nothing is.

    It is one component of a repository's name, so there is one way to write it: what another
    spelling, case or alphabet makes look alike is no name at all.
    """
    if not MIN_LENGTH <= len(name) <= MAX_LENGTH:
        return f"a name has {MIN_LENGTH} to {MAX_LENGTH} characters"
    try:
        if "/" not in RepositoryName.parse(name):
            return None
    except OCIError:
        pass
    return "a name is of a-z and 0-9, with single '.', '_', '__' or '-' between them"
