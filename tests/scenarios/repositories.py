"""Repositories in which tests run real git."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class Repo:
    """A work tree and the commands that are run in it."""

    kept: ClassVar[Path]
    _results: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: Path) -> None:
        self.path = path

    def once(self, make: Callable[[], T], *arguments: object) -> T:
        """What `make` does to this repository, and returns; done once, then copied.

        Many tests begin with the same history. What they begin with depends on what is in the
        repository, on `make` and on `arguments`, and on nothing else.
        """
        parts = [make.__module__, make.__qualname__, *map(repr, arguments)]
        for path in sorted(self.path.rglob("*")):
            # Not the index: it holds times, and follows from the commits here.
            if path.is_file() and path.name != "index":
                parts += [str(path.relative_to(self.path)), path.read_bytes().hex()]
        key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
        if key in self._results:
            shutil.rmtree(self.path)
            shutil.copytree(self.kept / key, self.path, symlinks=True)
        else:
            self._results[key] = make()
            shutil.copytree(self.path, self.kept / key, symlinks=True)
        found: T = self._results[key]
        return found

    def run(
        self,
        *command: str,
        ok: tuple[int, ...] = (0,),
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command here; fails the test on another exit status."""
        done = subprocess.run(
            command,
            cwd=self.path,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**os.environ, **(env or {})},
            timeout=300,
            check=False,
        )
        assert done.returncode in ok, (
            f"{command} exited with {done.returncode}\n{done.stdout[-4000:]!r}\n"
            f"{done.stderr.decode('utf-8', 'replace')[-4000:]}"
        )
        return done

    def git(self, *arguments: str, **options: object) -> str:
        """What git prints."""
        return self.run("git", *arguments, **options).stdout.decode("utf-8", "surrogateescape")  # type: ignore[arg-type]

    def theta(self, *arguments: str, **options: object) -> str:
        """What `git theta` prints."""
        return self.run(
            sys.executable, "-m", "git_theta_ext.cli.main", *arguments, **options
        ).stdout.decode()  # type: ignore[arg-type]

    def write(self, name: str, data: bytes) -> Path:
        """Write a file of the work tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def commit(self, message: str = "change", *paths: str) -> str:
        """Add (everything, or some paths) and commit; the commit's id."""
        self.git("add", "-A", "--", *(paths or (".",)))
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def blob(self, spec: str) -> bytes:
        """What Git stores, such as `HEAD:model.safetensors` or `:model.safetensors`."""
        return self.run("git", "cat-file", "blob", spec).stdout

    def status(self) -> str:
        """`git status --porcelain`."""
        return self.git("status", "--porcelain")
