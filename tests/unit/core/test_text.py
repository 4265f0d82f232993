"""Text for a terminal: nothing in a name may act on it."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core import text


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


def test_json_has_no_del() -> None:
    assert "\x7f" not in text.to_json({"\x7f": ["\x7f\x1b"]})
    assert json.loads(text.to_json({"\x7f": "\x7f"})) == {"\x7f": "\x7f"}


@pytest.mark.parametrize("name", ["a\u3164b", "a\ufe0fb", "a\u2800b", "a\u034fb", "a\U000e0101b"])
def test_what_nobody_sees_is_shown(name: str) -> None:
    assert text.printable(name).isascii()


def test_what_a_program_printed_is_passed_on_harmless() -> None:
    data = "error:\n\tm\x1b[2J\r\nm\x9b \N{LATIN SMALL LETTER E WITH ACUTE}".encode() + b"\x9b\n"
    assert text.from_program(data) == "error:\n        m\\x1b[2J\nm\\x9b é\\x9b\n"


ACTIVE = re.compile(r"[@#*_`~$|\[\]<>:\\]|www\.|GH-|[0-9a-f]{7}", re.IGNORECASE)
NAMES = [
    "@octocat", "@o/team", "#1", "GH-2", "o/r#3", "u@0123456", "0123456789abcdef", "a@b.org",
    "http://x.org", "www.x.org", ":tada:", "<img src=x>", "</code>@x", "[a](b)", "![a](b)",
    "$x$", "`", "``@x``", "a|b", "**b**", "~~s~~", "&#64;x", "\\@x", "<!-- -->", "",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_markdown_is_code_and_nothing_else(name: str) -> None:
    code = text.markdown_code(name)
    assert code.startswith("<code>")
    assert code.endswith("</code>")
    inner = code[6:-7].replace("<!-- -->", "")
    assert html.unescape(inner) == name
    rest = re.sub(r"&#\d+;", "", inner)
    assert not re.search(r"[@#*_`~$|\[\]<>:&\\]|www\.", rest)


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_in_markdown_has_nothing_active_outside_code(name: str) -> None:
    shown = text.markdown_text(f"{name} was (not) committed, in {name}.safetensors: 3 files.")
    outside = re.sub(r"<code>.*?</code>", "", shown)
    assert not ACTIVE.search(re.sub(r"\\[().:,%]", "", outside))
    assert "was \\(not\\) committed" in outside


def test_an_annotation_is_one_line_and_one_property() -> None:
    assert text.annotation("a\n::error::b%0A\r") == "a ::error::b%250A\\r"
    assert text.annotation_property("a:b,c") == "a%3Ab%2Cc"
