"""What a report can say of values: those that are here, or can be had, within a limit.

On a runner the store is empty. All that a report reads is settled beforehand: which tensors fit
into the limit, which objects they need, which of those a server gives. A tensor that lacks one is
listed with the reason, and the report is made without its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from git_theta_ext.cli.github.uploaded import Server
from git_theta_ext.comparison.compare import Comparison, Lacking, compare, versions_of
from git_theta_ext.comparison.files import Pair
from git_theta_ext.comparison.report.words import is_training_state
from git_theta_ext.core.errors import TransferError
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.text import size
from git_theta_ext.manifest.model import Block, UpdateRef
from git_theta_ext.objects.store.store import Store

_MAX_OBJECT = 256 << 20
"""An object is held in memory as it is downloaded; those of blocks are of 32 MiB and less."""


@dataclass(slots=True)
class AtHand:
    """Which values can be read.

    `limit` bounds the bytes that are downloaded, and, apart, those that are computed: of each block
    in both versions as many as it has, for every update that it is made of.
    """

    store: Store
    limit: int
    _left: int = field(init=False)
    _to_fetch: int = field(init=False)
    _beyond: dict[tuple[str, ...], str] = field(init=False, default_factory=dict)
    _wanted: dict[str, UpdateRef] = field(init=False, default_factory=dict)
    _gone: set[str] = field(init=False, default_factory=set)
    _damaged: set[str] = field(init=False, default_factory=set)
    _trouble: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._left = self._to_fetch = self.limit

    def plan(self, pairs: Iterable[Pair], new_too: bool = False, whole: bool = False) -> None:
        """Choose the tensors whose values are to be read, those of the model first.

        What is planned first has the limit first.

        Args:
            pairs: the checkpoints.
            new_too: those that are new count, too.
            whole: both versions are needed whole.
        """
        for pair in pairs:
            if pair.old is None and pair.new is not None and new_too:
                for entry in pair.new.manifest.entries:
                    self._choose(versions_of(None, entry))
            if whole:
                for side in (one for one in (pair.new, pair.old) if one is not None):
                    self._choose(side.skeletons())
                    for entry in side.manifest.entries:
                        self._choose(versions_of(None, entry))
                continue
            if pair.old is None or pair.new is None:
                continue
            found = compare(pair.old, pair.new, measured=False)
            before = pair.old.manifest.by_name()
            after = pair.new.manifest.by_name()
            if found.structure_changed:
                self._choose([*pair.old.skeletons(), *pair.new.skeletons()])
            for change in sorted(found.changes, key=lambda one: is_training_state(one.name)):
                if change.status in ("changed", "added"):
                    self._choose(versions_of(before.get(change.name), after[change.name]))

    def _choose(self, blocks: Sequence[Block]) -> None:
        work = sum(block.nbytes * max(1, sum(1 for _ in block.objects())) for block in blocks)
        lacking = {
            ref.oid: ref for block in blocks for ref in block.objects()
            if ref.oid not in self._wanted and not self.store.has(ref.oid, ref.size)
        }  # fmt: skip
        traffic = sum(ref.size for ref in lacking.values())
        if work > self._left:
            self._beyond[_key(blocks)] = f"{size(work)} to compute, past the limit (max-gib)"
        elif traffic > self._to_fetch or any(one.size > _MAX_OBJECT for one in lacking.values()):
            self._beyond[_key(blocks)] = f"{size(traffic)} to download, past the limit (max-gib)"
        else:
            self._left -= work
            self._to_fetch -= traffic
            self._wanted |= lacking

    @property
    def wanted(self) -> list[UpdateRef]:
        """The objects that have to be fetched for what was chosen."""
        return list(self._wanted.values())

    def fetch(self, server: Server) -> set[str]:
        """Bring those that a server has; it was asked about them before. Stops when it refuses.

        Returns:
            The ids of those that it does not have, whatever it says.
        """

        def bring(item: UpdateRef) -> tuple[str, bytes | None]:
            return item.oid, server.download(item)

        try:
            with self.store.gathering():
                for oid, data in ordered_map(bring, self.wanted, lambda item: item.size):
                    if data is None:
                        self._gone.add(oid)
                    else:
                        self.store.put([data])
        except TransferError as error:
            self._trouble = error.message
        self.store.flush()
        self._damaged = server.damaged
        return self._gone

    def give_up(self, reason: str) -> None:
        """Nothing can be fetched, for a reason."""
        self._trouble = reason

    def lacking(self, known: Mapping[str, UpdateRef], author: Callable[[], str | None]) -> Lacking:
        """Tells why blocks cannot be read.

        Args:
            known: objects that the old version needs too.
            author: tells whose commit brought the new ones.
        """

        def why(blocks: Sequence[Block]) -> str | None:
            if (reason := self._beyond.get(_key(blocks))) is not None:
                return reason
            for ref in (ref for block in blocks for ref in block.objects()):
                if self.store.has(ref.oid, ref.size):
                    continue
                if ref.oid not in self._gone and self._trouble is not None:
                    return f"object {ref.oid[:12]} could not be fetched: {self._trouble}"
                if ref.oid in self._damaged:
                    return f"object {ref.oid[:12]} is damaged on the server"
                if ref.oid in known or (who := author()) is None:
                    return f"object {ref.oid[:12]} is not on the server"
                return f"object {ref.oid[:12]} was never uploaded by {who}"
            return None

        return why


def _key(blocks: Sequence[Block]) -> tuple[str, ...]:
    return tuple(block.sha256 for block in blocks)


def without_values(pair: Pair) -> Comparison:
    """A comparison for which nothing is read but the manifests."""
    return pair.compare(measured=False)
