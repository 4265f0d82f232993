"""Every way in which a transfer fails, under every command that transfers.

    python -m tests.reliability.transfers --scale 1

A real LFS server stands behind a proxy that spoils its answers. For each pair of a fault and a
command: the command is run under the fault, the host and the work tree are looked at, the fault is
lifted, and the command is run again. What must hold:

- no ref of the host names an object that its LFS server does not hold, byte for byte;
- the checkpoint in the work tree is the old version, the new one, or not there; and with an exit
  status of 0 it is the right one;
- a failure says what is wrong, and what to type;
- the second run succeeds, and nothing that had been transferred is transferred again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.rows import Row
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.servers.backends import KINDS
from tests.servers.front import Fault, Faults, Kind, Request, write_passwords
from tests.servers.site import Client, Site, site, without_git_lfs

NAME = "m.safetensors"
_NOWHERE = "http://127.0.0.1:9/"
"""The discard port: nobody listens there."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong: in the proxy, in the user's environment, or in what the server holds."""

    name: str
    faults: Callable[[], Faults] | None = None
    no_server: bool = False
    no_git_lfs: bool = False
    half: bool = False


def _batch(fault: Fault, times: int = 10**9) -> Callable[[], Faults]:
    """The batch API fails, so many times."""

    def make() -> Faults:
        left = times

        def decide(request: Request) -> Fault | None:
            nonlocal left
            if request.kind != "batch" or left <= 0:
                return None
            left -= 1
            return fault

        return decide

    return make


def _one_object(fault: Fault, *kinds: Kind, times: int = 10**9) -> Callable[[], Faults]:
    """The transfer of one object fails, so many times; the others go through."""

    def make() -> Faults:
        left = times
        victim = ""

        def decide(request: Request) -> Fault | None:
            nonlocal left, victim
            if request.kind not in kinds or left <= 0:
                return None
            victim = victim or request.oids[0]
            if request.oids[0] != victim:
                return None
            left -= 1
            return fault

        return decide

    return make


def _troubles() -> Iterator[Trouble]:
    wait = (("Retry-After", "1"),)
    both: tuple[Kind, ...] = ("upload", "download")
    for status in (401, 403, 404, 413, 429, 500, 503):
        fault = Fault("status", status, wait if status == 429 else ())
        yield Trouble(f"batch {status}", _batch(fault))
        yield Trouble(f"object {status}", _one_object(fault, *both))
    yield Trouble("batch 429 once", _batch(Fault("status", 429, wait), 1))
    yield Trouble("object 429 once", _one_object(Fault("status", 429, wait), *both, times=1))
    yield Trouble("object 503 once", _one_object(Fault("status", 503), *both, times=1))
    yield Trouble("batch dropped", _batch(Fault("drop")))
    yield Trouble("object dropped", _one_object(Fault("drop"), *both))
    yield Trouble("object cut", _one_object(Fault("cut"), *both))
    yield Trouble("object cut once", _one_object(Fault("cut"), *both, times=1))
    yield Trouble("truncated", _one_object(Fault("truncate"), "download"))
    yield Trouble("corrupted", _one_object(Fault("corrupt"), "download"))
    yield Trouble("acknowledged, lost", _one_object(Fault("lose"), "upload"))
    yield Trouble("verify 500", _one_object(Fault("status", 500), "verify"))
    yield Trouble("half of the objects", half=True)
    yield Trouble("no server", no_server=True)
    yield Trouble("no git-lfs", no_git_lfs=True)


TROUBLES = tuple(_troubles())


@dataclass(frozen=True, slots=True)
class Command:
    """A command, the clone that it is run in, and the way back from its failure."""

    name: str
    clone: str
    words: tuple[str, ...]
    back: tuple[tuple[str, ...], ...] = ()
    sends: bool = False


_THETA = (sys.executable, "-m", "git_theta_ext.cli.main")
_FORCE = ("git", "checkout", "-q", "-f")

COMMANDS = (
    Command("push", "ahead", ("git", "push", "-q", "origin", "main"), sends=True),
    Command("theta push", "ahead", (*_THETA, "push", "origin"), sends=True),
    Command("fetch", "behind", ("git", "fetch", "-q")),
    Command("pull", "behind", ("git", "pull", "-q"), (_FORCE,)),
    Command("clone", "", ("git", "clone", "-q", "URL", "CLONE")),
    Command("checkout", "fetched", (*_FORCE[:3], "origin/main"), (_FORCE,)),
    Command("theta fetch", "fetched", (*_THETA, "fetch", "origin", "origin/main")),
    Command("theta pull", "bare", (*_THETA, "pull")),
)


@dataclass(slots=True)
class Outcome:
    """What a pair came to; every list is empty if all is well."""

    pair: str
    status: int = 0
    said: str = ""
    unbacked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """All of them, in words."""
        found = [
            *(f"ref moved without its objects: {ref}" for ref in self.unbacked),
            *(f"wrong file: {what}" for what in self.wrong),
            *(f"transferred twice: {oid}" for oid in self.twice),
            *(f"unclear: {text}" for text in self.unclear),
            *(f"not mended by a second run: {text}" for text in self.stuck),
        ]
        return [f"{self.pair}: {problem}" for problem in found]


class Laboratory:
    """A host with two states of a repository, from which every pair gets copies of its own."""

    def __init__(self, host: Site) -> None:
        self.site = host
        tensors = dict(model(0, layers=1, width=16))
        self.versions = [safetensors(tensors)]
        for name in [name for name in tensors if name.endswith("weight")]:
            tensors[name] = changed(tensors[name])
        self.versions.append(safetensors(tensors))
        host.create("old/model")
        ahead = host.start("ahead", "old/model")
        ahead.write(NAME, self.versions[0])
        ahead.commit()
        ahead.git("push", "-q", "-u", "origin", "main")
        host.clone("behind", "old/model")
        self._copy_host("old/model", "new/model")
        ahead.write(NAME, self.versions[1])
        ahead.commit()
        # So that the new state has the old one as its past.
        ahead.git("push", "-q", host.url("new/model"), "main")
        self.oids = ahead.oids(f"HEAD:{NAME}")
        self.fresh = sorted(self.oids - ahead.oids(f"HEAD~1:{NAME}"))
        fetched = self._copy_clone("behind", "fetched", "new/model")
        fetched.git("fetch", "-q")
        skip = {**host.environment, "GIT_THETA_SKIP_SMUDGE": "1"}
        Client(host.root, skip).git("clone", "-q", host.url("new/model"), "bare")
        self._number = 0

    def _copy_host(self, name: str, copy: str) -> None:
        projects, objects = self.site.host.projects, self.site.backend.folder
        shutil.copytree(projects / f"{name}.git", projects / f"{copy}.git", symlinks=True)
        shutil.copytree(objects / name, objects / copy)

    def _copy_clone(self, name: str, copy: str, remote: str) -> Client:
        shutil.copytree(self.site.root / name, self.site.root / copy, symlinks=True)
        clone = self.site.client(copy)
        clone.git("config", "remote.origin.url", self.site.url(remote))
        return clone

    def run(self, trouble: Trouble, command: Command) -> Outcome:
        """Run a command under a fault and again without it; what came of it."""
        self._number += 1
        name = f"pair-{self._number}/model"
        host = self.site.host
        self._copy_host("old/model" if command.sends else "new/model", name)
        clone = self.site.client(f"clone-{self._number}")
        if command.clone:
            clone = self._copy_clone(command.clone, clone.path.name, name)
        outcome = Outcome(f"{trouble.name} × {command.name} ({self.site.backend.name})")
        write_passwords(host.url, self.site.root / "home")
        host.records.clear()
        with self._spoiled(trouble, command, name) as environment:
            done = self._execute(command, clone, name, environment)
            outcome.status = done.status
            outcome.said = done.said
            if not (trouble.half and not command.sends):
                outcome.unbacked += self.site.unbacked(name)
            outcome.wrong += self._wrong(command, clone, done.status)
            if done.status and not _is_clear(done.said, trouble):
                outcome.unclear.append(done.said)
        write_passwords(host.url, self.site.root / "home")  # git forgets a password after a 401
        if trouble.half:
            for oid in self.fresh:
                self._give_back(name, oid)
        self._again(command, clone, name, outcome)
        counts = Counter(host.moved("upload")) + Counter(host.moved("download"))
        outcome.twice += [oid for oid, count in counts.items() if count > 1]
        shutil.rmtree(clone.path, ignore_errors=True)
        return outcome

    @contextmanager
    def _spoiled(
        self, trouble: Trouble, command: Command, name: str
    ) -> Iterator[Mapping[str, str]]:
        environment: dict[str, str] = {}
        if trouble.no_git_lfs:
            environment["PATH"] = without_git_lfs(self.site.root / "programs")
        if trouble.no_server:
            environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"url.{_NOWHERE}.insteadOf",
                "GIT_CONFIG_VALUE_0": f"{self.site.host.url}/",
            }
        if trouble.half:
            for oid in self.fresh[::2]:
                if command.sends:
                    self._give_back(name, oid)
                else:
                    self.site.backend.place(name, oid).unlink()
        self.site.host.faults = trouble.faults() if trouble.faults is not None else None
        try:
            yield environment
        finally:
            self.site.host.faults = None

    def _give_back(self, name: str, oid: str) -> None:
        target = self.site.backend.place(name, oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(self.site.backend.place("new/model", oid), target)

    def _execute(
        self, command: Command, clone: Client, name: str, environment: Mapping[str, str]
    ) -> _Done:
        words = [
            {"URL": self.site.url(name), "CLONE": str(clone.path)}.get(word, word)
            for word in command.words
        ]
        where = clone if command.clone else Client(self.site.root, self.site.environment)
        done = where.start(*words, env=environment)
        return _Done(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def _wrong(self, command: Command, clone: Client, status: int) -> list[str]:
        """What is not as it may be in the work tree."""
        path = clone.path / NAME
        if not path.exists():
            return [] if status else ["the command succeeded, and the file is not there"]
        data = path.read_bytes()
        if data not in self.versions:
            if command.name == "theta pull" and status and data == clone.blob(f"HEAD:{NAME}"):
                return []
            return [f"{len(data)} bytes: {data[:60]!r}"]
        if status or command.name in ("push", "theta push", "fetch", "theta fetch"):
            return []
        return [] if data == self.versions[1] else ["the command succeeded, the file is old"]

    def _again(self, command: Command, clone: Client, name: str, outcome: Outcome) -> None:
        """Without the fault everything must come to a good end."""
        if outcome.status and command.name == "clone" and (clone.path / ".git").exists():
            done = clone.start(*_FORCE)
            texts = [] if not done.returncode else [done.stderr.decode("utf-8", "replace")]
        else:
            for back in command.back if outcome.status else ():
                clone.start(*back)
            if outcome.status or command.name != "clone":
                last = self._execute(command, clone, name, {})
                texts = [last.said] if last.status else []
            else:
                texts = []
        if not texts:
            texts += [f"{ref} lacks objects" for ref in self.site.unbacked(name)]
            texts += self._wrong(command, clone, 0)
            if clone.status():
                texts.append(f"git status: {clone.status()}")
            if command.name == "push":
                tip = Client(self.site.host.projects / f"{name}.git", self.site.environment)
                if tip.git("rev-parse", "main") != clone.git("rev-parse", "main"):
                    texts.append("the ref did not move")
            if command.name == "theta push":
                texts += [oid for oid in self.oids if not self.site.holds(name, oid)]
        outcome.stuck += texts


@dataclass(frozen=True, slots=True)
class _Done:
    status: int
    said: str


def _is_clear(said: str, trouble: Trouble) -> bool:
    """Whether a failure names its cause and tells what to type."""
    if trouble.no_server and "unable to access" in said:
        return True  # Git's own words
    ours = "git-theta: " in said or "git theta: error: " in said
    return ours and "hint: " in said


def pairs(scale: float) -> list[tuple[Trouble, Command]]:
    """All pairs, or an even share of them: every fault and every command come up early."""
    everything = [
        (trouble, COMMANDS[(number + shift) % len(COMMANDS)])
        for shift in range(len(COMMANDS))
        for number, trouble in enumerate(TROUBLES)
    ]
    return everything[: max(1, round(len(everything) * min(scale, 1)))]


def run(kind: str, chosen: list[tuple[Trouble, Command]], folder: Path) -> list[Outcome]:
    """Try some pairs against one server."""
    with site(kind, folder) as host:
        laboratory = Laboratory(host)
        return [laboratory.run(trouble, command) for trouble, command in chosen]


def measure(scale: float) -> list[Row]:
    """A line for the table; scale 1 is every pair with every server."""
    outcomes: list[Outcome] = []
    chosen = pairs(scale)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes += run(kind, chosen, Path(folder) / "site")
    for outcome in outcomes:
        for problem in outcome.problems():
            print(problem, file=sys.stderr)
    return [
        Row(
            "transfer faults × commands",
            f"{len(TROUBLES)} faults × {len(COMMANDS)} commands, put in the way of "
            f"{' and '.join(KINDS)} by a proxy; then the command again, without the fault",
            f"{len(outcomes)} pairs: {sum(len(o.unbacked) for o in outcomes)} refs moved without "
            f"objects, {sum(len(o.wrong) for o in outcomes)} wrong files, "
            f"{sum(len(o.twice) for o in outcomes)} objects transferred twice, "
            f"{sum(len(o.unclear) for o in outcomes)} messages without a way on, "
            f"{sum(len(o.stuck) for o in outcomes)} not mended by a second run",
        )
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1)
    for row in measure(parser.parse_args().scale):
        print(f"| {row.what} | {row.how} | {row.result} |")
