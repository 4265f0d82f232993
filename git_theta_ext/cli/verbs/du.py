"""`git theta du`: what each version, or each tensor of one, takes in the store."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.contents import Content, Contents, objects_in
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.checkpoints.summary import summarise
from git_theta_ext.cli import parts
from git_theta_ext.comparison.report.by_module import NONE
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.manifest.model import Manifest, UpdateRef, stored_bytes
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.dead import dead_bytes
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer


def add_parser(subparsers: Any) -> None:
    """Add the parser of `du`."""
    parser = subparsers.add_parser(
        "du",
        help="show what each version and tensor takes in the store",
        description="For each commit that changed a checkpoint: the raw size of what it changed, "
        "and what the objects that it added take, by kind of update. With [REV:]FILE, the same "
        "for each tensor of that version.",
    )
    parser.add_argument(
        "what", nargs="?", default="HEAD", metavar="REV | A..B | [REV:]FILE",
        help="a revision or range, or a version of a file (default: HEAD)",
    )  # fmt: skip
    parser.add_argument("--tensors", metavar="PATTERN", help="of a file: only these tensors")
    parts.add_module(parser, "of a file: only its tensors")
    parser.add_argument(
        "--by-module", action="store_true", help="of a file: what each of its modules takes"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    repository = Repository.discover()
    if args.what == "HEAD" and repository.resolve("HEAD") is None:
        raise UsageError("there is no commit here yet")
    if not _is_range(repository, args.what):
        name = version_typed(repository, args.what)
        checkpoint = open_checkpoint(repository, name)
        return _show_file(repository, checkpoint, name.partition(":")[2], args)
    if args.module or args.by_module:
        raise UsageError("modules are parts of a file", hint="git theta du --by-module [REV:]FILE")
    rows = list(versions(repository, args.what))
    stored, raw = sum(row["stored"] for row in rows), sum(row["raw"] for row in rows)
    if args.json:
        print(to_json({"versions": rows, "stored": stored, "raw": raw}))
        return 0
    cells = [
        [row["commit"][:9], printable(row["path"]), size(row["raw"]), "->", size(row["stored"]),
         _share(row["stored"], row["raw"]), _kinds(row["kinds"]), printable(row["subject"])[:50]]
        for row in rows
    ]  # fmt: skip
    for line in table(cells):
        print(line)
    total = f"{plural(len(rows), 'version')}: {size(raw)} raw"
    print(f"{total}, {size(stored)} stored ({_share(stored, raw)})")
    return 0


def _is_range(repository: Repository, what: str) -> bool:
    # The way to a file through the folder above has two dots as well.
    return (
        ":" not in what
        and "/../" not in f"/{what}"
        and (".." in what or repository.resolve(f"{what}^{{commit}}") is not None)
    )


def versions(repository: Repository, revisions: str) -> Iterator[dict[str, Any]]:
    """A row for each checkpoint that each commit changed, oldest first; shards are one.

    An object counts where it comes first; `raw` is the size of the whole checkpoint.

    Raises:
        UsageError: there is no such revision.
    """
    first, _, last = revisions.partition("..")
    for end in (first, last.removeprefix(".")):
        if end and repository.resolve(f"{end}^{{commit}}") is None:
            raise unknown(repository, end)
    commits = list(_commits(repository, revisions))
    contents = Contents(repository)
    ours = _checkpoints(repository, commits)
    seen_objects: set[str] = set()
    seen_blobs: set[tuple[str, str]] = set()
    if ".." in revisions and first:
        seen_blobs = set(blobs_of(repository, first))
        seen_objects.update(objects_in(repository, first))
    for commit in commits:
        rows: dict[str, dict[str, Any]] = {}
        contents.read_ahead(oid for path, oid in commit.files if path in ours)
        for path, oid in commit.files:
            if (path, oid) in seen_blobs or path not in ours:
                continue
            seen_blobs.add((path, oid))
            content = contents.get(oid, path)
            if content is not None:
                name = shards.model_of(path) or path
                row = {"commit": commit.oid, "subject": commit.subject, "path": name}
                row |= _numbers(content, seen_objects, contents.blocks)
                rows[name] = _sum(rows[name], row) if name in rows else row
        yield from rows.values()


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit, and the path and blob of each file that it changed."""

    oid: str
    subject: str
    files: tuple[tuple[str, str], ...]


def _commits(repository: Repository, revisions: str) -> Iterator[_Commit]:
    """The commits of a range, oldest first. Source: git-log(1), "--raw"."""
    answer = repository.git(
        "log", "--reverse", "--topo-order", "-m", "--raw", "-z", "--no-abbrev", "--no-renames",
        "--format=%x01%H%x00%s", "--end-of-options", revisions,
    )  # fmt: skip
    fields = iter(os.fsdecode(answer).split("\0"))
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    files: list[tuple[str, str]] = []
    for field in fields:
        field = field.lstrip("\n")
        if field.startswith("\x01"):
            # A merge comes once for each parent.
            files = found.setdefault(field[1:], (next(fields), []))[1]
        elif field.startswith(":"):
            _, mode, _, oid, status = field.split()
            path = next(fields)
            if status != "D" and mode.startswith("100"):
                files.append((path, oid))
    for commit, (subject, listed) in found.items():
        yield _Commit(commit, subject, tuple(dict.fromkeys(listed)))


def _checkpoints(repository: Repository, commits: list[_Commit]) -> set[str]:
    """The paths at which there ever was a manifest, and those of git-lfs that promise to be ours.

    A blob of another path, such as a text, is none of ours.
    """
    pairs = {oid: path for commit in commits for path, oid in commit.files}
    named = {oid for oid, _ in reachable.manifest_texts(repository, pairs)}
    small = [oid for oid, n in repository.blob_sizes(pairs).items() if n <= POINTER_BYTES]
    pointers = {oid for oid, text in repository.blobs(small) if read_pointer(text) is not None}
    return {
        path
        for commit in commits
        for path, oid in commit.files
        if oid in named or (oid in pointers and formats.promises(path))
    }


def _numbers(content: Content, seen: set[str], blocks: Blocks) -> dict[str, Any]:
    """What a version takes: of one stored by tensor, the objects that are not `seen` yet."""
    if content.storage == "damaged" or content.manifest is None or content.storage != "tensors":
        length = content.size or 0
        kinds = {content.storage: length}
        return {"raw": length, "stored": length, "objects": 1, "kinds": kinds}
    manifest = content.manifest
    new = {ref.place: ref for ref in manifest.objects() if ref.oid not in seen}
    objects = {ref.oid: ref.size for ref in new.values()}
    seen.update(objects)
    return {
        "raw": summarise(manifest, blocks).raw,
        "stored": sum(objects.values()) + _inline(manifest),
        "objects": len(objects),
        "kinds": _by_kind(new.values()),
    }


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The row of two shards of one model together."""
    kinds = Counter(one["kinds"])
    kinds.update(other["kinds"])
    counts = {key: one[key] + other[key] for key in ("raw", "stored", "objects")}
    return {**one, **counts, "kinds": dict(kinds.most_common())}


def _inline(manifest: Manifest) -> int:
    return sum(len(block.inline or b"") for entry in manifest.entries for block in entry.blocks)


def _by_kind(refs: Iterable[UpdateRef]) -> dict[str, int]:
    """Bytes by kind of update, the largest first."""
    sizes: Counter[str] = Counter()
    for ref in refs:
        sizes[ref.kind] += ref.nbytes
    return dict(sizes.most_common())


def _kinds(sizes: dict[str, int]) -> str:
    return ", ".join(f"{kind} {size(count)}" for kind, count in sizes.items()) or "nothing new"


def _share(stored: int, raw: int) -> str:
    return f"{100 * stored / raw:.3g} %" if raw else "-"


def _show_file(
    repository: Repository, checkpoint: Checkpoint, path: str, args: argparse.Namespace
) -> int:
    """Show what each tensor, or module, takes in the store; the text has the largest first."""
    given = [args.tensors] if args.tensors else []
    wanted = [*given, *parts.patterns_of(repository, args.module, path)]
    names = patterns.select(checkpoint, wanted) if wanted else list(checkpoint)
    if not names:
        raise UsageError(
            f"{checkpoint.name} has no {parts.described(given, args.module)}",
            hint=advice.with_name("git theta show FILE   lists them", checkpoint.name),
        )
    rows = [_row(checkpoint, name, [name]) for name in names]
    modules = _by_module(repository, checkpoint, path, names) if args.by_module else None
    entries = checkpoint.manifest.entries
    opaque = [block for entry in entries if entry.opaque for block in entry.blocks]
    rest = stored_bytes([*opaque, checkpoint.manifest.skeleton])
    dead = dead_bytes(store_of(repository), checkpoint.manifest.objects())
    if args.json:
        found = {"file": checkpoint.name, "tensors": rows, "structure": rest, "dead": dead}
        print(to_json(found if modules is None else {**found, "modules": modules}))
        return 0
    shown = rows if modules is None else modules
    cells = [
        ["", printable(row["name"] or NONE), size(row["raw"]), "->", size(row["stored"]),
         _share(row["stored"], row["raw"]), _kinds(row["kinds"])]
        for row in sorted(shown, key=lambda row: -row["stored"])
    ]  # fmt: skip
    for line in table(cells):
        print(line)
    stored, raw = sum(row["stored"] for row in rows), sum(row["raw"] for row in rows)
    print(
        f"{plural(len(rows), 'tensor')}: {size(raw)} raw, {size(stored)} stored "
        f"({_share(stored, raw)}); structure and opaque bytes: {size(rest)} stored"
    )
    if dead:
        print(f"of its packs, {size(dead)} is of other versions")
    return 0


def _by_module(
    repository: Repository, checkpoint: Checkpoint, path: str, names: Iterable[str]
) -> list[dict[str, Any]]:
    """A row for each module, with its number of tensors; None is the name of those of none."""
    modules = parts.declared(repository)
    members: dict[str | None, list[str]] = {module.name: [] for module in modules}
    members[None] = []
    for name in names:
        for module in modules.of(path, name) or (None,):
            members[None if module is None else module.name].append(name)
    return [
        {**_row(checkpoint, module, found), "tensors": len(found)}
        for module, found in members.items() if found
    ]  # fmt: skip


def _row(checkpoint: Checkpoint, label: str | None, names: Iterable[str]) -> dict[str, Any]:
    """What some tensors take together, each parameter file once."""
    entries = [checkpoint.entry(name) for name in names]
    blocks = [block for entry in entries for block in entry.blocks]
    refs = {ref.place: ref for block in blocks for ref in block.objects()}
    inline = sum(len(block.inline or b"") for block in blocks)
    return {
        "name": label,
        "raw": sum(entry.tensor.nbytes for entry in entries),
        "stored": stored_bytes(blocks) + inline,
        "kinds": _by_kind(refs.values()),
    }
