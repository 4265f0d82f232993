"""Repositories in which a command meets a fault at one chosen system call, by strace.

A command is run once to list its calls that touch the repository, then once for each of these with
a fault put in its place: the process is killed, or the call fails. `kills.py` and `errors.py` say
which; what must hold afterwards is the same and stands here:

- before anything is put right, no ref of the host names an object that the host does not have;
- once the locks that Git leaves behind are removed, as its message says, `git status` works;
- the command, run again, succeeds and leaves what it leaves without a fault;
- `git theta fsck` finds nothing, and every version ever committed comes back byte for byte;
- what was half written is gone after the next command, once it is a day old.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from git_theta_ext.manifest import FIRST_LINE, Manifest
from tests.checkpoints import safetensors
from tests.servers.site import hashes_to

NAME = "model.safetensors"
CALLS = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2",
    "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "ftruncate", "copy_file_range",
    "sendfile", "chmod", "fchmod",
)  # fmt: skip
_DAY_SECONDS = 90_000
_LINE = re.compile(r"(\w+)\((.*)")
_LIMIT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Command:
    """A command under test.

    `folder` is where it is run; `ours` says that it is a program of this package, not Git;
    `after` is what the checkpoint there must be afterwards, by the name of a version.
    """

    name: str
    arguments: tuple[str, ...]
    folder: str
    ours: bool
    after: str | None


COMMANDS = (
    Command("add", ("add", "-A"), "edited", False, "edited"),
    Command("commit", ("commit", "-q", "-a", "-m", "more"), "edited", False, "edited"),
    Command("checkout", ("checkout", "-q", "second"), "model", False, "second"),
    Command("push", ("push", "-q", "origin", "main"), "model", False, "third"),
    Command("merge", ("merge", "-q", "-m", "both", "side"), "model", False, "merged"),
    Command("theta push", ("push", "origin", "main"), "model", True, "third"),
    Command("theta pull", ("pull",), "clone", True, "first"),
    Command("theta resolve", ("resolve", NAME, "--strategy", "ours"), "open", True, None),
    Command("theta prune", ("prune", "--keep-days", "0"), "pushed", True, "third"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """The n-th call of a kind, in a process of Git (`git`) or of this package (`ours`)."""

    command: Command
    process: str
    call: str
    number: int


class Laboratory:
    """Repositories made once and copied for every run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.template = root / "template"
        self.template.mkdir(parents=True)
        self.python = root / "python"
        self.python.write_text(
            "#!/bin/sh\n"
            'if [ -n "$THETA_TRACE" ]; then\n'
            f'  exec strace $THETA_TRACE {sys.executable} "$@"\n'
            "fi\n"
            f'exec {sys.executable} "$@"\n'
        )
        self.python.chmod(0o755)
        self.versions: dict[str, bytes] = {}
        self._prepare()

    # -- preparation -------------------------------------------------------------------------------

    def environment(self, folder: Path) -> dict[str, str]:
        """That of a command in a copy of the template: nothing of the machine's settings."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_"))}
        return {
            **inherited,
            "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
            "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip

    def run(
        self,
        folder: Path,
        *command: str,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a folder of a copy; `theta` as the first word is this package."""
        words = list(command)
        if words[0] == "theta":
            words[:1] = [str(self.python), "-m", "git_theta_ext.cli.main"]
        done = subprocess.run(
            words, cwd=folder, env={**self.environment(folder), **(env or {})},
            capture_output=True, timeout=_LIMIT_SECONDS, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{words} in {folder}: {done.returncode}\n{done.stderr.decode()}")
        return done

    def _prepare(self) -> None:
        random = np.random.default_rng(0)
        tensors = {
            name: random.normal(0, 1, (130, 128)).astype(np.float32) for name in ("a", "b", "c")
        }

        def moved(name: str, seed: int) -> bytes:
            step = np.random.default_rng(seed).normal(0, 1e-3, (130, 128)).astype(np.float32)
            tensors[name] = tensors[name] + step
            return safetensors(tensors)

        host, model = self.template / "host.git", self.template / "model"
        self.run(self.template, "git", "init", "-q", "--bare", "-b", "main", str(host))
        self.run(self.template, "git", "init", "-q", "-b", "main", str(model))
        self.run(model, "theta", "install", "--local")
        self._trace_ours(model)
        self.run(model, "theta", "track", "*.safetensors")
        self.run(model, "git", "remote", "add", "origin", "../host.git")
        self._commit(model, "first", safetensors(tensors))
        self.run(model, "git", "push", "-q", "origin", "main")
        self.run(model, "git", "checkout", "-q", "-b", "side")
        before = dict(tensors)
        self._commit(model, "side", moved("a", 1))
        side = tensors["a"]
        self.run(model, "git", "checkout", "-q", "main")
        tensors.update(before)
        self._commit(model, "second", moved("b", 2))
        self.run(model, "git", "branch", "second")
        self._commit(model, "third", moved("b", 3))
        self.versions["merged"] = safetensors({**tensors, "a": side})
        self.versions["edited"] = moved("c", 4)
        shutil.copytree(model, self.template / "edited", symlinks=True)
        (self.template / "edited" / NAME).write_bytes(self.versions["edited"])
        shutil.copytree(model, self.template / "open", symlinks=True)
        opened = self.template / "open"
        self.run(opened, "git", "checkout", "-q", "-b", "rival", "HEAD~1")
        self._commit(opened, "rival", moved("b", 5))
        self.run(opened, "git", "merge", "main", check=False)
        self.run(self.template, "git", "init", "-q", "--bare", "-b", "main", "full.git")
        pushed = self.template / "pushed"
        shutil.copytree(model, pushed, symlinks=True)
        self.run(pushed, "git", "remote", "set-url", "origin", "../full.git")
        self.run(pushed, "git", "push", "-q", "origin", "main", "side")
        skip = {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_THETA_SKIP_SMUDGE": "1"}
        clone = self.template / "clone"
        self.run(self.template, "git", "clone", "-q", "--no-checkout", "host.git", "clone")
        self.run(clone, "git", "remote", "set-url", "origin", "../host.git")
        self.run(clone, "theta", "install", "--local", "--skip-smudge", env=skip)
        self._trace_ours(clone)
        self.run(clone, "git", "checkout", "-q", "main", env=skip)

    def _trace_ours(self, repo: Path) -> None:
        """Have Git start our programs through the wrapper that can trace them."""
        for path in (repo / ".git" / "config", *(repo / ".git" / "hooks").iterdir()):
            text = path.read_text("utf-8")
            path.write_text(text.replace(sys.executable, str(self.python)), "utf-8")

    def _commit(self, repo: Path, name: str, data: bytes) -> None:
        self.versions[name] = data
        (repo / NAME).write_bytes(data)
        self.run(repo, "git", "add", "-A")
        self.run(repo, "git", "commit", "-q", "-m", name)

    # -- points ------------------------------------------------------------------------------------

    def copy(self, name: str) -> Path:
        """A fresh copy of all repositories."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, folder, symlinks=True)
        return folder

    def _start(
        self, command: Command, folder: Path, process: str, options: str
    ) -> subprocess.CompletedProcess[bytes]:
        place = folder / command.folder
        words = ["theta" if command.ours else "git", *command.arguments]
        if process == "ours":
            return self.run(place, *words, env={"THETA_TRACE": options}, check=False)
        return self.run(place, "strace", *options.split(), *words, check=False)

    def points(self, command: Command) -> Iterator[Point]:
        """The calls of a command that touch its repositories."""
        for process in ("ours",) if command.ours else ("ours", "git"):
            folder = self.copy("traced")
            logs = self.root / "logs"
            shutil.rmtree(logs, ignore_errors=True)
            logs.mkdir()
            follow = "-f -ff --seccomp-bpf" if process == "ours" else "-ff"
            self._start(
                command, folder, process,
                f"{follow} -qq -y -o {logs}/log -e trace={','.join(CALLS)}",
            )  # fmt: skip
            found = {
                (call, number)
                for log in logs.iterdir()
                for call, number, arguments in _calls(log)
                if _matters(call, arguments, str(folder))
            }
            for call, number in sorted(found, key=lambda item: (CALLS.index(item[0]), item[1])):
                yield Point(command, process, call, number)

    def meet(self, point: Point, fault: str) -> str | None:
        """Run a command with a fault at a point and look at what is left; what is wrong, or None.

        Args:
            point: where.
            fault: as strace's `inject` has it: `signal=KILL`, `error=ENOSPC`.
        """
        folder = self.copy("run")
        follow = "-f --seccomp-bpf" if point.process == "ours" else ""
        options = (
            f"{follow} -qq -o /dev/null -e trace={point.call} "
            f"-e inject={point.call}:{fault}:when={point.number}"
        )
        try:
            self._start(point.command, folder, point.process, options)
            self._check(point.command, folder)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return f"{point.command.name}, {point.process}, {point.call} {point.number}: {error}"
        return None

    # -- afterwards --------------------------------------------------------------------------------

    def _check(self, command: Command, folder: Path) -> None:
        place = folder / command.folder
        hosts = [folder / "host.git", folder / "full.git"]
        for host in hosts:
            self._check_host(host)
        for lock in [lock for top in (place, *hosts) for lock in top.rglob("*.lock")]:
            lock.unlink()
        self.run(place, "git", "status", "--porcelain")
        self._again(command, place)
        found = (place / NAME).read_bytes()
        if command.after is not None and found != self.versions[command.after]:
            raise AssertionError(f"the checkpoint is not the {command.after} one")
        for host in hosts:
            self._check_host(host)
        self._check_versions(place)
        self._check_rests(place)

    def _again(self, command: Command, place: Path) -> None:
        """Run the command again, as its user would."""
        if (place / ".git" / "MERGE_HEAD").exists() and command.name == "merge":
            self.run(place, "git", "reset", "-q", "--hard")
        words = ["theta" if command.ours else "git", *command.arguments]
        done = self.run(place, *words, check=False)
        if command.name == "checkout" and done.returncode == 0:
            # Git moves HEAD even where a filter failed; the file is then told to be deleted.
            self.run(place, "git", "checkout", "-q", "--", ".")
        if command.name == "commit" and done.returncode:
            # Git had moved the branch and not yet written its index.
            self.run(place, "git", "reset", "-q")
            if not self._changes(place):
                return
        if done.returncode == 0:
            return
        if command.name in ("checkout", "merge"):
            # Half a checkout is a change to Git, which it does not overwrite unasked.
            self.run(place, "git", "reset", "-q", "--hard")
            self.run(place, *words)
            return
        if command.name == "theta resolve" and not self._is_open(place):
            return
        raise AssertionError(f"again: {done.returncode}: {done.stderr.decode()[-500:]}")

    def _changes(self, place: Path) -> bool:
        return bool(self.run(place, "git", "status", "--porcelain").stdout)

    def _is_open(self, place: Path) -> bool:
        return bool(self.run(place, "git", "ls-files", "-u").stdout)

    def _check_host(self, host: Path) -> None:
        """No ref there names what the host does not have."""
        for oid in sorted(self._needed(host)):
            path = host / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
            if not hashes_to(path, oid):
                raise AssertionError(f"the host has a ref that needs {oid}, and does not have it")

    def _needed(self, repo: Path) -> set[str]:
        listed = self.run(repo, "git", "rev-list", "--objects", "--no-object-names", "--all").stdout
        found: set[str] = set()
        for oid in listed.decode().split():
            data = self.run(repo, "git", "cat-file", "blob", oid, check=False).stdout
            if data.startswith(FIRST_LINE):
                found.update(ref.oid for ref in Manifest.parse(data).objects())
        return found

    def _check_versions(self, place: Path) -> None:
        """What was committed before comes back, and the check of the whole finds nothing."""
        for revision in ("first", "side", "second", "third"):
            found = self.run(place, "git", "log", "--all", "--format=%H", f"--grep=^{revision}$")
            for commit in found.stdout.decode().split():
                shown = self.run(
                    place, "git", "-c", "theta.skipSmudge=false", "cat-file", "--filters",
                    f"{commit}:{NAME}",
                ).stdout  # fmt: skip
                if shown != self.versions[revision]:
                    raise AssertionError(f"the {revision} version does not come back")
        done = self.run(place, "theta", "fsck", check=False)
        if done.returncode:
            raise AssertionError(f"fsck: {done.stdout.decode()[-500:]}")

    def _check_rests(self, place: Path) -> None:
        """A day later, the next command removes what was left half written."""
        store = place / ".git" / "theta"
        places = [store / "tmp", store / "lfs"]
        for path in [item for top in places for item in top.rglob("*") if top.exists()]:
            stamp = path.stat().st_mtime - _DAY_SECONDS
            os.utime(path, (stamp, stamp))
        (place / "probe.safetensors").write_bytes(self.versions["first"])
        self.run(place, "git", "add", "probe.safetensors")
        left = [path for path in (store / "tmp").rglob("*") if path.is_file()]
        if left:
            raise AssertionError(f"left behind for ever: {left[0]}")


def _calls(log: Path) -> Iterator[tuple[str, int, str]]:
    """Each call of one process or thread: its name, its number among its kind, the rest."""
    counts: dict[str, int] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        match = _LINE.match(line)
        if match:
            counts[match[1]] = counts.get(match[1], 0) + 1
            yield match[1], counts[match[1]], match[2]


def _matters(call: str, arguments: str, folder: str) -> bool:
    """Whether a call may change a file of the repositories."""
    if call == "openat" and not re.search(r"O_(CREAT|WRONLY|RDWR|TRUNC)", arguments):
        return False
    return folder in arguments or not re.search(r"[<\"]/", arguments)
