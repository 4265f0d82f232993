"""What is written acts on no terminal; colours by Git's rules."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping

import pytest

from git_theta_ext.core import terminal
from git_theta_ext.core.terminal import HarmlessStream, harmless_streams, wants_colour

EVIL = "\x1b]0;own\x07 \x1b[31mred \x1b[1A \r\b\x7f\x9b2J \u202e\u200b\u2066 \udc9b \t\x00\u3164"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("coloured", [False, True])
def test_only_our_colours_pass_and_only_where_colours_are_wanted(coloured: bool) -> None:
    below = io.StringIO()
    stream = HarmlessStream(below)
    stream.coloured = coloured
    stream.write(f"{terminal.RED}a{terminal.END}\n\x1b[35mb\x1b[2Kc\n")
    left = "\x1b[31ma\x1b[m" if coloured else "\\x1b[31ma\\x1b[m"
    assert below.getvalue() == f"{left}\n\\x1b[35mb\\x1b[2Kc\n"


def test_whatever_is_written_is_harmless() -> None:
    below = io.StringIO()
    HarmlessStream(below).write(f"{EVIL}\n✏️\n")
    assert below.getvalue().count("\n") == 2
    assert all(char.isprintable() or char == "\n" for char in below.getvalue())
    assert "✏️" in below.getvalue()


def test_a_progress_line_is_redrawn_and_its_name_is_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below = Terminal()
    monkeypatch.setattr(sys, "stderr", below)
    terminal.redraw(EVIL)
    text = below.getvalue()
    assert text[0] == "\r"
    assert text[1:].isprintable()


def test_streams_are_given_back_but_not_to_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with harmless_streams():
        print(EVIL)
        with harmless_streams():
            print(EVIL, file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    with pytest.raises(SystemExit), harmless_streams():
        raise SystemExit(2)
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert out == err
    assert out.strip().isprintable()
    with pytest.raises(ValueError, match="own"), harmless_streams():
        raise ValueError(EVIL)
    assert isinstance(sys.stderr, HarmlessStream)
    sys.stdout, sys.stderr = before


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("::add-mask::x", "\\x3a:add-mask::x"),
        ("a\n  ::error::b", "a\n  \\x3a:error::b"),
        ("x ##[group]y", "x \\x23#[group]y"),
        ("a::b ## c", "a::b ## c"),
    ],
)
def test_a_runner_is_given_no_commands(line: str, shown: str) -> None:
    below = io.StringIO()
    HarmlessStream(below, in_workflow=True).write(line)
    assert below.getvalue() == shown
    plain = io.StringIO()
    HarmlessStream(plain).write(line)
    assert plain.getvalue() == line


TERM = {"TERM": "xterm"}


@pytest.mark.parametrize(
    ("option", "settings", "environment", "on_terminal", "wanted"),
    [
        ("auto", {}, TERM, True, True),
        ("auto", {}, TERM, False, False),
        ("auto", {}, TERM | {"GIT_PAGER_IN_USE": "true"}, False, True),
        ("auto", {}, {}, True, False),
        ("auto", {}, {"TERM": "dumb"}, True, False),
        ("auto", {}, TERM | {"NO_COLOR": "1"}, True, False),
        ("auto", {}, TERM | {"NO_COLOR": ""}, True, True),
        ("always", {"color.ui": "false"}, {"NO_COLOR": "1"}, False, True),
        ("never", {"color.ui": "always"}, TERM, True, False),
        ("auto", {"color.ui": "always"}, {"NO_COLOR": "1", "TERM": "dumb"}, False, True),
        ("auto", {"color.ui": "Always"}, {}, False, True),
        ("auto", {"color.ui": "false"}, TERM, True, False),
        ("auto", {"color.ui": "never"}, TERM, True, False),
        ("auto", {"color.ui": "true"}, TERM, True, True),
        ("auto", {"color.ui": "true"}, TERM, False, False),
        ("auto", {"color.ui": "auto"}, TERM, True, True),
        ("auto", {"color.ui": "false", "color.diff": "always"}, TERM, False, True),
        ("auto", {"color.ui": "always", "color.diff": "no"}, TERM, True, False),
    ],
)
def test_colours_by_gits_rules(
    option: str,
    settings: Mapping[str, str],
    environment: Mapping[str, str],
    on_terminal: bool,
    wanted: bool,
) -> None:
    stream = Terminal() if on_terminal else io.StringIO()
    assert wants_colour(option, settings.get, environment, stream) is wanted
