"""The merge driver: Git runs it with `%O %A %B %L %P` when both sides changed a checkpoint.

Source: gitattributes(5), "Defining a custom merge driver". `%O`, `%A` and `%B` hold manifests (`%O`
may be empty); the result is written over `%A`. Exit 0: merged; 1: conflicts; 2: failed, `%A` as it
was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from git_theta_ext.checkpoints.converted import manifest_of
from git_theta_ext.core import files
from git_theta_ext.core.advice import word
from git_theta_ext.core.errors import ManifestError, ThetaError
from git_theta_ext.core.terminal import harmless_streams
from git_theta_ext.core.text import paragraph, printable
from git_theta_ext.drivers.operation import heads_of, merged_head, operation
from git_theta_ext.git.crashes import hook as crash_hook
from git_theta_ext.git.paths import add_options, where_git_was_started
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.combine.statistics import statistics_of, unused_statistics
from git_theta_ext.merge.conflicts.explain import conflict_lines, notes
from git_theta_ext.merge.conflicts.left import values_of
from git_theta_ext.merge.conflicts.owned import Owned
from git_theta_ext.merge.conflicts.state import State, key_of, load, save
from git_theta_ext.merge.decide.beside_adapter import scalings_ahead
from git_theta_ext.merge.strategies.policy import Operation, policy_for
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.cluster.choice import executor_told
from git_theta_ext.objects.kept import Kept
from git_theta_ext.packages.assemble.origin import assembled_on_both, may_be_assembled

_FAILED = 2
_MARKER = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Merge as Git asks; the process exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    with harmless_streams():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    """Write the merged manifest over ours; 0: nothing is open, 1: something is."""
    if len(arguments) != 5:
        print("git-theta-merge is started by Git; see: git theta help install", file=sys.stderr)
        return _FAILED
    base, ours, theirs, marker, path = arguments
    # Git merges several common ancestors first, into one, with longer markers: nobody sees that.
    nested = marker.isdigit() and int(marker) > _MARKER
    try:
        merged, unadded = _merge([Path(base), Path(ours), Path(theirs)], path, nested)
        files.replace_file(ours, manifest_bytes(merged.manifest), kept=files.permissions(ours))
    except (ThetaError, OSError) as error:
        why = paragraph(str(error))
        print(f"git-theta: {printable(path)}: cannot merge: {why}", file=sys.stderr)
        if not nested:
            name = word(where_git_was_started(path))
            print(f"  when that is mended, to merge it: git theta resolve {name}", file=sys.stderr)
        return _FAILED
    if merged.open and not nested:
        repository = Repository.discover()
        options = add_options(repository)
        owned = Owned.at_head(repository, path)
        print("\n".join(conflict_lines(path, merged, options, owned)), file=sys.stderr)
    return 1 if merged.open or unadded else 0


def _merge(files: Sequence[Path], path: str, nested: bool) -> tuple[Merged, bool]:
    """The merge, and whether the path is to stay in conflict though nothing is open in it."""
    repository = Repository.discover()
    with closing(executor_told(repository)) as executor:
        return _merge_on(Blocks.open(repository, executor), repository, files, path, nested)


def _merge_on(
    blocks: Blocks, repository: Repository, files: Sequence[Path], path: str, nested: bool
) -> tuple[Merged, bool]:
    """As `_merge`, with the blocks, whose executor merges tensors."""
    if not nested:
        blocks.kept = Kept(blocks.store)
    texts = [file.read_bytes() for file in files]
    base, ours, theirs = (_parse(text, path, repository, blocks) for text in texts)
    if ours is None or theirs is None:
        raise ManifestError("a side is empty")
    doing = operation(repository, os.environ)
    state = State(policy_for(repository, path, doing, os.environ))
    recorded = load(repository, key_of(texts)) if repository.flag("rerere.enabled") else None
    replayed = recorded is not None and bool(recorded.resolutions) and not nested
    if recorded is not None and replayed:
        state = recorded
    revisions = ("HEAD", merged_head(repository, os.environ))
    statistics = statistics_of(repository, path, revisions, blocks)
    merged = merge(
        base, ours, theirs, blocks, state.choose, prefer=state.structure, statistics=statistics,
        scalings=scalings_ahead(
            repository, path, lambda: None if nested else heads_of(repository, os.environ)
        ),
    )  # fmt: skip
    if not nested:
        _tell(path, merged, doing, replayed)
        if doing == "merge" and (
            remark := unused_statistics(repository, path, revisions, merged.outcomes)
        ):
            print(f"git-theta: {printable(path)}: {remark}", file=sys.stderr)
        _tell_of_recipe(repository, path, is_open=bool(merged.open))
    if (merged.open or replayed) and not nested:
        left = values_of(merged.manifest, merged.open)
        save(repository, key_of(texts), replace(state, open=merged.open, left=left))
    return merged, replayed and not repository.flag("rerere.autoUpdate")


def _tell(path: str, merged: Merged, doing: Operation, replayed: bool) -> None:
    if replayed:
        print(f"git-theta: {printable(path)}: resolved as recorded (rerere)", file=sys.stderr)
    for line in notes(merged, reapplied=doing == "rebase"):
        print(f"git-theta: {printable(path)}: {line}", file=sys.stderr)


def _tell_of_recipe(repository: Repository, path: str, *, is_open: bool) -> None:
    """Say that a checkpoint was assembled on both sides: what counts is the merged recipe.

    Git merges files in no certain order, so what the recipe will say is not known here.
    """
    if repository.work_tree is None or not may_be_assembled(repository.work_tree, path):
        return
    heads = heads_of(repository, os.environ)
    found = [] if heads is None else assembled_on_both(repository, heads, path)
    if not found:
        return
    recipe = found[0].recipe
    check = "" if is_open else "--check "
    what = (
        "when the recipe is merged, build it" if is_open else "whether it is what the recipe makes"
    )
    print(
        f"git-theta: {printable(path)} was assembled on both sides, by {printable(recipe)}\n"
        f"  {what}: git theta assemble {check}{word(where_git_was_started(recipe))}",
        file=sys.stderr,
    )


def _parse(data: bytes, path: str, repository: Repository, blocks: Blocks) -> Manifest | None:
    return manifest_of(data, path, repository, blocks) if data else None


if __name__ == "__main__":
    crash_hook.install()
    sys.exit(main())
