"""Fuzzing of every parser: guided by coverage where atheris is installed, else plain mutation.

    pip install 'git-theta-ext[fuzz]'            # atheris: Linux, CPython 3.11 to 3.13
    python -m tests.reliability --only fuzz --scale 0.1
    python -m tests.reliability.fuzz --target gguf --runs 1000000 --keep

A million executions of each target are the full run. An input that takes more than 2 s of the
processor's time or 500 MB of memory is a defect, like any exception that the parser does not
promise. Targets and their laws: targets.py; inputs worth keeping: corpus/.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tests.reliability.rows import Row

if TYPE_CHECKING:
    from tests.reliability.targets import Target

SECONDS = 2.0
MEGABYTES = 500
MAX_LENGTH = 4096
RUNS = 1_000_000
"""Executions of each target in the full run."""
SEED = 1
_CORPUS_BYTES = 4000
"""What is kept of each target's corpus, before it is written as text."""
MENDED = "# found by fuzzing, and mended:"
_REPORT_EVERY = 500
_HANG_SECONDS = 60
_ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Finding:
    """A defect: what happened, where, and an input that makes it happen."""

    what: str
    data: bytes


@dataclass(slots=True)
class Report:
    """What came of fuzzing one target."""

    target: str
    executions: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        found = {k: [f.what, base64.b64encode(f.data).decode()] for k, f in self.findings.items()}
        return json.dumps({"target": self.target, "executions": self.executions, "findings": found})

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What `to_json` wrote."""
        known = json.loads(text)
        findings = {
            key: Finding(what, base64.b64decode(data))
            for key, (what, data) in known["findings"].items()
        }
        return cls(known["target"], known["executions"], findings)


class Watch:
    """Runs a target on inputs and notes what it must not do."""

    def __init__(self, target: Target) -> None:
        self._run = target.run
        self.report = Report(target.name)
        for seed in target.seeds():
            self._run(seed)
        self._peak = _peak_megabytes()
        warnings.simplefilter("error")

    def __call__(self, data: bytes) -> None:
        """One execution. Nothing is raised: fuzzing goes on after a defect."""
        start = time.thread_time()
        try:
            self._run(data)
        except Exception as error:
            self._note(_place(error), traceback.format_exc(limit=-6), data)
        seconds = time.thread_time() - start
        if seconds > SECONDS:
            # Once more: a parser that is slow is slow again, a busy machine is not.
            seconds = min(seconds, self._time(data))
        if seconds > SECONDS:
            self._note("time", f"{seconds:.1f} s", data)
        peak = _peak_megabytes()
        if peak - self._peak > MEGABYTES:
            self._note("memory", f"{peak - self._peak:.0f} MB", data)
            self._peak = peak
        self.report.executions += 1

    def _time(self, data: bytes) -> float:
        start = time.thread_time()
        with contextlib.suppress(Exception):
            self._run(data)
        return time.thread_time() - start

    def _note(self, key: str, what: str, data: bytes) -> None:
        known = self.report.findings.get(key)
        if known is None or len(data) < len(known.data):
            self.report.findings[key] = Finding(what, bytes(data))


def _peak_megabytes() -> float:
    """The most memory that this process ever had resident; 0 where the system does not tell.

    Linux is asked for this program's own peak: that of getrusage(2) begins with the parent's.
    """
    status = _status_file()
    if status is not None:
        match = re.search(rb"VmHWM:\s*(\d+) kB", os.pread(status, 8192, 0))
        if match:
            return int(match[1]) / 1024
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@functools.cache
def _status_file() -> int | None:
    try:
        return os.open("/proc/self/status", os.O_RDONLY)
    except OSError:
        return None


def _place(error: BaseException) -> str:
    """Type of an exception and the innermost line of this project that it passed."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
    ]
    return f"{type(error).__name__} at {places[-1] if places else 'unknown'}"


# -- plain mutation --------------------------------------------------------------------------------

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class Mutator:
    """Random changes of known inputs; the same ones for the same seed."""

    def __init__(self, inputs: Sequence[bytes], words: Sequence[bytes], seed: int) -> None:
        self._inputs = [data[:MAX_LENGTH] for data in inputs]
        self._words = list(words)
        self._random = random.Random(seed)

    def next(self) -> bytes:
        """An input that was changed in one to four places."""
        data = bytearray(self._random.choice(self._inputs))
        for _ in range(self._random.randint(1, 4)):
            self._change(data)
        return bytes(data[:MAX_LENGTH])

    def _change(self, data: bytearray) -> None:
        choose = self._random
        at = choose.randrange(len(data) + 1)
        kind = choose.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << choose.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = choose.randrange(256)
        elif kind == 2:
            del data[at : at + choose.choice((1, 2, 4, 8, 32, 500))]
        elif kind == 3:
            piece = data[at : at + choose.choice((1, 4, 16, 64))]
            data[at:at] = piece * choose.choice((1, 1, 2, 20))
        elif kind == 4:
            width = choose.choice("BHIQ")
            size = struct.calcsize(width)
            order = choose.choice("<>")
            number = choose.choice(_NUMBERS) % (1 << 8 * size)
            data[at : at + size] = struct.pack(order + width, number)
        elif kind == 5 and self._words:
            word = choose.choice(self._words)
            data[at : at + choose.choice((0, len(word)))] = word
        elif kind == 6:
            other = choose.choice(self._inputs)
            start = choose.randrange(len(other) + 1)
            data[at:] = other[start:]
        else:
            data[at:at] = choose.choice((b"0", b"9", b"[", b"{", b"-", b"\n", b"\0", b"\xff" * 4))


def mutate(target: Target, runs: int, seed: int = SEED) -> Report:
    """So many executions of mutated inputs, in this process."""
    from tests.reliability.targets import corpus

    watch = Watch(target)
    known = corpus(target)
    mutator = Mutator(known, target.words, seed)
    for data in known:
        watch(data)
    while watch.report.executions < runs:
        watch(mutator.next())
    return watch.report


# -- coverage-guided: one process for each target --------------------------------------------------


def is_guided() -> bool:
    """Whether atheris is installed."""
    return find_spec("atheris") is not None


def _guided(name: str, runs: int, folder: Path, seed: int) -> None:
    """Fuzz one target in this process, which ends with it; reports to `folder / "report"`."""
    import atheris

    with atheris.instrument_imports(include=["git_theta_ext"]):
        from tests.reliability import targets

        target = targets.TARGETS[name]
        for data in target.seeds():
            target.run(data)  # imports what is imported late
    watch = Watch(target)
    known = folder / "known"
    known.mkdir()
    for data in targets.corpus(target):
        (known / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    (folder / "found").mkdir()
    (folder / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))

    def one(data: bytes) -> None:
        watch(data)
        if watch.report.executions % _REPORT_EVERY == 0 or watch.report.executions == runs:
            _write(folder / "report", watch.report.to_json())

    arguments = [
        sys.argv[0], f"-runs={runs}", f"-max_len={MAX_LENGTH}", f"-seed={seed}", "-rss_limit_mb=0",
        f"-timeout={_HANG_SECONDS}", f"-artifact_prefix={folder}/crash-", "-verbosity=0",
        *([f"-dict={folder / 'words'}"] if target.words else []), str(folder / "found"), str(known),
    ]  # fmt: skip
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    os.replace(temporary, path)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def guide(name: str, runs: int, folder: Path, seed: int = SEED) -> Report:
    """Fuzz one target in a process of its own; a crash of the process is a finding too."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.fuzz", "--target", name, "--runs", str(runs),
         "--seed", str(seed), "--child", str(folder)],
        cwd=_ROOT, capture_output=True, check=False,
    )  # fmt: skip
    said = done.stderr.decode("utf-8", "replace")
    path = folder / "report"
    report = Report.from_json(path.read_text()) if path.exists() else Report(name)
    if done.returncode or report.executions < runs:
        crashes = sorted(folder.glob("crash-*"))
        data = crashes[0].read_bytes() if crashes else b""
        report.findings["process"] = Finding(f"exit {done.returncode}: {said[-500:]}", data)
    return report


def keep(target: Target, folder: Path) -> int:
    """Put inputs that fuzzing found into the corpus, those that reach something new; how many.

    The smaller ones come first. What was kept because it was once a defect (below that comment)
    stays.
    """
    from tests.reliability.targets import CORPUS

    path = CORPUS / f"{target.name}.txt"
    path.parent.mkdir(exist_ok=True)
    kept = [line for line in path.read_text().splitlines() if line] if path.exists() else []
    reasons = kept[kept.index(MENDED) :] if MENDED in kept else []
    reached: set[tuple[object, ...]] = set()
    for seed in target.seeds():
        reached |= _lines_reached(target, seed)
    total, lines = 0, []
    found = [*(folder / "found").iterdir(), *(folder / "known").iterdir()]
    for data in sorted((one.read_bytes() for one in found), key=lambda one: (len(one), one)):
        if total + len(data) > _CORPUS_BYTES:
            break
        new = _lines_reached(target, data) - reached
        if new:
            reached |= new
            total += len(data)
            lines.append(base64.b64encode(data).decode())
    path.write_text("".join(f"{line}\n" for line in [*lines, *reasons]), newline="\n")
    return len(lines)


def _lines_reached(target: Target, data: bytes) -> set[tuple[object, ...]]:
    """The pairs of lines of the package that follow each other when a target runs."""
    found: set[tuple[object, ...]] = set()

    def global_trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        if "git_theta_ext" not in name and "drivers" not in name:
            return None
        last = 0

        def local_trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            nonlocal last
            found.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return local_trace

        return local_trace

    sys.settrace(global_trace)
    try:
        target.run(data)
    except Exception:
        return set()
    finally:
        sys.settrace(None)
    return found


# -- the part of the table -------------------------------------------------------------------------


def run_all(names: Sequence[str], runs: int, advance: Callable[[Report], object]) -> list[Report]:
    """Every target so many times, several at once; `advance` hears of each."""
    from tests.reliability.targets import TARGETS

    def one(name: str) -> Report:
        if not is_guided():
            report = mutate(TARGETS[name], runs)
        else:
            with tempfile.TemporaryDirectory(prefix=f"theta-fuzz-{name}-") as folder:
                report = guide(name, runs, Path(folder))
        advance(report)
        return report

    workers = (os.cpu_count() or 1) if is_guided() else 1
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, names))


def measure(scale: float) -> list[Row]:
    """A share of a million executions of every target."""
    from tests.reliability.targets import TARGETS

    runs = max(200, round(RUNS * scale))

    def tell(report: Report) -> None:
        print(
            f"  {report.target}: {report.executions:,}, {len(report.findings)} findings",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        for key, finding in report.findings.items():
            print(f"    {key}: {finding.what}\n    {finding.data!r}", file=sys.stderr, flush=True)

    reports = run_all(list(TARGETS), runs, tell)
    return [row(reports, is_guided())]


def row(reports: Sequence[Report], guided: bool) -> Row:
    """The line of the table."""
    total = sum(report.executions for report in reports)
    least = min(report.executions for report in reports)
    bad = [f"{report.target}: {key}" for report in reports for key in report.findings]
    how = "guided by coverage (atheris)" if guided else "random mutation"
    return Row(
        f"fuzzing of {len(reports)} parsers: crashes, more than {SECONDS:g} s, {MEGABYTES} MB",
        f"{how}, seed {SEED}: {total:,} executions, at least {least:,} of each parser",
        f"{len(bad)} found" + (f": {'; '.join(bad)}" if bad else ""),
    )


def main() -> int:
    """Fuzz one target; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--keep", action="store_true", help="put new inputs into the corpus")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _guided(options.target, options.runs, options.child, options.seed)
        return 0
    from tests.reliability.targets import TARGETS

    target = TARGETS[options.target]
    with tempfile.TemporaryDirectory(prefix="theta-fuzz-") as name:
        folder = Path(name)
        guided = is_guided()
        report = (
            guide(target.name, options.runs, folder, options.seed)
            if guided
            else mutate(target, options.runs, options.seed)
        )
        print(report.to_json(), flush=True)
        for key, finding in report.findings.items():
            print(f"{key}\n{finding.what}\n{finding.data!r}", file=sys.stderr)
        if options.keep and guided:
            print(f"{keep(target, folder)} inputs kept", file=sys.stderr)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
