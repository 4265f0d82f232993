"""What a merge left open and nobody settled: whether a version that is staged still has it so.

The work tree has a whole checkpoint while something is open, so `git add` and `git commit -a` take
it as settled. For each open tensor the state keeps a digest of what the merge put there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.merge.conflicts.state import State, key_of, load


def values_of(manifest: Manifest, names: Iterable[str]) -> dict[str, str]:
    """A digest of the values of each tensor that is there, by name."""
    entries = manifest.by_name()
    return {name: _digest(entries[name]) for name in names if name in entries}


def _digest(entry: Entry) -> str:
    hashes = "".join(block.sha256 for block in entry.blocks)
    return hashlib.sha256(hashes.encode("ascii")).hexdigest()[:16]


def unsettled(repository: Repository, path: str, text: bytes) -> list[str]:
    """The tensors that a merge left open in a path, and that are still as it left them.

    Args:
        repository: a merge is under way there, or not.
        path: from the top of the work tree, in conflict or not.
        text: the manifest that is staged for it.
    """
    stages = {one.stage: one.oid for one in repository.index(f":(top,literal){path}")}
    if not stages.keys() >= {2, 3}:
        return []
    versions = [repository.blob(stages[n]) if n in stages else None for n in (1, 2, 3)]
    state = load(repository, key_of(versions))
    return [] if state is None or not state.left else _as_left(state, text)


def _as_left(state: State, text: bytes) -> list[str]:
    try:
        found = values_of(parse_manifest(text), state.open)
    except ThetaError:
        return []
    return [name for name in state.open if name in found and found[name] == state.left.get(name)]
