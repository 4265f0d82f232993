"""PyTorch's zip container: `torch.save` since 1.6, and TorchScript archives.

One folder holds `data.pkl` and a stored entry for each storage (`data/KEY`); TorchScript adds
`constants.pkl` with `constants/KEY`. The pickles say which tensor is which part of which storage.
Sources: torch/serialization.py and caffe2/serialize/inline_container.cc of PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.storages import Storage, tile
from git_theta_ext.formats.layout.views import View
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.torch.names import find_views
from git_theta_ext.formats.zips.archive import STORED, Entry, read_entries
from git_theta_ext.formats.zips.layout import Assembly

_LOCAL_MAGIC = b"PK\x03\x04"
_SERIALIZATION_ID = ".data/serialization_id"
_PICKLES = (("data.pkl", "data/", ()), ("constants.pkl", "constants/", ("constants",)))
"""Each pickle, the folder of its storages, and what its tensors' names begin with."""

Finer = Callable[[list[View]], list[View]]
"""Makes other views of those that a pickle describes."""

NAME = "torch-zip"


def sniff(head: bytes, source: Source) -> bool:
    """A zip archive whose first entry lies in a folder."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(_LOCAL_MAGIC) and b"/" in head[30 : 30 + length]


def layout(source: Source) -> Layout:
    """Storages as the tensors that lie in them, CRCs derived, all else literal."""
    return _layout(source, derive_id=True)


def layout_of(source: Source, finer: Finer) -> Layout:
    """The same, each tensor as the views that another file makes of it."""
    return _layout(source, derive_id=True, finer=finer)


def inner(source: Source) -> Layout:
    """The same of an archive that lies in an entry of another one, which has a CRC of its own.

    The serialization id is literal: a CRC of a CRC of it would depend on too much.
    """
    return _layout(source, derive_id=False)


def _layout(source: Source, *, derive_id: bool, finer: Finer = list) -> Layout:
    entries = read_entries(source)
    root = entries[0].name.split("/", 1)[0] + "/" if entries else ""
    members = {entry.name.removeprefix(root): entry for entry in entries}
    if "data.pkl" not in members or not all(entry.name.startswith(root) for entry in entries):
        raise FormatError("torch-zip: not one folder with a data.pkl")
    order = members.get("byteorder")
    if order is not None and _content(source, order) != b"little":
        raise FormatError("torch-zip: the tensors are not little-endian")
    remarks: list[str] = []
    storages, views = _storages(source, members, remarks, finer)
    tiled = tile(storages, views)
    identity = members.get(_SERIALIZATION_ID) if derive_id else None
    segments = Assembly(source, entries, tiled.pieces, identity).segments()
    return Layout(NAME, tuple(segments), tiled.aliases, "; ".join(remarks), ties=tiled.ties)


def pickle(source: Source) -> machine.Value:
    """What `torch.save` was given, as inert records.

    Raises:
        FormatError: damaged, or past a limit.
    """
    for entry in read_entries(source):
        if entry.name.partition("/")[2] == "data.pkl":
            return machine.load(_content(source, entry))
    raise FormatError("torch-zip: no data.pkl")


def _content(source: Source, entry: Entry) -> bytes:
    if entry.method != STORED or entry.size > limits.STRUCTURE_BYTES:
        raise FormatError(f"torch-zip: entry {entry.name!r} is compressed or too large")
    return source.read(entry.data_offset, entry.size)


def _storages(
    source: Source, members: dict[str, Entry], remarks: list[str], finer: Finer
) -> tuple[list[Storage], list[list[View]]]:
    """The storages in the order of the file, and the views of each; remarks on limits."""
    storages: list[Storage] = []
    views: list[list[View]] = []
    for pickle, folder, prefix in _PICKLES:
        named = _views(source, members.get(pickle), prefix, remarks, finer)
        for name, entry in members.items():
            key = name.removeprefix(folder)
            if not name.startswith(folder) or not key or "/" in key:
                continue
            if entry.method != STORED:
                raise FormatError(f"torch-zip: storage {name!r} is compressed")
            label = ".".join((*prefix, "storage", key))
            storages.append(Storage(label, entry.data_offset, entry.size))
            views.append(named.get(key, []))
    return storages, views


def _views(
    source: Source,
    entry: Entry | None,
    prefix: tuple[str, ...],
    remarks: list[str],
    finer: Finer,
) -> dict[str, list[View]]:
    """The views that a pickle describes, by storage; none if it is past the machine's limits.

    Its storages are then still split, only without the names of their tensors; `remarks` says so.
    """
    if entry is None:
        return {}
    by_key: dict[str, list[View]] = {}
    try:
        with machine.no_search_for_cycles():
            views = find_views(machine.load(_content(source, entry)), prefix)
        for view in finer(views):
            by_key.setdefault(view.key, []).append(view)
    except BoundError as error:
        remarks.append(error.message)
        return {}
    except FormatError:
        return {}
    return by_key
