"""`git theta fsck`: check every manifest and object of the repository, and repair from remotes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from git_theta_ext.checkpoints import fsck
from git_theta_ext.checkpoints.fsck import Finding
from git_theta_ext.cli import transfers, where
from git_theta_ext.core.errors import CorruptObjectError, ManifestError, MissingObjectError
from git_theta_ext.core.text import paragraph, plural, printable, size, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects import promised
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer import presence
from git_theta_ext.objects.transfer.endpoints import Endpoint

_SHOWN = 10
"""Missing objects that are named; there may be thousands, and their names tell nobody anything."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `fsck`."""
    parser = subparsers.add_parser(
        "fsck",
        help="check that every object is here and right",
        description="Check every manifest that a ref, reflog, stash or index names: each object "
        "present, right by its hash, and decoding to the promised bytes.",
    )
    parser.add_argument("revisions", nargs="*", metavar="REV", help="only what these reach")
    parser.add_argument(
        "--repair", action="store_true", help="fetch objects that are missing or damaged"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on where an interrupted check stopped"
    )
    parser.add_argument("--remote", metavar="NAME", help="also ask this remote what it lacks")
    where.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, repair if asked to, and print; the exit code of the worst thing that is left."""
    repository = Repository.discover()
    revisions = transfers.commits(repository, args.revisions, every=False)
    if args.repair:
        reachable.bring_absent(repository, revisions)
    with where.executor(repository, args) as executor:
        report = fsck.check(repository, revisions, resume=args.resume, executor=executor)
        fixed: list[str] = []
        if args.repair and report.findings:
            objects = reachable.reachable_objects(repository, revisions)
            fixed = fsck.repair(repository, report, objects)
            # What the repaired objects decode to has not been looked at yet.
            report = fsck.check(repository, revisions, executor=executor) if fixed else report
    endpoint = presence.endpoint_of(repository, args.remote) if args.remote else None
    lacking = _lacking(repository, endpoint, revisions) if endpoint else []
    incomplete = bool(lacking or report.promised)
    code = _code(report.findings) or (MissingObjectError.exit_code if incomplete else 0)
    if args.json:
        record = {**asdict(report), "repaired": fixed, "exit_code": code}
        if args.remote:
            record["remote"] = args.remote
            record["endpoint"] = str(endpoint)
            record["remote_lacks"] = [{"oid": ref.oid, "bytes": ref.size} for ref in lacking]
        print(to_json(record))
        return code
    for line in _lines(report.findings):
        print(line)
    if endpoint is not None:
        print(f"asked {printable(endpoint.remote)} ({endpoint})")
    for ref in lacking:
        print(f"not at {printable(args.remote)}: object {ref.oid} ({size(ref.size)})")
    if fixed:
        print(f"repaired {plural(len(fixed), 'object')}")
    print(
        f"checked {plural(report.manifests, 'manifest')}, {plural(report.objects, 'object')} "
        f"({size(report.bytes)}), {plural(report.blocks, 'block')}: "
        f"{plural(len(report.findings), 'problem')}"
    )
    if report.promised:
        print(_unseen(report.promised, partial=bool(promised.remotes_of(repository))))
    if (report.findings or report.promised) and not args.repair:
        print("  hint: git theta fsck --repair   fetches what is missing or wrong", file=sys.stderr)
    return code


def _lacking(repository: Repository, endpoint: Endpoint, revisions: list[str]) -> list[UpdateRef]:
    objects = reachable.reachable_objects(repository, revisions)
    there = presence.present(repository, endpoint, objects.values())
    return [ref for oid, ref in objects.items() if oid not in there]


def _lines(findings: list[Finding]) -> Iterator[str]:
    """One line for each; of many missing objects, as in a clone without them, only the first."""
    missing = 0
    for finding in findings:
        missing += finding.kind == "missing"
        if finding.kind != "missing" or missing <= _SHOWN:
            yield _line(finding)
    if missing > _SHOWN:
        yield f"missing: {missing - _SHOWN} more, of {missing} (--json names them all)"


def _line(finding: Finding) -> str:
    if finding.kind == "missing":
        return f"missing {finding.oid}"
    tensor = f" {printable(finding.tensor)}:" if finding.tensor else ""
    subject = f"{finding.kind} {finding.oid}:{tensor}"
    return f"{subject} {paragraph(finding.message)}"


def _unseen(count: int, *, partial: bool) -> str:
    """What to say of objects of Git that are not here."""
    if partial:
        return (
            f"not checked: {plural(count, 'object')} of Git that this partial clone has left at its"
            " remote; files and folders with manifests may be among them"
        )
    which = plural(count, "object of Git that is", "objects of Git that are")
    return f"not checked: {which} missing here; git fsck names them"


def _code(findings: list[Finding]) -> int:
    kinds = {finding.kind for finding in findings}
    if kinds & {"damaged", "block"}:
        return CorruptObjectError.exit_code
    if "missing" in kinds:
        return MissingObjectError.exit_code
    return ManifestError.exit_code if kinds else 0
