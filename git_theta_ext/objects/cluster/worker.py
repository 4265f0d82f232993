"""A worker's side of a cluster: is this the same program, are these the same files, and the work.

What arrives names functions of this package and holds paths, places and object ids. Objects that
the work makes are written to the store, and are on its disk, before the answer goes back.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from git_theta_ext.core import files
from git_theta_ext.core.blas import single_threaded
from git_theta_ext.core.errors import ClusterError, MissingObjectError, StoreError, ThetaError
from git_theta_ext.core.version import VERSION
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.executor import UnseenError

if TYPE_CHECKING:
    from distributed import Worker

_WITH_RESULTS = ("numpy", "ml_dtypes", "zstandard", "pcodec")
"""Libraries whose versions decide what an object's bytes are."""

_TAKEN = 400 << 20
"""Memory that work takes with the budget that one machine has: `parallel.BUDGET_BYTES` raw bytes of
blocks that are encoded, or `combine.jobs.BUDGET_BYTES` of all that a merge holds."""
_SHARE = 2
"""One byte in so many of what a worker may have is for work; the rest is Python, and room."""


def versions() -> tuple[tuple[str, str], ...]:
    """What must be the same everywhere for the same bytes to come out: names and versions."""
    return (("git-theta-ext", VERSION), *((name, _version(name)) for name in _WITH_RESULTS))


@cache
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, slots=True)
class Token:
    """How a worker tells that it sees the caller's files, and is the same program.

    `path` is a file in the store that holds `secret`; `folders` are those that objects are read
    from; `versions` are the caller's.
    """

    path: str
    secret: str
    folders: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]

    def problem(self, who: str) -> ClusterError | None:
        """Why `who` cannot do the work, with what to do about it; None where it can."""
        here = versions()
        for (name, theirs), (_, ours) in zip(self.versions, here, strict=True):
            if theirs != ours:
                return ClusterError(
                    f"{who} has {name} {ours}, this machine {theirs}",
                    hint="the objects would be others: install the same versions on all machines",
                )
        for folder in self.folders:
            if not os.path.isdir(folder):
                return unseen(who, UnseenError(folder, "there is no such folder"))
        try:
            found = files.read_whole(self.path).decode("ascii", "replace")
        except OSError as error:
            return unseen(who, UnseenError(self.path, error.strerror or str(error)))
        if found != self.secret:
            return unseen(who, UnseenError(self.path, "another file is there"))
        return None


def called(worker: Worker) -> str:
    """A worker, as messages name it."""
    return f"worker {worker.address} on {socket.gethostname()}"


def unseen(who: str, error: UnseenError) -> ClusterError:
    """The error of a file that a worker does not see."""
    return ClusterError(
        f"{who} does not see {error.path}: {error.why}",
        hint="workers read the work tree and write the store themselves: have the repository on a "
        "file system that all machines have at the same path, or stop that worker",
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """A few items that one task works on, one after the other.

    `costs` are the raw bytes that each holds, and `budget` what may be held at once where memory
    is as on one machine; see `Executor.map`.
    """

    token: Token
    context: Blocks
    work: Callable[[Blocks, Any], Any]
    items: tuple[Any, ...]
    costs: tuple[int, ...]
    budget: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a batch: the results or, where it failed, why; and what is to be told."""

    results: Sequence[Any]
    error: ThetaError | None = None
    remarks: tuple[str, ...] = ()


def probe(token: Token, dask_worker: Worker) -> ClusterError | None:
    """See `Token.problem`; Dask gives the worker by this name."""
    return token.problem(called(dask_worker))


def run(batch: Batch) -> Answer:
    """Work on a batch. What it wrote is durable when this returns, also if it is done twice."""
    from distributed import get_worker

    worker = get_worker()
    who, problem = called(worker), None
    if batch.token not in _sound:
        problem = batch.token.problem(who)
    if problem is not None:
        return Answer((), problem)
    _sound.add(batch.token)
    store, told = batch.context.store, _Told()
    store.tell = told.hear
    results = []
    memory = int(worker.memory_manager.memory_limit or 0)  # 0 where it has no bound
    limit = max(batch.budget, memory // _SHARE * batch.budget // _TAKEN)
    try:
        with told.listening(), single_threaded(), store.gathering():
            for item, cost in zip(batch.items, batch.costs, strict=True):
                with _GATE.holding(cost, limit):
                    results.append(batch.work(batch.context, item))
            store.flush()
    except UnseenError as error:
        return Answer((), unseen(who, error), told.said)
    except (StoreError, MissingObjectError) as error:
        named = type(error)(f"{who}: {error.message}", hint=error.hint)
        return Answer((), named, told.said)
    except ThetaError as error:
        return Answer((), error, told.said)
    except OSError as error:
        return Answer((), ClusterError(f"{who}: {error}"), told.said)
    except MemoryError:
        return Answer((), ClusterError(f"{who} is out of memory", hint=MORE_MEMORY), told.said)
    return Answer(results, None, told.said)


MORE_MEMORY = "give workers more memory, or fewer threads: dask worker --memory-limit, --nthreads"

_sound: set[Token] = set()
"""Callers whose files were seen here: what is so once is so."""


class _Gate:
    """Lets work begin while there is room for what it holds, or none is under way."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._held = 0

    @contextmanager
    def holding(self, cost: int, limit: int) -> Iterator[None]:
        """Wait for room, and give it back at the end."""
        with self._turn:
            self._turn.wait_for(lambda: not self._held or self._held + cost <= limit)
            self._held += cost
        try:
            yield
        finally:
            with self._turn:
                self._held -= cost
                self._turn.notify_all()


_GATE = _Gate()


class _Told:
    """What the store says meanwhile, on this thread: other batches share the store."""

    _local = threading.local()

    def __init__(self) -> None:
        self._lines: list[str] = []

    @property
    def said(self) -> tuple[str, ...]:
        """All of it."""
        return tuple(self._lines)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect what is said on this thread."""
        self._local.lines = self._lines
        try:
            yield
        finally:
            del self._local.lines

    @classmethod
    def hear(cls, text: str) -> None:
        """Note a line for whoever listens on this thread."""
        getattr(cls._local, "lines", []).append(text)
