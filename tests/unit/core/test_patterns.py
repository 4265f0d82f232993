"""Patterns with braces: what they stand for, and that they cannot stand for too much."""

from __future__ import annotations

import time

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.patterns import expand, select


def test_braces_are_names_and_ranges() -> None:
    assert expand("a.{0..2}.{x,y}") == ["a.0.x", "a.0.y", "a.1.x", "a.1.y", "a.2.x", "a.2.y"]
    assert expand("{a,{b,c}}") == ["a", "b", "a", "c"]
    assert select(["w.1", "w.2", "b"], ["w.{1,3}", "b*"]) == ["w.1", "b"]


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..99999}",
        "{0..9999}{0..9999}",
        "{a,b}" * 13 + "{a}" * 1000,
        "{a,b}" * 800,
        "{0..9{}09{}>" + "O" * 3000 + "{0..99}{0..9{0..9}}",
        "{0..9998}" + "[a*" * 20,
    ],
)
def test_braces_that_stand_for_too_much_are_refused_soon(pattern: str) -> None:
    start = time.thread_time()
    with pytest.raises(UsageError, match="10000 names"):
        expand(pattern)
    assert time.thread_time() - start < 2
