"""Where the work on blocks is done: the one seam through which all of it goes.

Whoever hashes, encodes, decodes, merges or checks many blocks gives `Blocks.map` a function of the
blocks and one item, and gets the results in the order of the items. By default that is done on the
threads of this process. Another executor may do it elsewhere; then function and items travel, so
both are small values that can be pickled: paths, places in a file and object ids, never the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from git_theta_ext.core.parallel import ordered_map

Context = TypeVar("Context")
Item = TypeVar("Item")
Result = TypeVar("Result")


class UnseenError(Exception):
    """Work was sent to a process that does not see a file which it needs: its path, and why."""

    def __init__(self, path: str, why: str) -> None:
        """`why` is what the system says, or what was found."""
        super().__init__(path, why)
        self.path = path
        self.why = why


class Executor(Protocol):
    """Does work on blocks."""

    @property
    def far(self) -> bool:
        """Whether it is done by other processes, which see the store and no memory of this one."""

    def check(self) -> None:
        """Find out whether it can do the work, before any is begun.

        Raises:
            ThetaError: it cannot.
        """

    def close(self) -> None:
        """Let go of what was taken for the work; a second call does nothing."""

    def map(
        self,
        context: Context,
        work: Callable[[Context, Item], Result],
        items: Iterable[Item],
        cost: Callable[[Item], int],
        budget: int,
    ) -> Iterator[Result]:
        """Apply `work` to a context and each item; the results come in the order of the items.

        Args:
            context: what all items share, such as `Blocks`; what is read must be in their store.
            work: called once per item, or again where a process died.
            items: consumed lazily, as results are taken. Far away they, `work` and `context` are
                pickled.
            cost: raw bytes that an item holds while it is worked on.
            budget: raw bytes under way at once in one process.

        Objects that were written are durable, at the latest, after the store's `flush`.

        Raises:
            ThetaError: the first failure, in the order of the items.
        """


class Here:
    """The threads of this process."""

    far = False

    def check(self) -> None:
        """Always true."""

    def close(self) -> None:
        """Nothing is held."""

    def map(
        self,
        context: Context,
        work: Callable[[Context, Item], Result],
        items: Iterable[Item],
        cost: Callable[[Item], int],
        budget: int,
    ) -> Iterator[Result]:
        """See `Executor.map`; nothing is pickled."""
        return ordered_map(lambda item: work(context, item), items, cost, budget)


HERE = Here()
