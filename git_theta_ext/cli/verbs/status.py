"""`git theta status`: the setup, the patterns, and what state each tracked checkpoint is in."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.summary import summarise
from git_theta_ext.cli import leftovers, links, stored_whole
from git_theta_ext.cli.about_files import pathspecs, porcelain
from git_theta_ext.cli.verbs.track import tracked_patterns
from git_theta_ext.core import files
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.text import paragraph, plural, printable, size, table, to_json
from git_theta_ext.git import launch
from git_theta_ext.git.paths import add_options, advise
from git_theta_ext.git.repository import IndexEntry, Repository, skips_smudge
from git_theta_ext.git.setup import hooks, installation
from git_theta_ext.manifest.model import HEAD_BYTES, LATEST, Manifest, is_manifest
from git_theta_ext.merge.conflicts.explain import open_lines
from git_theta_ext.merge.conflicts.owned import Owned
from git_theta_ext.merge.conflicts.resolve import settling_deleted
from git_theta_ext.merge.conflicts.shard_index import how_to_settle, in_conflict
from git_theta_ext.merge.conflicts.state import key_of, load
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.pointer_files import lfs_sizes


def add_parser(subparsers: Any) -> None:
    """Add the parser of `status`."""
    parser = subparsers.add_parser(
        "status",
        help="show the setup and the state of every tracked checkpoint",
        description="Show whether and how git-theta is set up, the tracked patterns, and for each "
        "tracked file what Git stores, what the work tree holds, and what is missing.",
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="only these files, folders or other pathspecs"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON")
    shape.add_argument(
        "--porcelain", action="store_true", help="one line a file, for scripts: a stable format"
    )
    parser.add_argument(
        "-z", dest="nul", action="store_true", help="with --porcelain: NUL ends a line; no quotes"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the status."""
    repository = Repository.discover()
    repository.top  # noqa: B018 - an error where there is none
    if args.nul and not args.porcelain:
        raise UsageError("-z goes with --porcelain")
    if args.porcelain:
        sys.stdout.flush()
        sys.stdout.buffer.write(porcelain.lines(_files(repository, args.paths), nul=args.nul))
        return 0
    report = collect(repository, args.paths)
    if args.json:
        print(to_json(report))
    else:
        _show(repository, report)
    return 0


def collect(repository: Repository, paths: Sequence[str] = ()) -> dict[str, Any]:
    """The status as plain data; every path is relative to the top of the work tree.

    Args:
        repository: one with a work tree.
        paths: pathspecs of the files that are wanted; all where there are none.

    Raises:
        UsageError: no tracked file matches.
        RepositoryError: the repository is bare.
    """
    patterns = [{"pattern": name, "source": file} for file, name in tracked_patterns(repository)]
    return {
        "installed": installation.is_installed(repository),
        "problems": installation.problems(repository),
        "scopes": [scope for scope, _ in installation.scopes(repository.cwd)],
        "command": repository.setting("filter.theta.process"),
        "skip_smudge": skips_smudge(repository, os.environ),
        "hooks": _hooks(repository),
        "patterns": patterns,
        "links": links.tracked(repository),
        "files": (rows := _files(repository, paths)),
        "manifests": _versions(rows),
        "indices": [
            {"path": path, "shards_merged": merged} for path, merged in in_conflict(repository)
        ],
    }


def _versions(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many checkpoints have a manifest of each version."""
    found = Counter(row["manifest_version"] for row in rows if "manifest_version" in row)
    return {str(version): found[version] for version in sorted(found)}


def _hooks(repository: Repository) -> list[str]:
    """What keeps pushes from sending objects, and what to type; empty if nothing does.

    Where nothing was added yet, the filter will put the hooks in place when it first runs.
    """
    used = (repository.common_dir / "theta").is_dir()
    if not (used or hooks.is_elsewhere(repository)):
        return []
    return hooks.warnings(repository, launch.python_command)


def _files(repository: Repository, paths: Sequence[str]) -> list[dict[str, Any]]:
    """One record a tracked path: how it is stored, what is open, what the work tree has."""
    stages: dict[str, list[IndexEntry]] = {}
    for entry in pathspecs.in_index(repository, repository.tracked(), paths):
        stages.setdefault(entry.path, []).append(entry)
    oids = [entry.oid for entries in stages.values() for entry in entries]
    blocks = Blocks.open(repository)
    manifests = dict(reachable.manifests(repository, oids))
    changes = _changes(repository) if stages else {}
    sizes = repository.blob_sizes(oids)
    pointers = lfs_sizes(repository, oids)
    rows = []
    for path, entries in stages.items():
        # Of an unmerged path, our side (stage 2) stands for what is stored.
        entry = next((found for found in entries if found.stage in (0, 2)), entries[0])
        row: dict[str, Any] = {"path": path, "conflict": entry.stage != 0}
        if entry.oid in pointers:
            row |= {"stored_as": stored_whole.LFS, "raw_bytes": pointers[entry.oid]}
        else:
            row |= _stored(blocks, manifests.get(entry.oid), path, sizes.get(entry.oid, 0))
        row["work_tree"] = _work_tree(repository.top / path)
        row["open"] = _open(repository, entries) if row["conflict"] else {}
        row["modules"] = _whose(repository, path, row["open"])
        row["stages"] = [found.stage for found in entries if found.stage]
        row["staged"], row["modified"] = changes.get(path, (False, False))
        rows.append(row)
    return rows


def _stored(
    blocks: Blocks, manifest: Manifest | ManifestError | None, path: str, length: int
) -> dict[str, Any]:
    """What the index has at a path: kind of blob, numbers, objects that are not here."""
    if manifest is None:
        kind = stored_whole.PLAIN if length else "empty"
        return {"stored_as": kind, "raw_bytes": length}
    if isinstance(manifest, ManifestError):
        return {"stored_as": "damaged manifest", "error": manifest.message}
    summary = summarise(manifest, blocks)
    lacking = reachable.missing(manifest, blocks.store)
    return {
        "stored_as": "manifest",
        "manifest_version": manifest.version,
        "format": summary.format,
        "expected_format": formats.expected_format(path, summary.format),
        "tensors": summary.tensors,
        "parameters": summary.parameters,
        "raw_bytes": summary.raw,
        "raw_exact": summary.exact,
        "stored_bytes": summary.stored,
        "missing_objects": len(lacking),
        "missing_bytes": sum(lacking.values()),
    }


def _open(repository: Repository, entries: list[IndexEntry]) -> dict[str, str]:
    """What a merge left open in a path, by name, and why; empty where nothing is known of it."""
    stages = {entry.stage: entry.oid for entry in entries}
    versions = [repository.blob(stages[n]) if n in stages else None for n in (1, 2, 3)]
    state = load(repository, key_of(versions))
    return {} if state is None else dict(state.open)


def _whose(repository: Repository, path: str, open_: dict[str, str]) -> list[dict[str, Any]]:
    """The modules of what a merge left open; none where nothing is open, or none is declared."""
    return Owned.at_head(repository, path).records(open_) if open_ else []


def _work_tree(path: Path) -> str:
    """The work tree's `checkpoint`, `manifest` or `git-lfs pointer`; `absent` or `unreadable`."""
    if stored_whole.is_pointer(path):
        return "git-lfs pointer"
    try:
        with files.plain(path) as file:
            return "manifest" if is_manifest(file.read(HEAD_BYTES)) else "checkpoint"
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    except OSError:
        return "unreadable"


def _changes(repository: Repository) -> dict[str, tuple[bool, bool]]:
    """Path -> whether the index differs from HEAD, and the work tree from the index."""
    answer = repository.git("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    changes = {}
    for line in answer.split(b"\0"):
        if line:
            staged, modified = line[:1], line[1:2]
            changes[os.fsdecode(line[3:])] = (staged != b" ", modified != b" ")
    return changes


def _show(repository: Repository, report: dict[str, Any]) -> None:
    """Print the report for people: setup, patterns, files, what is open, and what to type next."""
    if report["installed"]:
        print(f"Set up in the {report['scopes'][-1]} git config.")
        if installation.serves_git_alone(repository):
            print(
                "Clients such as JGit would store checkpoints whole here, as earlier versions set "
                "it up: git theta install"
            )
    else:
        print("git-theta is not set up here: git theta install")
        for problem in report["problems"]:
            print(f"  {printable(problem)}")
    if report["skip_smudge"]:
        print(
            "Smudging is off (theta.skipSmudge or GIT_THETA_SKIP_SMUDGE): checkouts leave "
            "manifests; git theta pull   writes the checkpoints"
        )
    _show_hooks(report["hooks"])
    names = ", ".join(printable(row["pattern"]) for row in report["patterns"])
    print(f"Tracked patterns: {names or 'none (git theta track PATTERN)'}")
    for line in links.sentences(repository, report["links"]):
        print(line)
    if not report["files"]:
        print("No tracked files in the index.")
        return
    rows = [["", printable(row["path"]), *_cells(row)] for row in report["files"]]
    print(f"Manifests: {_shown_versions(report['manifests'])}")
    print("\nTracked files:")
    for line in table(rows):
        print(line)
    for row in report["files"]:
        if row["open"]:
            print(f"\nOpen in {printable(row['path'])}; the file has our version for now:")
            # All of them: messages that name some end with "and N more: git theta status".
            owned = Owned.at_head(repository, row["path"])
            for line in open_lines(row["open"], len(row["open"]), owned):
                print(f"  {line}")
    for line in _advice(repository, report):
        print(line)


def _shown_versions(versions: dict[str, int]) -> str:
    """The versions of the manifests, and how to have the latest alone."""
    if not versions:
        return "none"
    if len(versions) == 1:
        text = f"version {next(iter(versions))}"
    else:
        counts = (f"{plural(count, 'file')} in version {one}" for one, count in versions.items())
        text = ", ".join(counts)
    older = any(int(version) < LATEST for version in versions)
    return f"{text}; git theta migrate --to-manifest {LATEST}   moves them" if older else text


def _show_hooks(sentences: list[str]) -> None:
    """What keeps pushes from sending objects, and what to type."""
    if sentences:
        print(f"Hooks: {paragraph(sentences[0])}")
        for line in sentences[1:]:
            print(f"  {paragraph(line, '    ')}")


def _cells(row: dict[str, Any]) -> list[str]:
    """The columns after the path: format, size, and what needs attention."""
    if row["stored_as"] == "manifest":
        about = "" if row["raw_exact"] else "about "
        numbers = f"{plural(row['tensors'], 'tensor')}, {about}{size(row['raw_bytes'])}"
        cells = [row["format"], numbers]
    else:
        cells = [row["stored_as"], ""]
    remarks = [name for name in ("conflict", "staged", "modified") if row[name]]
    if row["open"]:
        remarks[0] = f"conflict: {plural(len(row['open']), 'part')} open"
    if row["work_tree"] != "checkpoint":
        remarks.append(f"{row['work_tree']} in the work tree")
    if row.get("missing_objects"):
        remarks.append(f"{plural(row['missing_objects'], 'object')} missing")
    if row.get("expected_format"):
        remarks.append(f"content is {row['format']}, not {row['expected_format']}")
    if "error" in row:
        remarks.append(printable(row["error"]))
    return [*cells, ", ".join(remarks) or "up to date"]


def _advice(repository: Repository, report: dict[str, Any]) -> list[str]:
    """What to type for each kind of trouble in the report; no line if there is none."""
    lines, rows = [], report["files"]
    unmerged = [row for row in rows if row["conflict"]]
    if any({2, 3} <= set(row["stages"]) for row in unmerged):
        options = add_options(repository)
        lines.append(f"conflicts: git theta resolve FILE --strategy S, then git add {options}FILE")
    for row in unmerged:
        if not {2, 3} <= set(row["stages"]) and shards.model_of(row["path"]) is None:
            way = settling_deleted(repository, row["path"], row["stages"])
            lines.append(f"{printable(row['path'])} is not on both sides; {way}")
    models = dict.fromkeys(
        model
        for row in unmerged
        if not {2, 3} <= set(row["stages"]) and (model := shards.model_of(row["path"]))
    )
    for model in models:
        way = advise(repository, "git theta resolve FILE", model)
        lines.append(f"shards that are not on both sides: {way}")
    for row in report["indices"]:
        way = how_to_settle(repository, row["path"], merged=row["shards_merged"])
        lines.append(f"conflict in {printable(row['path'])}, an index of shards: {way}")
    if any(row.get("missing_objects") for row in rows):
        lines.append("missing objects: git theta fetch")
    if any(row["work_tree"] == "manifest" for row in rows):
        lines.append("manifests in the work tree: git theta pull   writes the checkpoints")
    for kind, name in ((stored_whole.PLAIN, "plain blobs"), (stored_whole.LFS, stored_whole.LFS)):
        paths = [row["path"] for row in rows if row["stored_as"] == kind]
        if paths:
            command = stored_whole.how_to_store(repository, paths)
            lines.append(f"{name}: {command}   stores them tensor by tensor")
    if any(row["work_tree"] == "checkpoint" for row in rows) and (repository.top / ".jj").is_dir():
        lines.append(
            "Jujutsu works here, too: it runs no filter, and records these checkpoints whole; for "
            "manifests in this work tree: git theta install --local --skip-smudge   (git theta "
            "help status)"
        )
    for path, staged in leftovers.found(repository, [row["path"] for row in rows]):
        lines.append(leftovers.sentence(repository, path, staged=staged))
    return ["", *(f"  {line}" for line in lines)] if lines else []
