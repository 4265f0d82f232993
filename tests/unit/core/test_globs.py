"""Many patterns at once: what `fnmatch` says of each, and bounds on how many and how long."""

from __future__ import annotations

import time
from contextlib import suppress
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import Globs

PATTERNS = st.lists(st.text("ab.-!^]*?[\\c", max_size=9), max_size=6)
NAMES = st.lists(st.text("ab.-!^][\\c\n", max_size=8), max_size=6)


def slowly(patterns: list[str], name: str) -> int | None:
    return next((at for at, one in enumerate(patterns) if fnmatchcase(name, one)), None)


@settings(max_examples=500, deadline=None)
@given(PATTERNS, NAMES)
def test_matches_are_those_of_fnmatch(patterns: list[str], names: list[str]) -> None:
    globs = Globs(patterns)
    for name in [*names, *patterns]:
        assert globs.first(name) == slowly(patterns, name), (patterns, name)
        every = [at for at, one in enumerate(patterns) if fnmatchcase(name, one)]
        assert list(globs.every(name)) == every, (patterns, name)


@pytest.mark.parametrize(
    "text", ["[a-c-e]", "[--a]", "[-a]", "[a-]", "[b-a]", "[!b-a]", "[!]]", "[]a]", "[!", "[]",
             "[a-c--z]", "[^a]", "[!!]", "[[]"],
)  # fmt: skip
def test_classes_are_those_of_fnmatch(text: str) -> None:
    globs = Globs([text])
    for code in range(128):
        assert globs.matches(chr(code)) == fnmatchcase(chr(code), text), chr(code)


def test_more_matches_than_are_kept() -> None:
    globs = Globs(["a"] * 3 + ["*"] * 40)
    assert [globs.every("a"), globs.every("a")] == [tuple(range(43))] * 2
    assert globs.every("b") == tuple(range(3, 43))


def test_states_that_are_let_go_of_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("git_theta_ext.core.globs._KEPT_BYTES", 64)
    patterns = [f"*{n}*x" for n in range(30)]
    globs = Globs(patterns)
    for n in range(300):
        name = f"w{n}.{n * 7 % 31}.x"
        assert globs.first(name) == slowly(patterns, name)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: f"model.layers.{n}.*",
        lambda n: f"*.{n}.*",
        lambda n: f"*.layers.{n}.*_proj.weight",
        lambda n: f"*[!a]x{n}",
        lambda n: f"model.layers.{n % 60}.mlp.experts.{n}.up_proj.weight",
    ],
)
def test_ninety_thousand_names_and_a_thousand_patterns(make) -> None:  # type: ignore[no-untyped-def]
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(60)
        for expert in range(512)
        for part in ("gate", "up", "down")
    ]
    globs = Globs([make(n) for n in range(1000)])
    start = time.thread_time()
    found = [globs.first(name) for name in names]
    assert time.thread_time() - start < 4
    for name, one in list(zip(names, found, strict=True))[:: len(names) // 50]:
        assert one == slowly([make(n) for n in range(1000)], name)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([f"*{n}" for n in range(limits.GLOBS + 1)], "somewhere: 10001 patterns"),
        (["a", "*" + "x" * limits.GLOB_CHARS], "somewhere: pattern 2 .* 4097 characters"),
        (["x" * 4000] * 100, "somewhere: 400000 characters"),
    ],
)
def test_too_many_or_too_long_names_the_place(patterns: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Globs(patterns, "somewhere")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: f"*a*{n}*b*",
        lambda n: "*" + chr(0x4E00 + n) + "*?" * 10,
        lambda n: f"*[!{n}]*[a-z]*",
    ],
)
def test_work_is_bounded(make) -> None:  # type: ignore[no-untyped-def]
    """The worst names for the most patterns: an answer, or an error, within seconds."""
    patterns = [make(n)[:26] for n in range(limits.GLOBS)]
    globs = Globs(patterns, "somewhere")
    names = (f"{n * 7919 % 100003}b{n}a" + chr(0x4E00 + n % 9000) for n in range(92_000))
    start = time.thread_time()
    with suppress(UsageError):
        for name in names:
            globs.first(name)
    assert time.thread_time() - start < 15
