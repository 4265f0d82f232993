"""Says of a checkpoint that is staged that nobody has settled what a merge left open in it."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cached_property

from git_theta_ext.core import advice
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git import ancestry
from git_theta_ext.git.operations import MERGE_STATES, unmerged
from git_theta_ext.git.paths import where_git_was_started
from git_theta_ext.git.repository import Repository


class LeftOpen:
    """What is open in the files that one command of Git stages; told once, when it is done."""

    def __init__(self, repository: Repository) -> None:
        """Nothing is asked before a merge has left something open in this repository."""
        self._repository = repository
        self._found: dict[str, list[str]] = {}

    @cached_property
    def _unmerged(self) -> frozenset[str]:
        # Nearly always there is nothing, so a filter does not import what merges need.
        if not (self._repository.git_dir / MERGE_STATES).is_dir() or ancestry.only_looks():
            return frozenset()
        return frozenset(unmerged(self._repository))

    def note(self, path: str, manifest: bytes) -> None:
        """Look at a manifest that is staged; Git has not written its index yet."""
        with suppress(ThetaError, OSError):
            if path not in self._unmerged:
                return
            from git_theta_ext.merge.conflicts.left import unsettled

            if found := unsettled(self._repository, path, manifest):
                self._found[path] = found

    def tell(self) -> None:
        """Say which tensors stay as they were on our side, and how they are settled after all."""
        for path, names in self._found.items():
            name = advice.word(where_git_was_started(path))
            it = "it" if len(names) == 1 else "them"
            some = ", ".join(map(printable, names[:2])) + (", …" if names[2:] else "")
            print(
                f"git-theta: {printable(path)!r}: the merge left {plural(len(names), 'tensor')} "
                f"open ({some}), and our version of {it} is taken\n"
                f"  hint: to settle {it} before you commit: git checkout -m -- {name}\n"
                f"        then: git theta resolve {name} --strategy S",
                file=sys.stderr,
            )
