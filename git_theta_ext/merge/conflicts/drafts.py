"""Choices that were made in the mergetool and not written: kept until they are, or taken back.

They stand beside the state of the merge, not in it: the work tree does not have them, so for
`git theta resolve` and `status` the parts are as open as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from git_theta_ext.merge.conflicts.resolve import Conflict
from git_theta_ext.merge.conflicts.state import Resolution, State, forget, load, save


def resumed(conflict: Conflict) -> tuple[Conflict, int]:
    """A conflict with the choices that were kept of it, and how many these are."""
    kept = load(conflict.repository, _key(conflict))
    more = () if kept is None else kept.resolutions
    state = replace(conflict.state, resolutions=(*conflict.state.resolutions, *more))
    return replace(conflict, state=state), len(more)


def keep(before: Conflict, after: Conflict) -> int:
    """Keep the choices that `after` has beyond `before`, as it stands written; how many they are.

    Raises:
        StoreError: Git's folder cannot be written.
    """
    more = unwritten(before.state.resolutions, after.state.resolutions)
    if more:
        save(before.repository, _key(before), State(before.state.policy, more))
    else:
        drop(before)
    return len(more)


def drop(conflict: Conflict) -> None:
    """Forget what was kept: it is written now, or was taken back."""
    forget(conflict.repository, _key(conflict))


def unwritten(before: Sequence[Resolution], after: Sequence[Resolution]) -> tuple[Resolution, ...]:
    """The choices behind those that both begin with."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    return tuple(after[same:])


def _key(conflict: Conflict) -> str:
    return f"{conflict.key}.kept"
