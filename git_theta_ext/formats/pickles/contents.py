"""What a checkpoint's file says besides its tensors, read from its skeleton alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Literal, Source
from git_theta_ext.formats.layout.places import skeleton_length
from git_theta_ext.formats.layout.skeleton import Skeleton
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.pickles.machine import Call, Dict, Global, Persistent, Set
from git_theta_ext.formats.zips.archive import STORED, read_entries

_PICKLES = ("data.pkl", "constants.pkl")
_DATA = ("data/", "constants/", ".data/")

Path = tuple[str, ...]
"""The keys that lead to a value from the top of a pickle."""

Leaves = dict[Path, tuple[str, object]]
"""Plain values of a pickle by their paths, each with the name of its type."""


class DescribedFile:
    """The file that a skeleton describes, zeros for its tensors; a `formats.base.Source`."""

    def __init__(self, skeleton: Skeleton, lengths: Mapping[str, int]) -> None:
        """`lengths` are the bytes of each tensor, by name."""
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        position = 0
        for segment in skeleton.segments:
            if isinstance(segment, Literal):
                self._pieces.append(segment.data)
                self._starts.append(position)
            position += skeleton_length(segment, lengths)
        self.size = position

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes of the file.

        Raises:
            FormatError: it has no such bytes.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"bytes {offset} to {offset + length} of {self.size}")
        found = bytearray(length)
        # A reader asks for every member: to look at all pieces each time would be square.
        begin = max(0, bisect_right(self._starts, offset) - 1)
        for number in range(begin, bisect_left(self._starts, offset + length)):
            start, data = self._starts[number], self._pieces[number]
            first, stop = max(start, offset), min(start + len(data), offset + length)
            if first < stop:
                found[first - offset : stop - offset] = data[first - start : stop - start]
        return bytes(found)

    def literals(self, start: int, stop: int) -> bytes:
        """What lies between two offsets and is no tensor's, nor follows from others."""
        found = []
        first = max(0, bisect_right(self._starts, start) - 1)
        for number in range(first, bisect_left(self._starts, stop)):
            at, data = self._starts[number], self._pieces[number]
            found.append(data[max(0, start - at) : max(0, stop - at)])
        return b"".join(found)


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive says besides its tensors: its pickles' leaves, its other small files."""

    leaves: Leaves
    files: Mapping[str, bytes]


def contents(skeleton: Skeleton, lengths: Mapping[str, int]) -> Contents:
    """The pickles and small files of a torch archive.

    Args:
        skeleton: its structure.
        lengths: bytes of each tensor, by name.

    Raises:
        FormatError: it cannot be read, or is past the pickle machine's limits.
    """
    return contents_of(DescribedFile(skeleton, lengths))


def contents_of(source: Source) -> Contents:
    """The pickles and small files of a torch archive; errors as for `contents`."""
    leaves: Leaves = {}
    files: dict[str, bytes] = {}
    for entry in read_entries(source):
        name = entry.name.partition("/")[2]
        if entry.method != STORED:
            raise FormatError(f"{name} is compressed")
        if name in _PICKLES:
            value = machine.load(source.read(entry.data_offset, entry.size))
            leaves.update(((name, *path), leaf) for path, leaf in leaves_of(value))
        elif not name.startswith(_DATA):
            files[name] = source.read(entry.data_offset, entry.size)
    return Contents(leaves, files)


def leaves_of(top: object) -> Iterator[tuple[Path, tuple[str, object]]]:
    """Every plain value of a pickle with its path; a shared object is followed once."""
    pending: list[tuple[Path, object]] = [((), top)]
    seen: dict[int, tuple[int, object]] = {}
    steps = 0
    for _ in range(limits.PICKLE_VALUES):
        if not pending:
            return
        path, value = pending.pop()
        if value is None or isinstance(value, bool | int | float | str | bytes | bytearray):
            # repr tells 0.0 from -0.0 and makes a NaN equal to itself.
            yield path, (type(value).__name__, repr(value) if isinstance(value, float) else value)
            continue
        if isinstance(value, Global):
            yield path, ("global", (value.module, value.name))
            continue
        if id(value) in seen:
            yield path, ("seen", seen[id(value)][0])
            continue
        seen[id(value)] = (len(seen), value)
        children = list(_children(value))
        steps += len(children) * (len(path) + 1)
        if steps > limits.PICKLE_PATH_STEPS:
            raise FormatError(f"a pickle whose paths have more than {steps} steps")
        yield path, (type(value).__name__, len(children))
        pending.extend(((*path, key), child) for key, child in reversed(children))
    raise FormatError(f"a pickle of more than {limits.PICKLE_VALUES} values")


def _children(value: object) -> Iterator[tuple[str, object]]:
    """What a value directly holds, each with its step in the path; nothing for a plain value."""
    if isinstance(value, Dict):
        yield from _pairs(value.pairs)
    elif isinstance(value, list | tuple):
        yield from ((str(number), item) for number, item in enumerate(value))
    elif isinstance(value, Set):
        yield from ((str(number), item) for number, item in enumerate(value.items))
    elif isinstance(value, Persistent):
        yield "persistent", value.key
    elif isinstance(value, Call):
        yield "()", value.function
        yield "args", value.args
        yield "kwargs", value.kwargs
        yield from ((f"item {number}", item) for number, item in enumerate(value.items))
        yield from _pairs(value.pairs)
        for state in value.states:
            # An object's state is a dictionary of its attributes: no step of the path of its own.
            yield from _pairs(state.pairs) if isinstance(state, Dict) else [("state", state)]


def _pairs(pairs: list[tuple[object, object]]) -> Iterator[tuple[str, object]]:
    for number, (key, item) in enumerate(pairs):
        plain = isinstance(key, str | int) and not isinstance(key, bool)
        if not plain:
            yield f"key {number}", key
        yield (f"{key}" if plain else f"value {number}"), item
