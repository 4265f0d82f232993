"""`git theta add FILE --update ADAPTER`: the next version of a checkpoint, from an adapter.

Without an adapter it is `git add`, whose filter does the work on blocks where `--on` says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.adapters.base import Adapter
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.supply import (
    Updated,
    next_version,
    require_changes,
    updated_tensors,
)
from git_theta_ext.checkpoints.adapters.types import weighted
from git_theta_ext.checkpoints.adapters.types.read import (
    TYPES,
    open_adapter,
    read_adapter,
    read_weighted,
)
from git_theta_ext.checkpoints.placed import write_version
from git_theta_ext.cli import where
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core import advice
from git_theta_ext.core.errors import RepositoryError, ThetaError, UsageError
from git_theta_ext.core.text import from_program, plural, printable, size, table, to_json
from git_theta_ext.git.paths import advise, from_top
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.setup import installation
from git_theta_ext.git.trees import Row, file_mode_at, stage, store_blob
from git_theta_ext.manifest.model import HEAD_BYTES, Manifest, is_manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.cluster import choice
from git_theta_ext.objects.store.store import Store


def add_parser(subparsers: Any) -> None:
    """Add the parser of `add`."""
    parser = subparsers.add_parser(
        "add",
        help="add checkpoints by a cluster, or apply an adapter to a committed one",
        description="Add files as git add does, their blocks encoded by a cluster if --on or "
        "theta.executor names one. With --update: apply an adapter of PEFT (LoRA, IA3 and more), "
        "a sparse update or differences, to the checkpoint that HEAD has, write the "
        "updated checkpoint into the work tree, and stage it. The store keeps the adapter's own "
        "factors.",
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="files and folders, as for git add; with --update one tracked checkpoint, committed "
        "and unchanged; of a sharded model, its index or a pattern of its shards",
    )
    parser.add_argument(
        "--update", metavar="ADAPTER", action="append",
        help="a folder that PEFT wrote, its adapter_model.safetensors, or a file of indices and "
        "values, or of differences; several LoRA adapters if --weights are given",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="N,N", help="join the adapters, each times its number: 0.7,0.3"
    )
    parser.add_argument(
        "--combine", choices=weighted.KINDS,
        help="how: cat adds the changes (default), linear the factors",
    )  # fmt: skip
    parser.add_argument(
        "--type", choices=TYPES, help="the kind of adapter (default: by its tensors' names)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="its adapter_config.json (default: the one beside it)"
    )
    parser.add_argument(
        "--dry-run", "-n", action="store_true",
        help="show what every tensor would take in the store; change nothing",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    where.add_option(parser)
    parser.set_defaults(run=run)


Files = dict[str, Manifest]
"""The files of a checkpoint (of a sharded one, several) and their manifests."""


def run(args: argparse.Namespace) -> int:
    """Add, or apply an adapter."""
    repository = Repository.discover()
    if args.update is None:
        return _add(repository, args)
    if len(args.files) > 1:
        raise UsageError("--update changes one checkpoint at a time; of a sharded model its index")
    if args.on is not None and args.on != choice.NEAR:
        raise UsageError("an adapter is applied on this machine: leave out --on")
    if len(args.update) > 1 and args.weights is None:
        raise UsageError(
            f"--update is given {len(args.update)} times, and no weights",
            hint="git theta add FILE --update A --update B --weights 1,1   adds both changes",
        )
    if args.weights is None and args.combine is not None:
        raise UsageError("--combine is about several adapters with --weights")
    if args.weights is not None and (args.config or args.type):
        raise UsageError(
            "--weights: each adapter is a LoRA with its own adapter_config.json beside it"
        )
    return _update(repository, args)


def _add(repository: Repository, args: argparse.Namespace) -> int:
    """Have Git add files; its filter is told where the work on blocks is done."""
    given = {"--type": args.type, "--config": args.config, "--dry-run": args.dry_run,
             "--json": args.json, "--weights": args.weights, "--combine": args.combine}  # fmt: skip
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} is about an adapter, and none is given",
                hint="git add FILE   adds a checkpoint as it is",
            )
    installation.require(repository)
    with where.executor(repository, args):
        status, output, errors = run_program(["git", "add", "--", *args.files], repository.cwd)
    for stream, data in ((sys.stdout, output), (sys.stderr, errors)):
        stream.write(from_program(data))
    return RepositoryError.exit_code if status else 0


def _update(repository: Repository, args: argparse.Namespace) -> int:
    """Apply, stage and say what it costs."""
    path = from_top(repository, args.files[0])
    files = _committed(repository, path)
    if not args.dry_run:
        installation.require(repository)
        for one in files:
            _require_clean(repository, one)
    joined = _joined(files)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_adapter(Path(one))) for one in args.update]
        try:
            adapter = _adapter(opened, joined, args)
        except UsageError as error:
            raise _of_one_shard(repository, path, error) from error
        blocks = Blocks.open(repository)
        if args.dry_run:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="git-theta-"))
            blocks = blocks.writing_to(Store(Path(folder)))
        raw = sum(entry.tensor.nbytes for entry in joined.entries)
        updated = {one: _updated(adapter, manifest, blocks) for one, manifest in files.items()}
    everything = [one for found in updated.values() for one in found]
    require_changes(everything, printable(path))
    if not args.dry_run:
        new = {
            one: next_version(files[one], found)
            for one, found in updated.items()
            if any(tensor.stored for tensor in found)
        }
        _stage(repository, files, new, blocks)
    _report(path, adapter, everything, raw, args)
    return 0


def _adapter(opened: list[TensorFile], manifest: Manifest, args: argparse.Namespace) -> Adapter:
    """The adapter that is given, or several as one."""
    if args.weights is not None:
        numbers = weighted.weights(args.weights, len(opened))
        return read_weighted(opened, numbers, args.combine or "cat", manifest)
    config = None if args.config is None else Path(args.config)
    return read_adapter(opened[0], manifest, args.type, config)


def _updated(adapter: Adapter, manifest: Manifest, blocks: Blocks) -> list[Updated]:
    changed = [entry for entry in manifest.entries if entry.tensor.name in adapter.changes]
    with Progress("Updating", sum(entry.tensor.nbytes for entry in changed)) as progress:
        return updated_tensors(adapter, manifest, blocks, progress)


def _committed(repository: Repository, path: str) -> Files:
    """The version of HEAD: one file, or all shards of a model.

    Raises:
        UsageError: HEAD has none, or not tensor by tensor.
    """
    head = repository.resolve("HEAD")
    if head is not None and shards.names_model(path):
        model = shards.find(repository, head, path)
        if model is not None:
            model.require_whole()
            return dict(model.shards)
    oid = repository.blob_at("HEAD", path) if head is not None else None
    if oid is None:
        raise UsageError(
            f"{printable(path)} is not in HEAD: an update needs a committed checkpoint",
            hint=advise(repository, "git add FILE && git commit, then try again", path),
        )
    text = repository.blob(oid)
    if not is_manifest(text[:HEAD_BYTES]):
        raise UsageError(
            f"{printable(path)} is not stored tensor by tensor in HEAD",
            hint=f"{advice.TRACK_FIRST} && git commit, then try again",
        )
    return {path: parse_manifest(text)}


def _joined(files: Files) -> Manifest:
    """One manifest of the tensors of all files.

    Raises:
        UsageError: two shards hold different tensors of one name.
    """
    if len(files) == 1:
        return next(iter(files.values()))
    names = {entry.tensor.name for manifest in files.values() for entry in manifest.entries}
    joined = shards.join(list(files.items()))
    twice = [entry.tensor.name for entry in joined.entries if entry.tensor.name not in names]
    if twice:
        raise UsageError(
            f"two shards hold different tensors of one name: {printable(twice[0])}",
            hint="name one shard alone: git theta add SHARD --update ADAPTER",
        )
    return joined


def _of_one_shard(repository: Repository, path: str, error: UsageError) -> UsageError:
    """The error of an adapter that does not fit; of one shard, with the name of the model."""
    model = shards.model_of(path)
    if model is None:
        return error
    return UsageError(
        f"{error.message}; {printable(path)} is one shard of a model",
        hint=advise(
            repository, "name all its shards: git theta add MODEL --update ADAPTER", model, "MODEL"
        ),
    )


def _require_clean(repository: Repository, path: str) -> None:
    """Refuse to write over what is not committed.

    Raises:
        UsageError: the index or the work tree has another version than HEAD.
    """
    pathspec = literal(path)
    if repository.git("status", "--porcelain", "-z", "--untracked-files=no", "--", pathspec):
        raise UsageError(
            f"{printable(path)} has changes that are not committed; they would be lost",
            hint=advise(
                repository, "git commit -a, or: git checkout HEAD -- FILE   then try again", path
            ),
        )


def _stage(repository: Repository, old: Files, new: Files, blocks: Blocks) -> None:
    """Write every file, then the index at once: Git finds the files to be what the index says.

    Where one cannot be written, those before it become again what they were.
    """
    written: list[str] = []
    rows = []
    try:
        for path, manifest in new.items():
            written.append(path)
            write_version(repository, path, manifest, blocks)
            blob = store_blob(repository, manifest_bytes(manifest))
            rows.append(Row(file_mode_at(repository, "HEAD", path), blob, path))
        stage(repository, rows)
    except BaseException:
        for path in written:
            with suppress(ThetaError):
                write_version(repository, path, old[path], blocks)
        raise
    repository.update_index(list(new))


def _report(
    path: str, adapter: Adapter, updated: list[Updated], raw: int, args: argparse.Namespace
) -> None:
    """Tell what the update changed or would change, and how much of it is to be stored."""
    stored = sum(one.stored for one in updated)
    if args.json:
        tensors = [_record(one) for one in updated]
        print(to_json({"path": path, "update": adapter.summary, "stored": stored, "raw": raw,
                       "notes": list(adapter.notes), "tensors": tensors}))  # fmt: skip
        return
    if args.dry_run:
        for line in table([_row(one) for one in updated]):
            print(f"  {line}")
    changed = sum(1 for one in updated if one.stored)
    share = f" ({100 * stored / raw:.2g} %)" if raw else ""
    would = "would change" if args.dry_run else "changed"
    print(
        f"{printable(path)}: {adapter.summary}: {plural(changed, 'tensor')} {would}, "
        f"{size(stored)} to store of {size(raw)}{share}"
    )
    for note in adapter.notes:
        print(f"  note: {note}")
    if not args.dry_run:
        print("  staged; git commit records it")


def _record(one: Updated) -> dict[str, Any]:
    tensor = one.entry.tensor
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape),
            "kind": one.change.kind, "updates": list(one.kinds), "stored": one.stored,
            "raw": tensor.nbytes}  # fmt: skip


def _row(one: Updated) -> list[str]:
    tensor = one.entry.tensor
    info = one.entry.blocks[0].chain[-1].info if one.stored and one.entry.blocks[0].chain else ()
    remarks = " ".join(f"{key}={value}" for key, value in info)
    what = " + ".join(one.kinds) or "unchanged"
    return [printable(tensor.name), f"{tensor.dtype.name} {list(tensor.shape)}", what, remarks,
            f"{size(one.stored)} of {size(tensor.nbytes)}"]  # fmt: skip
