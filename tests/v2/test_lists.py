"""Tags and the catalog, page by page."""

import pytest

from tests.samples import EMPTY, image
from tests.v2.conftest import Registry

TAGS = "/v2/library/app/tags/list"


async def _follow(registry: Registry, url: str, key: str) -> list[str]:
    seen: list[str] = []
    while url:
        page = await registry.admin.request("GET", url)
        assert page.status == 200
        seen += page.json()[key]
        url = page.headers.get("link", "").removeprefix("<").partition(">")[0]
    return seen


async def _push_tags(registry: Registry, *tags: str) -> None:
    await registry.push(EMPTY)
    for tag in tags:
        await registry.put(image(), tag)


async def test_tags_are_listed_in_ascii_order(registry: Registry) -> None:
    """All of them without ``n``, with the repository's name."""
    await _push_tags(registry, "b", "B", "a", "_", "1.0")
    got = await registry.anonymous.request("GET", TAGS)

    assert got.json() == {"name": "library/app", "tags": ["1.0", "B", "_", "a", "b"]}
    assert "link" not in got.headers


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
async def test_pages_add_up(registry: Registry, size: int) -> None:
    """Following ``Link`` gives every tag once, whatever the page's size."""
    await _push_tags(registry, "a", "b", "c", "d", "e")

    assert ["a", "b", "c", "d", "e"] == await _follow(registry, f"{TAGS}?n={size}", "tags")


async def test_a_list_may_start_anywhere(registry: Registry) -> None:
    """``last`` need not be a tag that exists; zero asks for none and links nowhere."""
    await _push_tags(registry, "a", "c")
    after = await registry.admin.request("GET", TAGS + "?last=b")
    none = await registry.admin.request("GET", TAGS + "?n=0")

    assert after.json()["tags"] == ["c"]
    assert (none.json()["tags"], "link" in none.headers) == ([], False)


@pytest.mark.parametrize("number", ["-1", "abc", "1.5", "", "+1", "%D9%A3", "0x1"])
async def test_n_is_a_whole_number(registry: Registry, number: str) -> None:
    """Anything else is refused, for tags and catalog alike."""
    await _push_tags(registry, "a")
    for url in (TAGS, "/v2/_catalog"):
        refused = await registry.admin.request("GET", f"{url}?n={number}")
        assert (400, "PAGINATION_NUMBER_INVALID") == (refused.status, refused.code)


@pytest.mark.parametrize("query", ["?n=1000000000", "?n=" + "9" * 5000, "?last=" + "x" * 5000])
async def test_hostile_pages_cost_nothing(registry: Registry, query: str) -> None:
    """A page has a thousand entries at most, and starts past any text."""
    await _push_tags(registry, "a")
    for url in (TAGS, "/v2/_catalog"):
        assert (await registry.admin.request("GET", url + query)).status == 200


async def test_the_catalog_lists_repositories(registry: Registry) -> None:
    """In ASCII order, for administrators alone."""
    for name in ("bb/x", "aa/y", "aa/x"):
        await registry.push(b"x", name)

    assert ["aa/x", "aa/y", "bb/x"] == await _follow(registry, "/v2/_catalog?n=2", "repositories")
    assert (await registry.other.request("GET", "/v2/_catalog")).status == 403
    assert (await registry.anonymous.request("GET", "/v2/_catalog")).status == 401


async def test_an_unknown_repository_has_no_tags(registry: Registry) -> None:
    """NAME_UNKNOWN for a repository nothing was pushed to."""
    got = await registry.admin.request("GET", TAGS)

    assert (404, "NAME_UNKNOWN") == (got.status, got.code)
