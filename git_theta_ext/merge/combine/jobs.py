"""Tensors to be merged as values, for whoever does it: here on threads, or in other processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from git_theta_ext.core.tensors import BLOCK_BYTES, TensorInfo
from git_theta_ext.manifest.model import Entry
from git_theta_ext.merge.combine.merger import Statistics, merge_tensor
from git_theta_ext.merge.combine.result import TensorResult
from git_theta_ext.merge.combine.tensor import Versions, copies_of
from git_theta_ext.merge.decide.decisions import Decision
from git_theta_ext.objects.blocks import Blocks

BUDGET_BYTES = 400 << 20
"""Memory for tensors under way: three versions, the result, and what encodes it."""

_MEASURED = frozenset({"fisher", "regmean"})
"""Strategies that read statistics beside the checkpoint, which only this process finds."""


@dataclass(frozen=True, slots=True)
class Job:
    """A tensor to be merged; for the meaning see `merge_tensor` and `Versions`."""

    decision: Decision
    tensor: TensorInfo
    base: Entry | None
    sides: tuple[Entry, ...]
    statistics: Statistics | None = None
    several: bool = False
    names: tuple[str, ...] = ()

    @property
    def cost(self) -> int:
        """Bytes that it takes while one of its blocks is merged."""
        return copies_of(len(self.sides)) * min(self.tensor.nbytes, BLOCK_BYTES)

    @property
    def stays(self) -> bool:
        """Whether only this process can do it."""
        return self.decision.choice.strategy in _MEASURED


def merge_job(blocks: Blocks, job: Job, budget: int = 0) -> TensorResult:
    """Merge one tensor; `budget` and errors as for `merge_tensor`."""
    versions = Versions(job.tensor, job.base, job.sides, blocks, job.names)
    return merge_tensor(job.decision, versions, job.statistics, budget, several=job.several)


def merge_jobs(blocks: Blocks, jobs: Sequence[Job]) -> Iterator[TensorResult]:
    """The results of all jobs, in order; errors as for `merge_tensor`."""
    if not blocks.executor.far:
        yield from blocks.map(merge_job, jobs, lambda job: job.cost, BUDGET_BYTES)
        return
    going = (replace(job, statistics=None) for job in jobs if not job.stays)
    done = blocks.map(merge_job, going, lambda job: job.cost, BUDGET_BYTES)
    for job in jobs:
        yield merge_job(blocks, job, BUDGET_BYTES) if job.stays else next(done)
