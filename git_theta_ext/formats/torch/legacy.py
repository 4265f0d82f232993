"""What `torch.save` wrote before PyTorch 1.6: five pickles, then the storages one after another.

A magic number, the protocol, system information, the object, and the keys of the storages in their
order; each storage is its number of elements (64 bits) and its bytes. Source: `_legacy_save` and
`_legacy_load` in torch/serialization.py of PyTorch 2.13. The keys are memory addresses, so storages
that no tensor names are called by their position.
"""

from __future__ import annotations

from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.storages import Storage, tile
from git_theta_ext.formats.layout.tiles import assemble
from git_theta_ext.formats.layout.views import View
from git_theta_ext.formats.pickles.machine import Dict, Global, Persistent, Value
from git_theta_ext.formats.pickles.stream import Budget, StreamMachine
from git_theta_ext.formats.torch.names import STORAGE_DTYPES, find_views

NAME = "torch-legacy"
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
_PROTOCOL = 1001


def sniff(head: bytes, source: Source) -> bool:
    """A pickle of PyTorch's magic number."""
    return head[:1] == b"\x80" and head[2 : 2 + len(_MAGIC)] == _MAGIC


def layout(source: Source) -> Layout:
    """Storages as the tensors that lie in them; the pickles and the storages' counts are literal.

    Raises:
        FormatError: damaged, big-endian, past a limit, or with views of storages (before 0.4).
    """
    budget, offset = Budget(), 0
    values: list[Value] = []
    persistents: list[Persistent] = []
    for _ in range(5):
        machine = StreamMachine(source, offset, budget)
        values.append(machine.run())
        persistents += machine.persistents
        offset = machine.offset
    _check_header(values)
    storages = _storages(source, offset, values[4], _itemsizes(persistents))
    by_key: dict[str, list[View]] = {}
    for view in find_views(values[3]):
        by_key.setdefault(view.key, []).append(view)
    tiled = tile(list(storages.values()), [by_key.get(key, []) for key in storages])
    return Layout(NAME, assemble(source, tiled.pieces), tiled.aliases, ties=tiled.ties)


def _check_header(values: list[Value]) -> None:
    version, system = values[1], values[2]
    if type(version) is not int or version != _PROTOCOL:
        raise FormatError(f"torch-legacy: the second pickle is not the protocol {_PROTOCOL}")
    pairs = system.pairs if isinstance(system, Dict) else []
    if not any(isinstance(k, str) and k == "little_endian" and v is True for k, v in pairs):
        raise FormatError("torch-legacy: the tensors are not little-endian")


def _itemsizes(persistents: list[Persistent]) -> dict[str, int]:
    """Bytes of an element of each storage, by key; an untyped storage counts in bytes."""
    sizes: dict[str, int] = {}
    for item in persistents:
        parts = item.key
        if not isinstance(parts, tuple) or len(parts) < 3 or not isinstance(parts[2], str):
            continue
        if len(parts) > 5 and parts[5] is not None:
            raise FormatError("torch-legacy: a storage that is a view of another")
        kind = parts[1].name if isinstance(parts[1], Global) else ""
        name = "U8" if kind == "UntypedStorage" else STORAGE_DTYPES.get(kind)
        if name is not None:
            sizes.setdefault(parts[2], DTYPES[name].itemsize)
    return sizes


def _storages(
    source: Source, offset: int, keys: Value, itemsizes: dict[str, int]
) -> dict[str, Storage]:
    """The storages in the order of the file, by key; they must reach the file's end."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError(f"torch-legacy, offset {offset}: the storages' keys are not strings")
    found: dict[str, Storage] = {}
    for number, key in enumerate(keys):
        if key in found or key not in itemsizes:
            raise FormatError(f"torch-legacy, offset {offset}: storage {number} is not known")
        count = int.from_bytes(source.read(offset, 8), "little")
        size, left = count * itemsizes[key], source.size - offset - 8
        if size > left:
            raise FormatError(
                f"torch-legacy, offset {offset}: storage {number} has {size} bytes, {left} are left"
            )
        found[key] = Storage(f"storage.{number}", offset + 8, size)
        offset += 8 + size
    if offset != source.size:
        raise FormatError(f"torch-legacy: {source.size - offset} bytes follow the last storage")
    return found
