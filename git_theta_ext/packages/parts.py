"""Some tensors of a package's checkpoints, or all of them in another container."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.checkpoints.write import container_of, export
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DType
from git_theta_ext.core.text import printable
from git_theta_ext.formats import BUILDERS, promises
from git_theta_ext.packages.fetched import Package
from git_theta_ext.packages.files import PackageFile
from git_theta_ext.packages.values import Wanted

_BUILT_AS = {"torch-zip": "pt", "torch-legacy": "pt"}


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint, or all shards of one: its path or pattern, and where it would be written.

    `given` if that is the name of a file that the user gave.
    """

    path: str
    place: str
    given: bool = False


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


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors of a checkpoint that become a file of their own; `size` is about what it will take.

    `identity` tells it from what would be written of another version, or otherwise.
    """

    checkpoint: Checkpoint
    names: tuple[str, ...]
    container: str
    dtype: DType | None
    place: str
    identity: str
    size: int

    def write(self, path: Path) -> str | None:
        """Write it to a file; whole or not at all. Remark and errors as of `export`."""
        names = list(self.names)
        return export(self.checkpoint, names, path, self.container, dtype=self.dtype)[1]


def planned(package: Package, models: Sequence[Model], wanted: Wanted) -> list[Part]:
    """What becomes of checkpoints. One none of whose tensors is wanted is left out.

    Raises:
        UsageError: no tensor of any of them is wanted, or no such container can be made.
        ManifestError: a manifest is damaged.
    """
    found = []
    for model in models:
        checkpoint = open_model(package, model)
        names = patterns.select(checkpoint, wanted.tensors) if wanted.tensors else list(checkpoint)
        if not names:
            continue
        by_name = container_of(model.place) if model.given else None
        container = wanted.container or by_name or container_for(checkpoint, model)
        place = model.place
        if not model.given and container != own_container(checkpoint):
            place = f"{posixpath.splitext(place)[0]}.{container}"
        entries = [checkpoint.entry(name) for name in names]
        hashes = [block.sha256 for entry in entries for block in entry.blocks]
        about = repr((container, wanted.dtype, [entry.tensor for entry in entries], hashes))
        identity = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()
        size = sum(entry.tensor.nbytes for entry in entries)
        found.append(Part(checkpoint, tuple(names), container, wanted.dtype, place, identity, size))
    if not found:
        words = " ".join(map(printable, wanted.tensors))
        raise UsageError(
            f"no tensor of {package} matches {words}"
            if models
            else f"{package} has no checkpoint that is stored tensor by tensor there"
        )
    return found


def container_for(checkpoint: Checkpoint, model: Model) -> str:
    """The container that some tensors of a checkpoint are written in: its own.

    Raises:
        UsageError: no file of that container can be made.
    """
    found = own_container(checkpoint)
    if found not in BUILDERS:
        raise UsageError(
            f"{printable(model.path)} is a {found} file, of which no part can be written",
            hint=f"add one of: {', '.join(f'--to {name}' for name in BUILDERS)}",
        )
    return found


def own_container(checkpoint: Checkpoint) -> str:
    """The container that a checkpoint is in, by the name under which one can be made."""
    kind = shards.container(checkpoint.manifest)
    return _BUILT_AS.get(kind, kind)


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
