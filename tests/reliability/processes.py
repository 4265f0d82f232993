"""Many processes at once: in worktrees of one repository, and in clones that share a store.

    python -m tests.reliability.processes --scale 1

In every scene several people start the same command at the same moment. Afterwards every file is
compared with what it must be, every object that a commit needs is looked for and hashed, and the
stores are searched for anything that is there twice, half, or for nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.reliability.rows import Row
from tests.scenarios.checkpoints import changed, safetensors
from tests.servers.site import Client, Site, hashes_to, needed, site

NAME = "m.safetensors"
AT_ONCE = 10
_PATIENCE = 180
"""Seconds after which commands that have not ended are taken for deadlocked."""
_THETA = (sys.executable, "-m", "git_theta_ext.cli.main")


@dataclass(slots=True)
class Tally:
    """What was counted; every list is empty if all is well."""

    commands: int = 0
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    deadlocked: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """All of them, in words."""
        return [
            f"{kind}: {text}"
            for kind in ("failed", "lost", "doubled", "wrong", "deadlocked")
            for text in getattr(self, kind)
        ]

    def at_once(self, people: Sequence[Client], command: Callable[[int], Sequence[str]]) -> None:
        """Each runs a command, all at the same moment."""
        running = [person.popen(*command(number)) for number, person in enumerate(people)]
        limit = time.monotonic() + _PATIENCE
        for number, process in enumerate(running):
            self.commands += 1
            words = " ".join(command(number)[-3:])
            try:
                said, _ = process.communicate(timeout=max(1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                self.deadlocked.append(words)
                continue
            if process.returncode:
                self.failed.append(f"{words}: {said.decode('utf-8', 'replace')[-1500:]}")

    def look(self, stores: Iterable[Path], repos: Iterable[Client]) -> None:
        """Compare what stores hold with what commits, of whatever repository, need."""
        oids = set()
        for repo in repos:
            tips = repo.git("for-each-ref", "--format=%(objectname)").split()
            oids |= needed(repo, tips)
        held: set[str] = set()
        for store in stores:
            for path in (store / "objects").glob("??/??/*"):
                held.add(path.name)
                if not hashes_to(path, path.name):
                    self.lost.append(f"damaged: {path}")
            # What git-lfs brought must have been taken over, and nothing half-written be left.
            left = [*(store / "tmp").glob("*"), *(store / "lfs").glob("objects/??/??/*")]
            left += [*(store / "lfs").glob("run-*"), *(store / "lfs").glob("incomplete/*")]
            self.doubled += [f"left over: {path}" for path in left]
        self.lost += [f"not in the store: {oid}" for oid in oids - held]
        self.doubled += [f"for nothing: {oid}" for oid in held - oids]

    def compare(self, people: Sequence[Client], contents: Sequence[bytes]) -> None:
        """Compare every work tree's checkpoint, and see that Git takes it for unchanged."""
        for person, content in zip(people, contents, strict=True):
            path = person.path / NAME
            if not path.exists() or path.read_bytes() != content:
                self.wrong.append(f"{path} after the command")
            if person.status():
                self.wrong.append(f"{person.path}: git status: {person.status()}")


class Scenes:
    """The scenes, each in folders of its own, with one host for all."""

    def __init__(self, host: Site, people: int, seed: int = 0, first: int = 0) -> None:
        """`people` is how many run at once; folders are numbered from after `first`."""
        self.site = host
        self.people = people
        self.tally = Tally()
        self._random = np.random.default_rng(seed)
        self._number = first
        self._base = self._tensors()

    def run(self) -> Tally:
        """All of them."""
        self.adds_and_checkouts_in_worktrees()
        self.fetches_in_worktrees()
        self.clones_that_share_a_store()
        self.two_merges()
        self.two_pushes()
        return self.tally

    # -- material ----------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, NDArray[np.generic]]:
        return {
            f"layer.{number}.weight": self._random.normal(0, 1, (24, 24)).astype(np.float32)
            for number in range(6)
        }

    def _versions(self, count: int) -> list[bytes]:
        """Versions after the base; neighbours change the same tensor alike."""
        base = self._base
        versions = []
        for number in range(count):
            name = f"layer.{number // 2 % 6}.weight"
            versions.append(
                safetensors({**base, name: changed(base[name], seed=number // 2)})
                if number % 5
                else safetensors({**base, "extra": np.full(100, number, np.float32)})
            )
        return versions

    def _origin(self) -> tuple[str, Client, bytes, list[bytes]]:
        """A repository at the host and a clone with its first commit, pushed."""
        self._number += 1
        name = f"scene-{self._number}/model"
        self.site.create(name)
        first = self.site.start(f"scene-{self._number}/first", name)
        self._base = self._tensors()
        base = safetensors(self._base)
        first.write(NAME, base)
        first.commit()
        first.git("push", "-q", "-u", "origin", "main")
        return name, first, base, self._versions(self.people)

    def _worktrees(self, of: Client, refs: Sequence[str], *options: str) -> list[Client]:
        found = []
        for number, ref in enumerate(refs):
            path = of.path.parent / f"{of.path.name}-tree-{number}"
            of.git("worktree", "add", "-q", *options, str(path), ref)
            found.append(Client(path, self.site.environment))
        return found

    def _branches(self, first: Client, versions: Sequence[bytes]) -> list[str]:
        """A branch for each version, pushed."""
        names = [f"branch-{number}" for number in range(len(versions))]
        for name, version in zip(names, versions, strict=True):
            first.git("switch", "-q", "-c", name, "main")
            first.write(NAME, version)
            first.commit()
        first.git("switch", "-q", "main")
        first.git("push", "-q", "origin", *names)
        return names

    # -- scenes ------------------------------------------------------------------------------------

    def adds_and_checkouts_in_worktrees(self) -> None:
        """`git add` of ten versions at once, some of them alike; then ten checkouts."""
        _, first, _, versions = self._origin()
        trees = self._worktrees(first, ["main"] * self.people, "--detach")
        for tree, version in zip(trees, versions, strict=True):
            tree.write(NAME, version)
        self.tally.at_once(trees, lambda number: ("git", "add", NAME))
        self.tally.at_once(trees, lambda number: ("git", "commit", "-q", "-m", "change"))
        self.tally.compare(trees, versions)
        for number, tree in enumerate(trees):
            tree.git("branch", f"made-{number}")
        others = [(number + 3) % self.people for number in range(self.people)]
        self.tally.at_once(
            trees, lambda number: ("git", "checkout", "-q", "--detach", f"made-{others[number]}")
        )
        self.tally.compare(trees, [versions[other] for other in others])
        self.tally.look([first.path / ".git/theta"], [first])

    def fetches_in_worktrees(self) -> None:
        """Ten checkouts of versions whose objects are at the server only, into one store."""
        name, first, base, versions = self._origin()
        branches = self._branches(first, versions)
        clone = self.site.clone(f"scene-{self._number}/clone", name)
        trees = self._worktrees(clone, ["main"] * self.people, "--detach")
        self.tally.compare(trees, [base] * self.people)
        self.tally.at_once(
            trees,
            lambda number: ("git", "checkout", "-q", "--detach", f"origin/{branches[number]}"),
        )
        self.tally.compare(trees, versions)
        self.tally.look([clone.path / ".git/theta"], [clone])

    def clones_that_share_a_store(self) -> None:
        """Ten clones with one `theta.storage`: all check out and fetch at once, then all add."""
        name, first, base, versions = self._origin()
        branches = self._branches(first, versions)
        shared = self.site.root / f"scene-{self._number}/store"
        clones = [
            self.site.clone(
                f"scene-{self._number}/clone-{number}", name, "--no-checkout",
                "-c", f"theta.storage={shared}",
            )
            for number in range(self.people)
        ]  # fmt: skip
        self.tally.at_once(clones, lambda number: ("git", "checkout", "-q", "main"))
        self.tally.compare(clones, [base] * self.people)
        self.tally.at_once(
            clones, lambda number: (*_THETA, "fetch", "origin", f"origin/{branches[number // 2]}")
        )
        self.tally.at_once(clones, lambda number: ("git", "checkout", "-q", branches[number], "--"))
        self.tally.compare(clones, versions)
        self._base = self._tensors()
        more = self._versions(self.people)
        for clone, version in zip(clones, more, strict=True):
            clone.write(NAME, version)
        self.tally.at_once(clones, lambda number: ("git", "commit", "-q", "-a", "-m", "more"))
        self.tally.compare(clones, more)
        self.tally.look([shared], clones)

    def two_merges(self) -> None:
        """Two worktrees of one repository merge at once, each its own pair of branches."""
        _, first, _, _ = self._origin()
        expected = []
        for pair in range(2):
            both = dict(self._base)
            for side in range(2):
                first.git("switch", "-q", "-c", f"side-{pair}-{side}", "main")
                name = f"layer.{2 * side + pair}.weight"
                both[name] = changed(both[name], seed=10 * pair + side)
                first.write(NAME, safetensors({**self._base, name: both[name]}))
                first.git("commit", "-q", "-a", "-m", "change")
            expected.append(safetensors(both))
        first.git("switch", "-q", "main")
        trees = self._worktrees(first, ["side-0-0", "side-1-0"])
        self.tally.at_once(trees, lambda number: ("git", "merge", "-q", f"side-{number}-1"))
        self.tally.compare(trees, expected)
        self.tally.look([first.path / ".git/theta"], [first])

    def two_pushes(self) -> None:
        """Two clones push branches that share objects, at once."""
        name, _, _, _ = self._origin()
        versions = self._versions(4)
        clones = [self.site.clone(f"scene-{self._number}/clone-{i}", name) for i in range(2)]
        for number, clone in enumerate(clones):
            clone.git("switch", "-q", "-c", f"pushed-{number}")
            clone.write(NAME, versions[2 + number])
            clone.commit()
        self.tally.at_once(clones, lambda number: ("git", "push", "-q", "origin", "HEAD"))
        self.tally.lost += [
            f"at the host, {ref}: {oid}"
            for ref, oids in self.site.unbacked(name).items()
            for oid in oids
        ]
        bare = Client(self.site.host.projects / f"{name}.git", self.site.environment)
        refs = bare.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        self.tally.lost += [f"branch {ref}" for ref in ("pushed-0", "pushed-1") if ref not in refs]


def run(people: int, folder: Path, seed: int = 0) -> Tally:
    """All scenes once, with so many at once."""
    with site("dulwich", folder) as host:
        return Scenes(host, people, seed).run()


def measure(scale: float) -> list[Row]:
    """A line for the table; scale 1 is ten rounds of ten at once."""
    total = Tally()
    for seed in range(max(1, round(10 * scale))):
        with tempfile.TemporaryDirectory() as folder:
            tally = run(AT_ONCE, Path(folder) / "site", seed)
        total.commands += tally.commands
        for name in ("failed", "lost", "doubled", "wrong", "deadlocked"):
            getattr(total, name).extend(getattr(tally, name))
    for problem in total.problems():
        print(problem, file=sys.stderr)
    return [
        Row(
            "processes at once",
            f"{AT_ONCE} at a time: git add, commit, checkout and fetch in worktrees of one "
            "repository and in clones that share a store; two merges; two pushes",
            f"{total.commands} commands: {len(total.failed)} failed, {len(total.lost)} objects "
            f"lost, {len(total.doubled)} doubled or left over, {len(total.wrong)} wrong files, "
            f"{len(total.deadlocked)} deadlocks",
        )
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1)
    for row in measure(parser.parse_args().scale):
        print(f"| {row.what} | {row.how} | {row.result} |")
