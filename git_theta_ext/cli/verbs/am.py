"""`git theta am`: take the commits of a patch."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from git_theta_ext.checkpoints.placed import manifests_in_work_tree, write_checkpoints
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import from_program, plural, printable
from git_theta_ext.git.operations import is_picking, keeps_from_merging, unmerged
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository, skips_smudge
from git_theta_ext.git.setup import installation
from git_theta_ext.merge.conflicts.explain import MAX_LINES
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.patches import receive
from git_theta_ext.packages.patches.merges import made_by_merge
from git_theta_ext.packages.patches.opened import Patch, opened


def add_parser(subparsers: Any) -> None:
    """Add the parser of `am`."""
    parser = subparsers.add_parser(
        "am",
        help="take the commits of a patch",
        description="Take the commits that git theta format-patch wrote, with their objects. Where "
        "HEAD is what they were made on, they are the same commits, with the same ids; where it "
        "has moved on, they are applied on top of it, as git cherry-pick does.",
    )
    parser.add_argument("file", metavar="FILE", help="a patch, or a mail with one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Take a patch."""
    repository = Repository.discover()
    installation.require(repository, "filter.theta.process", "merge.theta.driver")
    if repository.resolve("HEAD") is None:
        raise UsageError("there is no commit here yet that a patch could be applied on")
    if keeps_from_merging(repository) or is_picking(repository):
        raise RepositoryError(
            "nothing was taken: a merge, am or pick is not concluded, or files are in conflict",
            hint="git status   shows how to conclude it, and how to take it back",
        )
    with opened(args.file) as patch:
        receive.require_base(repository, patch)
        blocks = Blocks.open(repository)
        with Progress("Taking objects", sum(patch.objects.values())) as progress:
            taken = receive.take(repository, patch, blocks, progress)
        print(f"{printable(args.file)}: {plural(len(patch.commits), 'commit')}, "
              f"{plural(taken, 'object')} taken")  # fmt: skip
        fact("commits", [one.oid for one in patch.commits])
        fact("objects", taken)
        code = _apply(repository, patch)
        fact("head", repository.resolve("HEAD"))
        return code


def _apply(repository: Repository, patch: Patch) -> int:
    """Move HEAD to the commits, or put them on top of it."""
    head = repository.resolve("HEAD") or ""
    if _contains(repository, head, patch.tip) or _has_all(repository, patch):
        print("HEAD has them already")
        return _write_left(repository, patch)
    if _contains(repository, patch.tip, head):
        status, output, errors = run_program(
            ["git", "merge", "--ff-only", "--quiet", patch.tip], repository.cwd
        )
        _pass_on(output, errors)
        if status:
            raise RepositoryError(
                "the commits were taken, but HEAD could not be moved to them",
                hint="when that is put right: git theta am FILE",
            )
        print(f"HEAD is now at {patch.tip[:12]}: the same commits as in the patch")
        return 0
    return _pick(repository, patch)


def _pick(repository: Repository, patch: Patch) -> int:
    """Apply the commits on top of HEAD, one after the other; 1 where one is in conflict."""
    known = [f"^{oid}" for oid, _ in patch.header.prerequisites]
    _require_new(repository, patch)
    listed = repository.git("rev-list", "--reverse", "--topo-order", patch.tip, *known, "^HEAD")
    commits = listed.decode().split()
    merges = {one.oid for one in patch.commits if len(one.parents) > 1}
    chosen = [oid for oid in commits if oid not in merges]
    _require_nothing_lost(repository, patch, [oid for oid in commits if oid in merges])
    if merges.intersection(commits):
        count = len(commits) - len(chosen)
        print(f"  {plural(count, 'merge commit')} left out: what they merged is applied by itself")
    status, output, errors = run_program(
        ["git", "cherry-pick", "--allow-empty", "--keep-redundant-commits", *chosen],
        repository.cwd,
    )
    _pass_on(output, errors)
    if not status:
        print(f"{plural(len(chosen), 'commit')} applied on top of HEAD, which had moved on")
        return 0
    if unmerged(repository):
        print("stopped at a conflict; when it is settled: git cherry-pick --continue")
        print("to take all back: git cherry-pick --abort")
        return 1
    raise RepositoryError(
        "the commits were taken, but could not be applied",
        hint="when that is put right: git theta am FILE",
    )


def _require_nothing_lost(repository: Repository, patch: Patch, left: list[str]) -> None:
    """Refuse to leave out merges that are more than what they merge.

    Raises:
        RepositoryError: one made something of a file itself.
    """
    for oid in left:
        own = [printable(path) for path in made_by_merge(repository, oid)]
        if own:
            raise RepositoryError(
                f"the merge commit {oid[:12]} made changes of its own, which picking its parents "
                f"would lose: {', '.join(own[:MAX_LINES])}",
                hint=f"git merge {patch.tip[:12]}   takes the commits of the patch as they are",
            )


def _require_new(repository: Repository, patch: Patch) -> None:
    """Refuse commits that were applied here before: their updates would be added twice.

    Raises:
        RepositoryError: one with the same author, time and message came to HEAD since the base.
    """
    known = [f"^{oid}" for oid, _ in patch.header.prerequisites]
    theirs = _told(repository, patch.tip, "^HEAD", *known)
    ours = _told(repository, "HEAD", f"^{patch.tip}", *known)
    again = theirs & ours
    if again:
        first = printable(again.pop().split("\0", 3)[-1].partition("\n")[0])
        raise RepositoryError(
            f"commits of the patch were applied on HEAD before, such as {first!r}: "
            "their updates would be added once more",
            hint="git theta apply PATCH   adds what the patch changes once more",
        )


def _told(repository: Repository, *ends: str) -> set[str]:
    """What picking keeps of each commit: author, time and message."""
    told = "--format=%an%x00%ae%x00%at%x00%B%x01"
    text = repository.git("log", "--no-merges", "--no-show-signature", told, *ends)
    return set(text.decode("utf-8", "replace").split("\x01\n")) - {""}


def _pass_on(output: bytes, errors: bytes) -> None:
    for stream, data in ((sys.stdout, output), (sys.stderr, errors)):
        stream.write(from_program(data))
        stream.flush()


def _contains(repository: Repository, later: str, earlier: str) -> bool:
    """Whether a commit is another one, or comes after it."""
    base = repository.git("merge-base", later, earlier, ok=(0, 1)).decode().strip()
    return base == earlier


def _has_all(repository: Repository, patch: Patch) -> bool:
    """Whether HEAD has every file as the patch leaves it, as after a plain `git am`."""
    return all(
        (repository.blob_at("HEAD", one.path) or "") == one.new for one in patch.description.files
    )


def _write_left(repository: Repository, patch: Patch) -> int:
    """Write the checkpoints that stand in the work tree as manifests, now that objects are here."""
    if skips_smudge(repository, os.environ):
        return 0
    paths = [one.path for one in patch.description.files if one.checkpoint and one.new]
    left = list(manifests_in_work_tree(repository, paths))
    for path in write_checkpoints(repository, left):
        print(f"{printable(path)}: written")
    return 0
