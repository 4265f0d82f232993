"""Finding a verb, and reporting what went wrong."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import git_theta_ext
from git_theta_ext.cli import main as program
from git_theta_ext.core.errors import CorruptObjectError, StoreError, ThetaError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the verb `version` raise what a test wants."""

    def make(error: BaseException) -> None:
        def run(args: argparse.Namespace) -> int:
            raise error

        def add_parser(subparsers: Any) -> None:
            subparsers.add_parser("version").set_defaults(run=run)

        fake = SimpleNamespace(add_parser=add_parser)
        monkeypatch.setattr(importlib, "import_module", lambda name: fake)

    return make


@pytest.mark.parametrize("name", program.VERBS)
def test_the_overview_says_of_a_verb_what_the_verb_says(name: str) -> None:
    module, text = program.VERBS[name]
    subparsers = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f"git_theta_ext.cli.verbs.{module}").add_parser(subparsers)
    (own,) = (action.help for action in subparsers._choices_actions if action.dest == name)
    assert own == text


@pytest.mark.parametrize("name", program.VERBS)
def test_every_verb_has_a_module_with_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([name, "-h"]) == 0
    assert f"usage: git theta {name}" in capsys.readouterr().out
    assert program.main(["help", name]) == 0
    assert capsys.readouterr().out.startswith(f"NAME\n\n    git-theta-{name} - ")


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-h"], ["help"]):
        assert program.main(arguments) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in program.VERBS)
        assert all(f"\n\n{text}\n  {name} " in shown for name, text in program._HEADINGS.items())


def test_a_full_disk_is_no_error_of_ours(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verb(OSError(errno.ENOSPC, "No space left on device", "a/b"))
    assert program.main(["version"]) == StoreError.exit_code
    assert capsys.readouterr().err == "git theta: error: no space is left on the disk for a/b\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
def test_output_to_a_full_disk() -> None:
    command = [sys.executable, "-m", "git_theta_ext.cli.main", "version"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == StoreError.exit_code
    assert done.stderr == "git theta: error: no space is left on the disk\n"


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("migrate import --everythign", " (did you mean --everything?)"),
        ("diff HEAD --html", " (did you mean --format html?)"),
        ("log --zzz", ""),
    ],
)
def test_an_option_that_was_likely_meant(
    command: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(command.split()) == 2
    before, _, wrong = command.rpartition(" --")
    said = capsys.readouterr().err
    assert f": error: unrecognized arguments: --{wrong}{meant}\n" in said
    assert said.startswith(f"usage: git theta {before.removesuffix(' HEAD')} [")


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: git theta" in captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out == f"git-theta-ext {git_theta_ext.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("instal", "did you mean: git theta install"), ("xyzzy", "git theta -h"), ("--x", "theta -h")],
)
def test_an_unknown_verb_suggests_the_nearest(
    typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([typed]) == 2
    error = capsys.readouterr().err
    assert error.startswith("git theta: error: ")
    assert hint in error


def test_an_unknown_option_of_a_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["version", "--nope"]) == 2
    assert "--nope" in capsys.readouterr().err


def test_an_error_has_its_message_hint_and_exit_code(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(CorruptObjectError("tensor a\nb\x1b[0m is damaged", hint="git theta fetch"))
    assert program.main(["version"]) == CorruptObjectError.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "git theta: error: tensor a\n  b\\x1b[0m is damaged\n  hint: git theta fetch\n"
    )


def test_an_error_without_a_hint(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verb(ThetaError("no"))
    assert program.main(["version"]) == 1
    assert capsys.readouterr().err == "git theta: error: no\n"


def test_an_interrupt_ends_as_in_a_shell(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verb(KeyboardInterrupt())
    assert program.main(["version"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_quiet() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "git_theta_ext.cli.main", "-h"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait() == 141


def test_no_verb_imports_more_than_itself() -> None:
    """Start-up matters: `git theta -h` needs neither NumPy nor Git's libraries."""
    code = (
        "import sys; from git_theta_ext.cli.main import main; main(['-h']);"
        "print(sorted({'numpy', 'git', 'pygit2', 'torch', 'safetensors'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stauts", "status"),
        ("sttaus", "status"),
        ("statu", "status"),
        ("lsfiles", "ls-files"),
        ("comit", None),
        ("pul", "pull"),
        ("psuh", "push"),
        ("merg", "merge"),
        ("mergetol", "mergetool"),
        ("ver", "version"),
        ("frobnicate", None),
        ("x" * 10_000, None),
    ],
)
def test_a_misspelt_verb_suggests_the_nearest(typed: str, meant: str | None) -> None:
    assert program.nearest(typed, program.VERBS) == meant
