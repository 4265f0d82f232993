"""A version of a repository as a folder that loads without this program."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.checkpoints.contents import LFS_FETCH, lfs_object
from git_theta_ext.checkpoints.exporting.ties import ties_of
from git_theta_ext.checkpoints.read import open_checkpoint
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files, patterns
from git_theta_ext.core.errors import MissingObjectError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import ROOM, check_room, claimed
from git_theta_ext.packages.release import card, chosen, configuration, signing, tensors_file
from git_theta_ext.packages.release import folder as folders
from git_theta_ext.packages.release import weights as weights_of
from git_theta_ext.packages.release.card import Facts
from git_theta_ext.packages.release.chosen import Chosen, Copy
from git_theta_ext.packages.release.facts import facts_of
from git_theta_ext.packages.release.folder import Folder, Written
from git_theta_ext.packages.release.signing import Signer
from git_theta_ext.packages.release.weights import Plan, Wishes

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Given what is done and how many bytes it takes, gives what is called with those that are done."""

_VERSIONS = "git tag --list"


@dataclass(frozen=True, slots=True)
class Base:
    """What an adapter was trained on: how people call it, and the file that says which it is."""

    shown: str
    file: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: a revision, of it a path, into a folder.

    `base` makes it the release of an adapter; with a `signer` all files are signed.
    """

    revision: str
    target: Path
    path: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    base: Base | None = None
    signer: Signer | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """What was released: the version's name, if it has one, the commit, and the files."""

    version: str | None
    commit: str
    files: tuple[Written, ...]
    tensors: int
    notes: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(one.size for one in self.files)


def release(repository: Repository, request: Request, watch: Watch | None = None) -> Released:
    """Write a version into a folder: whole, or not at all.

    Args:
        repository: any, bare ones too.
        request: what is asked for.
        watch: shows how far it is.

    Raises:
        UsageError: there is no such version; it has no checkpoint, or several in one folder; an
            option matches nothing, names collide, or numbers would become infinite.
        StoreError: the folder cannot be written, or does not fit.
        CorruptObjectError, MissingObjectError, TransferError: an object cannot be had.
    """
    hint = "a path in a version is named by --path" if ":" in request.revision else _VERSIONS
    commit = commit_of(repository, request.revision, hint=hint)
    if request.signer is not None:
        signing.check(request.signer)
    found = chosen.choose(repository, commit, request.path, request.revision)
    _check_adapter(found, request)
    plans = _plans(repository, commit, found, request.wishes)
    facts = facts_of(
        repository,
        request.revision,
        commit,
        found.weights,
        base=None if request.base is None else request.base.shown,
        made=tuple(dict.fromkeys(text for one in plans for text in one.made)),
        dtype=request.wishes.dtype,
    )
    nbytes = sum(one.nbytes for one in plans) + _copied_bytes(repository, found)
    parent = Path(request.target).absolute().parent
    check_room(str(request.target), nbytes, parent, certain=True, in_memory=False, hint=ROOM)
    notes = [*(f"left out: {text}" for text in found.left), *(n for p in plans for n in p.notes)]
    target, force = request.target, request.force
    shown = watch("writing", nbytes) if watch is not None else nullcontext(None)
    with (
        shown as report,
        folders.whole(target, force=force, report=report) as folder,
    ):
        _fill(folder, repository, request, _Content(found, plans, facts), notes)
        if request.signer is not None:
            hashes = {one.path: one.sha256 for one in folder.written}
            name = facts.version or commit
            folder.add(
                chosen.SIGNATURE, signing.sign(hashes, name, request.signer, chosen.SIGNATURE)
            )
        written = tuple(folder.written)
    count = sum(len(one.wanted) for one in plans)
    return Released(facts.version, commit, written, count, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Content:
    """What goes into the folder: files of the commit, models, and what the card says."""

    found: Chosen
    plans: Sequence[Plan]
    facts: Facts


def _fill(
    folder: Folder, repository: Repository, request: Request, content: _Content, notes: list[str]
) -> None:
    """Write all files but the signature."""
    section = card.section(content.facts)
    table = {}
    for one in content.plans:
        table.update(weights_of.write(one, folder, request.wishes))
    for copy in content.found.copies:
        text = _changed_text(repository, copy, request, section, notes)
        if text is None:
            _copy(repository, copy, folder)
        else:
            folder.add(copy.into, text)
    if chosen.CARD not in content.found.names:
        folder.add(chosen.CARD, card.renewed("", section).encode("utf-8"))
    if request.base is not None:
        folder.add(chosen.BASE, request.base.file)
    if table:
        folder.add(chosen.TENSORS, tensors_file.to_bytes(table))
    folder.add(chosen.SUMS, card.sums([(one.sha256, one.path) for one in folder.written]))


def _check_adapter(found: Chosen, request: Request) -> None:
    is_adapter = len(chosen.adapters(found.weights)) == len(found.weights) == 1
    if request.base is not None and not is_adapter:
        raise UsageError(
            f"{request.revision} has no adapter alone to release: no adapter_model.safetensors "
            "beside an adapter_config.json",
            hint="name its folder with --path",
        )


def _plans(repository: Repository, commit: str, found: Chosen, wishes: Wishes) -> list[Plan]:
    """What is written of each model; an option has to matter for one of them."""
    _check_wishes(found, wishes)
    opened = [open_checkpoint(repository, chosen.spec_of(commit, one)) for one in found.weights]
    ties = [ties_of(checkpoint) for checkpoint in opened]
    names = [
        [*one, *further.whole, *further.views] for one, further in zip(opened, ties, strict=True)
    ]
    plans = []
    for number, one in enumerate(found.weights):
        own = wishes
        if len(opened) > 1:  # of several models, each takes what is about it
            others = [name for at, of in enumerate(names) if at != number for name in of]
            own = _about(wishes, names[number], others)
        text = _config(repository, commit, found.top, one.folder)
        tied = text is not None and configuration.ties_its_head(text)
        checkpoint, further = opened[number], ties[number]
        plans.append(weights_of.plan(one, checkpoint, further, own, head_is_tied=tied))
    return plans


def _about(wishes: Wishes, names: list[str], others: list[str]) -> Wishes:
    """The wishes without those that are about other models alone."""
    drop = [
        one for one in wishes.drop
        if patterns.select(names, [one]) or not patterns.select(others, [one])
    ]  # fmt: skip
    prefix = wishes.strip_prefix
    elsewhere = any(name.startswith(prefix) for name in others)
    if elsewhere and not any(name.startswith(prefix) for name in names):
        prefix = ""
    return Wishes(tuple(drop), prefix, wishes.dtype, wishes.allow_overflow, wishes.shard_bytes)


def _check_wishes(found: Chosen, wishes: Wishes) -> None:
    if found.weights or wishes == Wishes():
        return
    names = ", ".join(printable(one.path) for one in found.copies if one.kind == "tensors")
    raise UsageError(
        f"all weights are copied byte for byte ({names or 'none is stored by tensor'}): --drop, "
        "--strip-prefix, --dtype and --max-shard-size do nothing to them"
    )


def _config(repository: Repository, commit: str, top: str, folder: str) -> bytes | None:
    oid = repository.blob_at(commit, posixpath.join(top, folder, "config.json"))
    return None if oid is None else _text(repository, oid)


def _text(repository: Repository, oid: str) -> bytes | None:
    """A small file; None where it is too large to be what its name says."""
    small = repository.blob_size(oid) <= configuration.MOST_BYTES
    return repository.blob(oid) if small else None


def _copied_bytes(repository: Repository, found: Chosen) -> int:
    """What copied files take, or a little less."""
    sizes = repository.blob_sizes(one.oid for one in found.copies)
    return sum(
        claimed(one.manifest)
        if one.manifest is not None
        else one.pointer.size
        if one.pointer is not None
        else sizes.get(one.oid, 0)
        for one in found.copies
    )


def _changed_text(
    repository: Repository, copy: Copy, request: Request, section: str, notes: list[str]
) -> bytes | None:
    """A file that is not released as it was committed: the card, and types that changed."""
    dtype = request.wishes.dtype
    is_card = copy.into == chosen.CARD
    if not is_card and (dtype is None or posixpath.basename(copy.into) != "config.json"):
        return None
    content = _text(repository, copy.oid) if copy.kind == "whole" else None
    try:
        if content is None:
            raise ValueError("it is too large, or not stored as a text")
        if is_card or dtype is None:
            text = content.decode("utf-8", "surrogateescape")
            return card.renewed(text, section).encode("utf-8", "surrogateescape")
        return configuration.with_dtype(content, dtype)
    except ValueError as problem:
        notes.append(f"{printable(copy.into)} is copied as it is: {problem}")
        return None


def _copy(repository: Repository, copy: Copy, folder: Folder) -> None:
    """Write a file of the commit byte for byte."""
    with folder.new(copy.into) as sink:
        if copy.manifest is not None:
            Smudger(copy.manifest, Blocks.open(repository), copy.path).write(sink.write)
        elif copy.pointer is None:
            repository.write_blob(copy.oid, sink)
        else:
            place = lfs_object(repository, copy.pointer)
            if place is None:
                oid = copy.pointer.oid
                raise MissingObjectError(
                    f"{copy.path} is stored by git-lfs, and sha256:{oid} is not on this machine",
                    hint=LFS_FETCH,
                )
            for piece in files.pieces_of(place):
                sink.write(piece)
