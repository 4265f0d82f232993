"""`git theta log`: the commits that changed a checkpoint, or some of its tensors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from git_theta_ext.checkpoints.contents import Content, objects_in
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.cli import parts
from git_theta_ext.cli.frame import colours
from git_theta_ext.cli.shown import merges
from git_theta_ext.comparison.compare import Change, Comparison, compare
from git_theta_ext.comparison.history import History, Version, changes
from git_theta_ext.comparison.report.groups import group
from git_theta_ext.comparison.report.text import Style, render
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository

_LISTED = 6
SHALLOW = "history ends here in this clone: what came before is not known (git fetch --unshallow)"


def add_parser(subparsers: Any) -> None:
    """Add the parser of `log`."""
    parser = subparsers.add_parser(
        "log",
        help="show the commits that changed a checkpoint, or some of its tensors",
        description="Show the commits that changed a checkpoint, newest first, each with what it "
        "changed. With TENSOR or --module, only those that changed a tensor whose name matches. A "
        "checkpoint that was renamed is followed. Without -p, only manifests are read.",
    )
    parser.add_argument(
        "file", nargs="?", metavar="[REV:]FILE",
        help="without REV, from HEAD; without it: all checkpoints of HEAD, one after the other",
    )  # fmt: skip
    parser.add_argument(
        "tensors", nargs="*", default=[], metavar="TENSOR", help="names or patterns"
    )
    parts.add_module(parser, "also its tensors, as if they were named")
    parser.add_argument(
        "-n",
        "--max-count",
        type=int,
        metavar="N",
        help="at most N commits (as in Git: a negative N is no limit)",
    )
    parser.add_argument(
        "-p", "--patch", action="store_true",
        help="show all that changed with the numbers of its values, as git theta diff does",
    )  # fmt: skip
    parser.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def split(repository: Repository, name: str) -> tuple[str, str]:
    """Revision and path, from the top, of `[REV:]FILE`; HEAD where there is no revision."""
    revision, _, path = version_typed(repository, name).partition(":")
    return revision or "HEAD", path


@dataclass(frozen=True, slots=True)
class _Step:
    """One version, what it holds, the one before it, and what differs where that is known."""

    version: Version
    content: Content | None
    absent: str
    before: Version | None
    then: Content | None
    comparison: Comparison | None


def run(args: argparse.Namespace) -> int:
    """Print the log.

    Raises:
        UsageError: there is no such checkpoint, or no version of it has such a tensor.
    """
    repository = Repository.discover()
    if args.patch and args.json:
        raise UsageError("-p is for people; --json lists all that changed anyway")
    if args.file is None:
        return _of_all(repository, args)
    revision, path = split(repository, args.file)
    tensors = [*args.tensors, *parts.patterns_of(repository, args.module, path)]
    rows, matched = _log(repository, History(repository, revision, path), tensors, args)
    if not matched:
        raise UsageError(
            f"no version of {path!r} has a {parts.described(args.tensors, args.module)}",
            hint=advice.about_version("git theta show VERSION   lists them", revision, path),
        )
    if args.json:
        print(to_json({"file": path, "commits": rows}))
    return 0


def _of_all(repository: Repository, args: argparse.Namespace) -> int:
    """The log of each checkpoint of HEAD, or of each that has tensors of the modules."""
    named = [parts.declared(repository).named(name) for name in args.module]
    found: list[dict[str, Any]] = []
    for path in parts.checkpoints_of(repository, "HEAD"):
        about = [module for module in named if module.is_in(path)]
        if args.module and not about:
            continue
        tensors = [pattern for module in about for pattern in module.patterns]
        heading = f"{chr(10) if found else ''}{printable(path)}:"
        rows, matched = _log(repository, History(repository, "HEAD", path), tensors, args, heading)
        if matched:
            found.append({"file": path, "commits": rows})
    if not found and args.module:
        raise UsageError(f"no checkpoint of HEAD has a {parts.described([], args.module)}")
    if args.json:
        print(to_json({"files": found}))
    return 0


def _log(
    repository: Repository,
    history: History,
    tensors: list[str],
    args: argparse.Namespace,
    heading: str | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """The commits of one checkpoint, printed unless `--json`; and whether it has such a tensor."""
    rows: list[dict[str, Any]] = []
    matched = not tensors
    for step in _steps(repository, history, measured=args.patch):
        if args.max_count is not None and 0 <= args.max_count <= len(rows):
            matched = True  # the rest is not looked at
            break
        matched = matched or _has(step.content, tensors)
        touched = _touched(step.comparison, tensors)
        if tensors and not touched:
            continue
        rows.append(_row(step, touched))
        if not args.json:
            if heading is not None and len(rows) == 1:
                print(heading)
            if len(rows) > 1:
                print()
            _show(
                rows[-1],
                touched,
                step.comparison if args.patch else None,
                _merged(history, step.version, tensors) if args.patch else (),
                args.color,
            )
    return rows, matched


def _steps(repository: Repository, history: History, *, measured: bool) -> Iterator[_Step]:
    for version, before in changes(history):
        content = history.content(version)
        then = None if before is None else history.content(before)
        known = content is None or content.manifest is not None
        known &= then is None or then.manifest is not None
        comparison = None
        if known and not version.boundary:
            known_objects = set() if then is not None else _objects_before(repository, version)
            known_objects |= _objects_merged(repository, history, version)
            comparison = _compare(content, then, history, known_objects, measured)
        absent = history.absent(version) if content is None else ""
        yield _Step(version, content, absent, before, then, comparison)


def _objects_before(repository: Repository, version: Version) -> set[str]:
    """What other checkpoints had stored already when this one came."""
    parent = repository.resolve(f"{version.commit}^1")
    return set() if parent is None else set(objects_in(repository, parent))


def _objects_merged(repository: Repository, history: History, version: Version) -> set[str]:
    """What the other parents of a merge had stored."""
    found: set[str] = set()
    for parent in version.parents[1:]:
        oid = repository.blob_at(parent, version.path)
        manifest = None if oid is None else history.contents.manifest(oid)
        if manifest is not None:
            found.update(ref.oid for ref in manifest.objects())
    return found


def _compare(
    content: Content | None,
    then: Content | None,
    history: History,
    known: set[str],
    measured: bool,
) -> Comparison:
    sides = [
        None if one is None or one.manifest is None
        else StoredSide(one.manifest, history.contents.blocks)
        for one in (then, content)
    ]  # fmt: skip
    return compare(sides[0], sides[1], measured=measured, known=known)


def _has(content: Content | None, wanted: list[str]) -> bool:
    if content is None or content.manifest is None:
        return False
    names = [entry.tensor.name for entry in content.manifest.entries]
    return bool(patterns.select(names, wanted))


def _touched(comparison: Comparison | None, wanted: list[str]) -> list[Change]:
    changed = [] if comparison is None else list(comparison.changes)
    if not wanted:
        return changed
    names = set(patterns.select([change.name for change in changed], wanted))
    return [change for change in changed if change.name in names]


def _row(step: _Step, touched: list[Change]) -> dict[str, Any]:
    """One version as a record for `--json`; `touched` are the changes that were asked for."""
    version, content, comparison = step.version, step.content, step.comparison
    manifest = None if content is None else content.manifest
    tensors = 0 if manifest is None else sum(not entry.opaque for entry in manifest.entries)
    return {
        "commit": version.commit,
        "author": version.author,
        "date": version.date,
        "subject": version.subject,
        "path": version.path,
        "renamed_from": _old_path(step),
        "boundary": version.boundary,
        "storage": None if content is None else content.storage,
        "stored_as": step.absent if content is None else content.words,
        "before": None if step.then is None else step.then.words,
        "compared": comparison is not None,
        "tensors": tensors if comparison is None else comparison.tensors,
        "changed": None if comparison is None else len(comparison.changes),
        "stored": None if comparison is None else comparison.stored,
        "deleted": step.absent == "deleted",
        "changes": [
            {
                "name": change.name, "status": change.status, "update": change.kind,
                "remarks": dict(change.info), "stored": change.stored,
            }
            for change in touched
        ],
    }  # fmt: skip


def _old_path(step: _Step) -> str | None:
    before = step.before
    return None if before is None or before.path == step.version.path else before.path


def _merged(history: History, version: Version, tensors: list[str]) -> Iterator[str]:
    """What a merge made of the tensors, as far as its parents are here; nothing for others."""
    if len(version.parents) > 1 and not version.boundary:
        yield from merges.in_log(history.contents, version.commit, version.path, tensors)


def _show(
    row: dict[str, Any],
    touched: list[Change],
    patch: Comparison | None,
    merged: Iterable[str],
    color: str,
) -> None:
    """Print one version; with `patch`, all that was asked for of what it changed, and `merged`."""
    mark = "^" if row["boundary"] else ""
    print(f"{mark}{row['commit'][:9]}  {row['date'][:10]}  {printable(row['author'])}")
    print(f"    {printable(row['subject'])}")
    if row["renamed_from"] is not None:
        print(f"    renamed from {printable(row['renamed_from'])}")
    if row["storage"] is None:
        print(f"    {row['stored_as']}")
        return
    for line in _counts(row):
        print(f"    {line}")
    if patch is None:
        _show_groups(touched)
        return
    for line in merged:
        print(f"    {line}")
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    style = Style(colours.decide(color), unicode)
    for line in render(row["path"], replace(patch, changes=tuple(touched)), style):
        print(f"    {line}")


def _counts(row: dict[str, Any]) -> Iterator[str]:
    """How much changed, or why that is not known."""
    if row["storage"] != "tensors":
        yield row["stored_as"]
    if row["boundary"]:
        yield f"{plural(row['tensors'], 'tensor')}; {SHALLOW}"
    elif not row["compared"]:
        if row["before"] is not None and "not on this machine" in row["before"]:
            yield f"what changed is not known: the version before is {row['before']}"
    else:
        stored = f", stores {size(row['stored'])}" if row["storage"] == "tensors" else ""
        yield f"{row['changed']:,} of {row['tensors']:,} tensors changed{stored}"


def _show_groups(touched: list[Change]) -> None:
    groups = group(touched)
    for one in groups[:_LISTED]:
        first = one.changes[0]
        sign = {"added": "+", "removed": "-", "renamed": ">"}.get(first.status, "~")
        kind = first.kind or ("" if first.status == "removed" else first.status)
        remarks = [f"{key}={value}" for key, value in first.info] if len(one.changes) == 1 else []
        print("      " + " ".join([sign, printable(one.name), "", kind, *remarks]).rstrip())
    left = sum(len(one.changes) for one in groups[_LISTED:])
    if left:
        print(f"      … and {left:,} more")
