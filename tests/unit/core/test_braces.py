"""Many names under few: each name with braces stands for exactly those behind it."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.braces import fold

_CHOICES = re.compile(r"\{([^}]*)\}")


def spelled_out(shown: str) -> set[str]:
    """The names that a name with braces stands for; none may be left out of the braces."""
    pieces = _CHOICES.split(shown)
    choices = [
        [text] if at % 2 == 0 else [name for item in text.split(",") for name in _range(item)]
        for at, text in enumerate(pieces)
    ]
    return {"".join(parts) for parts in itertools.product(*choices)}


def _range(item: str) -> list[str]:
    first, dots, last = item.partition("..")
    return [str(number) for number in range(int(first), int(last) + 1)] if dots else [item]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], []),
        (["head"], ["head"]),
        (["layer.0.w", "layer.1.w"], ["layer.{0,1}.w"]),
        (["layer.0.w", "layer.1.w", "layer.2.w"], ["layer.{0..2}.w"]),
        (["layer.4.w", "layer.0.w", "layer.1.w", "layer.2.w"], ["layer.{0..2,4}.w"]),
        (["layer.9", "layer.10", "layer.12"], ["layer.{9,10,12}"]),
        (["a.weight", "a.bias"], ["a.{bias,weight}"]),
        # A part of a number and a word: no ranges.
        (["a.0", "a.1", "a.2", "a.x"], ["a.{0,1,2,x}"]),
        # All four corners are there, then only three of them.
        (["0.q", "0.v", "1.q", "1.v"], ["{0,1}.{q,v}"]),
        (["0.q", "0.v", "1.q"], ["{0,1}.q", "0.v"]),
        # Zeros before a number are a part of the name.
        (["b.01.w", "b.02.w"], ["b.{01,02}.w"]),
        (["b.1", "b.01"], ["b.{01,1}"]),
        # Nothing in common, or another depth.
        (["a.b", "c.d"], ["a.b", "c.d"]),
        (["a", "a.b", "c"], ["{a,c}", "a.b"]),
    ],
)
def test_names_that_differ_in_one_part_are_one(names: list[str], shown: list[str]) -> None:
    assert [text for text, _ in fold(names)] == shown


def test_long_choices_are_counted_and_the_names_are_all_there() -> None:
    names = [f"part_{letter}" for letter in "abcdefgh"]
    assert fold(f"{name}.w" for name in names) == [
        (
            "{part_a,part_b,part_c,part_d,part_e,part_f,… 2 more}.w",
            tuple(f"{name}.w" for name in names),
        )
    ]


def test_a_long_run_of_numbers_is_said_in_full() -> None:
    names = [f"h.{number}" for number in range(96)]
    assert fold(names) == [("h.{0..95}", tuple(names))]


_PARTS = st.sampled_from(["0", "1", "2", "10", "q", "bias"])  # as many as are listed at most
_NAMES = st.sets(st.lists(_PARTS, min_size=1, max_size=4).map(".".join), max_size=25)


@given(_NAMES)
def test_each_stands_for_exactly_those_behind_it(names: set[str]) -> None:
    found = fold(sorted(names))
    for shown, members in found:
        assert spelled_out(shown) == set(members)
    behind = [name for _, members in found for name in members]
    assert sorted(behind) == sorted(names)


@given(_NAMES)
def test_folding_what_is_alike_does_not_depend_on_the_order(names: set[str]) -> None:
    forwards, backwards = fold(sorted(names)), fold(sorted(names, reverse=True))
    assert {text: set(found) for text, found in forwards} == {
        text: set(found) for text, found in backwards
    }
