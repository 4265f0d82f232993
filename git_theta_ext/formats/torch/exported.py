"""Archives of `torch.export`: `.pt2`, with each weight in an entry of its own.

`data/weights/NAME_weights_config.json` says which tensor is which part of which entry, likewise
`data/constants`; both are read as JSON, and nothing of the graph is. What PyTorch 2.1 to 2.7 wrote
is a zip archive with archives of `torch.save` in it. Sources: torch/export/pt2_archive/_package.py
and torch/_export/serde/schema.py of PyTorch 2.13, torch/export/__init__.py of 2.5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Segment, Source, Span
from git_theta_ext.formats.layout.nested import moved, unfolded
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.layout.storages import Piece, Storage, tile
from git_theta_ext.formats.layout.tiles import OPAQUE_FROM, Names
from git_theta_ext.formats.layout.views import View, unique_names
from git_theta_ext.formats.torch import zipped
from git_theta_ext.formats.zips.archive import STORED, Entry, read_entries
from git_theta_ext.formats.zips.layout import Assembly

NAME = "pt2"
_LOCAL_MAGIC = b"PK\x03\x04"
_FORMAT = b"pt2"
_CONFIG = re.compile(r"data/(weights|constants)/(.*)_(weights|constants)_config\.json", re.DOTALL)
_SUFFIXES = {"weights": "", "constants": "_model"}
"""Behind the name of the model; some versions write `NAME_model_constants_config.json`."""
_PROGRAM = "serialized_exported_program.json"
_OLD = {
    "serialized_state_dict.pt": "", "serialized_constants.pt": "",
    "serialized_state_dict.json": "", "serialized_constants.json": "",
    "serialized_example_inputs.pt": "example_inputs",
}  # fmt: skip
"""Entries that `torch.save` wrote, and what their tensors' names begin with."""
_DTYPES = {
    1: "U8", 2: "I8", 3: "I16", 4: "I32", 5: "I64", 6: "F16", 7: "F32", 8: "F64", 9: "C32",
    10: "C64", 11: "C128", 12: "BOOL", 13: "BF16", 28: "U16", 29: "F8_E4M3", 30: "F8_E5M2",
    31: "F8_E4M3FNUZ", 32: "F8_E5M2FNUZ", 33: "F8_E8M0", 34: "U32", 35: "U64",
}  # fmt: skip
"""Numbers of `schema.ScalarType`."""
_STRIDED = 7


@dataclass(slots=True)
class _Found:
    """What the entries of an archive are: pieces of it, and layouts that lie in its entries."""

    pieces: list[Piece] = field(default_factory=list)
    inner: dict[str, list[Segment]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    ties: dict[str, TensorInfo | None] = field(default_factory=dict)
    names: Names = field(default_factory=Names)

    def add_opaque(self, entry: Entry) -> None:
        """An entry of bytes of unknown meaning, if it is too long to be kept literal."""
        if entry.compressed >= OPAQUE_FROM:
            name = self.names.free(f"{entry.name} (content)")
            info = TensorInfo(name, DTYPES["U8"], (entry.compressed,))
            self.pieces.append(Piece(entry.data_offset, entry.compressed, Span(info, True)))

    def add_archive(self, source: Source, entry: Entry, prefix: str) -> None:
        """An entry that `torch.save` wrote; opaque or literal where it did not."""
        part = PartSource(source, entry.data_offset, entry.data_offset + entry.size)
        try:
            found = zipped.inner(part)
        except BoundError:
            raise
        except FormatError:
            self.add_opaque(entry)
            return
        new: dict[str, str] = {}

        def rename(name: str) -> str:
            if name not in new:
                new[name] = self.names.free(f"{prefix}.{name}" if prefix else name)
            return new[name]

        segments = [moved(segment, 0, rename) for segment in found.segments]
        place = f"\0{len(self.inner)}"
        self.inner[place] = segments
        info = TensorInfo(place, DTYPES["U8"], (entry.size,))
        self.pieces.append(Piece(entry.data_offset, entry.size, Span(info)))
        self.aliases |= {rename(name): rename(of) for name, of in found.aliases.items()}


def sniff(head: bytes, source: Source) -> bool:
    """A zip archive that begins with one of the entries of `torch.export`."""
    length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + length]
    old = name.startswith(b"serialized_") or name == b"version"
    return head.startswith(_LOCAL_MAGIC) and (old or b"/" in name)


def layout(source: Source) -> Layout:
    """Weights and constants as the tensors that lie in them, CRCs derived, all else literal.

    Raises:
        FormatError: another archive, damaged, or past a limit.
    """
    entries = read_entries(source)
    names = {entry.name: entry for entry in entries}
    found = _Found()
    if _PROGRAM in names:
        for entry in entries:
            if entry.name in _OLD and entry.method == STORED and entry.size:
                found.add_archive(source, entry, _OLD[entry.name])
            else:
                found.add_opaque(entry)
    else:
        _read_new(source, entries, found)
    # Where archives lie in it, a CRC of the id would depend on too much.
    identity = None if found.inner else _member(entries, ".data/serialization_id")
    assembly = Assembly(source, entries, found.pieces, identity)
    segments = unfolded(assembly.segments(), found.inner)
    return Layout(NAME, tuple(segments), found.aliases, ties=found.ties)


def _read_new(source: Source, entries: list[Entry], found: _Found) -> None:
    """What PyTorch 2.8 and newer write."""
    root = entries[0].name.split("/", 1)[0] + "/" if entries else ""
    members = {entry.name.removeprefix(root): entry for entry in entries}
    if not all(entry.name.startswith(root) for entry in entries):
        raise FormatError("pt2: not one folder")
    if _content(source, members.get("archive_format")) != _FORMAT:
        raise FormatError("pt2: no archive of torch.export")
    if "byteorder" in members and _content(source, members["byteorder"]) != b"little":
        raise FormatError("pt2: the tensors are not little-endian")
    views, pickled = _described(source, members)
    storages: list[Storage] = []
    for name, entry in members.items():
        if name in views and entry.method == STORED:
            storages.append(Storage(name.replace("/", "."), entry.data_offset, entry.size))
        elif name in pickled and entry.method == STORED and entry.size:
            continue
        else:
            views.pop(name, None)
            found.add_opaque(entry)
    order = [name for name in members if name in views]
    tiled = tile(storages, [views[name] for name in order])
    found.pieces += tiled.pieces
    found.aliases |= tiled.aliases
    found.ties |= tiled.ties
    for piece in tiled.pieces:
        found.names.free(piece.span.tensor.name)
    for name, label in pickled.items():
        if name in members and members[name].method == STORED and members[name].size:
            found.add_archive(source, members[name], label)


def _described(
    source: Source, members: Mapping[str, Entry]
) -> tuple[dict[str, list[View]], dict[str, str]]:
    """The tensors in each entry, and the names of the entries that `torch.save` wrote."""
    configs = [
        (match[1], match[2].removesuffix(_SUFFIXES[match[1]]) or match[2], name)
        for name in members
        if (match := _CONFIG.fullmatch(name)) and match[1] == match[3]
    ]
    several = len({model for _, model, _ in configs}) > 1
    paths: list[tuple[str, ...]] = []
    found: list[View] = []
    pickled: dict[str, str] = {}
    for folder, model, name in configs:
        for key, meta in _config(_content(source, members[name])):
            path = (model, key) if several else (key,)
            place = f"data/{folder}/{meta.get('path_name')}"
            if meta.get("use_pickle") is True:
                pickled.setdefault(place, ".".join(path))
            elif (view := _view(meta.get("tensor_meta"), place)) is not None:
                paths.append(path)
                found.append(view)
            if len(found) > limits.NAMES:
                raise BoundError(f"pt2: more than {limits.NAMES} tensors")
    views: dict[str, list[View]] = {}
    for name, view in zip(unique_names(paths), found, strict=True):
        views.setdefault(view.key, []).append(replace(view, name=name))
    return views, {place: label for place, label in pickled.items() if place not in views}


def _config(text: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a `PayloadConfig`."""
    try:
        found = json.loads(text)["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("pt2: a config that is no JSON of tensors") from error
    if not isinstance(found, dict):
        raise FormatError("pt2: a config that is no JSON of tensors")
    for key, meta in found.items():
        if not key or len(key) > limits.NAME_KEY_CHARS or not isinstance(meta, dict):
            raise FormatError("pt2: a config with a tensor without a name")
        yield key, meta


def _view(meta: Any, place: str) -> View | None:
    """A `TensorMeta` as a view of an entry; None for what is not dense."""
    if not isinstance(meta, dict) or meta.get("layout") != _STRIDED:
        return None
    number = meta.get("dtype")
    dtype = DTYPES.get(_DTYPES.get(number, "") if isinstance(number, int) else "")
    sizes, strides = _numbers(meta.get("sizes")), _numbers(meta.get("strides"))
    offset = _number(meta.get("storage_offset"))
    if dtype is None or sizes is None or strides is None or offset is None:
        return None
    if len(sizes) != len(strides):
        return None
    return View("", place, dtype, offset, sizes, strides)


def _numbers(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > limits.AXES:
        return None
    found = [_number(item) for item in value]
    return None if None in found else tuple(one for one in found if one is not None)


def _number(value: Any) -> int | None:
    """A `SymInt` that is a number."""
    found = value.get("as_int") if isinstance(value, dict) else None
    return found if type(found) is int and 0 <= found < 1 << 63 else None


def _member(entries: list[Entry], name: str) -> Entry | None:
    found = (entry for entry in entries if entry.name.partition("/")[2] == name)
    return next(found, None)


def _content(source: Source, entry: Entry | None) -> bytes:
    if entry is None:
        return b""
    if entry.method != STORED:
        raise FormatError(f"pt2: entry {entry.name!r} is compressed")
    if entry.size > limits.JSON_HEADER_BYTES:
        raise BoundError(
            f"pt2: entry {entry.name!r} has {entry.size} bytes; at most "
            f"{limits.JSON_HEADER_BYTES} are read"
        )
    return source.read(entry.data_offset, entry.size)
