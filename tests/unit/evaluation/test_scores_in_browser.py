"""The page of scores in Chromium: it loads nothing, draws every version, and fits every window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta_ext.comparison.history import Version
from git_theta_ext.evaluation.report import html
from git_theta_ext.evaluation.results import Result, Score
from git_theta_ext.evaluation.scored import Cell, Changed, Column, Row, Table
from tests.scenarios.browser import Browser

EVIL = "</title></style><img src=x onerror=alert(1)>\u202e\n"


def table(count: int) -> Table:
    """A history with a branch that is merged every ten versions; one of two names means harm."""
    rows = []
    for number in range(count):
        before: tuple[int, ...] = (number + 1,) if number + 1 < count else ()
        if number % 10 == 5 and number + 3 < count:
            before = (number + 2, number + 1)
        version = Version(
            f"{number:040x}", (), "Ada", "a@example.org", f"2026-11-{1 + number % 28:02}T00:00:00",
            EVIL if number % 2 else "train", EVIL, False,
        )  # fmt: skip
        changed = (Changed(f"encoder.layer.{number}.weight", "delta", 900), Changed(EVIL, "x", 1))
        rows.append(Row(number, version, "a" * 64, 10 ** (number % 7), 9, changed, before))
    return Table(EVIL, tuple(rows), (column(rows, "rte", True), column(rows, EVIL, None)))


def column(rows: list[Row], task: str, higher: bool | None) -> Column:
    result = Result("a" * 64, "glue", None, None, None, "imported", EVIL, 1, "", EVIL, EVIL, ())
    cells = {}
    for row in rows:
        score = Score(task, "acc", 0.5 + 0.3 * ((row.number * 7) % 10) / 10, 0.02, higher)
        cells[row.number] = (Cell(score, result, row.number != 3),)
    return Column("glue", task, "acc", higher, cells)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def page(folder: Path, count: int) -> Path:
    found = table(count)
    path = folder / "scores.html"
    path.write_text(html.render(found, found.rows, found.columns), "utf-8")
    return path


def test_it_loads_nothing_and_draws_everything(browser: Browser, tmp_path: Path) -> None:
    browser.open(page(tmp_path, 24))
    assert browser.problems() == []
    assert browser.run("document.images.length + document.scripts.length") == 0
    assert "\u202e" not in browser.run("document.documentElement.innerHTML")
    first = "document.querySelector('.chart')"
    assert browser.run(f"{first}.querySelectorAll('.point').length") == 24
    assert browser.run(f"{first}.querySelectorAll('.merge').length") == 2
    assert browser.run(f"{first}.querySelectorAll('.merged').length") == 2
    assert browser.run(f"{first}.querySelectorAll('.line').length") == 23
    assert browser.run(f"{first}.querySelectorAll('.interval').length") == 24
    assert browser.run(f"{first}.querySelectorAll('.other').length") == 1
    # Every mark and text lies within its drawing, and no two labels of an axis over each other.
    outside = (
        "[...document.querySelectorAll('.chart')].some(chart => { const whole = "
        "chart.getBoundingClientRect(); return [...chart.querySelectorAll('text, .point, path')]"
        ".some(one => { const box = one.getBoundingClientRect(); return box.left < whole.left - 1 "
        "|| box.right > whole.right + 1 || box.top < whole.top - 1 "
        "|| box.bottom > whole.bottom + 1; }); })"
    )
    assert browser.run(outside) is False
    assert browser.run("document.querySelectorAll('.versions tbody tr').length") == 24
    assert "not to be compared" in browser.run("document.body.textContent")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (360, False)])
def test_it_fits_the_window_and_the_colours(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.resize(width, 800, dark=dark)
    browser.open(page(tmp_path, 12))
    assert browser.run("document.documentElement.scrollWidth") <= width
    body = "getComputedStyle(document.body)"
    paper, ink = (
        sum(map(int, browser.run(f"{body}.{name}")[4:-1].split(",")))
        for name in ("backgroundColor", "color")
    )
    assert (paper < ink) == dark
    assert abs(paper - ink) > 500
    # As it is seen: a drawing is shrunk to the window, its texts are not to be.
    small = (
        "[...document.querySelectorAll('.chart text')].map(one => parseFloat(getComputedStyle(one)"
        ".fontSize) * one.ownerSVGElement.getBoundingClientRect().width "
        "/ one.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert min(browser.run(small)) > 9
    texts = "[...document.querySelectorAll('li, td, small, figcaption, p')]"
    assert browser.run(f"{texts}.some(one => parseFloat(getComputedStyle(one).fontSize) < 11)") is (
        False
    )


def test_a_thousand_versions(browser: Browser, tmp_path: Path) -> None:
    path = page(tmp_path, 1000)
    assert path.stat().st_size < 3_000_000
    browser.resize(1200, 900)
    browser.open(path)
    assert browser.problems() == []
    assert browser.run("document.querySelector('.chart').querySelectorAll('.point').length") == 1000
    assert "… and 500 more versions" in browser.run("document.body.textContent")


def test_one_version_and_none(browser: Browser, tmp_path: Path) -> None:
    browser.open(page(tmp_path, 1))
    assert browser.problems() == []
    assert "NaN" not in (tmp_path / "scores.html").read_text("utf-8")
    found = table(3)
    (tmp_path / "none.html").write_text(html.render(found, found.rows, ()), "utf-8")
    browser.open(tmp_path / "none.html")
    assert "Nothing was measured yet." in browser.run("document.body.textContent")
