"""A host and the people who use it: everything that a test of transfers needs, in one object."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from git_theta_ext.manifest.model import HEAD_BYTES, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.transfer.folders import object_path
from tests.scenarios.repositories import Repo
from tests.servers.backends import Backend, backend
from tests.servers.front import Front, front, git_environment


class Client(Repo):
    """A clone, or the place of one; its commands see the site's user and nothing else."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        super().__init__(path)
        self.environment = dict(environment)

    def run(
        self,
        *command: str,
        ok: tuple[int, ...] = (0,),
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        done = self.start(*command, stdin=stdin, env=env)
        assert done.returncode in ok, (
            f"{command} exited with {done.returncode}\n{done.stdout[-4000:]!r}\n"
            f"{done.stderr.decode('utf-8', 'replace')[-4000:]}"
        )
        return done

    def start(
        self, *command: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command, whatever comes of it."""
        environment = {**self.environment, **(env or {})}
        if self.warm is not None and self.warm.takes(command, environment):
            return self.warm.run(command, self.path, environment, stdin, 120)
        return subprocess.run(
            command, cwd=self.path, input=b"" if stdin is None else stdin, capture_output=True,
            env=environment, timeout=120, check=False,
        )  # fmt: skip

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command and go on."""
        return subprocess.Popen(
            command, cwd=self.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self.environment,
        )  # fmt: skip

    def oids(self, *specs: str) -> set[str]:
        """The objects that manifests name, given as `HEAD:model.safetensors`."""
        return {ref.oid for spec in specs for ref in parse_manifest(self.blob(spec)).objects()}


class Site:
    """A host, its LFS server, and a folder for clones."""

    def __init__(self, host: Front, root: Path) -> None:
        self.host = host
        self.root = root
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_"))}
        self.environment = {**inherited, **git_environment(host.url, root / "home")}
        if Repo.warm is not None:
            self.environment.update([Repo.warm.address()])
        here = Client(root, self.environment)
        here.run(sys.executable, "-m", "git_theta_ext.cli.main", "install")

    @property
    def backend(self) -> Backend:
        """The LFS server."""
        return self.host.backend

    def url(self, name: str) -> str:
        """The URL of a repository, `team/model`."""
        return f"{self.host.url}/{name}.git"

    def create(self, name: str) -> Repo:
        """An empty bare repository at the host."""
        path = self.host.projects / f"{name}.git"
        path.mkdir(parents=True)
        self.backend.prepare(name)
        bare = Client(path, self.environment)
        bare.git("init", "-q", "--bare")
        for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            bare.git("config", setting, "true")
        return bare

    def start(self, name: str, remote: str) -> Client:
        """A new repository whose origin is `remote`, with checkpoints tracked and committed."""
        path = self.root / name
        path.mkdir(parents=True)
        client = Client(path, self.environment)
        client.git("init", "-q")
        client.git("remote", "add", "origin", self.url(remote))
        client.theta("track", "*.safetensors")
        client.commit("Track checkpoints")
        return client

    def client(self, name: str) -> Client:
        """The clone of a name, which need not be there yet."""
        return Client(self.root / name, self.environment)

    def clone(self, name: str, remote: str, *options: str) -> Client:
        """Clone a repository of the host."""
        Client(self.root, self.environment).git(
            "clone", "-q", *options, self.url(remote), str(self.root / name)
        )
        return self.client(name)

    def unbacked(self, name: str) -> dict[str, set[str]]:
        """By ref of a repository at the host: objects that its manifests need and that the LFS
        server does not hold, byte for byte. Empty if nothing was lost."""
        bare = Client(self.host.projects / f"{name}.git", self.environment)
        lines = bare.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        found = {}
        for line in lines:
            ref, tip = line.split()
            absent = {oid for oid in needed(bare, [tip]) if not self.holds(name, oid)}
            if absent:
                found[ref] = absent
        return found

    def holds(self, name: str, oid: str) -> bool:
        """Whether the LFS server has an object, whole."""
        return hashes_to(self.backend.place(name, oid), oid)


def needed(repo: Repo, tips: Sequence[str]) -> set[str]:
    """The objects that the manifests name which some commits reach, found by reading every blob."""
    listed = repo.git("rev-list", "--objects", "--no-object-names", *tips).split()
    answer = repo.run(
        "git", "cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in listed).encode()
    ).stdout
    oids = set()
    position = 0
    while position < len(answer):
        end = answer.index(b"\n", position)
        _, kind, size = answer[position:end].split()
        data = answer[end + 1 : end + 1 + int(size)]
        if kind == b"blob" and is_manifest(data[:HEAD_BYTES]):
            oids.update(ref.oid for ref in parse_manifest(data).objects())
        position = end + 2 + int(size)
    return oids


def hashes_to(path: Path, oid: str) -> bool:
    """Whether a file is there and its bytes have that SHA-256."""
    import hashlib

    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == oid
    except OSError:
        return False


POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)


def kept(remote: Repo) -> set[str]:
    """What a host keeps that looks for LFS pointer files among all blobs that a ref reaches."""
    found = set()
    for line in remote.git("rev-list", "--objects", "--all").splitlines():
        oid = line.split()[0]
        if remote.git("cat-file", "-t", oid) == "blob\n":
            match = POINTER.fullmatch(remote.blob(oid))
            if match:
                found.add(match[1].decode())
    return found


def local_object(repo: Repo, oid: str) -> Path:
    """Where a clone keeps an object."""
    return object_path(repo.path / ".git" / "theta", oid)


def without_git_lfs(folder: Path) -> str:
    """A PATH with what git and its hooks need, and no git-lfs; links are made in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("git", "sh", "cat"):
        target = shutil.which(name)
        if target is None:
            raise RuntimeError(f"{name} is not installed")
        if not (folder / name).exists():
            (folder / name).symlink_to(target)
    return str(folder)


@contextmanager
def site(kind: str, root: Path) -> Iterator[Site]:
    """A host with the LFS server `kind`, in a folder of its own, until the block ends."""
    root.mkdir(parents=True, exist_ok=True)
    with (
        backend(kind, root / "objects") as server,
        front(server, root / "projects") as host,
    ):
        yield Site(host, root)
