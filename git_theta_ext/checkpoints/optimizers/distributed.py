"""Adam's second moments in a folder of `torch.distributed.checkpoint`, as FSDP saves its shards.

`.metadata` is a pickle that says where the boxes of each tensor lie in the `.distcp` files beside
it, each an archive of `torch.save`, and settings as archives of their own. Source: torch 2.13,
distributed/checkpoint/metadata.py and filesystem.py; state_dict.py for the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints.optimizers.file import (
    Shape,
    Tree,
    attributes,
    get,
    number,
    pairs_of,
    pickle_of,
    shape_of,
    whole,
)
from git_theta_ext.checkpoints.optimizers.moments import Moment, Moments, items
from git_theta_ext.checkpoints.optimizers.stored import Chunk, Chunks, lone, tiled
from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError, UsageError
from git_theta_ext.core.text import printable, size
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.tensors_file import TensorsFile

METADATA = ".metadata"
_MOMENT = ".exp_avg_sq"
_STATE = "state."
_GROUPS = "param_groups."

Place = tuple[Path, tuple[int, int]]
"""A file, and where in it an archive begins and ends."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """What `.metadata` says: the shape and the boxes of tensors, and where everything lies."""

    path: Path
    shapes: dict[str, Shape]
    boxes: dict[str, list[tuple[Shape, Shape]]]
    places: dict[tuple[str, Shape | None], Place]

    def refused(self, why: str, hint: str | None = None) -> UsageError:
        return UsageError(f"{printable(str(self.path))} {why}", hint=hint)

    def value(self, name: str) -> Tree | None:
        """A setting: what its archive has."""
        place = self.places.get((name, None))
        if place is None:
            return None
        with TensorsFile(*place) as file:
            return pickle_of(file)

    def tensor(self, name: str) -> Chunks:
        """A tensor, its boxes checked.

        Raises:
            UsageError: they do not make up the tensor.
        """
        parts = []
        for offsets, sizes in self.boxes[name]:
            place = self.places.get((name, offsets))
            if place is None:
                raise self.refused(f"does not say where {printable(name)!r} is")
            parts.append(Chunk(*place, offsets, sizes))
        if len(parts) > limits.OPTIMIZER_BOXES or not tiled(self.shapes[name], parts):
            raise self.refused(f"has boxes that do not make up {printable(name)!r}")
        return Chunks(name, self.shapes[name], tuple(parts))


def moments_of(folder: Path) -> Moments:
    """The second moments of the one optimizer in a distributed checkpoint, by name.

    Raises:
        UsageError: there is none, or several, or the folder is not as PyTorch writes it.
    """
    found = _read(folder)
    names = [name for name in found.shapes if name.endswith(_MOMENT)]
    starts = {name.partition(_STATE)[0] for name in names if _STATE in name}
    if len(starts) != 1:
        why = "has several optimizers" if starts else "has no second moments"
        raise found.refused(f"{why}: tensors called OPTIMIZER.state.NAME.exp_avg_sq")
    (before,) = starts
    settings = dict(_settings(found, before))
    moments = []
    for name in names:
        label = name.removeprefix(before + _STATE).removesuffix(_MOMENT)
        beta2 = settings.get(label)
        if beta2 is None or not 0 <= beta2 < 1:
            raise found.refused(f"does not say Adam's second beta for {printable(label)!r}")
        step = _step(found, name.removesuffix(_MOMENT) + ".step")
        if step is None or not step >= 1:
            raise found.refused(f"does not say after how many steps it was saved ({label}: step)")
        stored = found.tensor(name)
        moments.append(Moment(label, 0, stored.shape, stored, step, beta2))
    return Moments(folder, before, tuple(moments), ())


def _settings(found: _Folder, before: str) -> Iterator[tuple[str, float]]:
    """Adam's second beta for each parameter, by its name."""
    start = before + _GROUPS
    for name, offsets in found.places:
        if offsets is not None or not name.startswith(start) or not name.endswith(".betas"):
            continue
        betas = items(found.value(name))
        beta2 = number(betas[1]) if len(betas) == 2 else None
        if beta2 is None:
            continue
        key = name.removeprefix(start).removesuffix(".betas")
        members = items(found.value(f"{start}{key}.params"))
        # Without a list of its parameters a group is one parameter, and called by its name.
        for member in members or [key]:
            yield str(member), beta2


def _step(found: _Folder, name: str) -> float | None:
    if name not in found.shapes:
        return number(found.value(name))
    stored = found.tensor(name)
    if stored.shape not in ((), (1,)) or len(stored.parts) != 1:
        return None
    array = lone(stored.parts[0].path, stored.parts[0].span)
    return None if array is None or array.size != 1 else number(float(array.reshape(-1)[0]))


def _read(folder: Path) -> _Folder:
    """Read `.metadata`, as inert records."""
    path = folder / METADATA
    try:
        source = FileSource(path)
        try:
            if source.size > limits.STRUCTURE_BYTES:
                raise UsageError(f"{printable(str(path))} has {size(source.size)}")
            fields = attributes(machine.load(source.read(0, source.size)))
        finally:
            source.close()
    except (OSError, BoundError, FormatError) as error:
        raise UsageError(f"{printable(str(path))} cannot be read: {error}") from error
    found = _Folder(folder, {}, {}, {})
    for name, record in pairs_of(get(fields, "state_dict_metadata")):
        shape, chunks = shape_of(get(attributes(record), "size")), []
        for one in items(get(attributes(record), "chunks")):
            box = (
                shape_of(get(attributes(one), "offsets")),
                shape_of(get(attributes(one), "sizes")),
            )
            if box[0] is not None and box[1] is not None:
                chunks.append((box[0], box[1]))
        if shape is not None:
            found.shapes[str(name)], found.boxes[str(name)] = shape, chunks
    for index, record in pairs_of(get(fields, "storage_data")):
        place = _place(found, attributes(record))
        key = (str(get(attributes(index), "fqn")), shape_of(get(attributes(index), "offset")))
        if place is not None:
            found.places[key] = place
    return found


def _place(found: _Folder, record: Tree | None) -> Place | None:
    """Where an archive lies; None where it is not as it was saved (compressed)."""
    name, start = get(record, "relative_path"), whole(get(record, "offset"))
    length = whole(get(record, "length"))
    if not isinstance(name, str) or start is None or length is None:
        return None
    if Path(name).name != name or name in (".", "..") or get(record, "transform_descriptors"):
        raise found.refused(f"has its tensors in {printable(name)!r}, which cannot be read")
    return found.path / name, (start, start + length)
