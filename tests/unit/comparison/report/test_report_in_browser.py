"""The HTML report in Chromium: it loads nothing, sorts and searches, and fits every window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.comparison.compare import Change, Comparison, Spectrum
from git_theta_ext.comparison.measure import Measure, Moments
from git_theta_ext.comparison.report import html
from git_theta_ext.comparison.skeletons import Note
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from tests.scenarios.browser import Browser

EVIL = "</script><img src=x onerror=alert(1)>\u202e`@all`\n"
KINDS = ("attention.query", "attention.key", "attention.value", "mlp.up", "mlp.down", "norm")
LIMIT = 5_000_000


def change(name: str, relative: float, at: int = 0) -> Change:
    tensor = TensorInfo(name, DTYPES["F32"], (1024, 1024))
    old = Moments(tensor.count, 0.0, 1.0)
    sample = (np.random.default_rng(at).normal(0, relative / 1024, 512).astype(np.float32),)
    step = relative**2
    measure = Measure(tensor.count, step, 1 - step / 2, old, old, 4 * relative / 1024, 5,
                      sample=sample)  # fmt: skip
    spectrum = Spectrum((3.0, 2.0, 0.5), False) if at % 100 == 0 else None
    return Change(
        "changed", tensor, tensor, "low-rank", (("rank", "3"),), 1000 + at, measure, spectrum
    )


def comparison(count: int) -> Comparison:
    """Changed tensors of layers of six kinds; the first of each layer is left unchanged."""
    random = np.random.default_rng(0)
    names = [f"model.layers.{at // 6}.{KINDS[at % 6]}.weight" for at in range(count)]
    changes = [change(name, 10 ** random.uniform(-5, 0), at) for at, name in enumerate(names)]
    bad = TensorInfo(EVIL, DTYPES["F32"], (3,))
    lost = Measure(1, 0.0, 0.0, Moments(2, 1, 1), Moments(2, 1, 1), not_finite=1, not_finite_at=2)
    changes.append(Change("changed", bad, bad, "delta", (), 5, lost))
    changes.append(Change("added", None, TensorInfo("head.weight", DTYPES["BF16"], (2, 9))))
    notes = (Note("metadata.step", "1200", "1800"), Note(EVIL, None, EVIL))
    return Comparison(
        tuple(changes), 2 * count, 10**9, 10**8, 10**7, 10**9, "safetensors", "safetensors", True,
        notes, tuple(name.replace("weight", "bias") for name in names),
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html.render([(EVIL, comparison(60)), ("b.pt", comparison(12))]), "utf-8")
    return path


def column(browser: Browser, number: int) -> list[str]:
    """The cells of a column of the first table, as shown."""
    found: list[str] = browser.run(
        "[...document.querySelector('section').querySelectorAll('.tall tbody')[0].rows]"
        f".map(row => row.cells[{number}].textContent)"
    )
    return found


def click(browser: Browser, number: int) -> str:
    """Click the head of a column; how it then says that it is sorted."""
    head = f"document.querySelectorAll('section th button')[{number}]"
    browser.run(f"{head}.click()")
    return str(browser.run(f"{head}.closest('th').getAttribute('aria-sort')"))


def search(browser: Browser, text: str) -> str:
    """Type into the search field; what is said of the number of hits."""
    browser.run(
        f"{{ const field = document.querySelector('section input'); field.value = {text!r};"
        "field.dispatchEvent(new Event('input')); }"
    )
    return str(browser.run("document.querySelector('section output').textContent"))


def test_it_loads_nothing_and_names_are_inert(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.problems() == []
    assert browser.run("document.images.length") == 0
    assert browser.run("document.querySelectorAll('script').length") == 3
    assert browser.run("document.querySelector('h2').textContent").startswith("</script><img")
    assert "\u202e" not in browser.run("document.body.textContent")
    assert len(column(browser, 0)) == 62
    assert browser.run("document.querySelectorAll('.alarm').length") == 2


def test_it_sorts(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert click(browser, 4) == "descending"
    shown = column(browser, 4)
    numbers = [float(text.split()[0]) for text in shown if text]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) >= 60
    assert shown[-1] == ""
    assert click(browser, 4) == "ascending"
    assert [float(text.split()[0]) for text in column(browser, 4) if text] == sorted(numbers)
    assert click(browser, 0) == "ascending"
    names = [name for name in column(browser, 0) if name.endswith("mlp.up.weight")]
    assert names == [f"model.layers.{at}.mlp.up.weight" for at in range(10)]


def test_it_searches(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert search(browser, "layers.3. QUERY") == "1 of 62"
    assert column(browser, 0) == ["model.layers.3.attention.query.weight"]
    assert search(browser, "nan") == "1 of 62"
    assert search(browser, "no such tensor") == "0 of 62"
    assert search(browser, "") == "62 of 62"
    browser.run("document.querySelector('.map i[title*=\"layers.7.mlp.up.weight\"]').click()")
    assert column(browser, 0) == ["model.layers.7.mlp.up.weight"]


def test_the_map_has_a_cell_for_every_tensor(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.run("document.querySelector('.map').querySelectorAll('i').length") == 122
    strong = (
        "[...document.querySelectorAll('section:first-of-type .map i')]"
        ".filter(cell => cell.style.getPropertyValue('--d') > 0).length"
    )
    assert browser.run(strong) == 60
    signs = "getComputedStyle(document.querySelector('.map i.{}'), '::after').content"
    assert browser.run(signs.format("bad")) == '"!"'
    assert browser.run(signs.format("new")) == '"+"'
    assert browser.run("document.querySelectorAll('figure svg rect').length") > 12 * 20


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (360, False)])
def test_it_fits_the_window_and_the_colours(
    browser: Browser, report: Path, width: int, dark: bool
) -> None:
    browser.resize(width, 800, dark=dark)
    browser.open(report)
    assert browser.run("document.documentElement.scrollWidth") <= width
    style = browser.run("getComputedStyle(document.body).backgroundColor")
    ink = browser.run("getComputedStyle(document.body).color")
    paper, letters = (sum(map(int, text[4:-1].split(","))) for text in (style, ink))
    assert (paper < letters) == dark
    assert abs(paper - letters) > 500
    small = browser.run(
        "[...document.querySelectorAll('figcaption, td, .kind span')]"
        ".some(one => parseFloat(getComputedStyle(one).fontSize) < 12)"
    )
    assert small is False


def test_three_thousand_tensors(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    path.write_text(html.render([("model.safetensors", comparison(3000))]), "utf-8")
    assert path.stat().st_size < LIMIT
    browser.resize(1200, 900)
    browser.open(path)
    assert len(column(browser, 0)) == 3002
    spent = browser.run(
        "(() => { const start = performance.now();"
        "document.querySelectorAll('th button')[4].click(); document.body.offsetHeight;"
        "return performance.now() - start; })()"
    )
    assert spent < 3000
    assert browser.problems() == []
