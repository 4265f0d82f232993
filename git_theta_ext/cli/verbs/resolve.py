"""`git theta resolve`: settle what a merge left open in a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from git_theta_ext.checkpoints.shards import names_model
from git_theta_ext.cli import choices
from git_theta_ext.cli.choices import choice_of
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.git.paths import add_options, advise, from_here, from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.merge.branches.models import ModelConflict, require_unmoved
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.apply import UNFIT, Merged
from git_theta_ext.merge.conflicts.explain import notes, open_lines
from git_theta_ext.merge.conflicts.hints import resolving
from git_theta_ext.merge.conflicts.owned import Owned
from git_theta_ext.merge.conflicts.resolve import Conflict
from git_theta_ext.merge.conflicts.shard_index import IndexConflict
from git_theta_ext.objects.blocks import Blocks


def add_parser(subparsers: Any) -> None:
    """Add the parser of `resolve`."""
    parser = subparsers.add_parser(
        "resolve",
        help="settle what a merge left open in a checkpoint",
        description="Settle the tensors that both sides changed, all or some of them, with a merge "
        "strategy; as often as needed. The result is written into the work tree; git add stages "
        "it. Without a strategy: list what is open.",
    )
    parser.add_argument(
        "file", metavar="FILE",
        help="a checkpoint in conflict; an index or a pattern of shards for a whole model",
    )  # fmt: skip
    parser.add_argument(
        "--tensor", "-t", metavar="GLOB",
        help="the tensors to settle (default: whatever is still open)",
    )  # fmt: skip
    choices.add_options(parser)
    parser.add_argument(
        "--structure", choices=("ours", "theirs"),
        help="the side whose header, metadata or pickle is used",
    )  # fmt: skip
    way_back = parser.add_mutually_exclusive_group()
    way_back.add_argument("--undo", action="store_true", help="undo the last resolve")
    way_back.add_argument("--abort", action="store_true", help="undo all of them")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Resolve; 0 when nothing is open any more, else 1."""
    repository = Repository.discover()
    path = from_top(repository, args.file)
    index = IndexConflict.find(repository, path) if names_model(path) else None
    if index is not None:
        return _settle_index(index, args)
    kind = ModelConflict if names_model(path) else Conflict
    conflict = kind.find(repository, path, os.environ)
    if not isinstance(conflict, ModelConflict):
        require_unmoved(conflict)
    choice = choice_of(args)
    if choice is not None or args.structure or args.undo or args.abort:
        installation.require(repository)
    blocks = Blocks.open(repository)
    if args.undo or args.abort:
        if choice is not None or args.structure or args.tensor:
            raise UsageError("--undo and --abort take no other options")
        conflict = conflict.undo() if args.undo else conflict.abort()
        merged = conflict.finish(blocks)
    elif choice is None and args.structure is None:
        if args.tensor:
            raise UsageError("--tensor needs --strategy S")
        conflict.require_conflict()
        merged = conflict.merged(blocks)
        if not merged.open and not conflict.written:
            # What stands in the work tree is not this result: see `Conflict.written`.
            installation.require(repository)
            merged = conflict.finish(blocks)
    else:
        merged = _resolve(conflict, args, str(choice) if choice else None, blocks)
    return _report(conflict, merged, args.json)


def _resolve(
    conflict: Conflict, args: argparse.Namespace, choice: str | None, blocks: Blocks
) -> Merged:
    """Settle; `ours` and `theirs` for everything also settle the structure."""
    if not conflict.state.open:
        # Nothing is remembered of it: find out what is open.
        conflict = conflict.with_open(conflict.merged(blocks).open)
    if conflict.written and not conflict.state.open and args.tensor is None and choice is not None:
        words = advice.word(from_here(conflict.repository, conflict.path))
        raise UsageError(
            f"nothing was open, so {choice} settles nothing",
            hint=f"git theta resolve {words} --tensor '*' --strategy {choice}   settles again "
            "what both sides changed; --undo undoes the last resolve",
        )
    side: skeleton.Side | None = args.structure
    if side is None and args.tensor is None and skeleton.NAME in conflict.state.open:
        side = "ours" if choice == "ours" else "theirs" if choice == "theirs" else None
    merged = conflict.resolve(args.tensor, choice, side).finish(blocks)
    unfit = {name: reason for name, reason in merged.open.items() if reason == UNFIT}
    if not unfit or args.tensor is not None or choice not in ("ours", "theirs"):
        return merged
    # Tensors that only the other side has, and for which the chosen structure has no place.
    for name in unfit:
        print(f"{printable(name)}: as in {choice}, whose structure is used", file=sys.stderr)
    more = conflict.with_open({**conflict.state.open, **unfit})
    return more.resolve(None, choice, side).finish(blocks)


def _report(conflict: Conflict, merged: Merged, json: bool) -> int:
    """Say what is open and how to go on from there; 1 if anything is open."""
    path = conflict.path
    if json:
        whose = Owned.at_head(conflict.repository, path).records(merged.open)
        found = {"path": path, "open": merged.open, "notes": notes(merged), "modules": whose}
        print(to_json(found))
        return 1 if merged.open else 0
    for line in notes(merged):
        print(line)
    if not merged.open:
        print(f"{printable(path)}: nothing is open; to take it: git add {to_add(conflict)}")
        return 0
    print(
        f"{printable(path)}: {plural(len(merged.open), 'part')} open; "
        "the file has our version for now:"
    )
    for line in open_lines(merged.open, owned=Owned.at_head(conflict.repository, path)):
        print(f"  {line}")
    print("to go on:")
    for line in resolving(advice.word(from_here(conflict.repository, path)), merged):
        print(line)
    return 1


def _settle_index(index: IndexConflict, args: argparse.Namespace) -> int:
    """Settle an index whose shards are merged; the exit code.

    Raises:
        UsageError: an option was given that only tensors have.
    """
    if args.tensor or args.undo or args.abort:
        raise UsageError(
            f"the shards of {index.path} are merged; it alone is in conflict",
            hint=advise(index.repository, "git theta resolve FILE", index.path),
        )
    side = args.structure or (args.strategy if args.strategy in ("ours", "theirs") else None)
    return write_index(index, side, json=args.json)


def write_index(
    index: IndexConflict, side: skeleton.Side | None = None, *, json: bool = False
) -> int:
    """Write an index whose shards are merged, and say so; 1 where a side must be chosen first.

    Raises:
        UsageError: no side has an index.
        StoreError: it cannot be written.
    """
    name, path = advice.word(from_here(index.repository, index.path)), printable(index.path)
    text, found = index.text(side)
    if not found:
        index.write(text)
    if json:
        print(to_json({"path": index.path, "open": found, "notes": []}))
    elif found:
        print(f"{path}: {plural(len(found), 'key')} open:")
        for line in open_lines(found):
            print(f"  {line}")
        print(f"to go on:\n    git theta resolve {name} --strategy ours   (or theirs)")
    else:
        options = add_options(index.repository)
        print(f"{path}: written from the shards; to take it: git add {options}{name}")
    return 1 if found else 0


def to_add(conflict: Conflict) -> str:
    """What `git add` is to be told, as words of a shell."""
    if isinstance(conflict, ModelConflict):
        names = (advice.word(from_here(conflict.repository, one)) for one in conflict.paths)
        return f"-A {add_options(conflict.repository)}-- " + " ".join(names)
    return add_options(conflict.repository) + advice.word(
        from_here(conflict.repository, conflict.path)
    )
