"""What a `.metadata` of PyTorch's distributed checkpoints says: which item lies where, of what.

It is a pickle of `torch.distributed.checkpoint.metadata.Metadata`, read as inert records. Sources:
torch/distributed/checkpoint/metadata.py and filesystem.py (`_StorageInfo`) of PyTorch 2.13.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Layout, Literal, Source
from git_theta_ext.formats.layout.skeleton import Skeleton
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.pickles.contents import Contents, DescribedFile, leaves_of
from git_theta_ext.formats.pickles.machine import Call, Dict, Global, Value

NAME = "distcp-metadata"
FILE = ".metadata"
"""The name of the file, beside the `.distcp` files that it describes."""

_SAVE = "storage_meta"
_MODULE = "torch.distributed.checkpoint.metadata"
_BEGINS = re.compile(
    rb"\x80[\x02-\x05](\x95.{8})?(c|\x8c.|X.{4})" + re.escape(_MODULE.encode()), re.DOTALL
)
_PART = re.compile(r"(.+)\[((?:\d*:\d*)(?:, \d*:\d*)*)\]", re.DOTALL | re.ASCII)


_Part = tuple[str, tuple[int, ...] | None]
"""Name and shape of a part of a tensor; no shape for what is no tensor."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a data file: its name, and where it lies, in bytes.

    `shape` is that of the part of a tensor which it holds; None for what is no tensor.
    """

    name: str
    offset: int
    length: int
    shape: tuple[int, ...] | None


def sniff(head: bytes, source: Source) -> bool:
    """A pickle of PyTorch's `Metadata`."""
    return _BEGINS.match(head) is not None


def layout(source: Source) -> Layout:
    """All of it is structure.

    Raises:
        FormatError: it is not such a pickle, or past a limit.
    """
    data = _whole(source)
    _fields(machine.load(data))
    return Layout(NAME, (Literal(data),))


def items_of(source: Source, file: str) -> list[Item]:
    """The items of a data file, in its order.

    Args:
        source: the `.metadata`.
        file: the name of the data file, without its folder.

    Raises:
        FormatError: damaged, past a limit, or its items overlap, or are of no tensor it lists.
    """
    with machine.no_search_for_cycles():
        return _items(_fields(machine.load(_whole(source))), file)


def contents(skeleton: Skeleton, lengths: Mapping[str, int]) -> Contents:
    """What a `.metadata` says, but for the id and the place that every save gives it anew.

    Raises:
        FormatError: damaged, or past a limit.
    """
    fields = _fields(machine.load(_whole(DescribedFile(skeleton, lengths))))
    fields.pop(_SAVE, None)
    leaves = leaves_of(Dict(list(fields.items())))
    return Contents({(FILE, *path): leaf for path, leaf in leaves}, {})


def _items(fields: dict[str, Value], file: str) -> list[Item]:
    """The items of a data file; errors as for `items_of`."""
    parts = _parts(fields.get("state_dict_metadata"))
    found: list[Item] = []
    for index, info in _pairs(fields.get("storage_data")):
        where, key = _fields(info), _fields(index)
        path, start, length = where.get("relative_path"), where.get("offset"), where.get("length")
        if not isinstance(path, str) or not _is_size(start) or not _is_size(length):
            raise FormatError("distcp: the .metadata has an item without a place")
        if posixpath.basename(path) != file:
            continue
        if where.get("transform_descriptors"):
            raise FormatError("distcp: the items are transformed")
        name, shape = _part(parts, key)
        found.append(Item(name, start, length, shape))
        if len(found) > limits.DISTCP_ITEMS:
            raise FormatError(f"distcp: more than {limits.DISTCP_ITEMS} items")
    found.sort(key=lambda item: (item.offset, item.length))
    return _unique(found)


def _part(parts: dict[str, _Part], key: dict[str, Value]) -> _Part:
    """The part of a tensor that a `MetadataIndex` names; FormatError where there is none."""
    name = key.get("fqn")
    if not isinstance(name, str) or not name or len(name) > limits.NAME_CHARS // 2:
        raise FormatError("distcp: the .metadata has an item without a name")
    offsets = None if key.get("offset") is None else _size(key["offset"])
    part = parts.get(_key(name, offsets))
    if part is None:
        raise FormatError(f"distcp: the .metadata has no part of {name!r} that begins there")
    return part


def _unique(items: list[Item]) -> list[Item]:
    """The items, with a number where several have one name."""
    taken: dict[str, int] = {}
    made = []
    for item in items:
        count = taken[item.name] = taken.get(item.name, 0) + 1
        made.append(item if count == 1 else replace(item, name=f"{item.name}~{count}"))
    return made


def _parts(value: Value) -> dict[str, _Part]:
    """Name and shape of each part of each tensor, by the tensor's name and where it begins."""
    found: dict[str, _Part] = {}
    for name, record in _pairs(value):
        if not isinstance(name, str):
            raise FormatError("distcp: the .metadata has a tensor without a name")
        fields = _fields(record)
        if "size" not in fields:
            found[_key(name, None)] = name, None
            continue
        whole = _size(fields["size"])
        chunks = fields.get("chunks")
        for chunk in chunks if isinstance(chunks, list) else ():
            part = _fields(chunk)
            offsets, sizes = _size(part.get("offsets")), _size(part.get("sizes"))
            found[_key(name, offsets)] = part_name(name, whole, offsets, sizes), sizes
    return found


def _key(name: str, offsets: Sequence[int] | None) -> str:
    """Text, whose hash nobody can foresee."""
    return f"{name}\0" if offsets is None else f"{name}\0{','.join(map(str, offsets))}\0"


def part_name(name: str, whole: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> str:
    """How a part of a tensor is called: `w[:4]`, `w[4:8]`, `w[8:]`, `w[:, :5]`; all of it `w`.

    Args:
        name: the tensor's.
        whole: its shape.
        offsets: where the part begins, along each axis.
        sizes: the shape of the part.

    Raises:
        FormatError: the part does not lie in the tensor.
    """
    if not len(whole) == len(offsets) == len(sizes):
        raise FormatError(f"distcp: a part of {name!r} has other axes than the tensor")
    slices = []
    for total, start, size in zip(whole, offsets, sizes, strict=True):
        stop = start + size
        if stop > total:
            raise FormatError(f"distcp: a part of {name!r} ends at {stop} of {total}")
        slices.append(f"{start or ''}:{stop if stop < total else ''}")
    while slices and slices[-1] == ":":
        slices.pop()
    return f"{name}[{', '.join(slices)}]" if slices else name


def rows_of(name: str) -> tuple[str, int, int | None] | None:
    """Of a part that is a run of rows: the tensor, the first row, and the one behind the last.

    The latter is None for the last part. None for other names.
    """
    match = _PART.fullmatch(name)
    if match is None or "," in match[2]:
        return None
    start, stop = match[2].split(":")
    if len(start) > 18 or len(stop) > 18:
        return None
    return match[1], int(start or 0), int(stop) if stop else None


# -- records ---------------------------------------------------------------------------------------


def _whole(source: Source) -> bytes:
    if source.size > limits.STRUCTURE_BYTES:
        raise FormatError("distcp: the .metadata is too long")
    return source.read(0, source.size)


def _fields(value: Value) -> dict[str, Value]:
    """The attributes of a pickled dataclass.

    Raises:
        FormatError: it is none of this module or of `filesystem`.
    """
    if not isinstance(value, Call) or not isinstance(value.function, Global):
        raise FormatError("distcp: the .metadata is of another kind")
    if not value.function.module.startswith("torch.distributed.checkpoint"):
        raise FormatError("distcp: the .metadata is of another kind")
    return {
        key: item
        for state in value.states
        if isinstance(state, Dict)
        for key, item in state.pairs
        if isinstance(key, str)
    }


def _pairs(value: Value) -> Iterator[tuple[Value, Value]]:
    if not isinstance(value, Dict):
        raise FormatError("distcp: the .metadata lacks a table")
    return iter(value.pairs)


def _is_size(value: Value) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 63


def _size(value: Value) -> tuple[int, ...]:
    """A `torch.Size`."""
    args = value.args if isinstance(value, Call) else (value,)
    found = args[0] if isinstance(args, tuple) and len(args) == 1 else None
    if not isinstance(found, tuple | list) or len(found) > limits.AXES:
        raise FormatError("distcp: the .metadata has a tensor without a size")
    if not all(map(_is_size, found)):
        raise FormatError("distcp: the .metadata has a tensor without a size")
    return tuple(found)
