"""Places where nothing may be written, links that lead there, and many commands that may try."""

from __future__ import annotations

import json
import sys

import numpy as np

from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.repositories import Repo

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
A = np.arange(1000, dtype=np.float32)


class Trap:
    """What links lead to, and how it was."""

    def __init__(self, repo: Repo) -> None:
        self.repo, self.outside = repo, repo.path.parent / "outside"
        self.ran = repo.path.parent / "ran"
        (self.outside / "deep").mkdir(parents=True)
        (self.outside / "victim").write_text(SECRET)
        (self.outside / "victim").chmod(0o600)
        self.arm()

    @property
    def hostile(self) -> str:
        """A configuration that runs a command whenever Git looks for changes."""
        return f'[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "touch {self.ran}; false"\n'

    def arm(self) -> None:
        """Remember how everything is now."""
        self.before = self._all()

    def _all(self) -> dict[str, object]:
        found: dict[str, object] = {}
        git = self.repo.path / ".git"
        for path in (*self.outside.rglob("*"), git / "config", *(git / "hooks").iterdir()):
            seen = path.lstat()
            text = path.read_bytes() if path.is_file() else None
            found[str(path)] = (seen.st_mode, seen.st_mtime_ns, text)
        return found

    def check(self) -> None:
        """Nothing that a link leads to is changed, and nothing was run."""
        assert self._all() == self.before
        self.repo.git("status")
        assert not self.ran.exists()
        assert not list(self.repo.path.rglob(".*.theta-*"))


def link(repo: Repo, name: str, target: str) -> None:
    """Put a link where there was a file, a folder or nothing."""
    path = repo.path / name
    if path.is_dir() and not path.is_symlink():
        path.rename(repo.path.parent / f"aside-{path.name}")
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def in_conflict(repo: Repo, name: str = NAME) -> None:
    """A merge that stopped at a tensor which both sides changed."""
    tensors = {"w": A}
    repo.write(name, safetensors(tensors))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "theirs")
    repo.write(name, safetensors({"w": A * np.float32(3)}))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    repo.write(name, safetensors({"w": A * np.float32(5)}))
    repo.commit("ours")
    repo.run("git", "merge", "theirs", ok=(1,))


ALL = """
import contextlib, io, json, os, sys
from git_theta_ext.cli.main import main
for words in json.loads(sys.argv[1]):
    print("$", ascii(words), flush=True)
    try:
        print("exit", main(words))
    except Exception as error:
        print("BUG", ascii(words), repr(error))
"""


def run_all(repo: Repo, commands: list[list[str]], env: dict[str, str] | None = None) -> bytes:
    """Run many commands, one after the other, in one process; what they print."""
    done = repo.run(sys.executable, "-I", "-c", ALL, json.dumps(commands), env=env)
    assert b"\nBUG" not in done.stdout, done.stdout
    assert done.stdout.count(b"\nexit") >= len(commands) - 1
    return done.stdout + done.stderr
