"""A Dask cluster of processes on this machine, and work for it that goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from git_theta_ext.objects.blocks import Blocks

ROOT = Path(__file__).parents[2]
THEIR_MODE = 0o440
"""Permissions of objects that workers write here: they have another umask than everybody else."""


@contextmanager
def cluster() -> Iterator[str]:
    """Two workers in processes of their own; where to find them, as `--on` takes it."""
    environment = {**os.environ, "DASK_LOGGING__DISTRIBUTED": "critical"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.scenarios.clusters"],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("tcp://"), "the cluster did not start"
        yield f"dask://{address.removeprefix('tcp://')}"
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def die_once(blocks: Blocks, marker: str) -> int:
    """Work that kills its process, but for the second time; which process did it."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die(blocks: Blocks, item: int) -> None:
    """Work that kills every process."""
    os.kill(os.getpid(), signal.SIGKILL)


def own_id(blocks: Blocks, item: int) -> tuple[int, int]:
    """The process that did it, and the item."""
    return os.getpid(), item


def main() -> None:
    """Run until standard input ends."""
    from distributed import LocalCluster

    os.umask(0o777 & ~THEIR_MODE & ~0o200)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, memory_limit="1GiB",
        dashboard_address=None, host="127.0.0.1",
    ) as made:  # fmt: skip
        print(made.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
