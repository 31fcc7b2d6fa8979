"""The headers that a user may add to a delivery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.webhooks.headers import check_headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer s3cret"},
        {"X-Token!#$%&'*+.^_`|~1": ""},
        {"Content-Type": "application/json", "Cookie": "a=b", "Proxies": "x", "Tea": "x"},
        {f"X-{number}": "x" for number in range(20)},
        {"X-A": "x" * 4093},
    ],
)
def test_an_ordinary_header_may_be_added(headers: dict[str, str]) -> None:
    """Up to 20 headers of up to 4 KiB each."""
    check_headers(headers)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Upgrade",
            "TE",  # codespell:ignore te
            "Trailer",
        ),
        *("Keep-Alive", "Expect", "Proxy-Authorization", "proxy-connection"),
        *("X-Webhook-Signature", "x-webhook-anything"),
        *("", "X A", "X:A", "X-A\r\nX-B", "X\x00", "Ä", "X-A ", "(X)", "x" * 4096),
    ],
)
def test_a_header_of_ours_or_none_may_not_be_added(name: str) -> None:
    """What frames the request, signs it, or is no token is refused by name."""
    with pytest.raises(ValueError, match="header ") as caught:
        check_headers({"X-Fine": "s3cret", name: "s3cret"})
    assert repr(name[:64]) in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "s3cret\r\nX-B: c"},
        {"X-A": "s3cret\n"},
        {"X-A": "s3cret\x00"},
        {"X-A": "s3cret\t"},
        {"X-A": "s3cret\x7f"},
        {"X-A": "s3cret\x85"},
        {"X-A": "s3crét"},
        {"X-A": "s3cret\ud800"},
        {"X-A": "s3cret" + "x" * 4088},
        {"x-a": "", "X-A": "s3cret"},
    ],
)
def test_a_header_with_a_bad_value_is_named(headers: dict[str, str]) -> None:
    """The message names the header and keeps its value to itself."""
    with pytest.raises(ValueError, match="header 'X-A' ") as caught:
        check_headers(headers)
    assert "s3c" not in str(caught.value)


def test_more_than_20_headers_are_refused() -> None:
    """The bound is exact."""
    with pytest.raises(ValueError, match="more than 20 headers"):
        check_headers({f"X-{number}": "" for number in range(21)})


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3))
def test_headers_that_pass_are_lines_of_their_own(headers: dict[str, str]) -> None:
    """Whatever passes reads back from a message as the very same headers."""
    try:
        check_headers(headers)
    except ValueError:
        return
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    read = [line.split(": ", 1) for line in lines.encode("ascii").decode().splitlines()]
    assert list(headers.items()) == [(name, value) for name, value in read]
