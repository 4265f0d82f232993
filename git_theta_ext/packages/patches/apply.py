"""Add the update of a patch to checkpoints of the index and the work tree, or take it back.

All is computed and verified in a folder of its own first. What is refused leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from git_theta_ext.checkpoints.placed import write_version
from git_theta_ext.checkpoints.versions import FileSide
from git_theta_ext.core.errors import ManifestError, ThetaError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.git.trees import Row, restage, store_blob
from git_theta_ext.manifest.model import HEAD_BYTES, Block, Manifest, is_manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.decide.decisions import Choose, content_of, entries_of
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.policy import policy_for
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.patches import applied, receive
from git_theta_ext.packages.patches.applied import Applied
from git_theta_ext.packages.patches.bundle import Changed
from git_theta_ext.packages.patches.fitting import Fitted, Local, Update, fit
from git_theta_ext.packages.patches.opened import Patch
from git_theta_ext.packages.patches.rename import Renames
from git_theta_ext.packages.patches.scaled import keep_kinds, scale


@dataclass(frozen=True, slots=True)
class How:
    """How a patch is applied: backwards, how far, with which names and strategy, to which file."""

    reverse: bool = False
    factor: float = 1.0
    renames: Renames = field(default_factory=Renames)
    choice: Choice | None = None
    file: str | None = None

    def text(self) -> str:
        """The same as words, to be compared."""
        rules = [(pattern.pattern, parts) for pattern, parts in self.renames.rules]
        return repr((self.reverse, self.factor, rules, str(self.choice), self.file))


@dataclass(frozen=True, slots=True)
class Result:
    """What becomes of one checkpoint of the index.

    `restored` says that the very version from before is put back.
    """

    path: str
    entry: IndexEntry
    ours: Manifest
    manifest: Manifest
    fitted: Fitted | None = None
    merged: Merged | None = None
    restored: bool = False

    @property
    def written(self) -> bool:
        """Whether there is anything to write: what adds nothing leaves the manifest as it is."""
        return self.manifest is not self.ours

    @property
    def changed(self) -> list[str]:
        """The tensors that are others than before."""
        before = entries_of(self.ours)
        return [
            name
            for name, entry in entries_of(self.manifest).items()
            if name not in before or content_of(before[name]) != content_of(entry)
        ]


def targets(repository: Repository, patch: Patch, how: How) -> list[tuple[Changed, IndexEntry]]:
    """Which checkpoint of the patch is meant for which one of the index.

    Raises:
        UsageError: there is none here for it, or it is in conflict.
    """
    here = {entry.path: entry for entry in repository.tracked()}
    both = [one for one in patch.description.files if one.checkpoint and one.base and one.new]
    if how.file is not None and len(both) > 1:
        both = [one for one in both if how.file in (one.path, one.was)]
    if how.file is not None and len(both) != 1:
        raise UsageError("FILE says where the one checkpoint of a patch goes; this has several")
    found = []
    for one in both:
        path = how.file or (one.path if one.path in here or not one.was else one.was)
        if path not in here and how.file is None and len(both) == len(here) == 1:
            path = next(iter(here))
        if path not in here:
            raise UsageError(
                f"{printable(path)} is not a tracked checkpoint here",
                hint="git theta ls-files   lists them; then: git theta apply PATCH FILE",
            )
        if here[path].stage:
            raise UsageError(f"{printable(path)} is in conflict", hint="git theta status")
        found.append((one, here[path]))
    if not found:
        raise UsageError(f"{printable(patch.name)} changes no checkpoint that it does not bring")
    return found


def left_out(patch: Patch, how: How) -> list[str]:
    """Files of a patch that are not touched: no checkpoints, added or removed ones, other ones.

    With a file of its own (`how.file`) only one checkpoint is asked for, of several.
    """
    files = patch.description.files
    both = [one for one in files if one.checkpoint and one.base and one.new]
    if how.file is not None and len(both) > 1:
        both = [one for one in both if how.file in (one.path, one.was)]
    return [one.path for one in files if one not in both]


def keeping_names(patch: Patch, how: How, made: Sequence[Result]) -> dict[str, str]:
    """Checkpoints whose name the patch changes, too, which apply does not; with the other name."""
    if how.file is not None:
        return {}
    here = {one.path for one in made}
    moved = [one for one in patch.description.files if one.checkpoint and one.was]
    names = [(one.path, one.was) if how.reverse else (one.was, one.path) for one in moved]
    return {now: other for now, other in names if now in here}


def require_staged(repository: Repository, paths: Sequence[str]) -> None:
    """Refuse files of which the work tree has another version than the index.

    Raises:
        UsageError: there is one.
    """
    for path in paths:
        answer = repository.git("status", "--porcelain", "-z", "-uno", "--", literal(path))
        if answer[1:2] not in (b"", b" "):
            raise UsageError(
                f"{printable(path)} has changes that are not staged; they would be lost",
                hint=advise(repository, "git add FILE, or: git restore FILE   then again", path),
            )


def results(repository: Repository, patch: Patch, how: How, blocks: Blocks) -> list[Result]:
    """What a patch makes of the checkpoints here; everything that it takes lies in `blocks`.

    Args:
        repository: one with a work tree.
        patch: an open one.
        how: how it is applied.
        blocks: write into a folder of their own, such as `receive.scratch` gives.

    Raises:
        ThetaError: a version cannot be read, or the patch is damaged.
    """
    pairs = targets(repository, patch, how)
    back = _last(repository, patch, how)
    made: list[Result] = []
    for one, entry in pairs:
        ours = _manifest_of(repository, entry)
        before = None if back is None else _restored(repository, back, entry)
        if before is not None:
            made.append(Result(entry.path, entry, ours, before, restored=True))
        else:
            made.append(_merged(repository, patch, how, (one, entry, ours), blocks))
    return made


def _merged(
    repository: Repository, patch: Patch, how: How, pair: tuple[Changed, IndexEntry, Manifest],
    blocks: Blocks,
) -> Result:  # fmt: skip
    """What becomes of one checkpoint, by a merge."""
    one, entry, ours = pair
    receive.take_objects(patch, blocks.store, patch.objects, receive.nothing)
    base, new = patch.versions(one)
    if base is None or new is None:
        raise ManifestError(f"{printable(one.path)}: not stored tensor by tensor in the patch")
    update = Update(base, new).renamed(how.renames)
    update = update.reversed() if how.reverse else update
    _fetch(repository, patch, update, blocks)
    structures = _structures(patch, update, blocks)
    fitted = scale(fit(update, ours, Local(repository, blocks), structures), how.factor, blocks)
    merged = merge(fitted.base, ours, fitted.theirs, blocks, _choose(repository, entry, how))
    merged = keep_kinds(merged, ours, fitted, blocks)
    receive.verify(ours, merged.manifest, blocks, entry.path)
    result = Result(entry.path, entry, ours, merged.manifest, fitted, merged)
    same = merged.manifest.skeleton.sha256 == ours.skeleton.sha256
    if same and not result.changed and len(merged.manifest.entries) == len(ours.entries):
        # As many steps as before: an update that adds nothing is not written down.
        return replace(result, manifest=ours)
    return result


def _choose(repository: Repository, entry: IndexEntry, how: How) -> Choose:
    if how.choice is not None:
        choice = how.choice
        return lambda _: choice
    return policy_for(repository, entry.path, "rebase", os.environ).choose


def _manifest_of(repository: Repository, entry: IndexEntry) -> Manifest:
    text = repository.blob(entry.oid)
    if not is_manifest(text[:HEAD_BYTES]):
        raise ManifestError(
            f"{printable(entry.path)} is not stored tensor by tensor in the index",
            hint=advise(repository, "git add --renormalize FILE   stores it so", entry.path),
        )
    return parse_manifest(text)


def _fetch(repository: Repository, patch: Patch, update: Update, blocks: Blocks) -> None:
    """Have the objects of the base here, where its commit is: then a remote may have them."""
    if not receive.lacking(repository, patch):
        with suppress(ThetaError):
            blocks.ensure(ref for one in (update.base, update.new) for ref in one.objects())


def _structures(patch: Patch, update: Update, blocks: Blocks) -> Mapping[str, Block]:
    """The skeletons that a patch brings plain, as blocks."""
    found = {}
    for one in (update.base, update.new):
        data = patch.structure(one.skeleton.sha256)
        if data is not None:
            found[one.skeleton.sha256] = blocks.write_bytes(data)
    return found


def _last(repository: Repository, patch: Patch, how: How) -> Applied | None:
    """The application that is taken back; None where another part of the update is asked for."""
    found = applied.last_of(repository, patch.tip) if how.reverse else None
    if found is None or how.factor == 1.0 or found.options == replace(how, reverse=False).text():
        return found
    return None


def _restored(repository: Repository, back: Applied, entry: IndexEntry) -> Manifest | None:
    """The version from before a patch was applied, if what that made is still in the index."""
    before, after = back.files.get(entry.path, ("", ""))
    if entry.oid != after or not repository.blob_sizes([before]):
        return None
    return parse_manifest(repository.blob(before))


def carry_out(
    repository: Repository, patch: Patch, how: How, made: Sequence[Result], aside: Blocks
) -> None:
    """Write the checkpoints and stage them; the store first, the index last.

    Args:
        repository: one with a work tree.
        patch: what is applied.
        how: how it is.
        made: what becomes of each checkpoint.
        aside: the blocks that hold what is new in them.

    Raises:
        ThetaError: something cannot be written; the files are what they were.
    """
    real = Blocks.open(repository)
    for one in made:
        wanted = {ref.oid: ref.size for ref in one.manifest.objects()}
        receive.move_objects(wanted, aside, real)
    texts = {one.path: manifest_bytes(one.manifest) for one in made}
    blobs = {path: store_blob(repository, text) for path, text in texts.items()}
    kept = {one.path: (one.entry.oid, blobs[one.path]) for one in made}
    record = Applied(patch.tip, how.text(), kept)
    applied.begin(repository, record)
    _write(repository, made, blobs, real)
    if how.reverse:
        applied.take_back(repository, patch.tip)
    else:
        applied.finish(repository, record)


def _write(
    repository: Repository, made: Sequence[Result], blobs: Mapping[str, str], blocks: Blocks
) -> None:
    written: list[Result] = []
    try:
        for one in made:
            written.append(one)
            write_version(repository, one.path, one.manifest, blocks)
        restage(repository, [Row(one.entry.mode, blobs[one.path], one.path) for one in made])
    except BaseException:
        for one in written:
            with suppress(ThetaError):
                write_version(repository, one.path, one.ours, blocks)
        raise
    repository.update_index([one.path for one in made])


def unfinished(repository: Repository, patch: Patch, how: How) -> list[Result] | None:
    """What was begun and not finished of the same application, to be written again.

    None where nothing was begun, or the files are neither what they were nor what they were to be.
    """
    record = applied.unfinished(repository, patch.tip, how.text())
    if record is None:
        return None
    here = {entry.path: entry for entry in repository.tracked()}
    made = []
    for path, (before, after) in record.files.items():
        entry = here.get(path)
        if entry is None or entry.oid not in (before, after) or entry.stage:
            return None
        texts = dict(repository.blobs([before, after]))
        if len(texts) != len({before, after}):
            return None
        then, new = parse_manifest(texts[before]), parse_manifest(texts[after])
        if not any(_holds(repository.top / path, one) for one in (then, new)):
            return None
        made.append(Result(path, IndexEntry(entry.mode, before, 0, path), then, new))
    return made


def _holds(path: Path, manifest: Manifest) -> bool:
    """Whether a file of the work tree is what a manifest stands for."""
    try:
        side = FileSide(path)
    except (ThetaError, OSError):
        return False
    try:
        found = side.manifest
        return found.skeleton.sha256 == manifest.skeleton.sha256 and all(
            content_of(a) == content_of(b)
            for a, b in zip(found.entries, manifest.entries, strict=False)
        )
    finally:
        side.close()
