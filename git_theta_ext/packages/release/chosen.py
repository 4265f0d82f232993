"""What of a commit is released: one model for each folder, and what stands beside it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.comparison.report.words import is_training_state
from git_theta_ext.core import advice
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import plural, printable
from git_theta_ext.formats.layout import opaque
from git_theta_ext.git.repository import Repository, TreeEntry
from git_theta_ext.manifest.model import Manifest, UpdateRef
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer

CARD = "README.md"
SUMS = "SHA256SUMS"
TENSORS = "theta_tensors.json"
BASE = "theta_base.json"
SIGNATURE = "model.sig"
MADE = frozenset({SUMS, TENSORS, BASE, SIGNATURE})
"""Files that a release writes anew: those of the commit are about something else."""

_OURS = frozenset({"models.toml", "theta.lock"})
_WHOLE = frozenset({"gguf", "onnx", "tflite", "coreml-weights", "tensorflow", opaque.NAME})
"""Containers with more than weights in them, which are copied byte for byte."""

_INDEXES = (".safetensors.index.json", ".bin.index.json", ".pt.index.json", ".pth.index.json")

Kind = Literal["tensors", "git-lfs", "whole"]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that is released as it was committed; `into` is its place in the folder."""

    path: str
    into: str
    kind: Kind
    oid: str
    manifest: Manifest | None = None
    pointer: UpdateRef | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A model whose tensors are written to new files.

    `path` is a checkpoint, or the pattern of its shards; `folder` where the files go.
    """

    path: str
    folder: str
    parts: tuple[tuple[str, Manifest], ...]
    stem: str

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Those of the file, or of all shards."""
        return tuple(manifest for _, manifest in self.parts)


@dataclass(frozen=True, slots=True)
class Chosen:
    """All that is released; `top` is the folder of the commit that the release stands for.

    `left` has sentences on what is not.
    """

    top: str
    weights: tuple[Weights, ...]
    copies: tuple[Copy, ...]
    left: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """Where copied files go."""
        return {one.into for one in self.copies}


class SeveralModelsError(UsageError):
    """A folder has several models; `names` are some of them."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        """Suggest the first of them as `--path`."""
        super().__init__(message, hint=f"say which one: --path {advice.word(names[0])}")
        self.names = tuple(names)


def choose(repository: Repository, commit: str, path: str | None, shown: str) -> Chosen:
    """What of a commit is released.

    Args:
        repository: any.
        commit: its object id.
        path: a folder, a checkpoint, or what stands for shards, from the top; None is the folder
            that all checkpoints are in.
        shown: what messages call the commit.

    Raises:
        UsageError: there is no such path, no checkpoint, or a folder has several models.
        ManifestError: a manifest is damaged.
    """
    every = {one.path: one for one in repository.tree(commit, recursive=True)}
    manifests = _manifests(repository, every.values())
    single = path is not None and (path in every or shards.names_model(path))
    if path is None:
        top = _common(name for name in manifests if not _is_hidden(name))
    else:
        top = posixpath.dirname(path) if single else path
    within = {
        name: entry
        for name, entry in every.items()
        if _is_below(name, top) and (not single or posixpath.dirname(name) == top)
    }
    if not within:
        raise UsageError(f"there is no {path!r} in {shown}")
    left: list[str] = []
    models, copied = _models(
        {name: one for name, one in manifests.items() if name in within}, path, left
    )
    if single and path is not None:
        models, copied = _asked(path, shown, models, copied)
    weights = _weights(models, top, within)
    beside = {
        name: one
        for name, one in within.items()
        if name in copied or (name not in manifests and not _is_index_of(name, models))
    }
    copies = list(_copies(repository, beside, manifests, top, left))
    if CARD not in {one.into for one in copies} and CARD in every and CARD not in manifests:
        copies += _copies(repository, {CARD: every[CARD]}, {}, "", left)
    other = [one for one in copies if one.kind != "whole" or formats.promises(one.path)]
    if not weights and not other:
        raise UsageError(
            f"there is no checkpoint in {shown}{'' if path is None else f', folder {path!r}'}",
            hint=advice.TRACK_FIRST,
        )
    return Chosen(top, tuple(weights), tuple(copies), tuple(left))


def _asked(path: str, shown: str, models: _Models, copied: list[str]) -> tuple[_Models, list[str]]:
    """Of what was found, the one that the user named.

    Raises:
        UsageError: it is not among them.
    """
    one = {name: parts for name, parts in models.items() if _stands_for(path, name)}
    if one or path in copied:
        return one, [path] if path in copied else []
    whole = shards.model_of(path)
    if whole is not None:
        raise UsageError(
            f"{path!r} is a shard of a model", hint=f"name all of it: --path {advice.word(whole)}"
        )
    raise UsageError(f"{path!r} in {shown} is not stored tensor by tensor", hint=advice.TRACK_FIRST)


def _manifests(repository: Repository, entries: Iterable[TreeEntry]) -> dict[str, Manifest]:
    """The manifest at each path that has one."""
    paths: dict[str, list[str]] = {}
    for entry in entries:
        if entry.kind == "blob" and entry.mode.startswith("100"):
            paths.setdefault(entry.oid, []).append(entry.path)
    found: dict[str, Manifest] = {}
    for oid, manifest in reachable.manifests(repository, list(paths)):
        for path in paths[oid]:
            if isinstance(manifest, ManifestError):
                raise ManifestError(f"{path}: {manifest.message}", hint=manifest.hint)
            found[path] = manifest
    return found


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _is_below(path: str, top: str) -> bool:
    return not top or path.startswith(f"{top}/")


def _common(paths: Iterable[str]) -> str:
    """The folder that all these files are in, at any depth; the top where there is none."""
    folders = [posixpath.dirname(path).split("/") for path in paths]
    if not folders:
        return ""
    shared = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _stands_for(path: str, name: str) -> bool:
    """Whether what the user typed is a model that was found."""
    return shards.pattern_of(path) in (name, shards.pattern_of(name)) or path == name


_Models = dict[str, list[tuple[str, Manifest]]]


def _models(
    manifests: Mapping[str, Manifest], asked: str | None, left: list[str]
) -> tuple[_Models, list[str]]:
    """The models whose tensors are written, by path or pattern, and checkpoints to be copied."""
    models: _Models = {}
    copied: list[str] = []
    for name in sorted(manifests, key=natural_key):
        manifest = manifests[name]
        if _is_hidden(name):
            continue
        if manifest.format in _WHOLE:
            copied.append(name)
        elif is_training_state(posixpath.basename(name)) and name != asked:
            left.append(f"{printable(name)}: it only serves to go on with training")
        else:
            models.setdefault(shards.model_of(name) or name, []).append((name, manifest))
    return models, copied


def _weights(models: _Models, top: str, within: Mapping[str, TreeEntry]) -> list[Weights]:
    """One model for each folder, under the name that libraries look for.

    Raises:
        UsageError: a folder has several.
    """
    by_folder: dict[str, list[str]] = {}
    for name in models:
        by_folder.setdefault(posixpath.dirname(name), []).append(name)
    found: list[Weights] = []
    for folder, names in by_folder.items():
        if len(names) > 1:
            raise SeveralModelsError(
                f"{'the top folder' if not folder else f'folder {folder!r}'} has "
                f"{plural(len(names), 'model')}: {', '.join(map(printable, names[:5]))}",
                names,
            )
        parts = tuple(models[names[0]])
        if shards.model_of(parts[0][0]) is not None:
            _check_whole(names[0], [path for path, _ in parts])
        place = "" if folder == top else folder.removeprefix(f"{top}/" if top else "")
        found.append(Weights(names[0], place, parts, _stem(names[0], folder, within)))
    return found


def _check_whole(model: str, paths: Sequence[str]) -> None:
    """Refuse a model of which a shard lacks; their number stands in each name.

    Raises:
        UsageError: it does, or they are those of several models.
    """
    shards.check_one(paths)
    match = re.search(r"-of-(\d+)", posixpath.basename(paths[0]))
    if match is not None and int(match[1]) != len(paths):
        raise UsageError(
            f"{printable(model)}: {len(paths)} of {int(match[1])} shards are stored by tensor",
            hint=advice.TRACK_FIRST,
        )


_KNOWN = ("model", "adapter_model", "diffusion_pytorch_model", "pytorch_lora_weights")


def _stem(name: str, folder: str, within: Mapping[str, TreeEntry]) -> str:
    """The name of the new files, without numbers and suffix: what libraries look for.

    Beside an `adapter_config.json` they look for `adapter_model`, beside a `config.json` for
    `model`; elsewhere the file keeps its name.
    """
    stem = posixpath.basename(name).replace("-*-of-*", "")
    stem = posixpath.splitext(stem)[0]
    if stem in _KNOWN:
        return stem
    if posixpath.join(folder, "adapter_config.json") in within and "adapter" in stem:
        return "adapter_model"
    has_config = posixpath.join(folder, "config.json") in within
    return "model" if has_config or stem == "pytorch_model" else stem


def _copies(
    repository: Repository,
    within: Mapping[str, TreeEntry],
    manifests: Mapping[str, Manifest],
    top: str,
    left: list[str],
) -> Iterator[Copy]:
    """What is copied: every file that is no checkpoint, or one of `manifests`."""
    small = {entry.oid: entry for entry in within.values() if entry.kind == "blob"}
    sizes = repository.blob_sizes(small)
    pointers = dict(repository.blobs([oid for oid, size in sizes.items() if size <= POINTER_BYTES]))
    for name, entry in within.items():
        into = name.removeprefix(f"{top}/") if top else name
        if _is_hidden(into) or into in MADE or into in _OURS:
            continue
        if not entry.mode.startswith("100"):
            left.append(f"{printable(name)}: it is a {_not_a_file(entry.mode)}")
        elif name in manifests:
            yield Copy(name, into, "tensors", entry.oid, manifests[name])
        else:
            pointer = read_pointer(pointers.get(entry.oid, b""))
            yield Copy(name, into, "git-lfs" if pointer else "whole", entry.oid, None, pointer)


def _not_a_file(mode: str) -> str:
    return "link" if mode.startswith("120") else "submodule"


def _is_index_of(name: str, models: _Models) -> bool:
    """Whether a file is the index of shards that are written anew."""
    folders = {posixpath.dirname(model) for model in models}
    return name.endswith(_INDEXES) and posixpath.dirname(name) in folders


def spec_of(commit: str, weights: Weights) -> str:
    """What `open_checkpoint` is asked for."""
    return f"{commit}:{weights.path}"


def adapters(weights: Sequence[Weights]) -> list[Weights]:
    """Those that are adapters by the names of their files."""
    return [one for one in weights if one.stem == "adapter_model"]
