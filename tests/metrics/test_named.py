"""Which projects are told of by name."""

from pathlib import Path

from cypd.metrics.named import NamedProjects
from cypd.metrics.table import OTHER


def test_the_first_ones_get_names_and_all_workers_agree(tmp_path: Path) -> None:
    """Places go to who comes first, in whichever worker; when there are none left, to nobody."""
    one, two = NamedProjects(tmp_path, 2), NamedProjects(tmp_path, 2)
    assert one.label("alpha", 1) == "alpha"
    assert two.label("beta", 1) == "beta"
    one.refresh()

    assert [one.label(it, 1) for it in ("alpha", "beta", "gamma")] == ["alpha", "beta", OTHER]
    assert [two.label(it, 1) for it in ("alpha", "beta", "gamma")] == ["alpha", "beta", OTHER]
    assert "gamma" not in one
    assert "beta" in NamedProjects(tmp_path, 2)


def test_a_project_that_is_used_much_more_takes_a_place(tmp_path: Path) -> None:
    """It needs more than twice the traffic that the weakest had in the same time."""
    named = NamedProjects(tmp_path, 2)
    for name in ("strong", "weak"):
        named.label(name, 1)
    named.contest({"strong": 1000, "weak": 1000})

    named.label("new", 20)
    named.contest({"strong": 2000, "weak": 1010})
    assert [it in named for it in ("strong", "weak", "new")] == [True, True, False]

    named.label("new", 21)
    named.contest({"strong": 3000, "weak": 1020})
    assert [it in named for it in ("strong", "weak", "new")] == [True, False, True]


def test_a_flood_of_names_is_bounded(tmp_path: Path) -> None:
    """Of a hundred thousand projects those that have a place keep it, and memory stays small."""
    named = NamedProjects(tmp_path, 10)
    labels = {named.label(f"project-{number}", 1) for number in range(100_000)}

    assert labels == {*(f"project-{number}" for number in range(10)), OTHER}
    assert len(named._candidates) <= 10_000


def test_a_project_called_other_is_one_of_the_others(tmp_path: Path) -> None:
    """It can't pretend to be their sum, nor can their sum be taken for it."""
    named = NamedProjects(tmp_path, 10)
    named.label("other", 1_000_000)

    assert "other" not in named
    named.contest({})
    assert "other" not in named


def test_nobody_is_named_where_none_shall_be(tmp_path: Path) -> None:
    """With ``metrics.projects = 0`` no project's name is told."""
    named = NamedProjects(tmp_path, 0)

    assert named.label("secret", 1) == OTHER
    named.contest({})
    assert named.label("secret", 1) == OTHER
