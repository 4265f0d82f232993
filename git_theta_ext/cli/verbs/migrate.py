"""`git theta migrate`: move histories in and out, or manifests to a newer version."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from git_theta_ext.cli.migrating import info, moving_in, moving_out
from git_theta_ext.cli.restaged import Staged, replace_staged, require_committed, staged
from git_theta_ext.cli.verbs.repack import lines_of, plans_of, record_of, repacked
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, table, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.manifest.model import LATEST


def add_parser(subparsers: Any) -> None:
    """Add the parser of `migrate`."""
    parser = subparsers.add_parser(
        "migrate",
        help="move a history in from git-lfs, plain Git and others, or back out",
        description="Rewrite history as git lfs migrate does, into manifests (import) or out of "
        "them (export). With --to-manifest: stage the manifests of the current branch's tip in "
        "another version of their text; no history is rewritten then.",
    )
    parser.add_argument(
        "--to-manifest", nargs="+", metavar=("VERSION", "PATH"),
        help=f"stage manifests of another version, {LATEST}, of these files (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--repack", action="store_true",
        help="also join small objects, as git theta repack --yes does",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say what would be staged"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    modes = parser.add_subparsers(metavar="MODE", title="modes")
    info.add_parser(modes)
    moving_in.add_parser(modes)
    moving_out.add_parser(modes)


def run(args: argparse.Namespace) -> int:
    """Stage the manifests and say what to commit."""
    if args.to_manifest is None:
        raise UsageError(
            "expected what to do: info, import, export, or --to-manifest",
            hint="git theta migrate info   shows what is here",
        )
    version, *paths = args.to_manifest
    if version != str(LATEST):
        raise UsageError(
            f"manifests are written in version {LATEST}, not {printable(version)}",
            hint=f"git theta migrate --to-manifest {LATEST}",
        )
    repository = Repository.discover()
    if not args.dry_run:
        installation.require(repository)
    files = staged(repository, paths)
    require_committed(repository, {one.path for one in files})
    older = [one for one in files if one.manifest.version < LATEST]
    plans = plans_of(files) if args.repack else {}
    if not args.dry_run and (older or plans):
        new = {one.path: one.manifest for one in older}
        new |= repacked(repository, files, plans)
        new = {path: replace(one, version=LATEST) for path, one in new.items()}
        replace_staged(repository, files, new)
    if args.json:
        rows = [{"path": one.path, "from": one.manifest.version} for one in older]
        record = {path: record_of(found) for path, found in plans.items()}
        print(to_json({"dry_run": args.dry_run, "to": LATEST, "files": rows, "repack": record}))
        return 0
    _show(args, files, older, lines_of(plans, done=not args.dry_run) if plans else [])
    return 0


def _show(
    args: argparse.Namespace, files: list[Staged], older: list[Staged], repacking: list[str]
) -> None:
    """Say what was or would be staged, and what to type next."""
    if not older and not repacking:
        count = plural(len(files), "checkpoint")
        print(f"Nothing to do: {count} with manifests of version {LATEST}")
        return
    rows = [["", printable(one.path), f"version {one.manifest.version} -> {LATEST}"]
            for one in older]  # fmt: skip
    for line in [*table(rows), *repacking]:
        print(line)
    if args.dry_run:
        print("Nothing was staged (dry run)")
        return
    print(f'Staged; to record it: git commit -m "Write manifests in version {LATEST}"')
