"""One run of an evaluation: the version in a temporary folder, the command, and what it gave.

The command is a list of words; no shell sees it. What stands in the place of `{checkpoint}` has no
character that a shell, if the command starts one, would act on.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from git_theta_ext.checkpoints.placed import write_file
from git_theta_ext.checkpoints.shards import names_model
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files
from git_theta_ext.core.errors import EvaluationError, StoreError
from git_theta_ext.core.text import printable
from git_theta_ext.evaluation.config import PLACES, Evaluation
from git_theta_ext.evaluation.readers.read import read_folder
from git_theta_ext.evaluation.results import Result
from git_theta_ext.evaluation.targets import Target
from git_theta_ext.git.process import run_for
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer

_PLACE = re.compile(r"\{(" + "|".join(PLACES) + r")\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]|^-")
_TAIL_BYTES = 1 << 16
_SHOWN = 10
_PRINTED_BYTES = 1 << 30
"""What a command may print; one that prints without end would fill the disk."""
_writing = threading.Lock()
"""Versions are written one at a time, whatever is measured beside that."""


class Stopped(Exception):
    """The user stopped all evaluations."""


@dataclass(frozen=True, slots=True)
class Job:
    """A checkpoint that is to be measured, and by what.

    `examples_hash` and `beside` are what a result says of them.
    """

    evaluation: Evaluation
    target: Target
    examples_hash: str | None
    beside: str | None

    def matches(self, result: Result) -> bool:
        """Whether a result is of the same evaluation, examples and files beside the model."""
        return (
            result.origin == "measured"
            and result.content == self.target.content
            and result.evaluation == self.evaluation.name
            and result.definition == self.evaluation.definition
            and result.examples_hash == self.examples_hash
            and result.beside == self.beside
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends a command: `seconds`, None for no limit, or `stop`, once it is set."""

    seconds: float | None
    stop: threading.Event


def uses_folder(evaluation: Evaluation) -> bool:
    """Whether a command gets the folder of the model."""
    return any("{model_dir}" in word for word in evaluation.words)


def measure(
    job: Job,
    repository: Repository,
    blocks: Blocks,
    *,
    by: str,
    bounds: Bounds,
) -> tuple[Result, tuple[str, ...]]:
    """Measure one checkpoint; the result, and remarks on what was left out of it.

    Args:
        job: what is measured.
        repository: the command is run at the top of its work tree.
        blocks: where the objects of the checkpoint are; missing ones are fetched.
        by: who measures.
        bounds: what ends the command.

    Raises:
        EvaluationError: the command failed, took too long, or gave no result.
        Stopped: the user stopped it.
        ThetaError: the version cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="git-theta-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        results = folder / "results"
        results.mkdir()
        checkpoint = job.target.place or folder / "model" / _file_name(job.target)
        if job.target.place is None:
            with _writing:
                _write(job, folder / "model", repository, blocks)
        before = _stamp(job.target)
        values = {
            "checkpoint": str(checkpoint), "model_dir": str(checkpoint.parent),
            "results": str(results), "rev": job.target.rev,
        }  # fmt: skip
        output = _run(job, values, folder, repository.top, bounds)
        if _stamp(job.target) != before:
            raise EvaluationError(f"{printable(job.target.path)} changed while it was measured")
        scores, source, remarks = read_folder(
            results, output, job.evaluation.name, job.evaluation.lower_is_better
        )
    result = Result(
        job.target.content, job.evaluation.name, job.evaluation.definition, job.examples_hash,
        job.beside, "measured", by, int(time.time()), job.target.rev, job.target.path, source,
        scores,
    )  # fmt: skip
    return result, remarks


def _file_name(target: Target) -> str:
    """What the checkpoint is called in the temporary folder: the first shard for all of them."""
    path = target.files[0][0] if "*" in target.path else target.path
    return _UNSAFE.sub("_", PurePosixPath(path).name)


def _write(job: Job, folder: Path, repository: Repository, blocks: Blocks) -> None:
    """Write the checkpoint, and what belongs to it where the command gets the folder.

    Raises:
        ThetaError: an object is missing, or there is no room.
    """
    target = job.target
    folder.mkdir()
    single = len(target.files) == 1 and not names_model(target.path)
    for path, manifest in target.files:
        name = _file_name(target) if single else PurePosixPath(path).name
        smudger = Smudger(manifest, blocks, path)
        smudger.check_room(path, folder)
        write_file(folder / name, smudger)
    wanted = target.beside if uses_folder(job.evaluation) else ()
    if target.path.endswith(".json"):
        wanted = (*wanted, *((path, oid) for path, oid in target.beside if path == target.path))
    for path, oid in dict.fromkeys(wanted):
        name = _file_name(target) if path == target.path else PurePosixPath(path).name
        content = _content(repository, target.rev, path, oid)
        try:
            files.replace_file(folder / name, content)
        except OSError as error:
            raise StoreError(f"cannot write {name}: {error.strerror or error}") from error


def _content(repository: Repository, rev: str, path: str, oid: str) -> bytes:
    """The bytes of a file beside a model, those of git-lfs's object where it is a pointer."""
    data = repository.blob(oid)
    if len(data) <= POINTER_BYTES and read_pointer(data) is not None:
        return repository.git("cat-file", "--filters", f"{rev}:{path}")
    return data


def _stamp(target: Target) -> tuple[int, int] | None:
    """What shows that a file of the disk was written to."""
    if target.place is None:
        return None
    try:
        found = os.stat(target.place)
    except OSError:
        return -1, -1  # it has gone
    return found.st_size, found.st_mtime_ns


def _run(job: Job, values: Mapping[str, str], folder: Path, top: Path, bounds: Bounds) -> str:
    """Run the command; the end of what it printed."""
    words = [_PLACE.sub(lambda found: values[found[1]], word) for word in job.evaluation.words]
    with files.new_file(folder / "output") as output, files.new_file(folder / "errors") as errors:

        def tick() -> None:
            if bounds.stop.is_set():
                raise Stopped
            if os.fstat(output.fileno()).st_size > _PRINTED_BYTES:
                raise EvaluationError(f"{job.evaluation.name} prints without end, and was stopped")

        status = run_for(words, top, output, errors, seconds=bounds.seconds, tick=tick)
    if bounds.stop.is_set():
        raise Stopped
    if status == 0:
        return _tail(folder / "output")
    said = _tail(folder / "errors") or _tail(folder / "output")
    lines = [f"    {printable(line)}" for line in said.strip().splitlines()[-_SHOWN:]]
    if status is None:
        what = f"took longer than {bounds.seconds:g} s, and was stopped"
    else:
        what = f"exited with {status}" if status > 0 else f"was ended by signal {-status}"
    raise EvaluationError("\n".join([f"{job.evaluation.name} {what}", *lines]))


def _tail(path: Path) -> str:
    """The end of what was printed."""
    with files.plain(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


def committer(repository: Repository) -> str:
    """Who measures or imports, as Git names committers; empty where Git does not know."""
    answer = repository.git("var", "GIT_COMMITTER_IDENT", ok=(0, 128)).decode("utf-8", "replace")
    return answer.rpartition(">")[0].strip() + ">" if ">" in answer else ""
