"""A sealed place to run git commands in: nothing outside one folder is read or written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.terminal import BOLD, CYAN, END
from git_theta_ext.core.text import printable
from git_theta_ext.git import launch, outputs
from git_theta_ext.git.process import run_program

_SHOWN_LINES = 24
_CONFIG = """[user]
\tname = Demo
\temail = demo@example.org
[init]
\tdefaultBranch = main
[advice]
\tdetachedHead = false
[commit]
\tgpgSign = false
[gc]
\tauto = 0
"""


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """A folder to work in: `keep`, which stays, or a temporary one, removed whatever happens.

    Raises:
        UsageError: `keep` exists and is not an empty folder.
    """
    if keep is not None:
        try:
            outputs.check_folder(keep)
            keep.mkdir(parents=True, exist_ok=True)
            taken = any(keep.iterdir())
        except OSError as error:
            raise UsageError(f"cannot use {keep}: {error.strerror}") from error
        if taken:
            raise UsageError(f"{keep} is not empty", hint="name a new folder with --keep")
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(
        prefix="git-theta-demo-", ignore_cleanup_errors=True
    ) as temporary:
        yield Path(temporary).resolve()


@contextmanager
def sealed(root: Path) -> Iterator[None]:
    """An environment in which git sees only the configuration in `root`, and no other repository.

    GIT_DIR and its like, which a hook or an alias sets, would lead git back to the user's
    repository, so they are taken away.
    """
    saved = dict(os.environ)
    home = root / "home"
    home.mkdir(exist_ok=True)
    config = home / ".gitconfig"
    files.replace_file(config, _CONFIG.encode())
    for name in saved:
        if name.startswith("GIT_") and name != "GIT_EXEC_PATH":
            del os.environ[name]
    os.environ |= {
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(root),
        "GIT_TERMINAL_PROMPT": "0",
        "XDG_CONFIG_HOME": str(home),
    }
    try:
        # A package in the user's site folder is found through HOME; then it has to stay.
        if launch.python_command()[1:] == [launch.ISOLATED]:
            os.environ["HOME"] = str(home)
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


class Session:
    """Runs commands, and prints each of them as a user would type it, with what it printed."""

    def __init__(self, cwd: Path, *, color: bool) -> None:
        self.cwd = cwd
        self._color = color
        self._theta = [*launch.python_command(), "-m", "git_theta_ext.cli.main"]

    def say(self, text: str) -> None:
        """Print a sentence of the story."""
        print(f"  {text}", flush=True)

    def heading(self, text: str) -> None:
        """Print a heading."""
        print(f"\n{self._paint(BOLD, text)}", flush=True)

    def run(self, *arguments: str, quiet: bool = False) -> str:
        """Run `git ARGUMENTS`; what it printed.

        Raises:
            RepositoryError: it failed; carries the command and its output.
        """
        typed = " ".join(["git", *map(_typed, arguments)])
        print(self._paint(CYAN, f"  $ {typed}"), flush=True)
        command = ["git", *arguments]
        if arguments[0] == "theta":
            command = [*self._theta, *arguments[1:]]
        status, out, err = run_program(command, self.cwd)
        text = (out + err).decode("utf-8", "replace")
        if status:
            raise RepositoryError(f"{typed} failed with exit status {status}:\n{text.strip()}")
        if not quiet:
            self._show(text.splitlines())
        return out.decode("utf-8", "replace")

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines[:_SHOWN_LINES]:
            print(f"    {printable(line.expandtabs())}", flush=True)
        if len(lines) > _SHOWN_LINES:
            print(f"    ... and {len(lines) - _SHOWN_LINES} more lines", flush=True)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{END}" if self._color else text


def _typed(word: str) -> str:
    plain = all(char.isalnum() or char in "-_./:=@~^+," for char in word)
    return word if plain and word else "'" + printable(word).replace("'", "'\\''") + "'"


def folder_bytes(path: Path) -> int:
    """The sum of the sizes of all files below a folder."""
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
