"""`git theta migrate --to-manifest N`: the manifests of a branch's tip in another version."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from git_theta_ext.cli.restaged import Staged, replace_staged, require_committed, staged
from git_theta_ext.cli.verbs.repack import lines_of, plans_of, record_of, repacked
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, table, to_json
from git_theta_ext.git import installation
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import LATEST


def add_parser(subparsers: Any) -> None:
    """Add the parser of `migrate`."""
    parser = subparsers.add_parser(
        "migrate",
        help="write the manifests of the current branch in a newer version",
        description="Stage the manifests of the current branch's tip in another version of their "
        "text. No checkpoint changes, nothing is encoded anew, and no history is rewritten.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="only these (default: all)")
    parser.add_argument(
        "--to-manifest", type=int, choices=[LATEST], metavar="VERSION",
        help=f"the version to write: {LATEST}",
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


def run(args: argparse.Namespace) -> int:
    """Stage the manifests and say what to commit."""
    if args.to_manifest is None:
        raise UsageError(
            "expected what to move to", hint=f"git theta migrate --to-manifest {LATEST}"
        )
    repository = Repository.discover()
    if not args.dry_run:
        installation.require(repository)
    files = staged(repository, args.paths)
    require_committed(repository, {one.path for one in files})
    older = [one for one in files if one.manifest.version < args.to_manifest]
    plans = plans_of(files) if args.repack else {}
    if not args.dry_run and (older or plans):
        new = {one.path: one.manifest for one in older}
        new |= repacked(repository, files, plans)
        new = {path: replace(one, version=args.to_manifest) for path, one in new.items()}
        replace_staged(repository, files, new)
    if args.json:
        rows = [{"path": one.path, "from": one.manifest.version} for one in older]
        record = {path: record_of(found) for path, found in plans.items()}
        print(
            to_json(
                {"dry_run": args.dry_run, "to": args.to_manifest, "files": rows, "repack": record}
            )
        )
        return 0
    _show(args, files, older, lines_of(plans, done=not args.dry_run) if plans else [])
    return 0


def _show(
    args: argparse.Namespace, files: list[Staged], older: list[Staged], repacking: list[str]
) -> None:
    """Say what was or would be staged, and what to type next."""
    if not older and not repacking:
        count = plural(len(files), "checkpoint")
        print(f"Nothing to do: {count} with manifests of version {args.to_manifest}")
        return
    rows = [["", printable(one.path), f"version {one.manifest.version} -> {args.to_manifest}"]
            for one in older]  # fmt: skip
    for line in [*table(rows), *repacking]:
        print(line)
    if args.dry_run:
        print("Nothing was staged (dry run)")
        return
    print(f'Staged; to record it: git commit -m "Write manifests in version {args.to_manifest}"')
