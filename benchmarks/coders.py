#!/usr/bin/env python3
"""Speeds and sizes of the coders and updates, beside what others do with the same bytes.

    python benchmarks/coders.py [--quick] [--peers]

Whole tensors and differences of normally distributed weights, one thread. Shares are of the raw
bytes, speeds in MB of raw bytes a second, the median of three runs; every decoding is compared bit
for bit. Beside `dense`: zstd on byte planes. Beside `delta`: XOR with the old bytes, then zstd
on byte planes (as BitX does). `--peers` adds ZipNN where it is installed (`pip install zipnn`).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ml_dtypes
import numpy as np
import zstandard

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates import get
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.prediction import predict
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.parameter_file import parse

NUMPY: dict[str, Any] = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}
RUNS = 7


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the least of the seconds."""
    seconds = []
    for _ in range(RUNS):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def report(what: str, raw: int, size: int, encode: float | None, decode: float | None) -> None:
    """One line of the table."""
    speeds = "".join(f"{raw / s / 1e6:>10.0f}" if s else f"{'':>10}" for s in (encode, decode))
    print(f"{what:<34}{size / raw:>9.4f}{speeds}", flush=True)


def run_update(what: str, kind: str, spec: BlockSpec, new: Values, base: Values) -> None:
    """Encode and decode with an update of this package."""
    update = get(kind)
    encoded, encode = timed(lambda: update.encode(spec, new, base))
    data = b"".join(encoded.pieces)
    run_decode(what, (kind, data), spec, (new, base), encode)


def run_decode(
    what: str,
    stored: tuple[str, bytes],
    spec: BlockSpec,
    values: tuple[Values, Values],
    encode: float | None,
) -> None:
    """Decode a parameter file, of a kind, and compare with the new of (new, old) values."""
    (kind, data), (new, base) = stored, values
    update = get(kind)
    seconds = []
    for _ in range(RUNS):
        old = base.copy()  # may be written to
        start = time.process_time()
        found = update.decode(spec, parse(data), old if update.needs_base else None)
        seconds.append(time.process_time() - start)
        if found.tobytes() != new.tobytes():
            raise SystemExit(f"{what} did not come back bit for bit")
    report(what, new.nbytes, len(data), encode, min(seconds))


def run_planes(what: str, new: Values, base: Values | None) -> None:
    """zstd 3 on byte planes, of the values or of their XOR with the old ones."""

    def encode() -> list[bytes]:
        values = new if base is None else new ^ base
        planes = values.view(np.uint8).reshape(-1, values.itemsize).T
        coder = zstandard.ZstdCompressor(level=3)
        return [coder.compress(np.ascontiguousarray(plane).data) for plane in planes]

    def decode() -> Values:
        coder = zstandard.ZstdDecompressor()
        planes = [np.frombuffer(coder.decompress(frame), np.uint8) for frame in frames]
        values: Values = np.stack(planes, axis=1).reshape(-1).view(new.dtype)
        return values if base is None else values ^ base

    frames, encoding = timed(encode)
    found, decoding = timed(decode)
    if found.tobytes() != new.tobytes():
        raise SystemExit(f"{what} did not come back bit for bit")
    report(what, new.nbytes, sum(map(len, frames)), encoding, decoding)


def run_zipnn(what: str, name: str, new: Values) -> None:
    """ZipNN's coder for whole tensors."""
    import zipnn

    types = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    coder = zipnn.ZipNN(bytearray_dtype=types[name], threads=1)
    packed, encode = timed(lambda: coder.compress(bytearray(new.tobytes())))
    found, decode = timed(lambda: coder.decompress(packed))
    if bytes(found) != new.tobytes():
        raise SystemExit(f"{what} did not come back bit for bit")
    report(what, new.nbytes, len(packed), encode, decode)


def low_rank(name: str, side: int, rank: int) -> None:
    """Decode a change of given factors: 16-bit ones for 16-bit weights, else of 30 bits."""
    random = np.random.default_rng(3)
    spec = BlockSpec(DTYPES[name], (side, side))
    base = bits(name, random.standard_normal((side, side), np.float32) * 0.02)
    width = 26 if name == "F32" else 15
    left, right = (
        np.rint(random.standard_normal(shape) * 2.0 ** (width - 3))
        for shape in ((side, rank), (rank, side))
    )
    exponent = int(np.log2(0.0002 / rank**0.5)) - 2 * (width - 3)
    order = "rounded" if name == "F32" else "sum"
    factors = Factors(left, right, exponent, order)
    new = predict(spec.dtype, base.copy(), factors)
    # Rounding inside a merge leaves some entries a step away.
    places = np.arange(0, len(new), 50)
    new[places] += 1
    data = b"".join(LowRank().encode_factors(spec, new, base, factors).pieces)
    run_decode(f"low-rank {name}, rank {rank}", ("low-rank", data), spec, (new, base), None)


def bits(name: str, numbers: np.ndarray) -> Values:
    """Flat raw bits of numbers rounded to a dtype."""
    flat: Values = np.ascontiguousarray(numbers.astype(NUMPY[name])).reshape(-1)
    return flat.view(values_dtype(DTYPES[name]))


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="matrices of 1024², not 2048²")
    parser.add_argument("--peers", action="store_true", help="beside ZipNN")
    arguments = parser.parse_args()
    side = 1024 if arguments.quick else 2048
    random = np.random.default_rng(0)
    weights = random.standard_normal((side, side), np.float32) * np.float32(0.02)
    tuned = weights + random.standard_normal((side, side), np.float32) * np.float32(0.0007)
    few = weights.copy()
    few.ravel()[::100] *= np.float32(1.5)
    scaled = weights * (1 + 0.1 * random.standard_normal((side, 1), np.float32))
    print(f"{side}² normal weights{'':<16}{'share':>9}{'encode':>10}{'decode':>10}")
    for name, dtype in NUMPY.items():
        spec = BlockSpec(DTYPES[name], (side, side))
        base, new = bits(name, weights), bits(name, tuned)
        run_update(f"dense {name}", "dense", spec, new, base)
        run_planes(f"  byte planes, zstd 3 {name}", new, None)
        if arguments.peers:
            run_zipnn(f"  ZipNN {name}", name, new)
        run_update(f"delta {name}", "delta", spec, new, base)
        run_planes(f"  XOR, byte planes, zstd 3 {name}", new, base)
        run_update(f"sparse {name}, 1 % of entries", "sparse", spec, bits(name, few), base)
        rounded = weights.astype(dtype).astype(np.float32) * (scaled / weights)[:, :1]
        run_update(f"scale {name}", "scale", spec, bits(name, rounded), base)
        low_rank(name, side, 16)


if __name__ == "__main__":
    main()
