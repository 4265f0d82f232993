"""Which executor does the work: as an option, the environment or git config says, in this order.

No file of a commit has a say: whoever names a cluster has this machine run what that one sends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.executor import HERE, Executor
from git_theta_ext.objects.store.where import store_of

VARIABLE = "GIT_THETA_EXECUTOR"
"""What the processes that Git starts are told by: they ask no configuration."""
SETTING = "theta.executor"
NEAR = "here"
_DASK = re.compile(r"dask://((?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5})/?")


def address_of(text: str) -> str | None:
    """The scheduler's address that a text names; None for this machine.

    Raises:
        UsageError: it names neither.
    """
    if text == NEAR:
        return None
    found = _DASK.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{printable(text)} says not where the work is done",
            hint="dask://HOST:PORT of a scheduler, or here   (docs/scale.md)",
        )
    return f"tcp://{found[1]}"


def chosen(repository: Repository, option: str | None, environment: Mapping[str, str]) -> str:
    """Where a command has its work done, as `address_of` reads it.

    Args:
        repository: whose git config is asked.
        option: what was said with `--on`.
        environment: the process's.
    """
    text = option or environment.get(VARIABLE) or repository.setting(SETTING, "") or NEAR
    address_of(text)
    return text


def executor_at(repository: Repository, text: str) -> Executor:
    """The executor that a text names; nothing is sent before it is used.

    Raises:
        UsageError: it names none.
    """
    address = address_of(text)
    if address is None:
        return HERE
    from git_theta_ext.objects.cluster.client import Dask

    return Dask(address, store_of(repository))


def executor_told(repository: Repository) -> Executor:
    """The executor that a process which Git started was told to use: by its environment alone.

    A cluster that is named in git config is not asked whenever Git looks at a file.
    """
    return executor_at(repository, os.environ.get(VARIABLE) or NEAR)
