"""A model of losing power: what was not synced is gone, in every way that a file system allows.

strace records, in order, the writes, syncs, renames and removals that `git add` makes in the store.
The model of the disk is POSIX's: a file's bytes are sure after its own fsync, a folder's entries
after the folder's; until then each may be there or not. A rename may reach the disk before the
bytes of the file that it names. After every recorded call each such state is made, in the worst
order: names without bytes (empty or half), and names that are gone.

Two things must hold in each of them. No object has its name and not its bytes. And once the filter
has answered Git with a manifest (after which Git may write its index), every object that the
manifest names is there.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.manifest import FIRST_LINE, Manifest
from tests.reliability.faults import NAME, Bench, Scenario
from tests.reliability.rows import Row

_CALLS = "openat,write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,mkdir"
_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+)")
_FILE = re.compile(r"^\d+<([^>]*)>")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OBJECT = re.compile(r"/objects/[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})$")


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
        elif call == "openat" and "O_CREAT" in rest and paths:
            self.files.setdefault(paths[0], File())
        elif call.startswith("rename") and len(paths) == 2 and paths[0] in self.files:
            self.files[paths[1]] = self.files.pop(paths[0])
            self.unsure[paths[1]] = str(Path(paths[1]).parent)
        elif call == "mkdir" and paths:
            self.unsure[paths[0]] = str(Path(paths[0]).parent)
        elif call == "unlink" and paths:
            self.files.pop(paths[0], None)

    def lose_power(self, needed: set[str], sizes: dict[str, int]) -> None:
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
                    self.wrong.append(f"{match[1]} is named by the index and may have no name")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a trace said: (call, rest, result) in order, and when the manifest left the filter."""

    calls: list[tuple[str, str, int]]
    answered: int


def record(bench: Bench, scenario: Scenario, repo: Path) -> Recorded:
    """Run a scenario's command and record what it does to the store."""
    log = bench.folder / "record"
    bench.run(
        repo, "strace", "-f", "-qq", "-y", "-s", "64", "-e", f"trace={_CALLS}", "-o", str(log),
        *scenario.command, ok=scenario.done,
    )  # fmt: skip
    calls, answered = [], -1
    pending: dict[str, str] = {}
    first = FIRST_LINE.decode().rstrip("\n")
    for line in log.read_text("utf-8", "replace").splitlines():
        process, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            pending[process] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<..."):
            text = pending.pop(process, "") + text.partition("resumed>")[2]
        match = _CALL.match(f"{process} {text}")
        if match is None or int(match[4]) < 0:
            continue
        call, rest = match[2], match[3]
        if call == "write" and "<pipe:" in rest and first in rest:
            answered = len(calls)
        calls.append((call, rest, int(match[4])))
    return Recorded(calls, answered)


def replay(recorded: Recorded, needed: set[str], sizes: dict[str, int]) -> Disk:
    """Lose power after every call; `needed` are the objects of the manifest that was made."""
    disk = Disk()
    for number, (call, rest, result) in enumerate(recorded.calls):
        disk.apply(call, rest, result)
        if "/theta/" in rest or number == recorded.answered:
            disk.lose_power(needed if number >= recorded.answered >= 0 else set(), sizes)
    return disk


def try_add(bench: Bench, edit: int) -> tuple[Recorded, set[str], dict[str, int]]:
    """Record `git add` of a version; the objects that its manifest names, and all sizes."""
    scenario = Scenario(f"add-{edit}", ("git", "add", NAME), edit=edit)
    repo = bench.copy(scenario)
    recorded = record(bench, scenario, repo)
    blob = bench.run(repo, "git", "cat-file", "blob", f":{NAME}").stdout
    sizes = {
        path.name: path.stat().st_size for path in (repo / ".git/theta").glob("objects/??/??/*")
    }
    return recorded, {ref.oid for ref in Manifest.parse(blob).objects()}, sizes


def measure(scale: float) -> list[Row]:
    """Replay `git add` of a few versions; `scale` 1 takes twelve."""
    states, wrong = 0, 0
    with tempfile.TemporaryDirectory(prefix="theta-power-") as folder:
        bench = Bench(Path(folder).resolve() / "bench")
        for edit in range(5, 5 + max(1, round(12 * scale))):
            disk = replay(*try_add(bench, edit))
            states, wrong = states + disk.states, wrong + len(disk.wrong)
    return [
        Row(
            "power lost",
            "the order of writes, syncs and renames recorded from `git add`; after each, every"
            " state in which what was not synced is gone",
            f"{states} states, {wrong} with a name without its bytes or an index without an object",
        )
    ]


if __name__ == "__main__":
    for row in measure(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0):
        print(row.what, "|", row.how, "|", row.result)
