"""Names, tags and digests: what the grammar lets in, and nothing else."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.oci.digest import Digest, parse_algorithm
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName, Tag

# The spec's own regular expressions, word for word.
SPEC_NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
SPEC_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"

nasty_text = st.text(string.ascii_letters + string.digits + "._-/:%\\\0\n ä", max_size=20)


@given(nasty_text)
def test_names_are_those_of_the_specification(text: str) -> None:
    """A repository's name is accepted exactly where the spec's expression accepts it."""
    assert bool(re.fullmatch(SPEC_NAME, text, re.ASCII)) == _accepts(RepositoryName.parse, text)


@given(nasty_text)
def test_tags_are_those_of_the_specification(text: str) -> None:
    """A tag is accepted exactly where the spec's expression accepts it."""
    assert bool(re.fullmatch(SPEC_TAG, text, re.ASCII)) == _accepts(Tag.parse, text)


@given(st.from_regex(SPEC_NAME, fullmatch=True).filter(lambda text: len(text) <= 255))
def test_every_name_of_the_grammar_is_accepted(text: str) -> None:
    """Whatever the grammar generates, up to 255 characters, is a name."""
    assert _accepts(RepositoryName.parse, text)


def test_a_name_has_at_most_255_characters() -> None:
    """One character more is refused."""
    assert _accepts(RepositoryName.parse, "a" * 255)
    assert not _accepts(RepositoryName.parse, "a" * 256)


def test_a_long_almost_name_is_refused_in_no_time() -> None:
    """The expression does not backtrack: the worst text of 255 characters costs microseconds."""
    for almost in ("a" * 254 + "!", "a-" * 127, "a__" * 84 + "_", "a/" * 127):
        assert not _accepts(RepositoryName.parse, almost)


@pytest.mark.parametrize(
    "text",
    [
        "SHA256:" + "a" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "g" * 64,
        "sha256:../" + "a" * 61,
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "١" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256" + "a" * 64,
        "sha256:",
        "sha384:" + "a" * 96,
        "",
    ],
)
def test_a_digest_has_one_form(text: str) -> None:
    """Other algorithms, lengths, cases and scripts are no digests."""
    with pytest.raises(OCIError) as refusal:
        Digest.parse(text)

    assert refusal.value.code is Code.DIGEST_INVALID


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_of_content_parses(content: bytes, algorithm: str) -> None:
    """What is computed is of the form that is parsed."""
    digest = Digest.of(content, parse_algorithm(algorithm))

    assert digest == Digest.parse(str(digest))
    assert f"{digest.algorithm}:{digest.hex}" == digest


def test_only_offered_algorithms_can_be_asked_for() -> None:
    """An upload can't be hashed with what the registry does not offer."""
    with pytest.raises(OCIError, match="sha256 and sha512"):
        parse_algorithm("md5")


def _accepts(parse: object, text: str) -> bool:
    assert callable(parse)
    try:
        parse(text)
    except OCIError:
        return False
    return True


@pytest.mark.parametrize("text", ["library", "library/app", "library/app/x"])
def test_a_repository_belongs_to_a_project(text: str) -> None:
    """It is named by the first component, as plain text."""
    assert RepositoryName.parse(text).project == "library"
    assert type(RepositoryName.parse(text).project) is str
