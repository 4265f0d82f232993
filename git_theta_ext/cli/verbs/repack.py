"""`git theta repack`: what many small commits scattered, together in few objects."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from git_theta_ext.cli.restaged import Staged, replace_staged, staged
from git_theta_ext.core.advice import word
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.repack import Repack, carry_out, plan


def add_parser(subparsers: Any) -> None:
    """Add the parser of `repack`."""
    parser = subparsers.add_parser(
        "repack",
        help="join the small objects that many commits scattered",
        description="Say how many objects the checkpoints in the index need, and how many they "
        "would need if the small ones were joined, and what that costs. With --yes it is done: new "
        "objects are written, and manifests that name them are staged. The checkpoints themselves "
        "stay as they are.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="only these checkpoints (default: all)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--yes", "-y", action="store_true", help="do it, and stage the result")
    what.add_argument(
        "--dry-run", "-n", action="store_true", help="only say what would be done (the default)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    parser.set_defaults(run=run, answers=lambda args: not args.yes)


def run(args: argparse.Namespace) -> int:
    """Plan, carry out with `--yes`, and print."""
    repository = Repository.discover()
    if args.yes:
        installation.require(repository)
    files = staged(repository, args.files)
    plans = plans_of(files)
    if args.yes and plans:
        replace_staged(repository, files, repacked(repository, files, plans))
    if args.json:
        record = {path: record_of(found) for path, found in plans.items()}
        print(to_json({"done": bool(args.yes), "files": record}))
        return 0
    if not plans:
        print(f"Nothing to do: {plural(len(files), 'checkpoint')} in as few objects as can be")
        return 0
    for line in lines_of(plans, done=args.yes):
        print(line)
    if args.yes:
        print('Staged; to record it: git commit -m "Repack"')
    else:
        names = "".join(f" {word(name)}" for name in args.files)
        print(f"Nothing was written; to do it: git theta repack --yes{names}")
    return 0


def plans_of(files: Sequence[Staged]) -> dict[str, Repack]:
    """What there is to do, by path; files of which nothing would be gained are left out."""
    found = {one.path: plan(one.manifest) for one in files}
    return {path: repack for path, repack in found.items() if repack.groups}


def repacked(
    repository: Repository, files: Sequence[Staged], plans: Mapping[str, Repack]
) -> dict[str, Manifest]:
    """Write the packs; the manifests that name them, by path. Errors as for `carry_out`."""
    blocks = Blocks.open(repository)
    manifests = {one.path: one.manifest for one in files}
    blocks.ensure(ref for repack in plans.values() for group in repack.groups for ref in group)
    return {path: carry_out(blocks, manifests[path], repack) for path, repack in plans.items()}


def lines_of(plans: Mapping[str, Repack], *, done: bool) -> list[str]:
    """A line for each file, and one for the cost of all."""
    rows = [
        ["", printable(path), plural(len(repack.needed), "object"), "->", str(repack.after)]
        for path, repack in plans.items()
    ]  # fmt: skip
    written = size(sum(repack.written for repack in plans.values()))
    cost = f"{written} written, to be uploaded" if done else f"{written} to write and to upload"
    return [*table(rows), cost]


def record_of(repack: Repack) -> dict[str, int]:
    """A plan as JSON has it."""
    return {
        "objects": len(repack.needed),
        "objects_after": repack.after,
        "written_bytes": repack.written,
    }
