"""git mergetool in a real terminal, and git theta mergetool without one."""

from __future__ import annotations

import curses
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pyte
import pytest

from git_theta_ext.cli.verbs.mergetool import full_screen
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME
from tests.scenarios.collisions import BASE, OURS, THEIRS, mean
from tests.scenarios.merges import QUERY, VALUE, branches, content, st
from tests.scenarios.repositories import Repo

_ROWS, _COLUMNS = 24, 80
_PATIENCE = 60.0


class Terminal:
    """A command in a pseudo-terminal, and the screen that its user would see."""

    def __init__(self, repo: Repo, *command: str) -> None:
        self._master, slave = pty.openpty()
        # Variables that say a size have precedence over the terminal's own.
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self._screen = pyte.Screen(_COLUMNS, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.process = subprocess.Popen(
            command, cwd=repo.path, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**inherited, "TERM": "linux", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        os.close(slave)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, seen: Callable[[str], bool]) -> str:
        """Wait until the screen shows something; the screen."""
        end = time.monotonic() + _PATIENCE
        while not seen(self.text):
            assert time.monotonic() < end, self.text
            assert self._read(), self.text
        return self.text

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 0.2)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self._stream.feed(data)
        return bool(data)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """Read until the command ends; its exit status."""
        end = time.monotonic() + _PATIENCE
        while self._read() and time.monotonic() < end:
            if self.process.poll() is not None:
                break
        return self.process.wait(_PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def conflicted(repo: Repo) -> Repo:
    """Two tensors in conflict."""

    def make() -> None:
        branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS))
        repo.run("git", "merge", "side", ok=(1,))

    repo.once(make)
    return repo


@pytest.fixture
def tool(conflicted: Repo) -> Iterator[Terminal]:
    terminal = Terminal(conflicted, "git", "mergetool", "--no-prompt", "--tool=theta", NAME)
    yield terminal
    terminal.close()


def row(text: str, number: int) -> list[str]:
    """The cells of a row of the table, behind the tensor's name, which may be cut."""
    return text.splitlines()[2 + number].split()[1:]


def test_settled_with_the_keyboard_alone(conflicted: Repo, tool: Terminal) -> None:
    shown = tool.until(lambda text: "w accept" in text)
    assert f"{NAME}: 2 of 2 parts open" in shown
    assert "why: both sides changed 4,096 of 4,096 entries" in shown
    tool.type("t")
    tool.until(lambda text: row(text, 0) == ["changed", "changed", "theirs", "1.000", "0.000"])
    tool.type("u")
    tool.until(lambda text: "2 of 2 parts open" in text)
    tool.type("t\x1b[B")  # the arrow downwards
    tool.until(lambda text: "1 of 2 parts open" in text)
    tool.type("saverage")
    tool.until(lambda text: "strategy: average_" in text)
    tool.type("\r")
    tool.until(lambda text: row(text, 1)[2:] == ["average", "0.500", "0.500"])
    assert f"{NAME}: 0 of 2 parts open" in tool.text
    tool.type("w")
    assert tool.wait() == 0
    assert content(conflicted) == st(BASE, {QUERY: THEIRS[QUERY], VALUE: mean(VALUE)})
    conflicted.git("commit", "-q", "--no-edit")
    assert conflicted.git("status", "--porcelain", "-uno") == ""
    assert content(conflicted) == st(BASE, {QUERY: THEIRS[QUERY], VALUE: mean(VALUE)})


def test_quitting_leaves_all_as_it_was(conflicted: Repo, tool: Terminal) -> None:
    tool.until(lambda text: "w accept" in text)
    tool.type("av")
    tool.until(lambda text: "0 of 2 parts open" in text)
    tool.type("q")
    assert tool.wait() == 1
    assert content(conflicted) == st(BASE, OURS)
    assert conflicted.git("ls-files", "-u").count(NAME) == 3
    assert "2 parts open" in conflicted.theta("resolve", NAME, ok=(1,))


def test_without_a_full_screen_the_same_is_typed(conflicted: Repo) -> None:
    typed = b"1 tis\n1 theirs\n7 ours\nundo\n1 base\nall ours\nlist\naccept\n"
    done = conflicted.run("git-theta", "mergetool", NAME, stdin=typed)
    shown = done.stdout.decode()
    assert "unknown merge strategy 'tis'" in shown
    assert "NUMBER STRATEGY" in shown
    assert f"{NAME}: 0 of 2 parts open" in shown
    assert content(conflicted) == st(BASE, {QUERY: BASE[QUERY], VALUE: OURS[VALUE]})
    # What was chosen is known to the other commands.
    conflicted.theta("resolve", NAME, "--undo", ok=(1,))


def test_accepting_a_part_leaves_the_rest_in_conflict(conflicted: Repo) -> None:
    typed = b"2 theirs\naccept\naccept\n"
    done = conflicted.run("git-theta", "mergetool", "--plain", NAME, stdin=typed, ok=(1,))
    assert b"1 open; accept again" in done.stdout
    assert content(conflicted) == st(BASE, {QUERY: OURS[QUERY], VALUE: THEIRS[VALUE]})
    assert conflicted.git("ls-files", "-u").count(NAME) == 3
    done = conflicted.run("git-theta", "mergetool", NAME, stdin=b"all ours\n", ok=(1,))
    assert b"left as it was" in done.stdout


def test_what_was_written_can_be_taken_back(conflicted: Repo) -> None:
    typed = b"1 theirs\naccept\naccept\n"
    conflicted.run("git-theta", "mergetool", NAME, stdin=typed, ok=(1,))
    done = conflicted.run("git-theta", "mergetool", NAME, stdin=b"undo\nquit\n", ok=(1,))
    do(conflicted, only(done.stdout.decode(), "--undo"), ok=(0, 1))
    assert content(conflicted) == st(BASE, OURS)
    assert "2 parts open" in conflicted.theta("resolve", NAME, ok=(1,))


def test_a_file_that_is_not_in_conflict(repo: Repo) -> None:
    repo.write(NAME, st(BASE))
    repo.commit("base")
    assert b"is not in conflict" in repo.run("git-theta", "mergetool", NAME, ok=(2,)).stderr


def test_a_terminal_that_is_gone_ends_it() -> None:
    class Gone:
        """A window of a terminal that hung up: every read fails at once."""

        def getmaxyx(self) -> tuple[int, int]:
            return 24, 80

        def get_wch(self) -> str:
            raise curses.error("no input")

        def erase(self) -> None: ...

        def refresh(self) -> None: ...

    board = SimpleNamespace(screen=lambda width, height: ([], 0), press=lambda key: "")
    fake = SimpleNamespace(**{**vars(curses), "curs_set": lambda visible: None})
    assert full_screen(cast(Any, board), Gone(), fake) == "quit"


def settle_all(terminal: Terminal, keys: str) -> None:
    """Settle all that is open and accept."""
    terminal.until(lambda text: "w accept" in text)
    terminal.type(keys)
    terminal.until(lambda text: "0 of 2 parts open" in text)
    terminal.type("w")


@pytest.fixture
def chosen(conflicted: Repo) -> Iterator[Terminal]:
    """Git's mergetool without a word of which tool."""
    terminal = Terminal(conflicted, "git", "mergetool", NAME)
    yield terminal
    terminal.close()


def test_git_picks_it_and_its_last_line_is_true(conflicted: Repo, chosen: Terminal) -> None:
    settle_all(chosen, "at")
    assert chosen.wait() == 0
    shown = chosen.until(lambda text: "keepBackup" in text)
    assert f"{NAME}: written; git mergetool adds it now" in shown
    assert "to take it" not in shown
    assert f"{NAME}.orig will be the file as it was before" in " ".join(shown.split())
    do(conflicted, only(shown, "keepBackup"))
    assert conflicted.git("config", "mergetool.keepBackup").strip() == "false"
    assert conflicted.git("ls-files", "-u") == ""
    assert (conflicted.path / f"{NAME}.orig").exists()
    conflicted.git("add", "-A")
    assert f"{NAME}.orig" not in conflicted.git("ls-files")
    assert conflicted.status() == f"M  {NAME}\n"


def test_without_backups_nothing_is_said_of_them(conflicted: Repo) -> None:
    conflicted.git("config", "mergetool.keepBackup", "false")
    terminal = Terminal(conflicted, "git", "mergetool", NAME)
    settle_all(terminal, "at")
    assert terminal.wait() == 0
    assert ".orig" not in terminal.text
    terminal.close()
    assert not (conflicted.path / f"{NAME}.orig").exists()
    assert "orig" not in (conflicted.path / ".git/info/exclude").read_text()


@pytest.mark.parametrize("key", ["q", "\x1b", "\x03", "\x04"])
def test_leaving_keeps_the_choices_for_the_next_start(
    conflicted: Repo, tool: Terminal, key: str
) -> None:
    tool.until(lambda text: "w accept" in text)
    tool.type("t\x1b[Bv")
    tool.until(lambda text: "0 of 2 parts open" in text)
    tool.type(key)
    assert tool.wait() == 1
    shown = " ".join(tool.until(lambda text: "mergetool " + NAME in text).split())
    assert "2 choices are kept for the next start" in shown
    # No copies of the file are left behind.
    assert sorted(one.name for one in conflicted.path.iterdir() if NAME[:5] in one.name) == [NAME]
    again = re.search(r"mergetool \S+", shown)  # the terminal may break the line before that
    assert again
    done = conflicted.run("sh", "-c", f"git theta {again[0]}", stdin=b"accept\n")
    assert b"2 choices kept from the last start; undo takes them back" in done.stdout
    add = only(done.stdout.decode(), "git add")
    assert content(conflicted) == st(BASE, {QUERY: THEIRS[QUERY], VALUE: mean(VALUE)})
    done = conflicted.run("git-theta", "mergetool", NAME, stdin=b"quit\n", ok=(1,))
    assert b"kept from" not in done.stdout
    do(conflicted, add)
    assert conflicted.status() == f"M  {NAME}\n"


def test_a_terminal_that_closes_keeps_the_choices(conflicted: Repo) -> None:
    terminal = Terminal(conflicted, "git-theta", "mergetool", NAME)
    terminal.until(lambda text: "w accept" in text)
    terminal.type("at")
    terminal.until(lambda text: "0 of 2 parts open" in text)
    terminal.process.send_signal(signal.SIGHUP)
    terminal.wait()
    terminal.close()
    done = conflicted.run("git-theta", "mergetool", NAME, stdin=b"", ok=(1,))
    assert b"1 choice kept from the last start" in done.stdout
    assert b"0 of 2 parts open" in done.stdout


def test_a_part_is_not_written_where_git_would_put_the_old_file_back(
    conflicted: Repo, tool: Terminal
) -> None:
    tool.until(lambda text: "w accept" in text)
    tool.type("tw")
    shown = tool.until(lambda text: "keeps your choices" in " ".join(text.split()))
    assert "1 open: git mergetool marks a whole file as merged" in " ".join(shown.split())
    tool.type("w")
    assert tool.wait() == 1
    assert content(conflicted) == st(BASE, OURS)
    done = conflicted.run("git-theta", "mergetool", NAME, stdin=b"accept\naccept\n", ok=(1,))
    assert b"1 of 2 parts open" in done.stdout
    assert content(conflicted) == st(BASE, {QUERY: THEIRS[QUERY], VALUE: OURS[VALUE]})


def test_a_mistyped_strategy_stays_to_be_corrected(conflicted: Repo, tool: Terminal) -> None:
    tool.until(lambda text: "w accept" in text)
    tool.type("stheirz\r")
    shown = tool.until(lambda text: "did you mean: theirs" in text)
    assert "strategy: theirz_" in shown
    tool.type("\x7fs\r")
    tool.until(lambda text: row(text, 0)[2:] == ["theirs", "1.000", "0.000"])
    done = conflicted.run(
        "git-theta", "mergetool", NAME, stdin=b"1 avrage\nacept\n9 ours\n", ok=(1,)
    )
    for words in (
        b"did you mean: average",
        b"did you mean: accept",
        b"there is no line 9: the table",
    ):
        assert words in done.stdout


def test_other_files_go_to_the_tool_that_git_would_take(repo: Repo) -> None:
    repo.write("notes.txt", b"base\n")
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    repo.write("notes.txt", b"theirs\n")
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    repo.write("notes.txt", b"ours\n")
    repo.commit("ours")
    repo.run("git", "merge", "side", ok=(1,))
    programs = repo.path.parent / "programs"
    programs.mkdir()
    # The first of the tools that Git tries: it is given the four files.
    fake = programs / "tortoisemerge"
    fake.write_text('#!/bin/sh\nfor last; do :; done\nprintf "merged\\n" > "$MERGED_FILE"\n')
    fake.chmod(0o755)
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
           "MERGED_FILE": str(repo.path / "notes.txt")}  # fmt: skip
    done = repo.run("git", "mergetool", "notes.txt", stdin=b"\ny\n", env=env)
    assert (repo.path / "notes.txt").read_bytes() == b"merged\n"
    assert b"tortoisemerge" in done.stdout
    assert repo.git("ls-files", "-u") == ""


def test_other_peoples_tool_stays(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("other", install=False)
    repo.git("config", "--global", "merge.tool", "meld")
    assert "merge.tool" not in repo.theta("install")
    assert repo.git("config", "--global", "merge.tool").strip() == "meld"
    repo.theta("uninstall")
    assert repo.git("config", "--global", "merge.tool").strip() == "meld"
    repo.git("config", "--global", "--unset", "merge.tool")
    assert "merge.tool = theta" in repo.theta("install")
    repo.git("config", "--global", "merge.tool", "vimdiff")
    assert "already set up" in repo.theta("install")
    repo.git("config", "--global", "merge.tool", "theta")
    repo.theta("uninstall")
    assert repo.git("config", "--global", "merge.tool", ok=(1,)) == ""
