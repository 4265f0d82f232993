"""`git theta update`: move what is locked to the newest version that is allowed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from git_theta_ext.cli.verbs import sync as synced
from git_theta_ext.cli.verbs import update_parts
from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.text import printable, to_json
from git_theta_ext.packages.locking.project import Project, find
from git_theta_ext.packages.locking.sync import Options
from git_theta_ext.packages.locking.update import Move, update


def add_parser(subparsers: Any) -> None:
    """Add the parser of `update`."""
    parser = subparsers.add_parser(
        "update",
        help="move theta.lock to the newest versions that models.toml allows",
        description="Move models to the newest version that models.toml allows, say what changes, "
        "and make the folder so. Models of one repository move together. A part of a recipe moves "
        "too, and its checkpoint is assembled anew.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="of models.toml, or of a part of a recipe; default: all of models.toml",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would move, and write nothing"
    )
    synced.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Update, and print what moved."""
    recipes = update_parts.recipes_of(name for name in args.names if name not in _declared())
    if recipes:
        parts = {name for names in recipes.values() for name in names}
        args.names = [name for name in args.names if name not in parts]
        if args.names and args.json:
            raise UsageError("--json tells of models or of parts of recipes: name them apart")
        update_parts.run(recipes, args)
        if not args.names:
            return 0
    folder = find(Path.cwd())
    quiet = args.quiet or args.json

    def tell(move: Move) -> None:
        if not quiet:
            print("\n".join(lines(move)), flush=True)

    options = Options(force=args.force)
    moves, done = update(
        folder, args.names, options, dry_run=args.dry_run, tell=tell, watch=synced.watch(args)
    )
    if args.json:
        result = {"moves": [_record(move) for move in moves]}
        print(to_json(result | ({} if done is None else synced.record(done))))
    elif not moves and not args.quiet:
        print("Nothing to update: theta.lock has the newest versions that models.toml allows")
    if done is None:
        return 0
    if not quiet and (done.report.written or done.report.removed):
        synced.tell(done)
    return synced.complain(done)


def _declared() -> set[str]:
    """The names that `models.toml` has, where there is one that can be read."""
    with suppress(ThetaError):
        return {one.name for one in Project.read(find(Path.cwd())).wanted}
    return set()


def lines(move: Move) -> Iterator[str]:
    """What moves, and what changes with that."""
    new = printable(move.after.label)
    if move.before is None:
        yield f"{move.after.name}: {new}, not locked before"
        return
    old = printable(move.before.label)
    if old == new:  # a tag that was moved
        old, new = (f"{old} ({one.commit[:10]})" for one in (move.before, move.after))
    yield f"{move.after.name}: {old} → {new}"
    if move.changes is None:
        yield "  what changes cannot be told: the version before is not to be had any more"
    elif not move.changes:
        yield "  no file changes"
    for change in move.changes or ():
        yield f"  {printable(change.path)}  {change.summary}"
        yield from (f"    {score}" for score in change.scores)


def _record(move: Move) -> dict[str, Any]:
    return {
        "name": move.after.name,
        "from": None if move.before is None else move.before.label,
        "from_commit": None if move.before is None else move.before.commit,
        "to": move.after.label,
        "to_commit": move.after.commit,
        "changes": None
        if move.changes is None
        else [
            {"path": one.path, "summary": one.summary, "scores": list(one.scores)}
            for one in move.changes
        ],
    }
