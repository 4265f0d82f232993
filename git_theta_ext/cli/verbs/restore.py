"""`git theta restore`: take some tensors of a checkpoint from another version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.converted import Held
from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.cli import parts
from git_theta_ext.core import patterns
from git_theta_ext.core.braces import fold
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.git.setup import installation
from git_theta_ext.merge.branches.restore import Restored, Restoring
from git_theta_ext.objects.blocks import Blocks

_SHOWN = 10
"""Groups of tensors that are named."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `restore`."""
    parser = subparsers.add_parser(
        "restore",
        help="take some tensors of a checkpoint from another version",
        description="Give some tensors of a checkpoint in the work tree (or, with --staged, in the "
        "index) the values that they have in another version; all others stay as they are. The "
        "file is written anew, whole or not at all. What was changed in these tensors and not "
        "committed is lost, as with git restore.",
    )
    parser.add_argument(
        "files", nargs="*", default=[], metavar="FILE",
        help="checkpoints; an index or a pattern of shards for a whole model (default: all that "
        "have such tensors in the source)",
    )  # fmt: skip
    parts.add_module(parser, "its tensors")
    parser.add_argument(
        "--tensors", action="append", default=[], metavar="PATTERN", help="tensors by their names"
    )
    parser.add_argument(
        "--source", "-s", metavar="REV",
        help="where they are taken from (default: the index; with --staged HEAD)",
    )  # fmt: skip
    parser.add_argument("--staged", "-S", action="store_true", help="restore the index")
    parser.add_argument(
        "--worktree", "-W", action="store_true",
        help="restore the work tree (the default, unless --staged is given)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="say what would change; write no file"
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="say nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restore, and say what changed.

    Raises:
        UsageError: there is nothing to take, or it does not fit; nothing was changed.
        ThetaError: an object is missing or damaged, or something cannot be written.
    """
    repository = Repository.discover()
    if not args.module and not args.tensors:
        raise UsageError("which tensors? give --module NAME or --tensors PATTERN")
    installation.require(repository)
    restoring = _restoring(repository, args)
    paths = _paths(repository, restoring, args.files)
    staged = [restoring.of_index(path) for path in paths] if args.staged else []
    in_tree: list[tuple[Restored, Mapping[str, Held]]] = []
    if args.worktree or not args.staged:
        in_tree = [restoring.of_work_tree(path) for path in paths]
    if not args.dry_run:
        restoring.stage(staged)  # first: somebody else may hold the lock
        restoring.write(in_tree)
    rows = [("index", one) for one in staged] + [("work tree", one) for one, _ in in_tree]
    if args.json:
        files = [_record(place, one) for place, one in rows]
        print(to_json({"source": restoring.label, "dry_run": args.dry_run, "files": files}))
        return 0
    for place, one in rows:
        where = f" (in the {place})" if len(rows) > len(paths) or place == "index" else ""
        if not args.quiet:
            _say(one, restoring.label, where, dry=args.dry_run)
        for name, other in one.untied:
            print(
                f"git theta: {printable(one.path)}: {printable(name)} was the same as "
                f"{printable(other)}, and no longer is",
                file=sys.stderr,
            )
    return 0


def _restoring(repository: Repository, args: argparse.Namespace) -> Restoring:
    """What is to be done, as far as the options say it."""
    repository.top  # noqa: B018 - an error where there is none
    revision = args.source if args.source is not None else "HEAD" if args.staged else ""
    commit = repository.resolve(f"{revision}^{{commit}}") if revision else ""
    if commit is None:
        raise unknown(repository, revision)
    modules = parts.declared(repository) if args.module else Modules()
    chosen = [modules.named(name) for name in args.module]

    def select(path: str, names: Sequence[str]) -> list[str]:
        wanted = [pattern for one in chosen if one.is_in(path) for pattern in one.patterns]
        return patterns.select(names, [*args.tensors, *wanted])

    return Restoring(repository, commit, revision or "the index", select, Blocks.open(repository))


def _paths(repository: Repository, restoring: Restoring, files: Sequence[str]) -> list[str]:
    """The checkpoints, from the top, each once; a sharded model by its pattern.

    Raises:
        UsageError: one is not tracked, or none has such a tensor in the source.
    """
    tracked = dict.fromkeys(entry.path for entry in repository.tracked())
    models = dict.fromkeys(shards.model_of(path) or path for path in tracked)
    if not files:
        found = [path for path in models if restoring.has_some(path)]
        if not found:
            raise UsageError(f"no checkpoint has such a tensor in {restoring.label}")
        return found
    wanted = []
    for name in files:
        path = from_top(repository, name)
        path = shards.pattern_of(path) if shards.names_model(path) else path
        if path not in tracked and path not in models:
            raise UsageError(
                f"{path!r} is not a tracked checkpoint", hint="git theta ls-files   lists them"
            )
        wanted.append(path)
    return list(dict.fromkeys(wanted))


def _record(place: str, one: Restored) -> dict[str, Any]:
    """One result, for `--json`."""
    return {
        "path": one.path,
        "place": place,
        "selected": one.selected,
        "changed": list(one.changed),
        "added": list(one.added),
        "removed": list(one.removed),
        "files": [*one.files, *([one.index[0]] if one.index else [])],
        "structure": "source" if one.moved else "now",
        "untied": [list(pair) for pair in one.untied],
    }


def _say(one: Restored, label: str, where: str, *, dry: bool) -> None:
    """Say what became of a checkpoint, or what would."""
    path = printable(one.path)
    if not one.files:
        print(f"{path}: {plural(one.selected, 'tensor')} as in {label} already{where}")
        return
    counts = {"changed": one.changed, "added": one.added, "removed": one.removed}
    told = ", ".join(f"{len(names):,} {word}" for word, names in counts.items() if names)
    verb = "would be taken" if dry else "taken"
    of = f"; {told}" if told else "; only its structure changes"
    print(f"{path}: {plural(one.selected, 'tensor')} {verb} from {label}{where}{of}")
    if one.moved:
        print(f"  with the structure of {label}, which they need")
    for sign, names in zip("~+-", counts.values(), strict=True):
        groups = list(fold(names))
        for name, _ in groups[:_SHOWN]:
            print(f"  {sign} {printable(name)}")
        left = sum(len(members) for _, members in groups[_SHOWN:])
        if left:
            print(f"  {sign} … and {left:,} more")
