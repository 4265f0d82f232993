"""What a command does grows with what changed: counted, at two sizes, for what users type.

Nothing here looks at a clock. `git theta` and what Git starts run under `counted`, which counts
processes, threads, files, trees, manifests and entries; each count may grow no faster than the size
does, and what is named in `CONSTANT` not at all. Of a command in `ALIKE` no count may grow.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

NAME = "m.safetensors"
COUNTED = Path(__file__).parents[1] / "scenarios/counted.py"
SIZES = (12, 48)
CONSTANT = ("processes", "threads")
ALIKE = ("checkout of one file",)
"""What these do has nothing to do with the size."""
SLACK = 40
"""What a command does once, whatever its size, need not be known to the call."""
Counts = dict[str, Counter[str]]


def values(seed: int, count: int = 32) -> np.ndarray:
    """Weights of one tensor: an object of its own."""
    return np.random.default_rng(seed).normal(0, 1, (count, 16)).astype(np.float32)


class Counting:
    """A repository in which is counted what Git starts: filter, merge driver, pre-push hook."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self._log = repo.path / ".git/counted"
        command = [sys.executable, str(COUNTED), str(self._log)]
        self._theta = [*command, "theta"]
        self._filter = f"filter.theta.process={shlex.join([*command, 'filter'])}"
        repo.git("config", *self._filter.split("=", 1))
        merge = shlex.join([*command, "merge"])
        repo.git("config", "merge.theta.driver", f"{merge} %O %A %B %L %P")
        self._hook = f'#!/bin/sh\nexec {shlex.join([*command, "pre_push"])} "$@"\n'
        self.found: Counts = {}

    def git(self, label: str, *arguments: str) -> None:
        """What the filter does for a Git command."""
        self._log.write_text("")
        self.repo.git(*arguments)
        self._keep(label)

    def push(self, label: str, *arguments: str) -> None:
        """What the pre-push hook does."""
        hook = self.repo.path / ".git/hooks/pre-push"
        hook.write_text(self._hook)
        hook.chmod(0o755)
        self.git(label, "push", "-q", *arguments)

    def clone(self, label: str, url: str, *to: str) -> None:
        """What the filter does for a clone, where it is in the user's configuration."""
        settings = ("-c", self._filter, "-c", "filter.theta.required=true")
        self.git(label, *settings, "clone", "-q", url, *to)

    def theta(self, label: str, *arguments: str) -> None:
        """What one of our own commands does."""
        self._log.write_text("")
        self.repo.run(*self._theta, *arguments)
        self._keep(label)

    def _keep(self, label: str) -> None:
        total: Counter[str] = Counter()
        for line in self._log.read_text().splitlines():
            total.update(json.loads(line))
        assert total, f"{label}: nothing was started that is counted"
        self.found[label] = total


def touch(path: Path, seconds: int) -> None:
    """Give a file another time, well before the index was written."""
    moment = path.stat().st_ctime - 1000 - seconds
    os.utime(path, (moment, moment))


def back(repo: Repo) -> None:
    """Go to the branch again, and have the index of a later second than all that Git wrote."""
    repo.git("checkout", "-q", "-")
    for path in repo.path.glob("*.safetensors"):
        touch(path, 30)
    repo.git("status")


def many_files(repo: Repo, size: int) -> Counts:
    """Many small checkpoints, of which a quarter changes."""
    counting = Counting(repo)
    names = [f"f{number}.safetensors" for number in range(size)]
    for number, name in enumerate(names):
        touch(repo.write(name, safetensors({f"t{number}": values(number)})), 0)
    counting.git("add", "add", *names)
    repo.git("commit", "-q", "-m", "one")
    for name in names:
        touch(repo.path / name, 10)
    counting.git("status, touched", "status", "--short")
    for number, name in enumerate(names[: size // 4]):
        touch(repo.write(name, safetensors({f"t{number}": values(number) + 1})), 20)
    counting.git("status, changed", "status", "--short")
    counting.git("add, changed", "add", *names)
    repo.git("commit", "-q", "-m", "two")
    for number in range(size):  # of other names, with the same bytes
        copy = repo.path / f"copy{number}.safetensors"
        copy.write_bytes((repo.path / names[number]).read_bytes())
        touch(copy, 20)
    counting.git("add, copies", "add", *(f"copy{number}.safetensors" for number in range(size)))
    repo.git("commit", "-q", "-m", "three")
    counting.git("switch", "checkout", "-q", "HEAD~2")
    back(repo)
    counting.git("checkout of one file", "checkout", "-q", "HEAD~2", "--", names[0])
    counting.git("checkout of one file back", "checkout", "-q", "HEAD", "--", names[0])
    for number, name in enumerate(names[: size // 4]):
        touch(repo.write(name, safetensors({f"t{number}": values(number) + 2})), 20)
    counting.git("stash", "stash")
    counting.git("stash pop", "stash", "pop", "-q")
    counting.theta("theta status", "status")
    counting.theta("fsck", "fsck")
    counting.theta("du", "du")
    counting.theta("ls-files", "ls-files")
    return counting.found


def many_tensors(repo: Repo, size: int) -> Counts:
    """One checkpoint of many tensors, of which a quarter changes."""
    counting = Counting(repo)
    tensors = {f"layer.{number}": values(number) for number in range(size)}
    touch(repo.write(NAME, safetensors(tensors)), 0)
    counting.git("add", "add", NAME)
    repo.git("commit", "-q", "-m", "one")
    touch(repo.path / NAME, 10)
    counting.git("status, touched", "status", "--short")
    for number in range(size // 4):
        tensors[f"layer.{number}"] += 1
    touch(repo.write(NAME, safetensors(tensors)), 20)
    counting.git("add, changed", "add", NAME)
    repo.git("commit", "-q", "-m", "two")
    counting.git("switch", "checkout", "-q", "HEAD~1")
    back(repo)
    server = repo.path / ".git/server.git"
    repo.git("init", "-q", "--bare", str(server))
    repo.git("remote", "add", "origin", str(server))
    counting.theta("push", "push", "origin", "--all")
    counting.theta("push again", "push", "origin", "--all")
    merged(counting, tensors)
    counting.push("git push", "origin", "HEAD:refs/heads/main")
    shutil.rmtree(repo.path / ".git/theta")
    counting.theta("fetch", "fetch", "origin")
    counting.clone("clone", str(server), "-b", "main", str(repo.path / ".git/clone"))
    for command in ("log", "blame", "show"):
        counting.theta(command, command, NAME)
    for command in ("fsck", "du", "status"):
        counting.theta(f"theta {command}", command)
    counting.theta("diff", "diff", "HEAD~1", "HEAD")
    counting.theta("prune", "prune", "--dry-run")
    return counting.found


def merged(counting: Counting, tensors: dict[str, np.ndarray]) -> None:
    """Merge a branch: both sides changed a quarter of the tensors, half of these the same."""
    repo, size = counting.repo, len(tensors)
    repo.write(".theta.toml", b'[merge]\nstrategy = "average"\n')
    repo.commit("how to merge", ".theta.toml")
    for branch, first in (("side", size // 4), ("-", size // 8)):
        repo.git("checkout", "-q", *(("-b", branch) if branch == "side" else (branch,)))
        changed = {f"layer.{number}" for number in range(first, first + size // 4)}
        sides = {name: value + len(branch) * (name in changed) for name, value in tensors.items()}
        touch(repo.write(NAME, safetensors(sides)), 20)
        repo.commit(branch)
    counting.git("merge", "merge", "-q", "-m", "merged", "side")


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("kind", "names"), [(many_files, "sha1"), (many_files, "sha256"), (many_tensors, "sha1")]
)
def test_no_count_grows_faster_than_the_size(
    new_repo: Callable[..., Repo], kind: Callable[[Repo, int], Counts], names: str
) -> None:
    few, many = (kind(made(new_repo, names, f"size-{size}"), size) for size in SIZES)
    wrong = []
    for label, what, before, after in compared(few, many):
        most = before * SIZES[1] // SIZES[0] + SLACK
        if what in CONSTANT:  # without libgit2 files are read ahead, each time twice as many
            most = before + (2 if names == "sha1" else 12)
        if label.startswith(ALIKE):
            most = before + 4
        if after > most:
            wrong.append(f"{label}: {before} {what} at {SIZES[0]}, {after} at {SIZES[1]}")
    assert wrong == []


def made(new_repo: Callable[..., Repo], names: str, place: str) -> Repo:
    """A repository whose objects have names of this kind; libgit2 opens none of the newer."""
    if names == "sha1":
        return new_repo(place)
    repo = new_repo(place, install=False)
    (repo.path / ".git").rename(repo.path.parent / f"{place}.sha1")
    repo.git("init", "-q", f"--object-format={names}")
    repo.theta("install", "--local")
    repo.theta("track", "*.safetensors")
    repo.commit("Track checkpoints")
    return repo


def compared(few: Counts, many: Counts) -> Iterator[tuple[str, str, int, int]]:
    """Each command, what is counted, and how often at both sizes."""
    assert few.keys() == many.keys()
    for label, counts in many.items():
        for what, after in counts.items():
            yield label, what, few[label][what], after


TENSORS = 40


def versions(repo: Repo, count: int) -> Counts:
    """A checkpoint with a history; every version changes one tensor."""
    counting = Counting(repo)
    tensors = {f"layer.{number}": values(number) for number in range(TENSORS)}
    for version in range(count):
        tensors[f"layer.{version % TENSORS}"] += 1
        touch(repo.write(NAME, safetensors(tensors)), version)
        repo.commit(str(version))
    server = repo.path / ".git/server.git"
    repo.git("init", "-q", "--bare", str(server))
    repo.git("remote", "add", "origin", str(server))
    counting.theta("log -n 1", "log", "-n", "1", NAME)
    for command in ("log", "blame"):
        counting.theta(command, command, NAME)
    for command in ("fsck", "du"):
        counting.theta(command, command)
    counting.theta("push", "push", "origin", "--all")
    touch(repo.path / NAME, 100)
    counting.git("status, touched", "status", "--short")
    tensors["layer.0"] += 1
    touch(repo.write(NAME, safetensors(tensors)), 200)
    counting.git("add, changed", "add", NAME)
    return counting.found


def test_a_history_costs_what_changed_in_it(new_repo: Callable[..., Repo]) -> None:
    lengths = (4, 24)
    few, many = (versions(new_repo(f"versions-{count}"), count) for count in lengths)
    more = lengths[1] - lengths[0]
    entries, others = [], []
    for label, what, before, after in compared(few, many):
        if what == "entries parsed" and after > before + 4 * more:
            entries.append(f"{label}: {before} of {lengths[0]} versions, {after} of {lengths[1]}")
        # Each tensor that changed is made of one object more, which is looked for.
        most = before + (3 * more if what in ("stat", "open") else 8)
        if label in ("log -n 1", "status, touched", "add, changed") and after > most:
            others.append(f"{label}: {before} {what}, {after} of the longer history")
    assert entries == []
    assert others == []
    parsed = {label: counts["entries parsed"] for label, counts in many.items()}
    assert all(parsed[label] > 0 for label in ("log", "blame", "fsck", "du", "push"))
