"""`git theta merge` where both sides assembled a checkpoint: the recipe is merged first.

Git merges recipe and lock as texts. Where that leaves no conflict in the recipe, the checkpoint is
built of it anew, whatever a merge of its tensors would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.core.advice import word
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import printable
from git_theta_ext.git.operations import Heads, unmerged
from git_theta_ext.git.paths import from_here
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import HEAD_BYTES, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.packages.assemble.assembly import prepare
from git_theta_ext.packages.assemble.origin import (
    FoundLock,
    all_locks,
    assembled_on_both,
    is_as_locked,
)
from git_theta_ext.packages.assemble.parts import Opener
from git_theta_ext.packages.assemble.update import carry_out


@dataclass(frozen=True, slots=True)
class Assembled:
    """A checkpoint that both sides assembled, and its recipe; both from the top."""

    path: str
    recipe: str


def find(repository: Repository, heads: Heads) -> list[Assembled]:
    """The checkpoints that both sides of a merge assembled, and changed in no other way since."""
    found = []
    theirs = None
    for mine in assembled_on_both(repository, heads):
        theirs = theirs or {one.path: one for one in all_locks(repository, heads.theirs)}
        sides = ((heads.ours, mine), (heads.theirs, theirs[mine.path]))
        if all(_is_as_locked(repository, commit, one) for commit, one in sides):
            found.append(Assembled(mine.checkpoint, mine.recipe))
    return found


def _is_as_locked(repository: Repository, commit: str, found: FoundLock) -> bool:
    oid = repository.blob_at(commit, found.checkpoint)
    text = b"" if oid is None else repository.blob(oid)
    return is_manifest(text[:HEAD_BYTES]) and is_as_locked(found.lock, parse_manifest(text))


def build_anew(repository: Repository, assembled: Sequence[Assembled]) -> bool:
    """Build each of its merged recipe, in the midst of a merge; whether all could be.

    What could not is left as the merge of its tensors left it, and named with the way to go on.
    """
    whole = True
    for one in assembled:
        name = word(from_here(repository, one.recipe))
        if one.recipe in unmerged(repository):
            whole = False
            print(
                f"{printable(one.path)}: settle {printable(one.recipe)} first, then build it: "
                f"git theta assemble {name}"
            )
            continue
        try:
            with Opener(repository, (repository.top / one.recipe).parent) as opener:
                assembly = prepare(repository, one.recipe, opener)
                carry_out(assembly, force=True)
        except ThetaError as error:
            whole = False
            print(f"{printable(one.path)}: not built of the merged recipe: {error.message}")
            print(f"  when that is mended: git theta assemble {name}")
            continue
        print(f"{printable(assembly.path)}: built of the merged {printable(one.recipe)}")
    return whole
