"""The three coders: byte planes, pcodec and zstd, each bounded when it decodes hostile input.

Which coder serves what was measured (benchmarks/coders.py): for whole tensors, planes with zstd as
a Huffman coder are as small as anything and several times faster; for differences pcodec is smaller
and faster than planes. Compressed sizes are checked against the manifest's shape before anything
is allocated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.updates.residual import SLICE

_WORTH = 0.97
"""A plane or chunk is stored compressed only if that saves three percent."""
_SAMPLE = 16_384


# -- zstd ------------------------------------------------------------------------------------------


_LONG_BYTES = 2 << 20
"""Content from which on zstd looks for long matches apart. Below they cost more than they find: a
chunk of 2 MiB of a CatBoost model with more trees takes 84 kB with it, 10 kB without."""


def compress(data: bytes | memoryview, level: int, prefix: bytes | None = None) -> bytes:
    """One zstd frame that says its content's size; `prefix` is content that both sides know."""
    window = max(10, (len(data) + len(prefix or b"")).bit_length())
    options: dict[str, Any] = {"write_content_size": True, "window_log": min(window, 27)}
    if prefix is not None:
        options["enable_ldm"] = len(data) > _LONG_BYTES
    parameters = zstandard.ZstdCompressionParameters.from_level(level, **options)
    dictionary = None
    if prefix is not None:
        dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    coder = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)
    return coder.compress(data)


def decompress(frame: memoryview, size: int, prefix: bytes | None = None) -> bytes:
    """The content of a zstd frame, which must be of exactly `size` bytes.

    Raises:
        CorruptObjectError: it is not; nothing larger than `size` is allocated to find out.
    """
    try:
        if zstandard.frame_content_size(frame) != size:
            raise CorruptObjectError(f"a compressed part does not hold {size} bytes")
        dictionary = None
        if prefix is not None:
            dictionary = zstandard.ZstdCompressionDict(
                prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT
            )
        data = _decompressor(dictionary).decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise CorruptObjectError(f"a compressed part is damaged: {error}") from error
    if len(data) != size:
        raise CorruptObjectError(f"a compressed part holds {len(data)} bytes, expected {size}")
    return data


_reused = threading.local()


def _decompressor(dictionary: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdDecompressor:
    """A decompressor; without a dictionary always the same one of this thread."""
    if dictionary is not None:
        return zstandard.ZstdDecompressor(
            dict_data=dictionary, max_window_size=limits.ZSTD_WINDOW_BYTES
        )
    if not hasattr(_reused, "decompressor"):
        _reused.decompressor = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW_BYTES)
    found: zstandard.ZstdDecompressor = _reused.decompressor
    return found


# -- byte planes -----------------------------------------------------------------------------------


def _compressor(repeats: bool) -> zstandard.ZstdCompressor:
    """The compressor of this thread that looks for repeats, or the one that does not."""
    name = "general" if repeats else "huffman"
    if not hasattr(_reused, name):
        setattr(_reused, name, _general() if repeats else _huffman())
    found: zstandard.ZstdCompressor = getattr(_reused, name)
    return found


def _huffman() -> zstandard.ZstdCompressor:
    """zstd made to code single bytes by frequency and hardly to look for repeats."""
    return zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            1, strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, window_log=17,
            write_content_size=True,
        )
    )  # fmt: skip


def _general() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=3, write_content_size=True)


def packed_size(sample: bytes | memoryview) -> int:
    """The length that a sample of bytes has with zstd's usual level, by a compressor that is kept.

    A new one for each of thousands of tensors takes as long as 36 kB take to be compressed.
    """
    return len(_compressor(repeats=True).compress(sample))


def encode_planes(
    values: Values, rotate: bool, repeats: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split values into planes of equal significance and compress those where it pays.

    Args:
        values: raw bits, flat.
        rotate: move the sign to the lowest bit first, so that an 8-bit exponent fills a plane.
        repeats: look for repeated sequences too (integers), not for frequencies alone (floats).

    Returns:
        The settings and the parts for `decode_planes`.
    """
    width = values.itemsize
    coder = _compressor(repeats)
    if len(values) <= min(_SAMPLE, SLICE):
        return _encode_short_planes(values, rotate, coder)
    packed = [_worth_packing(values, plane, rotate, coder) for plane in range(width)]
    frames: list[list[bytes]] = [[] for _ in range(width)]
    raw = [np.empty(0 if yes else len(values), np.uint8) for yes in packed]
    for start in range(0, len(values), SLICE):
        piece = values[start : start + SLICE]
        piece = _rotated(piece) if rotate else piece
        spare, bytewise = np.empty_like(piece), np.empty(len(piece), np.uint8)
        for plane in range(width):
            out = bytewise if packed[plane] else raw[plane][start : start + SLICE]
            _take_plane(piece, plane, spare, out)
            if packed[plane]:
                frames[plane].append(coder.compress(raw_bytes(out)))
    parts: dict[str, Any] = {}
    for plane, pieces in enumerate(frames):
        if packed[plane]:
            parts[f"plane{plane}"] = b"".join(pieces)
            parts[f"plane{plane}.lengths"] = np.array([len(piece) for piece in pieces], np.uint32)
        else:
            parts[f"plane{plane}"] = raw[plane]
    settings = {"coder": "planes", "packed": [plane for plane in range(width) if packed[plane]]}
    return ({**settings, "rotate": True} if rotate else settings), parts


def _encode_short_planes(
    values: Values, rotate: bool, coder: zstandard.ZstdCompressor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `encode_planes`, of values that are their own sample: each plane is compressed once."""
    piece = _rotated(values) if rotate else values
    spare = np.empty_like(piece)
    parts: dict[str, Any] = {}
    packed = []
    for plane in range(values.itemsize):
        data = np.empty(len(piece), np.uint8)
        _take_plane(piece, plane, spare, data)
        frame = coder.compress(raw_bytes(data))
        if len(frame) < _WORTH * len(data):
            packed.append(plane)
            parts[f"plane{plane}"] = frame
            parts[f"plane{plane}.lengths"] = np.array([len(frame)], np.uint32)
        else:
            parts[f"plane{plane}"] = data
    settings: dict[str, Any] = {"coder": "planes", "packed": packed}
    return ({**settings, "rotate": True} if rotate else settings), parts


def _rotated(values: Values) -> Values:
    """The values with their top bit moved below the lowest."""
    one, rest = values.dtype.type(1), values.dtype.type(values.itemsize * 8 - 1)
    rotated: Values = values << one
    rotated |= values >> rest
    return rotated


def _take_plane(values: Values, plane: int, spare: Values, out: NDArray[np.uint8]) -> None:
    """One byte of each value, the least significant being plane 0.

    A shift and a cast run on vectors of the processor; taking every fourth byte does not.
    """
    if plane:
        np.right_shift(values, values.dtype.type(8 * plane), out=spare)
        values = spare
    np.copyto(out, values, casting="unsafe")


def _worth_packing(
    values: Values, plane: int, rotate: bool, coder: zstandard.ZstdCompressor
) -> bool:
    """Whether a plane compresses, judged by samples spread over the tensor."""
    sample = sample_of(values, _SAMPLE)
    sample = _rotated(sample) if rotate else sample
    data = np.empty(len(sample), np.uint8)
    _take_plane(sample, plane, np.empty_like(sample), data)
    return len(coder.compress(raw_bytes(data))) < _WORTH * len(data)


def sample_of(values: Values, count: int, runs: int = 8) -> Values:
    """At most about `count` values in a few contiguous runs spread evenly over the tensor."""
    if len(values) <= count:
        return values
    length = count // runs
    starts = [(len(values) - length) * run // (runs - 1) for run in range(runs)]
    return np.concatenate([values[start : start + length] for start in starts])


def decode_planes(settings: Any, parts: Any, out: Values) -> None:
    """Undo `encode_planes` into `out`, whose length and dtype say what is expected.

    Raises:
        CorruptObjectError: parts of another size, or damaged.
    """
    if 0 < len(out) <= SLICE:
        _decode_short_planes(settings, parts, out)
        return
    planes = _Planes(settings, parts, out.dtype, len(out))
    for number in range(-(-len(out) // SLICE)):
        planes.decode(number, out[number * SLICE : (number + 1) * SLICE])


def _decode_short_planes(settings: Any, parts: Any, out: Values) -> None:
    """As `decode_planes`, of a single slice, without what serves many.

    Bytes that are written to every fourth place take as long as the pairs of `_Joiner`, and no
    temporaries, of which each would be new for each of thousands of tensors.
    """
    packed, count = set(settings["packed"]), len(out)
    bytewise = out.view(np.uint8).reshape(count, out.itemsize)
    for plane in range(out.itemsize):
        data: bytes | memoryview = parts[f"plane{plane}"]
        if plane in packed:
            (stream,) = slices(parts[f"plane{plane}"], parts[f"plane{plane}.lengths"], count)
            data = decompress(stream, count)
        elif len(data) != count:
            raise CorruptObjectError(f"plane {plane} has {len(data)} bytes, expected {count}")
        bytewise[:, plane] = np.frombuffer(data, np.uint8)
    if settings.get("rotate", False):
        top = out << out.dtype.type(out.itemsize * 8 - 1)
        np.right_shift(out, out.dtype.type(1), out=out)
        np.bitwise_or(out, top, out=out)


def decode_some_planes(
    settings: Any, parts: Any, dtype: np.dtype[Any], count: int, numbers: Sequence[int]
) -> list[Values]:
    """Some slices of `count` values, by their numbers; the others are not looked at.

    Args:
        settings, parts: what `encode_planes` gave, the parts as raw bytes.
        dtype: the unsigned integers that the values are.
        count: how many there are in all.
        numbers: which slices of `SLICE` values to decode, counted from 0; the last one may be
            shorter.

    Raises:
        CorruptObjectError: see `decode_planes`.
    """
    planes = _Planes(settings, parts, dtype, count)
    found = []
    for number in numbers:
        out: Values = np.empty(min(SLICE, count - number * SLICE), dtype)
        planes.decode(number, out)
        found.append(out)
    return found


class _Planes:
    """The planes of a parameter file, slice by slice."""

    def __init__(self, settings: Any, parts: Any, dtype: np.dtype[Any], count: int) -> None:
        packed = set(settings["packed"])
        self._rotate = bool(settings.get("rotate", False))
        self._sources: list[tuple[bool, list[memoryview]]] = []
        for plane in range(dtype.itemsize):
            data = parts[f"plane{plane}"]
            if plane in packed:
                streams = list(slices(data, parts[f"plane{plane}.lengths"], count))
            elif len(data) == count:
                streams = [data[start : start + SLICE] for start in range(0, count, SLICE)]
            else:
                raise CorruptObjectError(f"plane {plane} has {len(data)} bytes, expected {count}")
            self._sources.append((plane in packed, streams))
        self._join = _Joiner(dtype, min(count, SLICE))

    def decode(self, number: int, out: Values) -> None:
        """One slice into `out`."""
        planes: list[NDArray[Any]] = []
        for packed, streams in self._sources:
            data: bytes | memoryview = streams[number]
            if packed:
                data = decompress(streams[number], len(out))
            planes.append(np.frombuffer(data, np.uint8))
        self._join(planes, out, self._rotate)


class _Joiner:
    """Puts planes together again, pair by pair, in temporaries that stay in the cache.

    Casts and shifts run on vectors of the processor; writing each plane to every fourth byte
    does not, and takes half as long again.
    """

    def __init__(self, dtype: np.dtype[Any], length: int) -> None:
        """Values of `dtype`, at most `length` of them at once."""
        self._widths = [np.dtype(f"<u{size}") for size in (1, 2, 4, 8) if size <= dtype.itemsize]
        self._room = [
            [np.empty(length, width) for _ in range(dtype.itemsize // width.itemsize)]
            for width in self._widths[1:]
        ]
        self._spare = np.empty(length, dtype)

    def __call__(self, planes: list[NDArray[Any]], out: Values, rotate: bool) -> None:
        """Join `planes`, the least significant first, into `out`; undo the rotation of the sign."""
        for width, room in zip(self._widths, self._room, strict=False):
            planes = [
                self._pair(planes[2 * at], planes[2 * at + 1], into[: len(out)], width.itemsize * 8)
                for at, into in enumerate(room)
            ]
        if not rotate:
            out[:] = planes[0]
            return
        spare = self._spare[: len(out)]
        one, rest = out.dtype.type(1), out.dtype.type(out.itemsize * 8 - 1)
        np.left_shift(planes[0], rest, out=spare)
        np.right_shift(planes[0], one, out=out)
        np.bitwise_or(out, spare, out=out)

    @staticmethod
    def _pair(low: NDArray[Any], high: NDArray[Any], into: NDArray[Any], bits: int) -> NDArray[Any]:
        into[:] = high
        np.left_shift(into, into.dtype.type(bits), out=into)
        np.bitwise_or(into, low, out=into)
        return into


def slices(data: memoryview, lengths: memoryview, count: int) -> Iterator[memoryview]:
    """The streams of consecutive slices of `count` elements.

    Raises:
        CorruptObjectError: their number or their lengths in all are not what they must be.
    """
    if 0 < count <= SLICE and len(lengths) == 4 and int.from_bytes(lengths, "little") == len(data):
        yield data
        return
    sizes = np.frombuffer(lengths, "<u4") if len(lengths) % 4 == 0 else np.zeros(0, "<u4")
    if len(sizes) != -(-count // SLICE) or int(sizes.sum(dtype=np.uint64)) != len(data):
        raise CorruptObjectError(
            f"{len(sizes)} slices of {int(sizes.sum(dtype=np.uint64))} bytes in all; expected "
            f"{-(-count // SLICE)} slices of {len(data)} bytes"
        )
    position = 0
    for size in sizes.tolist():
        yield data[position : position + size]
        position += size


# -- pcodec ----------------------------------------------------------------------------------------

PCO_LEVEL = 6
"""Level 8 saves half a percent more and takes a third longer."""


def compress_numbers(values: Values, level: int = PCO_LEVEL) -> bytes:
    """A pcodec stream of unsigned integers; empty if all are zero.

    Of two checkpoints' differences level 4 makes 3 % more than level 8, in two thirds of the time.
    """
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

    if not values.any():
        return b""
    config = ChunkConfig(
        compression_level=level,
        mode_spec=ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        enable_8_bit=values.itemsize == 1,
    )
    return bytes(standalone.simple_compress(values, config))


def decompress_numbers(stream: memoryview, out: Values) -> None:
    """Undo `compress_numbers` into `out`, which must be filled exactly.

    Only through the entry point that never allocates by what the stream claims: a crafted stream
    of 2.6 KB makes the other one abort the process.

    Raises:
        CorruptObjectError: the stream holds other numbers than these, or is damaged.
    """
    from pcodec import standalone

    if not len(stream):
        out.fill(0)
        return
    try:
        progress = standalone.simple_decompress_into(bytes(stream), out)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CorruptObjectError(f"a pcodec stream is damaged: {error}") from error
    except BaseException as error:
        # What Rust calls a panic comes as an exception that is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptObjectError("a pcodec stream is damaged") from error
    if progress.n_processed != len(out) or not progress.finished:
        raise CorruptObjectError(
            f"a pcodec stream holds {progress.n_processed} numbers or more, expected {len(out)}"
        )
