"""Repositories in which tests run real git."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

from tests.scenarios import schemas
from tests.scenarios.warm import PREFIX, Warm

T = TypeVar("T")


class Repo:
    """A work tree and the commands that are run in it."""

    kept: ClassVar[Path]
    warm: ClassVar[Warm | None] = None
    """What runs `theta`, if there is such a thing; else each one is a Python of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def once(self, make: Callable[[], T], *arguments: object) -> T:
        """What `make` does to this repository, and returns; done once, then copied, by all workers.

        Many tests begin with the same history. What they begin with depends on what is in the
        repository, on `make` and on `arguments`, and on nothing else.
        """
        parts = [make.__module__, make.__qualname__, *map(repr, arguments)]
        for path in sorted(self.path.rglob("*")):
            # Not the index: it holds times, and follows from the commits here.
            if path.is_file() and path.name != "index":
                parts += [str(path.relative_to(self.path)), path.read_bytes().hex()]
        key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
        place = self.kept / key
        if place.exists():
            shutil.rmtree(self.path)
            shutil.copytree(place / "files", self.path, symlinks=True)
            found: T = pickle.loads((place / "result").read_bytes())
            return found
        result = make()
        made = Path(tempfile.mkdtemp(dir=self.kept))
        shutil.copytree(self.path, made / "files", symlinks=True)
        (made / "result").write_bytes(pickle.dumps(result))
        with suppress(OSError):  # another worker was faster
            made.rename(place)
        return result

    def run(
        self,
        *command: str,
        ok: tuple[int, ...] = (0,),
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command here; fails the test on another exit status."""
        environment = {**os.environ, **(env or {})}
        if self.warm is not None and self.warm.takes(command, environment):
            done = self.warm.run(command, self.path, environment, stdin, 300)
        else:
            done = subprocess.run(
                command,
                cwd=self.path,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                env=environment,
                timeout=300,
                check=False,
            )
        schemas.check(command, done.stdout)
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
        return self.run(*PREFIX, *arguments, **options).stdout.decode()  # type: ignore[arg-type]

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
