"""A short fuzzing of every parser in every test run, and proof that it would see a defect."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability import fuzz
from tests.reliability.fuzz import Finding, Mutator, Report, Watch, mutate
from tests.reliability.targets import CORPUS, TARGETS, Target, corpus

RUNS = 1000


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_the_errors_that_are_promised(name: str) -> None:
    """Everything in the corpus, then mutations of it; the same ones in every run."""
    target = TARGETS[name]
    report = mutate(target, len(corpus(target)) + RUNS)
    assert report.executions >= RUNS
    assert {key: (found.what, found.data) for key, found in report.findings.items()} == {}


def test_every_container_and_every_update_has_a_target() -> None:
    from git_theta_ext.formats import names
    from git_theta_ext.updates import kinds

    assert set(names()) <= set(TARGETS)
    assert {f"parameters-{kind}" for kind in kinds()} <= set(TARGETS)


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    files = list(CORPUS.glob("*"))
    assert {path.stem for path in files} <= set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 200_000


def _crash(data: bytes) -> None:
    if b"!" in data:
        raise KeyError(data)


def _hang(data: bytes) -> None:
    if data:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass


def _hoard(data: bytes) -> None:
    if data:
        b"x" * (80 << 20)


def test_defects_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.02)
    crashing = Watch(Target("crash", lambda: [b"ab"], _crash))
    for data in (b"", b"a!b", b"!", b"fine"):
        crashing(data)
    assert crashing.report.executions == 4
    ((place, found),) = crashing.report.findings.items()
    assert place.startswith("KeyError at test_fuzz.py:")
    assert found.data == b"!"
    hanging = Watch(Target("hang", lambda: [b""], _hang))
    hanging(b"x")
    assert list(hanging.report.findings) == ["time"]


def test_memory_is_noted() -> None:
    """In a process of its own, for this one may have had more memory at its peak before."""
    code = (
        "from tests.reliability import fuzz, test_fuzz\n"
        "fuzz.MEGABYTES = 20\n"
        "watch = fuzz.Watch(fuzz.Target('h', lambda: [b''], test_fuzz._hoard))\n"
        "watch(b''); before = dict(watch.report.findings); watch(b'x')\n"
        "print(before, list(watch.report.findings))\n"
    ).replace("fuzz.Target", "test_fuzz.Target")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, check=True, text=True
    )
    assert done.stdout == "{} ['memory']\n"


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second, other = (Mutator([b"abc", b"defg"], [b"w"], seed) for seed in (1, 1, 2))
    drawn = [first.next() for _ in range(50)]
    assert drawn == [second.next() for _ in range(50)]
    assert drawn != [other.next() for _ in range(50)]
    assert all(len(data) <= fuzz.MAX_LENGTH for data in drawn)


def test_a_report_survives_its_text() -> None:
    report = Report("gguf", 7, {"time": Finding("3 s", b"\0\xff")})
    assert Report.from_json(report.to_json()) == report


def test_the_line_of_the_table_tells_of_findings() -> None:
    good, bad = Report("a", 500), Report("b", 300, {"KeyError at x.py:1": Finding("", b"")})
    line = fuzz.row([good, bad], guided=False)
    assert line.how == "random mutation, seed 1: 800 executions, at least 300 of each parser"
    assert line.result == "1 found: b: KeyError at x.py:1"
    assert fuzz.row([good], guided=True).result == "0 found"
