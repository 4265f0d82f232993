"""What a step of each kind of update costs to decode, beside what the bounds on work count for it.

    python benchmarks/costs.py

Each update is the costliest found of its kind: small in the store, over a block of 2^23 values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import values_dtype
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.work import of_chain
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.coders import compress, compress_numbers
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.structured.numbers import pack

SIDE = 2048
DTYPES_MEASURED = ("F32", "BF16", "F8_E4M3", "I8")


def updates(dtype: str) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Kind, what is special, settings and parts."""
    ones, count = compress_numbers(np.full(SIDE * 256, 2, np.uint32)), SIDE * SIDE
    shape, still = [SIDE, SIDE], compress_numbers(np.zeros(SIDE, np.uint32))
    yield (
        "scale", "", {"coder": "exact", "shape": shape, "axis": 0},
        {"factors": np.ones(1, np.float32).tobytes() + still},
    )  # fmt: skip
    for rank in (1, 256):
        settings = {"coder": "exact", "exponent": -1000, "order": "sum", "rank": rank}
        factor = ones if rank == 256 else compress_numbers(np.full(SIDE, 2, np.uint32))
        yield (
            "low-rank", f"rank {rank}", {**settings, "shape": shape},
            {"left": factor, "right": factor},
        )  # fmt: skip
        yield (
            "scaled-low-rank", f"rank {rank}", {**settings, "shape": shape, "axis": 0},
            {"left": factor, "right": factor,
             "factors": np.ones(1, np.float32).tobytes() + still},
        )  # fmt: skip
    yield from structured(shape)
    for row in (1, 8, SIDE):
        order = compress_numbers(np.zeros(count // row, np.uint32))
        yield "permute", f"rows of {row}", {"coder": "exact", "row": row}, {"order": order}
    table = compress(np.zeros(1, "<i4").tobytes(), 3)
    yield "step", "", {"coder": "exact", "width": 0}, {"table": table}
    yield "sparse", "", {"coder": "list", "count": 0, "split": 0}, {"list": b""}
    there = {"dtype": "F32", "shape": [count]}
    yield "cast", "from F32", {"coder": "exact", "saturate": False, "base": there}, {}
    base = {"dtype": dtype, "shape": shape}
    yield (
        "resize", "", {"coder": "exact", "base": base, "extents": [1, SIDE, SIDE, SIDE]},
        {"added": b""},
    )  # fmt: skip


def structured(shape: list[int]) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """The same of the kinds that are supplied: products of matrices, and rotations."""
    plain: dict[str, Any] = {"coder": "exact", "scaling": 1.0}
    for rank in (1, 128):
        side = {"shape": shape, "rank": rank}
        factor = pack(np.ones((SIDE, rank), np.float32))
        names = ("first.left", "first.right", "second.left", "second.right")
        yield (
            "hadamard", f"rank {rank}", {**plain, "first": side, "second": side},
            dict.fromkeys(names, factor),
        )  # fmt: skip
        yield (
            "kronecker", f"rank {rank}",
            {**plain, "start": 0, "first": {"shape": [1, 1]}, "second": side},
            {"first.left": pack(np.ones(1, np.float32)), "second.left": factor,
             "second.right": factor},
        )  # fmt: skip
    rotation: dict[str, Any] = {"coder": "exact", "columns": SIDE}
    for size, matrices, terms in ((2, 1, 0), (256, 1, 0), (256, 1, 32), (2, 8, 0), (32, 1, 5)):
        skew = np.full((matrices, SIDE // size, size * (size - 1) // 2), 0.01, np.float32)
        more = {"terms": terms} if terms else {}
        yield (
            "orthogonal", f"{matrices} of {size}, {terms}",
            {**rotation, **more, "form": "blocks", "size": size, "blocks": SIDE // size,
             "matrices": matrices}, {"skew": pack(skew)},
        )  # fmt: skip
    for count in (1, 128):
        vectors = np.full((count, SIDE), SIDE**-0.5, np.float32)
        yield (
            "orthogonal", f"{count} reflections",
            {**rotation, "form": "reflections", "vectors": count}, {"vectors": pack(vectors)},
        )  # fmt: skip


def seconds(spec: BlockSpec, files: list[Any]) -> float:
    """The shortest of three times."""
    found = []
    for _ in range(3):
        start = time.thread_time()
        decode_chain(spec, files)
        found.append(time.thread_time() - start)
    return min(found)


def quantised() -> None:
    """Print the rows of `quantise`, whose block has no length of the others'."""
    for name in ("F32", "F16"):
        at, spec = BlockSpec(DTYPES[name], (SIDE, SIDE)), BlockSpec(DTYPES["U8"], (SIDE, 64, 24))
        floats = np.random.default_rng(0).normal(0, 1, SIDE * SIDE).astype(f"f{at.dtype.itemsize}")
        base = parse(b"".join(Dense().encode(at, floats.view(values_dtype(at.dtype))).pieces))
        settings = {"coder": "exact", "type": "Q5_1", "start": 0, "fused": True,
                    "base": {"dtype": name, "shape": [SIDE * SIDE]}}  # fmt: skip
        took = seconds(spec, [base, parse(b"".join(build("quantise", settings, {})))])
        took -= seconds(at, [base])
        refs = [UpdateRef("dense", "a", 1), UpdateRef("quantise", "b", 1)]
        counted = of_chain(spec, refs, {refs[0]: {}, refs[1]: settings}.get).nanoseconds
        counted -= at.nbytes
        per = 1e9 * took / spec.nbytes
        print(f"{'U8':9} {'quantise of ' + name:22} {per:7.2f} {counted / spec.nbytes:9.2f}")


def main() -> None:
    """Print a row for each."""
    print("dtype     update                 ns/byte   counted")
    for name in DTYPES_MEASURED:
        spec = BlockSpec(DTYPES[name], (SIDE, SIDE))
        zeros = np.zeros(SIDE * SIDE, values_dtype(spec.dtype))
        first = parse(b"".join(Dense().encode(spec, zeros).pieces))
        for kind, label, settings, parts in updates(name):
            at = spec
            if kind == "cast":
                at = BlockSpec(DTYPES["F32"], (SIDE * SIDE,))
                wide = Dense().encode(at, np.zeros(SIDE * SIDE, np.uint32))
            base = parse(b"".join(wide.pieces)) if kind == "cast" else first
            try:
                took = seconds(spec, [base, parse(b"".join(build(kind, settings, parts)))])
            except Exception as error:
                print(f"{name:9} {kind + ' ' + label:22} {type(error).__name__}: {error}")
                continue
            took -= seconds(at, [base])
            refs = [UpdateRef("dense", "a", 1), UpdateRef(kind, "b", 1)]
            said = {"b": settings}
            counted = of_chain(spec, refs, lambda ref, known=said: known.get(ref.oid)).nanoseconds
            counted -= of_chain(at, refs[:1], lambda ref: None).nanoseconds
            per = 1e9 * took / spec.nbytes
            print(f"{name:9} {kind + ' ' + label:22} {per:7.2f} {counted / spec.nbytes:9.2f}")
    quantised()


if __name__ == "__main__":
    main()
