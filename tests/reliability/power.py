"""A model of losing power: what was not synced is gone, in every way that a file system allows.

strace records, in order, the writes, syncs, renames and removals that a command makes in the store
and in the remote's. The model of the disk is POSIX's: a file's bytes are sure after its own fsync,
a folder's entries after the folder's, and both after a syncfs of the file system, with which it has
begun after them; until then each may be there or not. A rename may reach the
disk before the bytes of the file that it names. After every recorded call each such state is made,
in the worst order: names without bytes (empty or half), and names that are gone.

Two things must hold in each of them. No object has its name and not its bytes. And once a command
has given its word, every object that this is about is there: a manifest that Git gets may be named
by its index the next moment, and a remote's ref may move once the push goes on.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.manifest.text import parse_manifest
from tests.reliability.faults import NAME, SCENARIOS, Bench, Scenario
from tests.reliability.rows import Row

_CALLS = (
    "openat,write,writev,pwrite64,fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,mkdir"
)
_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+)")
_FILE = re.compile(r"^\d+<([^>]*)>")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OBJECT = re.compile(r"/objects/[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})$")
_OBJECTS = "objects/??/??/" + "?" * 64
_WITH_RESULT = ("add", "add many", "merge", "blend")
"""Commands that hand a manifest to Git."""
_SENDING = ("push", "push many", "theta push")
_ADDS = 12


@dataclass(slots=True)
class File:
    """A file's content, by how much of it was written, and how much of that is surely on disk."""

    written: int = 0
    synced: int = 0


@dataclass(slots=True)
class Disk:
    """The store as the running system sees it, and what of it a loss of power may take."""

    files: dict[str, File] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)
    """Names whose folder was not synced since they were made -> that folder."""
    states: int = 0
    wrong: list[str] = field(default_factory=list)

    def apply(self, call: str, rest: str, result: int) -> None:
        """Follow one call that succeeded."""
        target = _FILE.match(rest)
        paths = _PATHS.findall(rest)
        if call in ("write", "writev", "pwrite64") and target and target[1] in self.files:
            self.files[target[1]].written += result
        elif call in ("fsync", "fdatasync") and target:
            if target[1] in self.files:
                self.files[target[1]].synced = self.files[target[1]].written
            else:
                self.unsure = {n: f for n, f in self.unsure.items() if f != target[1]}
        elif call == "syncfs":
            for file in self.files.values():
                file.synced = file.written
            self.unsure = {}
        elif call == "openat" and "O_CREAT" in rest and paths:
            self.files.setdefault(paths[0], File())
        elif call.startswith("rename") and len(paths) == 2 and paths[0] in self.files:
            self.files[paths[1]] = self.files.pop(paths[0])
            self.unsure[paths[1]] = str(Path(paths[1]).parent)
        elif call == "mkdir" and paths:
            self.unsure[paths[0]] = str(Path(paths[0]).parent)
        elif call == "unlink" and paths:
            self.files.pop(paths[0], None)

    def lose_power(self, needed: frozenset[str], sizes: dict[str, int]) -> None:
        """Look at every state that the disk may be in now.

        Files are independent of each other, so each is looked at alone: its bytes cut to what was
        synced, and its name gone if its folder was not.
        """
        for path, file in self.files.items():
            match = _OBJECT.search(path)
            if match is None:
                continue
            for length in {file.synced, (file.synced + file.written) // 2, file.written}:
                self.states += 1
                if length != sizes[match[1]]:
                    self.wrong.append(f"{match[1]} has its name and {length} bytes")
            # A name is as sure as the names of all folders above it.
            if any(str(place) in self.unsure for place in (path, *Path(path).parents)):
                self.states += 1
                if match[1] in needed:
                    self.wrong.append(f"{match[1]} is promised and may have no name")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a trace said of a command."""

    calls: list[tuple[str, str, int]]
    """(call, rest, result), in order."""
    given: int
    """The number of the call with which the command gave its word."""
    needed: frozenset[str]
    """The objects that this was about."""
    sizes: dict[str, int]
    """Of all objects that there are at the end, here and at the remote, in bytes."""


def record(bench: Bench, scenario: Scenario) -> Recorded:
    """Run a scenario's command and record what it does to the store and to the remote's."""
    repo, log = bench.copy(scenario), bench.folder / "record"
    remote = repo.parent / "remote.git"
    before = set(_sizes(remote))
    bench.run(
        repo, "strace", "-f", "-qq", "-y", "-s", "65536", "-e", f"trace={_CALLS}", "-o", str(log),
        *scenario.command, ok=scenario.done,
    )  # fmt: skip
    calls = _calls(log)
    needed, signs = set[str](), [str(remote / "refs/heads")]
    if scenario.name in _SENDING:
        needed = set(_sizes(remote)) - before
    elif scenario.name in _WITH_RESULT:
        blob = bench.run(repo, "git", "cat-file", "blob", f":{NAME}").stdout
        needed = {ref.oid for ref in parse_manifest(blob).objects()}
        signs = [blob.decode().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")]
    words = (number for number, call in enumerate(calls) if any(sign in call[1] for sign in signs))
    given = next(words, len(calls) - 1)
    return Recorded(calls, given, frozenset(needed), {**_sizes(remote), **_sizes(repo)})


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob(_OBJECTS)}


def _calls(log: Path) -> list[tuple[str, str, int]]:
    """The calls that succeeded; those that strace shows in two halves are where they ended."""
    calls = []
    pending: dict[str, str] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        process, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            pending[process] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<..."):
            text = pending.pop(process, "") + text.partition("resumed>")[2]
        match = _CALL.match(f"{process} {text}")
        if match is not None and int(match[4]) >= 0:
            calls.append((match[2], match[3], int(match[4])))
    return calls


def replay(recorded: Recorded) -> Disk:
    """Lose power after every call."""
    disk = Disk()
    for number, (call, rest, result) in enumerate(recorded.calls):
        disk.apply(call, rest, result)
        if "/theta/" in rest or "/lfs/" in rest or number == recorded.given:
            needed = recorded.needed if number >= recorded.given else frozenset()
            disk.lose_power(needed, recorded.sizes)
    return disk


def scenarios(adds: int) -> list[Scenario]:
    """`git add` of some versions, then the other commands."""
    added = [Scenario("add", ("git", "add", NAME), edit=5 + number) for number in range(adds)]
    return added + [one for one in SCENARIOS if one.name not in ("add", "prune")]


def measure(scale: float) -> list[Row]:
    """Replay commands; `scale` 1 takes `git add` of twelve versions."""
    states, wrong = 0, 0
    with tempfile.TemporaryDirectory(prefix="theta-power-") as folder:
        bench = Bench(Path(folder).resolve() / "bench")
        tried = scenarios(max(1, round(_ADDS * scale)))
        for scenario in tried:
            disk = replay(record(bench, scenario))
            states, wrong = states + disk.states, wrong + len(disk.wrong)
    names = ", ".join(dict.fromkeys(scenario.name for scenario in tried))
    return [
        Row(
            "power lost",
            f"the order of writes, syncs and renames recorded from {names}; after each, every state"
            " in which what was not synced is gone",
            f"{states} states, {wrong} with a name without its bytes, or with an object missing"
            " that Git's index or the remote's ref names",
        )
    ]


if __name__ == "__main__":
    for row in measure(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0):
        print(row.what, "|", row.how, "|", row.result)
