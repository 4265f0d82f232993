"""A Dask cluster as an executor: https://distributed.dask.org. Nothing else imports `distributed`.

Dask sends pickles, and whoever the scheduler is may run what it likes here and on the workers: the
address comes from the user's command, environment or git config, never from a file of a commit.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from git_theta_ext.core import advice, files
from git_theta_ext.core.errors import ClusterError, StoreError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.objects.cluster.worker import (
    MORE_MEMORY,
    Answer,
    Batch,
    Token,
    probe,
    run,
    versions,
)
from git_theta_ext.objects.executor import Context, Item, Result
from git_theta_ext.objects.store.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_SECONDS = 10
_LOST_SECONDS = 60
"""How long a cluster may be without workers: a nanny starts a new one in a few."""
_LOOK_SECONDS = 5
BATCH_BYTES = 32 << 20
_FIRST_BYTES = 8 << 20
_BATCH = 128
"""Items of a task, and their raw bytes: to schedule one takes a millisecond and more. The first
tasks are smaller, so that all workers have something to do with a file of some hundred megabytes.
"""
AHEAD = 4
"""Tasks under way for each thread of the cluster: results are taken in order."""


class Dask:
    """Sends work to a cluster; connects when it is first asked to."""

    far = True

    def __init__(self, address: str, store: Store) -> None:
        """Nothing is sent before `check` or `map`.

        Args:
            address: the scheduler's, `tcp://HOST:PORT`.
            store: the one that is worked on, which all workers are to see.
        """
        self._address = address
        self._store = store
        self._asked = 0.0
        self._threads = 0
        self._seen = 0.0
        """When there were workers last."""

    def check(self) -> None:
        """Connect, and ask every worker whether it can do the work.

        Raises:
            ClusterError: there is no cluster at the address, or a worker of it cannot.
        """
        token = self._token
        problems = self._client.run(probe, token, on_error="return")
        wrong = {name: one for name, one in problems.items() if one is not None}
        for name, one in wrong.items():
            more = f" (and {plural(len(wrong) - 1, 'other')})" if len(wrong) > 1 else ""
            if isinstance(one, ClusterError):
                raise ClusterError(f"{one.message}{more}", hint=one.hint)
            raise _not_installed(f"worker {printable(name)}{more}", one)

    def map(
        self,
        context: Context,
        work: Callable[[Context, Item], Result],
        items: Iterable[Item],
        cost: Callable[[Item], int],
        budget: int,
    ) -> Iterator[Result]:
        """See `Executor.map`.

        Raises:
            ClusterError: the cluster is not there, a worker cannot do the work, or workers died of
                it again and again.
        """
        waiting: deque[Future] = deque()
        try:
            for group, costs in _grouped(items, cost, self._most()):
                while len(waiting) >= self._most():
                    yield from self._results(waiting)
                batch: Any = Batch(self._token, context, work, group, costs, budget)  # type: ignore[arg-type]
                waiting.append(self._submit(batch))
            while waiting:
                yield from self._results(waiting)
        finally:
            with suppress(Exception):
                for future in waiting:
                    future.cancel()

    def close(self) -> None:
        """Leave the cluster."""
        if "_client" in self.__dict__:
            with suppress(Exception), _quietly():  # what was asked for is done, or has failed
                self._client.close()
            del self._client
        if "_token" in self.__dict__:
            files.remove_quietly(self._token.path)
            del self._token

    @cached_property
    def _client(self) -> Client:
        """The connection, which is made once; ClusterError where there is none, or no worker."""
        try:
            from distributed import Client
        except ImportError as error:
            raise ClusterError(
                "work is to go to a Dask cluster, and the package distributed is not here",
                hint=advice.install_other("distributed"),
            ) from error
        try:
            _knock(self._address)
            client = Client(self._address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:  # a time-out is one of the former
            raise ClusterError(
                f"there is no Dask scheduler at {printable(self._address)}: {_why(error)}",
                hint="start one: dask scheduler   (docs/scale.md); or work here: --on here",
            ) from error
        self._threads = sum(client.nthreads().values())
        self._asked = self._seen = time.monotonic()
        if not self._threads:
            with suppress(Exception):
                client.close()
            raise ClusterError(
                f"the Dask cluster at {printable(self._address)} has no workers",
                hint="start some, on machines that see this repository: dask worker HOST:PORT",
            )
        return client

    @cached_property
    def _token(self) -> Token:
        """A file that only workers see which have this very store."""
        path, secret = self._store.scratch("seen"), secrets.token_hex(16)
        try:
            files.replace_file(path, secret.encode("ascii"))
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        there = tuple(os.path.abspath(one) for one in self._store.roots if one.is_dir())
        return Token(os.path.abspath(path), secret, there, versions())

    def _submit(self, batch: Batch) -> Future:
        try:
            key = f"git-theta-{secrets.token_hex(8)}"
            return self._client.submit(run, batch, key=key, pure=False)
        except (OSError, RuntimeError) as error:
            raise self._lost(error) from error

    def _results(self, waiting: deque[Future]) -> Iterator[Any]:
        """The results of the batch that was sent first."""
        answer = self._answer(waiting[0])
        waiting.popleft().release()
        for text in answer.remarks:
            print(f"git-theta: {printable(text)}", file=sys.stderr, flush=True)
        if answer.error is not None:
            raise answer.error
        yield from answer.results

    def _answer(self, future: Future) -> Answer:
        """What became of a batch; ClusterError where nobody is left to do it."""
        from distributed.scheduler import KilledWorker

        while True:
            try:
                found = future.result(timeout=_LOOK_SECONDS)
                assert isinstance(found, Answer)
                return found
            except TimeoutError:
                self._most()
                if time.monotonic() - self._seen > _LOST_SECONDS:
                    raise ClusterError(
                        f"all workers of the Dask cluster at {printable(self._address)} are gone",
                        hint="their logs say why; start others, and do it again",
                    ) from None
            except KilledWorker as error:
                raise ClusterError(
                    f"{plural(error.allowed_failures + 1, 'worker')} died one after the other at "
                    f"the same work, the last {error.last_worker.address}",
                    hint=f"their logs say why; {MORE_MEMORY}",
                ) from error
            except ModuleNotFoundError as error:
                raise _not_installed("a worker", error) from error
            except OSError as error:
                raise self._lost(error) from error
            except Exception as error:
                if future.cancelled():
                    raise self._lost(error) from error
                raise

    def _most(self) -> int:
        """How many tasks may be under way; now and then it is asked how large the cluster is."""
        client, now = self._client, time.monotonic()
        if now - self._asked > _LOOK_SECONDS:
            self._asked = now
            with suppress(OSError, TimeoutError):  # the next result says what is wrong
                self._threads = sum(client.nthreads().values())
            if self._threads:
                self._seen = now
        return AHEAD * max(1, self._threads)

    def _lost(self, error: BaseException) -> ClusterError:
        return ClusterError(
            f"the connection to the Dask scheduler at {printable(self._address)} was lost: "
            f"{_why(error)}",
            hint="its log says why; what is stored already is not made again the next time",
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the traceback that Dask logs where it can no longer say good-bye."""
    log = logging.getLogger("distributed.client")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _knock(address: str) -> None:
    """Raise OSError at once where nobody listens: Dask tries for as long as it may take."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _not_installed(who: str, error: BaseException) -> ClusterError:
    return ClusterError(
        f"{who} cannot do the work: {_why(error)}",
        hint="install git-theta-ext there, in the same versions as here (git theta version)",
    )


def _why(error: BaseException) -> str:
    """What an error says, on one line."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def _grouped(
    items: Iterable[Item], cost: Callable[[Item], int], few: int
) -> Iterator[tuple[tuple[Item, ...], tuple[int, ...]]]:
    """Small items together, with what each holds; the first `few` groups are smaller."""
    made = 0
    group: list[Item] = []
    costs: list[int] = []
    for item in items:
        price = cost(item)
        most = _FIRST_BYTES if made < few else BATCH_BYTES
        if group and (sum(costs) + price > most or len(group) >= _BATCH):
            yield tuple(group), tuple(costs)
            made += 1
            group, costs = [], []
        group.append(item)
        costs.append(price)
    if group:
        yield tuple(group), tuple(costs)
