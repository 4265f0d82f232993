"""Git LFS servers that others wrote, each as a process of its own.

Two were chosen from the package index because they disagree where it matters:

- *giftless* (Datopian, Vera C. Rubin Observatory) is run in production. It keeps objects per
  repository, signs the links that it hands out, believes the client about hashes, and checks the
  size in a verify step with one URL for all objects.
- *dulwich*'s LFS server is written for tests by the people of a Git implementation. It refuses
  bytes of the wrong hash, has one verify URL per object and no accounts, and answers over HTTP/1.1
  connections that stay open.
"""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("giftless", "dulwich")


class Backend(ABC):
    """An LFS server that runs, and the folder in which it keeps objects."""

    name: str
    has_tokens = False
    """Whether its links carry signatures that it checks itself."""

    def __init__(self, folder: Path) -> None:
        """Start it; it keeps its objects below `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        program = Path(__file__).with_name(f"run_{self.name}.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.communicate()

    def _port(self) -> int:
        if self._process.stdout is None:
            raise RuntimeError("the server was started without a pipe")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} did not start: {self._process.wait()}")
        return int(line)

    def prepare(self, repo: str) -> None:
        """Get ready for a new repository."""
        # Two first uploads at once would have giftless make it twice, and fail.
        (self.folder / repo).mkdir(parents=True)

    @abstractmethod
    def route(self, repo: str, rest: str) -> tuple[int, str]:
        """The port and path that stand for `rest`, below the LFS endpoint of a repository."""

    def translate(self, repo: str, url: str, answer: bytes) -> bytes:
        """The answer to a batch request, with the links that a client of `url` can follow."""
        del repo, url
        return answer

    @abstractmethod
    def place(self, repo: str, oid: str) -> Path:
        """The file in which an object of a repository is, or would be."""

    @abstractmethod
    def oids(self, repo: str) -> set[str]:
        """What the server holds for a repository."""


class Giftless(Backend):
    """giftless, run by werkzeug."""

    name = "giftless"
    has_tokens = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._number = self._port()

    def route(self, repo: str, rest: str) -> tuple[int, str]:
        return self._number, f"/{repo}.git/info/lfs{rest}"

    def place(self, repo: str, oid: str) -> Path:
        return self.folder / repo / oid

    def oids(self, repo: str) -> set[str]:
        folder = self.folder / repo
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


class Dulwich(Backend):
    """dulwich's LFS server: one port per repository, as it knows of one store only."""

    name = "dulwich"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports: dict[str, int] = {}

    def route(self, repo: str, rest: str) -> tuple[int, str]:
        if repo not in self._ports:
            if self._process.stdin is None:
                raise RuntimeError("the server was started without a pipe")
            self._process.stdin.write(f"{repo}\n")
            self._process.stdin.flush()
            self._ports[repo] = self._port()
        return self._ports[repo], rest

    def translate(self, repo: str, url: str, answer: bytes) -> bytes:
        """Its links begin at the top of its host, which is the top of ours."""
        here = f"{url}/{repo}.git/info/lfs/objects/"
        return answer.replace(f"{url}/objects/".encode(), here.encode())

    def place(self, repo: str, oid: str) -> Path:
        return self.folder / repo / "objects" / oid[:2] / oid[2:4] / oid

    def oids(self, repo: str) -> set[str]:
        return {path.name for path in (self.folder / repo / "objects").glob("??/??/*")}


@contextmanager
def backend(kind: str, folder: Path) -> Iterator[Backend]:
    """Run one of the servers until the block ends."""
    server = {"giftless": Giftless, "dulwich": Dulwich}[kind](folder)
    try:
        yield server
    finally:
        server.close()
