"""Git where no configuration of the machine is seen, for runs outside of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def environment(home: Path) -> dict[str, str]:
    """The variables of a process that sees no configuration but `home`'s."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_"))}
    return {
        **inherited,
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
        "LC_ALL": "C",
    }


class Repository:
    """A work tree with the extension installed, and the commands that are run in it."""

    def __init__(self, folder: Path, *patterns: str) -> None:
        """Make it in `folder / "repo"`, tracking these patterns."""
        self.path = folder / "repo"
        self.path.mkdir(parents=True)
        self.environment = environment(folder)
        self.git("init", "-q", "-b", "main")
        self.theta("install", "--local")
        self.theta("track", *patterns)

    def run(
        self, *command: str, ok: tuple[int, ...] | None = (0,), env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command here; any exit status is accepted where `ok` is None.

        Raises:
            RuntimeError: another exit status than expected.
        """
        done = subprocess.run(
            command, cwd=self.path, env={**self.environment, **(env or {})}, timeout=600,
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if ok is not None and done.returncode not in ok:
            said = done.stderr.decode("utf-8", "replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {said}")
        return done

    def git(self, *arguments: str) -> str:
        """What git prints."""
        return os.fsdecode(self.run("git", *arguments).stdout)

    def theta(self, *arguments: str, ok: tuple[int, ...] | None = (0,)) -> int:
        """The exit status of `git theta`."""
        command = (sys.executable, "-m", "git_theta_ext.cli.main", *arguments)
        return self.run(*command, ok=ok).returncode

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the work tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def commit(self, message: str) -> None:
        """Add everything and commit it."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def object_path(self, oid: str) -> Path:
        """Where the store keeps an object."""
        return self.path / ".git/theta/objects" / oid[:2] / oid[2:4] / oid
