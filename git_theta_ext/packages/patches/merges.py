"""What a merge commit made itself, beyond what its parents have.

Who leaves a merge out loses it: a conflict settled by hand, an average of two trainings, a side
that was not taken.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.manifest.model import HEAD_BYTES, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.merge.decide.decisions import content_of

_Key = TypeVar("_Key", bound=Hashable)


def undecided(
    base: Mapping[_Key, object], sides: Sequence[Mapping[_Key, object]], made: Mapping[_Key, object]
) -> Iterator[_Key]:
    """The parts of a merge that are not what the one side that changed them has.

    Args:
        base: the parts of what the sides come from, by name.
        sides: those of the parents.
        made: those of the merge.
    """
    for key in dict.fromkeys(key for table in (base, *sides, made) for key in table):
        changed = {side.get(key) for side in sides} - {base.get(key)}
        if len(changed) > 1 or made.get(key) not in (changed or {base.get(key)}):
            yield key


def made_by_merge(repository: Repository, merge: str) -> Iterator[str]:
    """The files of a merge that do not follow from those of its parents.

    Args:
        repository: that has the commit.
        merge: a commit with several parents.

    Raises:
        ThetaError: a file cannot be read.
    """
    parents = repository.git("show", "-s", "--no-show-signature", "--format=%P", merge)
    sides = parents.decode().split()
    found = repository.git("merge-base", "--octopus", *sides, ok=(0, 1)).decode().split()
    base: Mapping[str, str] = repository.blobs_at(found[0]) if found else {}
    *others, made = (repository.blobs_at(one) for one in (*sides, merge))
    for path in undecided(base, others, made):
        oids = [table.get(path) for table in (base, *others, made)]
        if not _is_put_together(repository, merge, oids, path):
            yield path


def _is_put_together(
    repository: Repository, merge: str, oids: Sequence[str | None], path: str
) -> bool:
    """Whether each part of a file is from the side that changed it.

    `oids` are the file in the base, in the parents, and in the merge; None where there is none.
    """
    known = [oid for oid in oids if oid is not None]
    if len(known) < len(oids):
        return False
    texts = dict(repository.blobs(dict.fromkeys(known)))
    if all(is_manifest(texts.get(oid, b"")[:HEAD_BYTES]) for oid in known):
        base, *sides, made = (_contents(texts[oid]) for oid in known)
        return not any(True for _ in undecided(base, sides, made))
    if known[-1] in known[1:-1]:
        return False  # one side as it is, though another one changed it, too
    options = ("--no-commit-id", "--no-ext-diff", "--no-textconv", "--cc", "-p")
    return not repository.git("diff-tree", *options, merge, "--", literal(path)).strip()


def _contents(text: bytes) -> dict[str, object]:
    return {entry.tensor.name: content_of(entry) for entry in parse_manifest(text).entries}
