"""Some tensors of a package's checkpoints, or all of them in another container."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.checkpoints.write import container_of, export
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats import BUILDERS, promises
from git_theta_ext.packages.fetched import Package
from git_theta_ext.packages.files import PackageFile

_SUFFIX = {"torch-zip": "pt", "torch-legacy": "pt"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of checkpoints is wanted: tensors by patterns (none: all), and the container."""

    tensors: tuple[str, ...] = ()
    container: str | None = None

    def __bool__(self) -> bool:
        return bool(self.tensors or self.container)


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint, or all shards of one: its path or pattern, and where it would be written."""

    path: str
    place: str


def models_of(files: Sequence[PackageFile]) -> tuple[list[Model], list[PackageFile]]:
    """The checkpoints among files, shards joined; and the files that are none.

    The index of shards that are joined is neither.
    """
    found: dict[str, Model] = {}
    rest = []
    for file in files:
        if file.kind != "checkpoint":
            rest.append(file)
            continue
        pattern = shards.model_of(file.path)
        place = file.place
        if pattern is not None:
            folder, name = posixpath.split(file.place)
            joined = shards.model_of(name) or name
            place = posixpath.join(folder, joined.replace("-*-of-*", ""))
        found.setdefault(pattern or file.path, Model(pattern or file.path, place))
    indices = [one for one in rest if shards.names_model(one.path)]
    joined_here = {one.blob for one in indices if shards.pattern_of(one.path) in found}
    return list(found.values()), [one for one in rest if one.blob not in joined_here]


def open_model(package: Package, model: Model) -> Checkpoint:
    """A checkpoint of a package, to be read tensor by tensor."""
    return open_checkpoint(package.repository, f"{package.commit}:{model.path}")


def write_parts(
    package: Package, models: Sequence[Model], into: Path, wanted: Wanted
) -> list[tuple[str, int]]:
    """Write what is wanted of checkpoints into a folder; the place and the tensors of each file.

    A checkpoint none of whose tensors is wanted is left out.

    Args:
        package: what they are of.
        models: the checkpoints; see `models_of`.
        into: the folder, which is there.
        wanted: which tensors, and as what.

    Raises:
        UsageError: no tensor of any of them is wanted, or a container cannot hold one.
        MissingObjectError, TransferError, CorruptObjectError, StoreError.
    """
    written = []
    for model in models:
        checkpoint = open_model(package, model)
        names = patterns.select(checkpoint, wanted.tensors) if wanted.tensors else list(checkpoint)
        if not names:
            continue
        container = wanted.container or container_for(checkpoint, model)
        place = model.place
        if container_of(place) != container and container_for(checkpoint, model) != container:
            place = f"{posixpath.splitext(place)[0]}.{container}"
        target = into.joinpath(*place.split("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        export(checkpoint, names, target, container)
        written.append((place, len(names)))
    if not written:
        raise UsageError(
            f"no tensor of {package} matches {' '.join(map(printable, wanted.tensors))}"
        )
    return written


def container_for(checkpoint: Checkpoint, model: Model) -> str:
    """The container that some tensors of a checkpoint are written in: its own.

    Raises:
        UsageError: no file of that container can be made.
    """
    kind = shards.container(checkpoint.manifest)
    found = _SUFFIX.get(kind, kind)
    if found not in BUILDERS:
        raise UsageError(
            f"{printable(model.path)} is a {kind} file, of which no part can be written",
            hint=f"add one of: {', '.join(f'--to {name}' for name in BUILDERS)}",
        )
    return found


def refuse_whole(package: Package, files: Sequence[PackageFile]) -> None:
    """Refuse to take single tensors out of a file that is not stored by tensor.

    Raises:
        UsageError: there is such a file among these, by its name.
    """
    for file in files:
        if promises(file.path):
            how = "by git-lfs" if file.kind == "lfs" else "whole"
            raise UsageError(
                f"{printable(file.path)} of {package} is stored {how}, not tensor by tensor: only"
                " all of it can be had",
                hint="leave out --tensors, --to and --dtype",
            )
