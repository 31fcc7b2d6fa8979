"""User names and addresses: what looks alike is the same, or has no way in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.accounts.names import canonical, email_address, user_name
from cypd.refusals import Code, Refusal

# Plain names, and what plain names are imitated with.
LETTERS = "abAB09._-" + "ａＢ０．＿ſKıİаеоßﬁⅷ①\u200d\u200e\u202e\u0301\0\n "
spellings = st.text(st.sampled_from(LETTERS), max_size=12) | st.text(max_size=80)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("admin", "admin"), ("Admin", "admin"), ("ADMIN", "admin"), ("ａｄｍｉｎ", "admin"),
        ("ＡＤＭＩＮ", "admin"), ("Kim", "kim"), ("oﬃce", "office"), ("a1", "a1"),
        ("ci.bot_2-x", "ci.bot_2-x"), ("a" * 64, "a" * 64), ("straße", "strasse"),
    ],
)  # fmt: skip
def test_a_name_has_one_form(text: str, name: str) -> None:
    """Case and compatibility forms are the same name."""
    assert name == user_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a" * 65, "a" * 100_000, "admİn", "admın", "аdmin", "ad\u200dmin", "ad\u200bmin",
        "\u202eadmin", "admin\u200e", "admin.", ".admin", "-admin", "ad..min", "ad._min", "admin ",
        "ad min", "admin\n", "admin\0", "ad/min", "ad@min", "ad:min", "ádmin", "admin\u0301",
        "管理员", "\ud800\ud800", "а" * 10,
    ],
)  # fmt: skip
def test_a_name_that_looks_like_another_is_refused(text: str) -> None:
    """Dotted capital I, Cyrillic, joiners, marks of direction, dots at an end: not a name."""
    with pytest.raises(Refusal) as refusal:
        user_name(text)
    assert Code.VALIDATION_FAILED is refusal.value.code
    assert ["username"] == [error.field for error in refusal.value.errors]


@given(spellings)
def test_what_is_accepted_is_plain(text: str) -> None:
    """Whatever comes in, a name is ASCII and its own canonical form."""
    try:
        name = user_name(text)
    except Refusal as refusal:
        assert Code.VALIDATION_FAILED is refusal.code
        return
    assert name.isascii()
    assert name == canonical(name) == user_name(name) == canonical(text)


@given(spellings)
def test_canonical_forms_are_stable(text: str) -> None:
    """Where a spelling is a name, so is its canonical form, and it is the same name."""
    try:
        assert user_name(text) == user_name(canonical(text))
    except Refusal:
        with pytest.raises(Refusal):
            user_name(canonical(text))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Ada@Example.ORG", "ada@example.org"), ("a+b@x.example.org", "a+b@x.example.org"),
        ("ａｄａ＠example.org", "ada@example.org"),
    ],
)  # fmt: skip
def test_an_address_has_one_form(text: str, address: str) -> None:
    """Case and compatibility forms are the same address."""
    assert address == email_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "ada", "@example.org", "ada@", "ada@example", "ada@@example.org", "ada@example..org",
        "ada@-example.org", "ada@example-.org", "ada@example.org\n", "ada b@example.org",
        "аda@example.org", "ada@exаmple.org", "ada@example.org.", "a" * 250 + "@x.org",
        "a" * 100_000 + "@example.org", "ada@example.org\0",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    """An address has one @, a domain with a dot, and is plain ASCII of at most 254 characters."""
    with pytest.raises(Refusal) as refusal:
        email_address(text)
    assert Code.VALIDATION_FAILED is refusal.value.code
    assert ["email"] == [error.field for error in refusal.value.errors]
