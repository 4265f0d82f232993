"""Signatures that `models.toml` asks for: whose, and what becomes of an entry without one."""

from __future__ import annotations

from collections.abc import Iterable

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.locking.requirements import Requirement


def check_signatures(wanted: Iterable[Requirement]) -> None:
    """Refuse entries that ask for a signature: none can be verified yet.

    Raises:
        UsageError: names the entry. What was asked for is never passed over.
    """
    for one in wanted:
        if one.signature:
            keys = " and ".join(key for key, _ in one.signature)
            raise UsageError(
                f"{one.where}: {one.name} asks for a signature ({keys}), which this version of "
                "git theta cannot verify: nothing was fetched",
                hint=f"leave out {keys} only if you trust whoever can push to its repository",
            )
