"""Which blocks and tensors many manifests have, told from their texts without parsing each.

To find the one manifest of a hundred that has a block, only the hashes in them are looked at: eight
bytes of each are kept. A manifest is parsed where it has been found to have one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import quote
from git_theta_ext.core.tensors import TensorInfo, cut
from git_theta_ext.manifest.model import HEADS, LATEST, Block, Entry, Manifest
from git_theta_ext.manifest.text import parse_manifest

Key = tuple[str, str]
"""The SHA-256 of a block, and its dtype or `SKELETON`."""
SKELETON = "skeleton"
"""Stands for the dtype in the keys of skeletons."""
Form = tuple[str, int, int]
"""Element type and number of elements of a tensor, and the number of a block in it."""
Traits = frozenset[bytes]
"""Which tensors there are: name, element type, and shape in memory of each, as text."""

_BLOCK = re.compile(rb"sha256:([0-9a-f]{64})\n")
"""What a block's own hash looks like; after that of an object comes its size."""
_TENSOR = re.compile(rb"^tensor (.+\n  [A-Z0-9_]+ \[[0-9, ]*\])( order=[0-9,]+)?", re.MULTILINE)
_GAP = b"\n\n"
_END = b"\n\nend\n"
_EMPTY = HEADS[LATEST] + b"format none\nskeleton\n  U8 [0] inline:\n\n"
"""What makes a manifest of the lines of one entry."""
_HASH_BYTES = 32
_MOST_KIN = 8
"""Blocks of one form that a block without a predecessor is compared with."""
_MOST_OWNERS = 32
"""Manifests that are parsed to find them."""


class BlockIndex:
    """Finds blocks in manifests by their hash."""

    def __init__(
        self, texts: Iterable[tuple[str, bytes]], text_of: Callable[[str], bytes | None]
    ) -> None:
        """Look at the texts, one after the other.

        Args:
            texts: manifests by a name; of equal blocks the first is found.
            text_of: gives the text of a name again.
        """
        self._names: list[str] = []
        self._text_of = text_of
        prefixes, places = [], []
        for name, text in texts:
            found = list(_BLOCK.finditer(text))
            prefixes.append(_prefixes([one[1] for one in found]))
            place = np.empty((len(found), 2), np.uint32)
            place[:, 0], place[:, 1] = len(self._names), [one.start() for one in found]
            places.append(place)
            self._names.append(name)
        joined = np.concatenate([*prefixes, np.empty(0, "<u8")])
        order = np.argsort(joined, kind="stable")
        self._prefixes = joined[order]
        self._places = np.concatenate([*places, np.empty((0, 2), np.uint32)])[order]

    def get(self, key: Key) -> Block | None:
        """The first block with a hash and dtype."""
        if not len(self._prefixes):
            return None
        prefix = _prefixes([key[0].encode("ascii")])[0]
        for at in range(int(np.searchsorted(self._prefixes, prefix)), len(self._prefixes)):
            if self._prefixes[at] != prefix:
                break
            owner, start = map(int, self._places[at])
            block = self._parsed(self._names[owner], start).get(key)
            if block is not None:
                return block
        return None

    def _parsed(self, name: str, at: int) -> dict[Key, Block]:
        """The blocks of the entry of a manifest that a place in its text lies in."""
        text = self._text_of(name) or b""
        start, end = text.rfind(_GAP, 0, at) + len(_GAP), text.find(_GAP, at)
        begun = _EMPTY + text[start:end] if start >= len(_GAP) else text[:end]
        try:
            return blocks_of(parse_manifest(begun + _END))
        except ManifestError:
            return {}


def _prefixes(digits: list[bytes]) -> NDArray[np.uint64]:
    """The first bytes of some hashes, as numbers."""
    hashes = np.frombuffer(bytes.fromhex(b"".join(digits).decode("ascii")), np.uint8)
    first = hashes.reshape(-1, _HASH_BYTES)[:, : np.uint64().itemsize]
    return np.ascontiguousarray(first).view("<u8")[:, 0]


class FormIndex:
    """Finds blocks in manifests by what they look like from outside."""

    def __init__(
        self, texts: Iterable[tuple[str, bytes]], parsed: Callable[[str], Manifest | None]
    ) -> None:
        """Look at the texts, one after the other; `parsed` gives the manifest of a name."""
        self._names: list[str] = []
        self._parsed = parsed
        self._having: dict[tuple[str, int], list[int]] = {}
        self._found: dict[Form, list[Block]] = {}
        for name, text in texts:
            for form in {_form_in(trait) for trait, _ in _TENSOR.findall(text)}:
                owners = self._having.setdefault(form, [])
                if len(owners) < _MOST_OWNERS:
                    owners.append(len(self._names))
            self._names.append(name)

    def find(self, forms: Iterable[Form]) -> dict[Form, list[Block]]:
        """A few different blocks of each form; each manifest that has some is parsed once."""
        wanted = list(dict.fromkeys(forms))
        lacking: dict[Form, dict[str, Block]] = {
            form: {} for form in wanted if form not in self._found
        }
        owners = {number for form in lacking for number in self._having.get(form[:2], ())}
        for number in sorted(owners):
            manifest = self._parsed(self._names[number])
            for entry in () if manifest is None else manifest.entries:
                if entry.opaque:
                    continue
                for position, block in enumerate(entry.blocks):
                    alike = lacking.get(form_of(entry.tensor, position))
                    if alike is not None and block.chain and len(alike) < _MOST_KIN:
                        alike.setdefault(block.sha256, block)
        self._found.update((form, list(alike.values())) for form, alike in lacking.items())
        return {form: self._found[form] for form in wanted}


def form_of(tensor: TensorInfo, position: int) -> Form:
    """What a block of a tensor looks like from outside."""
    return tensor.dtype.name, tensor.count, position


def _form_in(trait: bytes) -> tuple[str, int]:
    head, _, shape = trait[:-1].rpartition(b" [")
    extents = map(int, shape.split(b", ")) if shape else ()
    return head.rpartition(b" ")[2].decode("ascii"), math.prod(extents)


def blocks_of(manifest: Manifest) -> dict[Key, Block]:
    """All blocks of a manifest that are stored as objects; of equal ones the first."""
    found: dict[Key, Block] = {}
    if manifest.skeleton.chain:
        found[manifest.skeleton.sha256, SKELETON] = manifest.skeleton
    for entry in manifest.entries:
        dtype = dtype_of(entry)
        for block in entry.blocks:
            if block.chain:
                found.setdefault((block.sha256, dtype), block)
    return found


def dtype_of(entry: Entry) -> str:
    """The dtype of the blocks of an entry."""
    dtype = entry.tensor.dtype
    return dtype.name if dtype.bits % 8 == 0 else next(cut(entry.tensor)).dtype.name


class TensorIndex:
    """Finds the manifest that shares most tensors with some others."""

    def __init__(self, texts: Iterable[tuple[str, bytes]]) -> None:
        """Look at the texts of manifests, by a name; of equals the first is found.

        The checkpoints of a run have the same tensors, so what is held of them is held once.
        """
        self._names: dict[Traits, str] = {}
        for name, text in texts:
            self._names.setdefault(_traits_in(text), name)
        self._all = list(self._names)

    @cached_property
    def _having(self) -> dict[bytes, list[int]]:
        """The numbers of those that have a tensor."""
        found: dict[bytes, list[int]] = {}
        for number, traits in enumerate(self._all):
            for trait in traits:
                found.setdefault(trait, []).append(number)
        return found

    def nearest(self, tensors: Iterable[TensorInfo]) -> str | None:
        """The manifest that has exactly some tensors; else at least half, and of these the most."""
        wanted = traits_of(tensors)
        if not wanted or not self._all:
            return None
        if wanted in self._names:
            return self._names[wanted]
        least = (len(wanted) + 1) // 2
        # Whatever has that many of them has one of any `len - least + 1`: of the rarest, too.
        rarest = sorted(wanted, key=lambda trait: len(self._having.get(trait, ())))
        counts: Counter[int] = Counter()
        for trait in rarest[: len(wanted) - least + 1]:
            counts.update(self._having.get(trait, ()))
        if not counts:
            return None
        for trait in rarest[len(wanted) - least + 1 :]:
            counts.update(filter(counts.__contains__, self._having.get(trait, ())))
        most = max(counts.values())
        if most < least:
            return None
        return self._names[self._all[min(one for one, count in counts.items() if count == most)]]


def traits_of(tensors: Iterable[TensorInfo]) -> Traits:
    """The traits of some tensors."""
    return frozenset(_trait(one) for one in tensors)


def _trait(tensor: TensorInfo) -> bytes:
    shape = ", ".join(map(str, tensor.memory_shape))
    try:
        name = quote(tensor.name)
    except ValueError:  # no manifest has such a name
        name = ""
    return f"{name}\n  {tensor.dtype.name} [{shape}]".encode("ascii")


def _traits_in(text: bytes) -> Traits:
    """The traits of the tensors of a manifest."""
    found = _TENSOR.findall(text)
    return frozenset(_in_memory(trait, order) if order else trait for trait, order in found)


def _in_memory(trait: bytes, order: bytes) -> bytes:
    """A trait with its shape as the axes lie in memory."""
    head, _, shape = trait[:-1].rpartition(b"[")
    extents = shape.split(b", ")
    axes = [int(axis) for axis in order.removeprefix(b" order=").split(b",")]
    if sorted(axes) != list(range(len(extents))):
        return trait  # no legal manifest
    return head + b"[" + b", ".join(extents[axis] for axis in axes) + b"]"
