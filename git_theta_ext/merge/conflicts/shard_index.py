"""The index of a sharded model in a merge: it is written from the shards, not merged as text.

To Git it is a JSON text. Two branches that each add a tensor change neighbouring lines of it, and a
merge stops at it though every shard is merged. What it says of tensors follows from the shards; its
other keys are merged by name.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from git_theta_ext.checkpoints import shards as sharded
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest

Side = Literal["ours", "theirs"]
Shards = Mapping[str, Manifest]
"""The manifest of every shard of one version of a model, by its path."""

_SUFFIX = ".index.json"
_FILES = ("100644", "100755")
_ABSENT = object()


# -- the text --------------------------------------------------------------------------------------


def merge_texts(
    texts: Sequence[bytes | None], side: Side, shards: Shards, before: Sequence[Shards]
) -> tuple[bytes, list[str]] | None:
    """The index of a merged model, and the keys for which both sides say something else.

    Args:
        texts: the index in base, ours and theirs; None, or a text that is no index, where a version
            has none.
        side: whose value stands for such keys.
        shards: those of the result.
        before: the shards of ours and theirs; empty where they are not known.

    Returns:
        None where neither side has an index. The text of a side itself, where that is right.
    """
    base, *own = [text if text and sharded.is_index(text) else None for text in texts]
    order = (0, 1) if side == "ours" else (1, 0)
    first = next((number for number in order if own[number] is not None), None)
    if first is None:
        return None
    text = own[first] or b""
    document = json.loads(text)
    collided: list[str] = []
    if own[1 - first] is not None:
        old = json.loads(base) if base else {}
        source, other = document, json.loads(own[1 - first] or b"")
        document = _merged(_told(old), _told(source), _told(other), "", collided)
        document["weight_map"] = source["weight_map"]
        _keep_totals(document, source)
    _renew(document, shards, before[first] if len(before) == 2 else {})
    if document == json.loads(text):
        return text, collided
    return (json.dumps(document, indent=2) + "\n").encode(), collided


def _told(document: Any) -> dict[str, Any]:
    """What an index says that does not follow from the shards."""
    found = {name: value for name, value in document.items() if name != "weight_map"}
    if isinstance(found.get("metadata"), dict):
        kept = found["metadata"].items()
        found["metadata"] = {name: value for name, value in kept if name not in _TOTALS}
    return found


def _merged(
    base: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any],
    where: str, collided: list[str],
) -> dict[str, Any]:  # fmt: skip
    """The keys of two sides, merged one by one; the first side's where both changed one."""
    found = {}
    for name in dict.fromkeys([*first, *second]):
        old, one, two = (each.get(name, _ABSENT) for each in (base, first, second))
        if isinstance(one, dict) and isinstance(two, dict):
            inner = old if isinstance(old, dict) else {}
            value: Any = _merged(inner, one, two, f"{where}{name}.", collided)
        else:
            value = two if _same(one, old) else one
            if not (_same(one, two) or _same(one, old) or _same(two, old)):
                collided.append(f"{where}{name}")
        if value is not _ABSENT:
            found[name] = value
    return found


def _same(one: Any, two: Any) -> bool:
    """Whether two values are one in JSON; Python takes 1, 1.0 and true for the same."""
    if one is _ABSENT or two is _ABSENT:
        return one is two
    return json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


_TOTALS = ("total_size", "total_parameters")
"""What transformers and huggingface_hub write of all tensors: bytes, and elements."""


def _keep_totals(document: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Put a side's totals back, in its order of keys."""
    told = source.get("metadata")
    if isinstance(told, dict) and isinstance(document.get("metadata"), dict):
        names = dict.fromkeys([*told, *document["metadata"]])
        values = {**{name: told[name] for name in _TOTALS if name in told}, **document["metadata"]}
        document["metadata"] = {name: values[name] for name in names if name in values}


def _renew(document: dict[str, Any], shards: Shards, before: Shards) -> None:
    """Say where each tensor is now, and how much all are.

    A total changes by what the shards changed by, where those before are known: some writers do not
    count every tensor.
    """
    places = {name: place for name, (place, _) in _tensors(shards).items()}
    if document["weight_map"] != places:
        document["weight_map"] = dict(sorted(places.items()))
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return
    now, old = _totals(shards), _totals(before)
    for name in _TOTALS:
        value = metadata.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            metadata[name] = value + now[name] - old[name] if before else now[name]


def _tensors(shards: Shards) -> dict[str, tuple[str, TensorInfo]]:
    """The file of each tensor, and the tensor."""
    return {
        entry.tensor.name: (posixpath.basename(path), entry.tensor)
        for path, manifest in shards.items()
        for entry in manifest.entries
        if not entry.opaque
    }


def _totals(shards: Shards) -> dict[str, int]:
    """The bytes and the elements of all tensors, as `_TOTALS` names them."""
    tensors = [tensor for _, tensor in _tensors(shards).values()]
    numbers = (sum(one.nbytes for one in tensors), sum(math.prod(one.shape) for one in tensors))
    return dict(zip(_TOTALS, numbers, strict=True))


# -- conflicts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexConflict:
    """An index in conflict beside shards that are merged: each of them is staged.

    `texts` are the index in base, ours and theirs, None where a version has none; `before` the
    shards of ours and theirs, empty where they are not known.
    """

    repository: Repository
    path: str
    texts: tuple[bytes | None, ...]
    shards: Shards
    before: tuple[Shards, ...]

    @classmethod
    def find(cls, repository: Repository, path: str) -> IndexConflict | None:
        """The conflict of the index that a path names, or of the model's that a pattern names.

        None where the index is not in conflict, or a shard is, too, or does not fit the others:
        then the model is to be settled as one.

        Raises:
            ManifestError: a shard's manifest is damaged.
        """
        index = sharded.index_of(path)
        stages = _stages(repository.index(literal(index)))
        shards = staged_shards(repository, path) if stages else None
        if not shards:
            return None
        texts = tuple(_text(repository, stages.get(number)) for number in (1, 2, 3))
        model = sharded.find(repository, "HEAD", sharded.pattern_of(path))
        before = () if model is None else (dict(model.shards), {})
        return cls(repository, index, texts, shards, before)

    def text(self, side: Side | None) -> tuple[bytes, dict[str, str]]:
        """The index of the staged shards, and the keys that are open as long as no side is chosen.

        Raises:
            UsageError: neither side's text is an index of shards.
        """
        made = merge_texts(self.texts, side or "ours", self.shards, self.before)
        if made is None:
            raise UsageError(
                f"{self.path} is no index of shards on either side",
                hint=advise(self.repository, "correct it by hand, then: git add FILE", self.path),
            )
        text, collided = made
        return text, {} if side else dict.fromkeys(collided, "both sides changed it")

    def write(self, text: bytes) -> None:
        """Write the index into the work tree.

        Raises:
            StoreError: it cannot be written.
        """
        WorkTree(self.repository.top).replace(self.path, text)


def _stages(entries: Sequence[IndexEntry]) -> dict[int, IndexEntry]:
    """The versions of a path in conflict, by number; none where it is not in conflict."""
    return {} if any(one.stage == 0 for one in entries) else {one.stage: one for one in entries}


def _text(repository: Repository, entry: IndexEntry | None) -> bytes | None:
    return repository.blob(entry.oid) if entry is not None and entry.mode in _FILES else None


def staged_shards(repository: Repository, path: str) -> dict[str, Manifest] | None:
    """The shards of a model as they are staged; None where one is in conflict, or they do not fit.

    They do not fit where a tensor is in two of them, or where they are cut in two ways.
    """
    entries = [
        one
        for one in repository.index(sharded.pathspec_of(path))
        if sharded.model_of(one.path) is not None
    ]
    if any(one.stage for one in entries):
        return None
    read = sharded.reader(repository)
    found = {one.path: manifest for one in entries if (manifest := read(one.oid)) is not None}
    names = [entry.tensor.name for one in found.values() for entry in one.entries]
    if len(found) < len(entries) or len(set(names)) < len(names):
        return None
    try:
        sharded.check_one(found)
    except UsageError:
        return None
    return found


def in_conflict(repository: Repository) -> Iterator[tuple[str, bool]]:
    """Each index in conflict that has tracked shards, and whether those are merged."""
    entries = repository.index(":(top,glob)**/*" + _SUFFIX)
    for path in dict.fromkeys(one.path for one in entries if one.stage):
        shards = repository.index(sharded.pathspec_of(path))
        if any(repository.attribute("filter", one.path) == "theta" for one in shards[:1]):
            yield path, bool(staged_shards(repository, path))


def how_to_settle(repository: Repository, path: str, *, merged: bool) -> str:
    """What settles an index in conflict; it has to be asked again once its shards are merged."""
    way = "writes it from the shards" if merged else "settles it together with the shards"
    return advise(repository, "git theta resolve FILE", path) + f"   {way}"


def changed_on_both(repository: Repository, heads: Heads) -> list[str]:
    """The patterns of the tracked models whose index both sides changed, each in its own way."""
    commits = (heads.base, heads.ours, heads.theirs)
    ours, theirs = (
        {sharded.model_of(path) for path, _ in blobs_of(repository, one)}
        for one in commits[1:]
        if one is not None
    )
    found = []
    for pattern in sorted((ours & theirs) - {None}, key=str):
        path = sharded.index_of(str(pattern))
        blobs = [None if one is None else repository.blob_at(one, path) for one in commits]
        if len(set(blobs)) == 3 and None not in blobs[1:]:
            found.append(str(pattern))
    return found
