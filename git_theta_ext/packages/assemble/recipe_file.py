"""`recipe.toml`: what a checkpoint is assembled of. A pure function of the file's bytes.

`docs/assembling.md` has the grammar. Nothing is looked up here: that a pattern matches nothing is
known when the parts are (`plan`).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from git_theta_ext.checkpoints.exporting.outgoing import dtype_named
from git_theta_ext.core import limits
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.globs import WILD
from git_theta_ext.formats import safetensors
from git_theta_ext.git.settings_file import NAME
from git_theta_ext.git.work_tree import parts_of
from git_theta_ext.packages.assemble.experts import Experts, Layout
from git_theta_ext.packages.assemble.renames import check_rename
from git_theta_ext.packages.assemble.tables import Table, document, rows_of

LAYER = "model.layers.{n}."
"""How the names of a layer's tensors begin, where a part does not say it."""
FORMATS = (safetensors.NAME,)
"""Containers that are assembled."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]+")
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/]*|[^/:@]+@[^/:@]+:|(?=[./~]))([^@:]*)")
_RANGE = re.compile(r"(\d{1,6})(?:\.\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class Part:
    """What one version of another checkpoint gives.

    Attributes:
        name: what `git theta update` and messages call it.
        source: where it is from: `URL[@VERSION][:PATH]`, or `REV:PATH` of this repository.
        tensors, without: patterns of the tensors that are taken, and of those that are not.
        layers: the layers that are taken, in the order that they get; None: all, as they are.
        to: the number of the first of them in the result; None: after those of earlier parts.
        layer: how the names of a layer's tensors begin; `{n}` is its number.
        experts: how the names of experts, or their tensors, are changed.
        rename: patterns of names and what takes their place, in order.
        dtype: what floats are cast to; None: nothing.
        overrule: it replaces what earlier parts gave.
    """

    name: str
    source: str
    tensors: tuple[str, ...] = ("*",)
    without: tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    to: int | None = None
    layer: str = LAYER
    experts: Experts | None = None
    rename: tuple[tuple[str, str], ...] = ()
    dtype: str | None = None
    overrule: bool = False


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe: the checkpoint that it makes, and its parts in order.

    `path` counts from the folder of the recipe. `metadata` is that of the file; None: that of the
    first part which has some.
    """

    path: str
    format: str
    metadata: tuple[tuple[str, str], ...] | None
    dtype: str | None
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part | None:
        """The part of a name, if there is one."""
        return next((one for one in self.parts if one.name == name), None)

    def identity(self) -> str:
        """A hash of what it says, whatever its comments and blanks are."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def parse(data: bytes, file: str = "recipe.toml") -> RecipeFile:
    """What a recipe says.

    Args:
        data: its bytes.
        file: what messages call it.

    Raises:
        UsageError: it is not usable; names the table and the key.
    """
    found = document(data, file, ("model", "part"))
    model = Table(found.get("model", {}), f"{file}: [model]")
    model.refuse_unknown(("path", "format", "metadata", "dtype"))
    path = _path(model)
    container = model.text("format", safetensors.NAME) or ""
    if container not in FORMATS:
        raise model.error(f"format is {container!r}; known: {', '.join(FORMATS)}")
    tables = rows_of(found, "part", data, file)
    if not tables:
        raise UsageError(f"{file}: it has no [[part]]", hint="docs/assembling.md shows one")
    if len(tables) > limits.RECIPE_PARTS:
        raise UsageError(f"{file}: {len(tables)} [[part]]; at most {limits.RECIPE_PARTS}")
    names = _names(tables)
    parts = tuple(_part(table, name) for table, name in zip(tables, names, strict=True))
    count = sum(map(_wild, parts))
    if count > limits.RECIPE_PATTERNS:
        raise UsageError(
            f"{file}: {count} patterns and renames; at most {limits.RECIPE_PATTERNS} are matched",
            hint="let one pattern, such as 'encoder.*', stand for many names",
        )
    metadata = model.pairs("metadata")
    return RecipeFile(path, container, metadata, _dtype(model), parts)


def _wild(part: Part) -> int:
    """The patterns of a part that every name is matched with."""
    found = [one for one in (*part.tensors, *part.without) if WILD.search(one) or "{" in one]
    return len(found) + len(part.rename)


def _path(model: Table) -> str:
    path = model.needed("path", '"model.safetensors"')
    try:
        parts_of(path)
    except StoreError as error:
        raise model.error(f"path: {error.message}", "name a file below the recipe") from error
    if path.endswith((".toml", ".lock")):
        raise model.error(f"path is {path!r}: that is no name of a checkpoint")
    return path


def _names(tables: Sequence[Table]) -> list[str]:
    """The name of each part: as it says, else made of where it is from; all are different."""
    given = [table.text("name") for table in tables]
    taken: set[str] = set()
    for table, name in zip(tables, given, strict=True):
        if name is None:
            continue
        if not NAME.fullmatch(name):
            what = f"{name!r} is no name: letters, digits and . _ + - make one"
            raise table.error(what, key="name")
        if name in taken:
            what = f"there is a part {name!r} already"
            raise table.error(what, "give each a name of its own", key="name")
        taken.add(name)
    found = []
    for table, name in zip(tables, given, strict=True):
        stem = name or _stem(table.needed("from", '"https://host/org/model@v1.0"'))
        number, made = 1, stem
        while name is None and made in taken:
            number += 1
            made = f"{stem}-{number}"
        taken.add(made)
        found.append(made)
    return found


def _stem(source: str) -> str:
    """A name for a part that has none: the last word of its URL; of a version here, its file."""
    url = _URL.match(source)
    if url is not None:
        last = posixpath.basename(url[1].rstrip("/")).removesuffix(".git").removesuffix(".bundle")
    else:
        last = posixpath.splitext(posixpath.basename(source.partition(":")[2]))[0]
    return _NOT_IN_NAMES.sub("-", last).strip("-._+")[:80] or "part"


def _part(table: Table, name: str) -> Part:
    """One `[[part]]`; UsageError where a key is missing, unknown or of the wrong kind."""
    table.refuse_unknown(
        ("name", "from", "tensors", "without", "layers", "to", "layer", "experts", "rename",
         "dtype", "overrule")
    )  # fmt: skip
    layer = table.text("layer", LAYER) or LAYER
    if layer.count("{n}") != 1:
        raise table.error(
            f"layer is {layer!r}: {{n}} stands in it once, for the number", key="layer"
        )
    layers = _numbers(table, "layers") if table.has("layers") else None
    to = _number(table, "to") if table.has("to") else None
    for key in ("to", "layer"):
        if layers is None and table.has(key):
            raise table.error(f"{key} needs layers", 'such as layers = "0..15"', key=key)
    rename = table.pairs("rename") or ()
    for pattern, replacement in rename:
        check_rename(pattern, replacement, table.where("rename"))
    return Part(
        name, table.needed("from", '"https://host/org/model@v1.0:model.safetensors"'),
        table.texts("tensors", ("*",)), table.texts("without"), layers, to, layer,
        _experts(table), rename, _dtype(table), table.flag("overrule"),
    )  # fmt: skip


def _dtype(table: Table) -> str | None:
    text = table.text("dtype")
    if text is None:
        return None
    try:
        return dtype_named(text).name
    except UsageError as error:
        raise table.error(f"dtype: {error.message}", key="dtype") from error


def _experts(table: Table) -> Experts | None:
    if not table.has("experts"):
        return None
    inner = table.inner("experts")
    inner.refuse_unknown(("from", "to", "numbers", "shared"))
    source, target = (_layout(inner, key) for key in ("from", "to"))
    numbers = _numbers(inner, "numbers") if inner.has("numbers") else ()
    try:
        return Experts(source, target, numbers, inner.flag("shared"))
    except ValueError as error:
        raise inner.error(str(error)) from error


def _layout(table: Table, key: str) -> Layout:
    text = table.needed(key, '"mixtral"')
    for name in get_args(Layout):
        if text == name:
            found: Layout = name
            return found
    raise table.error(f"{key} is {text!r}", f"known: {', '.join(get_args(Layout))}")


def _number(table: Table, key: str) -> int:
    value = table.values[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**6:
        raise table.error(f"{key} is a number from 0 on, not {str(value)[:80]}", key=key)
    return value


def _numbers(table: Table, key: str) -> tuple[int, ...]:
    """Numbers, given as one, as `"0..15"` with both ends, or as a list of such."""
    value: Any = table.values[key]
    found: list[int] = []
    for one in value if isinstance(value, list) else [value]:
        match = _RANGE.fullmatch(str(one)) if isinstance(one, int | str) else None
        if match is None or isinstance(one, bool):
            what = f'{key} is such as "0..15", or a list of such, not {str(one)[:80]!r}'
            raise table.error(what, key=key)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise table.error(f"{key}: {one} ends before it begins", key=key)
        if len(found) + last - first >= limits.RECIPE_LAYERS:
            what = f"{key} stands for more than {limits.RECIPE_LAYERS} numbers"
            raise table.error(what, key=key)
        found += range(first, last + 1)
    if not found:
        raise table.error(f"{key} is empty", key=key)
    return tuple(found)
