"""What every verb has: `-q`, `-v`, `-n`, `--json` also for errors, colours, the pager."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from git_theta_ext.cli import main as program
from git_theta_ext.cli.frame import options, pager
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.core.errors import MissingObjectError
from git_theta_ext.core.terminal import wants_colour
from git_theta_ext.git.process import run_git

COUNTING = {"log", "scores"}
"""Where `-n` is a number, as in `git log`."""


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a verb do what a test wants."""

    real = importlib.import_module

    def make(name: str, run: Callable[[Any], int], *own: str) -> None:
        def add_parser(subparsers: Any) -> None:
            parser = subparsers.add_parser(name)
            for option in own:
                parser.add_argument(option, action="store_true")
            parser.set_defaults(run=run)

        fake = SimpleNamespace(add_parser=add_parser)
        monkeypatch.setattr(
            importlib, "import_module", lambda one: fake if ".verbs." in one else real(one)
        )

    return make


@pytest.mark.parametrize("name", program.VERBS)
def test_every_verb_takes_the_same_options(name: str) -> None:
    found = program.parser_of(name)[1]._option_string_actions
    assert {"-h", "-q", "--quiet", "-v", "--verbose"} <= set(found)
    assert ("--json" in found) == (name not in options.NO_JSON)
    if "--dry-run" in found:
        assert found["-n"] is found["--dry-run"]
    elif "-n" in found:
        assert name in COUNTING
        assert "--max-count" in found["-n"].option_strings


def test_the_sets_name_verbs() -> None:
    assert set(program.VERBS) >= options.ACTING | options.NO_JSON | pager.PAGED


def test_quiet_leaves_out_what_was_done_and_no_answer(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        print("said")
        print("warning", file=sys.stderr)
        assert not sys.stdout.isatty()
        return 0

    for name, shown in (("fetch", ""), ("status", "said\n")):
        verb(name, run)
        assert program.main([name, "-q"]) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == (shown, "warning\n")


def test_verbose_names_the_programs(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        run_git(["--version"], Path.cwd())
        return 0

    verb("version", run)
    assert program.main(["version", "-v"]) == 0
    assert capsys.readouterr().err.endswith("git --version\n")
    assert program.main(["version"]) == 0
    assert capsys.readouterr().err == ""


def test_an_error_is_json_too(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise MissingObjectError("gone", hint="git theta fetch")

    verb("status", run)
    assert program.main(["status", "--json"]) == 6
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {"kind": "MissingObject", "message": "gone", "hint": "git theta fetch",
                  "exit_code": 6}
    }  # fmt: skip
    assert captured.err == "git theta: error: gone\n  hint: git theta fetch\n"
    assert program.main(["status", "--json", "--nope"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["exit_code"] == 2
    assert "usage: git theta status" in captured.err
    assert program.main(["status", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_there_is_one_document_even_if_an_error_follows(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        print('{"done": 1}')
        raise MissingObjectError("gone")

    verb("du", run, "--json")
    assert program.main(["du", "--json"]) == 6
    assert json.loads(capsys.readouterr().out) == {"done": 1}


def test_lines_and_facts_of_a_verb_without_json_of_its_own(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        fact("patterns", ["*.pt"])
        print("Untracking\nNow run: git add")
        return 1

    verb("untrack", run)
    assert program.main(["untrack", "--json", "-q"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "exit_code": 1, "patterns": ["*.pt"], "lines": ["Untracking", "Now run: git add"]
    }  # fmt: skip
    assert program.main(["untrack"]) == 1
    assert capsys.readouterr().out == "Untracking\nNow run: git add\n"


@pytest.mark.parametrize(
    ("option", "settings", "environment", "wanted"),
    [
        ("auto", {}, {"TERM": "xterm"}, True),
        ("auto", {}, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("always", {"color.ui": "never"}, {"NO_COLOR": "1"}, True),
        ("auto", {"color.ui": "false"}, {"TERM": "xterm"}, False),
        ("auto", {"color.theta": "never", "color.ui": "always"}, {"TERM": "xterm"}, False),
        ("auto", {"color.diff": "always", "color.ui": "false"}, {}, True),
        ("auto", {"color.pager": "false"}, {"TERM": "xterm", "GIT_PAGER_IN_USE": "1"}, False),
        ("auto", {}, {"TERM": "dumb"}, False),
    ],
)
def test_colours_follow_git_and_no_color(
    option: str, settings: dict[str, str], environment: dict[str, str], wanted: bool
) -> None:
    terminal: Any = SimpleNamespace(isatty=lambda: True)
    assert wants_colour(option, settings.get, environment, terminal) is wanted


@pytest.mark.skipif(os.name != "posix", reason="Git starts the pager there, if any is")
@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"GIT_PAGER": "sed s/^/paged:/"}, b"paged:usage"),
        ({"GIT_PAGER": "cat"}, b"usage"),
        ({"GIT_PAGER": "sed s/^/paged:/", "GIT_CONFIG_COUNT": "1",
          "GIT_CONFIG_KEY_0": "pager.theta", "GIT_CONFIG_VALUE_0": "false"}, b"usage"),
        ({"GIT_PAGER": "sed s/^/paged:/", "GIT_PAGER_IN_USE": "true"}, b"usage"),
    ],
)  # fmt: skip
def test_the_pager_is_that_of_git(
    settings: dict[str, str], shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pty

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if "GIT_PAGER_IN_USE" not in settings:
        monkeypatch.delenv("GIT_PAGER_IN_USE", raising=False)
    ours, its = pty.openpty()
    before = os.dup(1)
    os.dup2(its, 1)
    try:
        with os.fdopen(os.dup(1), "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            with pager.paged("log"):
                os.write(1, b"usage\n")
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(its)
    assert os.read(ours, 1000).replace(b"\r\n", b"\n") == shown + b"\n"
    os.close(ours)
