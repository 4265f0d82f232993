"""fastText's `.bin`: settings, the dictionary, then the input and the output matrix.

The rows of the input matrix are those of the words, then those of the buckets that n-grams are
hashed to. They are two tensors: the buckets stay comparable when words come or go. Quantised
models (`.ftz`) are not split. Source: fasttext/src, `FastText::saveModel`, `Args::save`,
`Dictionary::save`, `DenseMatrix::save`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import assemble

NAME = "fasttext"
DICTIONARY = "dictionary"
_MAGIC = struct.pack("<i", 793712314)
_VERSIONS = (11, 12)
_SETTINGS = struct.Struct("<12id")
_DICTIONARY = struct.Struct("<3i2q")
_NAMES = ("dim", "ws", "epoch", "minCount", "neg", "wordNgrams", "loss", "model", "bucket", "minn",
          "maxn", "lrUpdateRate", "t")  # fmt: skip
_ENTRY_BYTES = 9
"""After a word and its zero: how often it occurs, and whether it is a label."""
_WINDOW_BYTES = 1 << 20


def sniff(head: bytes, source: Source) -> bool:
    """The magic number and a version."""
    return head[:4] == _MAGIC and int.from_bytes(head[4:8], "little") in _VERSIONS


def facts(source: Source) -> Iterator[tuple[str, str]]:
    """The settings by fastText's own names, and how many words and labels there are.

    Raises:
        FormatError: the file is too short for them.
    """
    values = _SETTINGS.unpack(source.read(8, _SETTINGS.size))
    yield from zip(_NAMES, map(repr, values), strict=True)
    _, words, labels, tokens, _ = _DICTIONARY.unpack(
        source.read(8 + _SETTINGS.size, _DICTIONARY.size)
    )
    yield from (("words", repr(words)), ("labels", repr(labels)), ("tokens", repr(tokens)))


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix of float32: its extents, and where its values begin."""

    rows: int
    columns: int
    offset: int

    @property
    def stop(self) -> int:
        return self.offset + 4 * self.rows * self.columns


def layout(source: Source) -> Layout:
    """Both matrices as tensors, the dictionary as opaque bytes.

    Raises:
        FormatError: damaged, quantised, or past a limit.
    """
    settings = _SETTINGS.unpack(source.read(8, _SETTINGS.size))
    columns, bucket = settings[0], settings[8]
    begin = 8 + _SETTINGS.size
    size, words, labels, _, pruned = _DICTIONARY.unpack(source.read(begin, _DICTIONARY.size))
    if min(size, words, labels) < 0 or words + labels != size:
        raise FormatError(f"fasttext: a dictionary of {size} entries for {words} words")
    if size > limits.FASTTEXT_WORDS:
        raise BoundError(f"fasttext: more than {limits.FASTTEXT_WORDS} entries in the dictionary")
    entries = begin + _DICTIONARY.size
    stop = _end_of_entries(source, entries, size)
    given = _matrix(source, stop + 8 * max(0, pruned), "input")
    output = _matrix(source, given.stop, "output")
    if output.stop != source.size or not columns == given.columns == output.columns:
        raise FormatError(
            f"fasttext: matrices of {given.columns} and {output.columns} columns that end "
            f"at {output.stop} of {source.size}; expected {columns}"
        )
    # Unsupervised models count no labels; all have the words in front.
    known = bucket >= 0 and given.rows == words + bucket
    head = words if known else given.rows
    pieces = []
    if stop > entries:
        info = TensorInfo(DICTIONARY, DTYPES["U8"], (stop - entries,))
        pieces.append(Piece(entries, info.nbytes, Span(info, opaque=True)))
    middle = given.offset + 4 * head * columns
    for name, offset, rows in (
        ("input_matrix.words" if known else "input_matrix", given.offset, head),
        ("input_matrix.buckets", middle, given.rows - head),
        ("output_matrix", output.offset, output.rows),
    ):
        info = TensorInfo(name, DTYPES["F32"], (rows, columns))
        if info.nbytes:
            pieces.append(Piece(offset, info.nbytes, Span(info)))
    if not pieces:
        raise FormatError("fasttext: no matrix has any rows")
    return Layout(NAME, assemble(source, pieces))


def _end_of_entries(source: Source, position: int, count: int) -> int:
    """Where the dictionary's entries end: texts that end with a zero, and what follows each."""
    while count:
        data = source.read(position, min(_WINDOW_BYTES, source.size - position))
        at = 0
        while count and (end := data.find(0, at)) >= 0 and end + _ENTRY_BYTES < len(data):
            at = end + 1 + _ENTRY_BYTES
            count -= 1
        if not at:
            raise FormatError(f"fasttext: no entry of the dictionary ends after offset {position}")
        position += at
    return position


def _matrix(source: Source, offset: int, name: str) -> _Matrix:
    """The matrix that begins at an offset, after the byte that says whether it is quantised."""
    quantised = source.read(offset, 1)[0]
    if quantised:
        raise FormatError(f"fasttext: the {name} matrix at offset {offset} is quantised")
    rows, columns = struct.unpack("<2q", source.read(offset + 1, 16))
    found = _Matrix(rows, columns, offset + 17)
    if rows < 0 or columns < 0 or found.stop > source.size:
        raise FormatError(
            f"fasttext: an {name} matrix of {rows} times {columns} numbers at offset {offset} of "
            f"{source.size}"
        )
    return found
