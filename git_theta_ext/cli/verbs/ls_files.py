"""`git theta ls-files`: the tracked checkpoints of the index or of a revision."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from git_theta_ext.checkpoints.summary import summarise
from git_theta_ext.cli.about_files import pathspecs as chosen
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable


def add_parser(subparsers: Any) -> None:
    """Add the parser of `ls-files`."""
    parser = subparsers.add_parser(
        "ls-files",
        help="list tracked checkpoints in the index or a revision",
        description="List the checkpoints that are stored tensor by tensor, with their number of "
        "tensors and parameters. A * says that all objects are here, a - that some are missing.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="REV | PATH",
        help="a revision (default: the index; in a bare repository HEAD), then files, folders or "
        "other pathspecs",
    )  # fmt: skip
    parser.add_argument(
        "-s", "--size", action="store_true", help="show the size of the file and of its objects"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List."""
    repository = Repository.discover()
    revision, paths = split(repository, args.words)
    rows = list_files(repository, revision, paths)
    if args.json:
        print(to_json({"files": rows}))
        return 0
    lines = []
    for row in rows:
        if "error" in row:
            lines.append(["!", printable(row["path"]), "(damaged manifest)"])
            continue
        line = ["-" if row["missing"] else "*", printable(row["path"]), row["format"]]
        line += [plural(row["tensors"], "tensor"), plural(row["parameters"], "parameter")]
        if args.size:
            about = "" if row["raw_exact"] else "about "
            line += [about + size(row["raw_bytes"]), f"stored in {size(row['stored_bytes'])}"]
        lines.append(line)
    for text in table(lines):
        print(text)
    return 0


def split(repository: Repository, words: list[str]) -> tuple[str | None, list[str]]:
    """The revision, if the first word is one, and the pathspecs.

    A word is a revision before it is a file, as in `git log`.
    """
    if words and repository.resolve(f"{words[0]}^{{tree}}") is not None:
        return words[0], words[1:]
    if len(words) == 1 and not repository.index(words[0]):
        if words == ["HEAD"]:
            raise unknown(repository, "HEAD")
        raise UsageError(
            f"there is no revision {words[0]!r} here, and no such file in the index",
            hint="git theta ls-files   lists what there is",
        )
    return None, words


def list_files(
    repository: Repository, revision: str | None, pathspecs: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row for each manifest, by path; sizes in bytes, `stored_bytes` counting objects once.

    Args:
        repository: which one.
        revision: what to list; None: the index.
        pathspecs: only the files that match; all where there are none.

    Raises:
        UsageError: there is no such revision, or no file that matches.
    """
    if revision is None and repository.work_tree is None and repository.resolve("HEAD"):
        revision = "HEAD"  # a bare repository has an empty index
    if revision is None:
        entries = [entry for entry in repository.tracked() if entry.stage in (0, 2)]
        entries = chosen.in_index(repository, entries, pathspecs)
        files = [(entry.path, entry.oid) for entry in entries]
    else:
        commit = repository.resolve(revision)
        if commit is None:
            raise unknown(repository, revision)
        files = chosen.in_revision(repository, commit, blobs_of(repository, commit), pathspecs)
    found = dict(reachable.manifests(repository, [oid for _, oid in files]))
    blocks = Blocks.open(repository)
    store = blocks.store
    rows: list[dict[str, Any]] = []
    for path, oid in files:
        manifest = found.get(oid)
        if isinstance(manifest, ManifestError):
            rows.append({"path": path, "blob": oid, "error": manifest.message})
        elif manifest is not None:
            summary = summarise(manifest, blocks)
            rows.append(
                {
                    "path": path,
                    "blob": oid,
                    "format": summary.format,
                    "tensors": summary.tensors,
                    "parameters": summary.parameters,
                    "raw_bytes": summary.raw,
                    "raw_exact": summary.exact,
                    "stored_bytes": summary.stored,
                    "missing": len(reachable.missing(manifest, store)),
                }
            )
    return rows
