"""Text for a terminal: nothing in a name may act on it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext import text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("encoder.0.weight", "encoder.0.weight"),
        ("größe", "größe"),
        ("a\nerror: b", "a\\nerror: b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202egpj", "\\u202egpj"),
        ("caf\udce9", "caf\\xe9"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_names_are_made_harmless(name: str, shown: str) -> None:
    assert text.printable(name) == shown


@given(st.text(st.characters()))
def test_what_is_shown_is_printable_and_one_line(name: str) -> None:
    shown = text.printable(name)
    assert all(char.isprintable() for char in shown)
    assert len(shown) >= len(name)


def test_only_the_first_line_of_a_message_starts_at_the_margin() -> None:
    assert text.paragraph("git failed:\nhint: x\n\x07") == "git failed:\n  hint: x\n  \\x07"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_plurals() -> None:
    assert [text.plural(n, "tensor") for n in (0, 1, 1024)] == [
        "0 tensors",
        "1 tensor",
        "1,024 tensors",
    ]


def test_a_table_is_aligned_and_has_no_blanks_at_line_ends() -> None:
    assert text.table([["a", "bcd", ""], ["abc", "d"]]) == ["a    bcd", "abc  d"]
    assert text.table([]) == []


def test_json_is_ascii_and_carries_any_name() -> None:
    value = {"path": "caf\udce9"}
    shown = text.to_json(value)
    assert shown.isascii()
    assert json.loads(shown) == value
