"""`git theta migrate info`: what a history holds, and what moving it would save."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from git_theta_ext.cli.migrating import options
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.found import EXTENDED, LFS, MANIFEST, MISSING, RAW, Files, versions
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.refs import Wanted
from git_theta_ext.migration.survey import Group, Sample, Sampler, chosen, grouped

_SAMPLES = 3
_LARGEST = 4 << 30
_SHOWN = {RAW: "plain", LFS: "git-lfs", MISSING: "git-lfs, not here", MANIFEST: "git-theta",
          EXTENDED: "git-lfs with extensions"}  # fmt: skip


def add_parser(modes: Any) -> None:
    """Add the parser of `migrate info`."""
    parser = modes.add_parser(
        "info",
        help="show which checkpoints the history holds, how, and what moving them would save",
        description="Count the versions of checkpoints by ending: plain blobs, files of git-lfs, "
        "manifests. Some are encoded, into a folder that is thrown away, to tell what they would "
        "take. Nothing is changed.",
    )
    options.add_which(parser)
    parser.add_argument("--above", metavar="SIZE", help="all files above this size, of any name")
    parser.add_argument(
        "--samples", type=int, default=_SAMPLES, metavar="N",
        help=f"encode two versions each of the N largest files (default: {_SAMPLES}; 0: none)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, answers=True)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    repository = Repository.discover()
    selection = options.selection_of(args)
    wanted = options.wanted_of(args)
    elsewhere = 0
    if wanted == Wanted():
        wanted = Wanted(include=("HEAD",))  # what a remote has counts, too
        elsewhere = len(refs.commits(repository, Wanted(everything=True)))
    commits = refs.commits(repository, wanted)
    elsewhere = max(elsewhere - len(commits), 0)
    with steps.pipes_of(repository, only_looks=True) as pipes:
        every = list(versions(Files(pipes, selection, LfsFiles(repository)), commits))
        groups = grouped(pipes, every)
        samples: list[Sample] = []
        for rows in chosen(every, max(args.samples, 0), _LARGEST):
            with pipes.scratch() as folder:
                found, container = Sampler(repository, pipes, folder).sample(rows)
            samples.append(found)
            for group in groups.values():
                if found.path in group.paths:
                    group.format = group.format or container
    if args.json:
        print(to_json(_record(len(commits), groups, samples)))
        return 0
    _show(len(commits), groups, samples)
    if elsewhere:
        count = plural(elsewhere, "commit")
        print(f"Not counted: {count} of other branches and tags (--everything)")
    return 0


def _record(commits: int, groups: Mapping[str, Group], samples: Sequence[Sample]) -> dict[str, Any]:
    rows = [
        {"pattern": name, "format": one.format, "files": len(one.paths),
         "versions": one.versions, "bytes": one.nbytes}
        for name, one in sorted(groups.items())
    ]  # fmt: skip
    found = [{"path": one.path, "first": one.first, "first_stored": one.first_stored,
              "next": one.next, "next_stored": one.next_stored} for one in samples]  # fmt: skip
    return {"commits": commits, "groups": rows, "samples": found}


def _show(commits: int, groups: Mapping[str, Group], samples: Sequence[Sample]) -> None:
    """Print a line for each ending and kind, and what the samples take."""
    if not groups:
        print(f"No checkpoint in {plural(commits, 'commit')}")
        return
    rows = []
    for name, one in sorted(groups.items(), key=lambda item: -sum(item[1].nbytes.values())):
        for kind, count in one.versions.items():
            rows.append([printable(name), one.format or "?", _SHOWN[kind],
                         f"{plural(count, 'version')} of {plural(len(one.paths), 'file')}",
                         size(one.nbytes[kind])])  # fmt: skip
    for line in table(rows):
        print(line)
    if samples:
        print("\nMoved in, these would take (encoded to see):")
    for found in samples:
        later = (
            f"; the version after it {_share(found.next_stored, found.next)}" if found.next else ""
        )
        first = _share(found.first_stored, found.first)
        print(f"  {printable(found.path)}: one version {first}{later}")
    if any({RAW, LFS} & one.versions.keys() for one in groups.values()):
        print("\nTo move them in: git theta migrate import --dry-run   and the same without it")


def _share(stored: int, raw: int) -> str:
    return f"{size(stored)} of {size(raw)} ({100 * stored / raw:.2g} %)" if raw else size(stored)
