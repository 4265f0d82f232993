"""Commands run under strace, with a fault at one system call, and what must be so afterwards.

A scenario is a repository with a remote, made once and copied for every try, and one command in it.
A trace of the command names its *points*: a system call that writes to the file system, and the
how-manieth of its kind it is in its process or thread. Every point is tried: with a kill, an
error, whatever strace can inject. Afterwards a locked index is unlocked as Git's message says, and
`check` looks at everything that must never be lost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.checkpoints import safetensors

NAME = "model.safetensors"
VERSIONS = 4
MANY = 200
"""Versions from here on have six more tensors of their own: more than are synced one by one."""
CALLS = (
    "write", "pwrite64", "writev", "fsync", "fdatasync", "syncfs", "ftruncate", "rename",
    "renameat", "renameat2", "link", "linkat", "symlink", "unlink", "unlinkat", "mkdir", "mkdirat",
    "rmdir",
    "chmod", "fchmod", "utimensat", "copy_file_range", "sendfile",
)  # fmt: skip
"""Whatever changes the file system; a file that is opened anew shows at its first write."""

_THETA = (sys.executable, "-m", "git_theta_ext.cli.main")
_LINE = re.compile(r"^(\d+)\s+(\w+)\((.*)$")
_DESCRIPTOR = re.compile(r"^-?\d+<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command, and what makes the copied repository ready for it."""

    name: str
    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    edit: int | None = None
    """The version that the work tree's file holds when the command starts."""
    done: tuple[int, ...] = (0,)


def theta(*arguments: str) -> tuple[str, ...]:
    """A `git theta` command."""
    return (*_THETA, *arguments)


SCENARIOS = (
    Scenario("add", ("git", "add", NAME), edit=9),
    Scenario("add many", ("git", "-c", "theta.packBelow=0", "add", NAME), edit=MANY + 1),
    Scenario("checkout", ("git", "checkout", "-q", "-f", "v2")),
    Scenario("push", ("git", "push", "-q", "origin", "side")),
    Scenario("push many", ("git", "push", "-q", "origin", "many")),
    Scenario("theta push", theta("push", "origin", "--all")),
    Scenario("pull", ("git", "pull", "-q", "--ff-only", "origin", "main"),
             (theta("push", "origin", "--all"), ("git", "reset", "-q", "--hard", "v1"),
              ("rm", "-r", ".git/theta"))),
    Scenario("theta pull", theta("pull"),
             (theta("push", "origin", "--all"), ("rm", "-r", ".git/theta"), ("rm", NAME))),
    Scenario("merge", ("git", "merge", "-q", "-m", "merged", "side")),
    Scenario("blend", ("git", "-c", "theta.merge.strategy=average", "-c",
                       "theta.mergeStorage=values", "merge", "-q", "-m", "blended", "clash")),
    Scenario("resolve", theta("resolve", NAME, "--strategy", "average"),
             (("git", "merge", "-q", "clash"),)),
    Scenario("prune", theta("prune", "--keep-days", "0")),
)  # fmt: skip


def tensors(version: int) -> dict[str, np.ndarray]:
    """A tiny model; each version moves a row of one tensor, those from 20 to 99 of another."""
    random = np.random.default_rng(7)
    found = {name: random.normal(0, 1, (24, 16)).astype(np.float32) for name in ("a", "b", "c")}
    found["c" if 20 <= version < 100 else "b"][version % 24] += version
    if version >= MANY:
        random = np.random.default_rng(version)
        for number in range(6):
            found[f"more.{number}"] = random.normal(0, 1, (24, 16)).astype(np.float32)
    return found


def content(version: int) -> bytes:
    """The file of a version."""
    return safetensors(tensors(version))


@dataclass
class Bench:
    """A folder in which scenarios are prepared, copied and tried."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    promised: dict[str, bytes] = field(default_factory=dict)
    """Blob of a manifest -> the file that it stands for."""

    def __post_init__(self) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True)
        (home / ".gitconfig").write_text(
            "[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n"
            "[user]\n\tname = Ada\n\temail = ada@example.org\n[gc]\n\tauto = 0\n"
        )
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_"))}
        self.environment = {
            **clean, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "GIT_TERMINAL_PROMPT": "0",
            "GIT_MERGE_AUTOEDIT": "no", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        self._build()

    def run(
        self, repo: Path, *command: str, ok: Sequence[int] | None = (0,)
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a repository; raises AssertionError for another exit status."""
        done = subprocess.run(
            command, cwd=repo, env=dict(self.environment), stdin=subprocess.DEVNULL,
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        if ok is not None and done.returncode not in ok:
            said = (done.stdout + done.stderr)[-1500:].decode("utf-8", "replace")
            raise AssertionError(f"{' '.join(command)} exited with {done.returncode}: {said}")
        return done

    def _commit(self, repo: Path, version: int) -> None:
        (repo / NAME).write_bytes(content(version))
        self.run(repo, "git", "add", "-A")
        self.run(repo, "git", "commit", "-q", "-m", f"version {version}")
        blob = self.run(repo, "git", "rev-parse", f"HEAD:{NAME}").stdout.decode().strip()
        self.promised[blob] = content(version)

    def _build(self) -> None:
        repo = self.folder / "model" / "repo"
        repo.mkdir(parents=True)
        self.run(repo, "git", "init", "-q")
        self.run(repo, *theta("install", "--local"))
        self.run(repo, *theta("track", "*.safetensors"))
        for version in range(1, VERSIONS + 1):
            self._commit(repo, version)
            self.run(repo, "git", "tag", f"v{version}")
        self.run(repo, "git", "init", "-q", "--bare", "../remote.git")
        self.run(repo, "git", "remote", "add", "origin", "../remote.git")
        self.run(repo, "git", "push", "-q", "-u", "origin", "main", "--tags")
        for branch, version in (("side", 21), ("clash", 100), ("many", MANY)):
            self.run(repo, "git", "checkout", "-q", "-b", branch, "v3")
            if branch == "many":
                self.run(repo, "git", "config", "theta.packBelow", "0")
            self._commit(repo, version)
        self.run(repo, "git", "config", "--unset", "theta.packBelow")
        self.run(repo, "git", "checkout", "-q", "main")
        then = time.time() - 30 * 86400
        for path in (repo / ".git/theta/objects").glob("??/??/*"):
            os.utime(path, (then, then))

    def copy(self, scenario: Scenario) -> Path:
        """A fresh repository in which the scenario's command can start."""
        place = self.folder / "try"
        shutil.rmtree(place, ignore_errors=True)
        prepared = self.folder / "ready" / scenario.name.replace(" ", "-")
        if not prepared.exists():
            shutil.copytree(self.folder / "model", prepared, symlinks=True)
            repo = prepared / "repo"
            self.run(repo, "git", "status")
            for command in scenario.before:
                self.run(repo, *command, ok=(0, 1))
            if scenario.edit is not None:
                (repo / NAME).write_bytes(content(scenario.edit))
        shutil.copytree(prepared, place, symlinks=True)
        return place / "repo"

    def points(self, scenario: Scenario, *, follow: bool) -> list[tuple[str, int]]:
        """Every call, and its number in its process, that writes below the try's folder."""
        repo, log = self.copy(scenario), self.folder / "trace"
        flags = ["-f"] if follow else []
        self.run(
            repo, "strace", "-qq", "-y", "-s", "0", *flags, "-e", f"trace={','.join(CALLS)}",
            "-o", str(log), *scenario.command, ok=scenario.done,
        )  # fmt: skip
        counts: dict[tuple[str, str], int] = {}
        found: dict[tuple[str, int], None] = {}
        for line in log.read_text("utf-8", "replace").splitlines():
            match = _LINE.match(line if follow else f"0 {line}")
            if match is None:
                continue
            process, call, rest = match.groups()
            counts[process, call] = counts.get((process, call), 0) + 1
            target = _DESCRIPTOR.match(rest)
            if target is None or target[1].startswith(str(self.folder / "try")):
                found.setdefault((call, counts[process, call]))
        return list(found)

    def inject(
        self, repo: Path, scenario: Scenario, point: tuple[str, int], fault: str, *, follow: bool
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the scenario's command with a fault, such as `signal=SIGKILL`, at one point."""
        flags = ["-f"] if follow else []
        return self.run(
            repo, "strace", "-qq", *flags, "-e", "trace=none",
            f"--inject={point[0]}:{fault}:when={point[1]}", "-o", os.devnull, *scenario.command,
            ok=None,
        )  # fmt: skip

    def check(self, repo: Path, scenario: Scenario) -> list[str]:
        """What is wrong in a repository after the fault; nothing, if all is well."""
        wrong = []
        for lock in [*(repo / ".git").rglob("*.lock"), *(repo / "../remote.git").rglob("*.lock")]:
            lock.unlink(missing_ok=True)  # as Git's message says, once no git runs any more
        try:
            self.run(repo, "git", "status")
            self._again(repo, scenario)
            self.run(repo, "git", "status")
            fsck = self.run(repo, *theta("fsck", "--json", "--repair"), ok=None)
            report = json.loads(fsck.stdout)
            if report["findings"]:
                wrong.append(f"fsck: {report['findings'][:2]}")
        except (AssertionError, ValueError, subprocess.TimeoutExpired) as error:
            wrong.append(str(error))
        wrong += self.lost(repo)
        wrong += [f"left behind: {path}" for path in self._garbage(repo)]
        return wrong

    def _again(self, repo: Path, scenario: Scenario) -> None:
        """The same command again; where Git stopped half-way in its own work, after a reset."""
        done = self.run(repo, *scenario.command, ok=None)
        if done.returncode in scenario.done:
            return
        if scenario.name in ("merge", "blend", "pull", "resolve"):
            self.run(repo, "git", "reset", "-q", "--hard")
            for command in scenario.before[-1:] if scenario.name == "resolve" else ():
                self.run(repo, *command, ok=(0, 1))
        self.run(repo, *scenario.command, ok=scenario.done)

    def lost(self, repo: Path) -> list[str]:
        """The versions that do not come back, byte for byte, from what is here and the remote."""
        repository = Repository.discover(repo)
        blocks, wrong = Blocks.open(repository), []
        for blob, expected in self.promised.items():
            made = bytearray()
            try:
                smudger = Smudger(parse_manifest(repository.blob(blob)), blocks)
                smudger.write(made.extend)
            except Exception as error:
                wrong.append(f"{blob}: {error}")
                continue
            if made != expected:
                wrong.append(f"{blob}: other bytes")
        return wrong

    def _garbage(self, repo: Path) -> Iterator[Path]:
        """Temporary files that are still there after what every command does at its start."""
        root, then = repo / ".git/theta", time.time() - 2 * 86400
        for path in root.rglob("*"):
            os.utime(path, (then, then))
        store_of(Repository.discover(repo)).remove_stale()
        yield from (root / "tmp").glob("*")
        for name in ("memo", "confirmed"):
            yield from (root / name).glob("*.*")
        yield from (path for path in (root / "objects").rglob("*") if not _is_object(path))


def _is_object(path: Path) -> bool:
    return path.is_dir() or re.fullmatch(r"[0-9a-f]{64}", path.name) is not None


@dataclass(slots=True)
class Tally:
    """How many points were tried, and what was wrong after which."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)


def sweep(
    bench: Bench, scenarios: Sequence[Scenario], faults: Sequence[str], scale: float
) -> Tally:
    """Try a share of the points of some scenarios with each of these faults.

    Git's own process is traced alone, then with everything that it starts, so that both its
    n-th call and its children's n-th are reached. `scale` 1 tries every point with every fault; a
    smaller one every point with some of the faults, by turns, then every n-th point with one of
    them, and at least one point of each scenario. What is wrong is told on stderr at once.
    """
    tally = Tally()
    share = scale * len(faults)
    step, each = max(1, round(1 / share)), max(1, round(share))
    for scenario in scenarios:
        tried: set[tuple[str, int, bool]] = set()
        for follow in (True, False) if share >= 0.1 else (True,):
            points = bench.points(scenario, follow=follow)
            for number, point in enumerate(points):
                if number % step != min(step, len(points)) // 2 or (*point, follow) in tried:
                    continue
                tried.add((*point, follow))
                for turn in range(each):
                    fault = faults[(len(tried) * each + turn) % len(faults)]
                    repo = bench.copy(scenario)
                    bench.inject(repo, scenario, point, fault, follow=follow)
                    tally.tried += 1
                    for text in bench.check(repo, scenario):
                        tally.wrong.append(
                            f"{scenario.name}, {point[0]} {point[1]}, {fault}: {text}"
                        )
                        print(tally.wrong[-1], file=sys.stderr, flush=True)
        print(f"  {scenario.name}: {len(tried)} points", file=sys.stderr, flush=True)
    return tally
