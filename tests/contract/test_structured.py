"""The laws of the kinds that are supplied, never found: what was encoded comes back to the bit.

Their predictions are compared with the sentences of docs/parameter-files.md, said with whole
matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext import updates
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, DType
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.updates import choose
from git_theta_ext.updates.arithmetic import narrow, widen
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.low_rank.factors import DTYPES as KNOWN
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.structured import cost, rotation
from git_theta_ext.updates.structured.hadamard import HadamardLaw
from git_theta_ext.updates.structured.kronecker import KroneckerLaw
from git_theta_ext.updates.structured.law import Law, encoded
from git_theta_ext.updates.structured.numbers import pack, unpack
from git_theta_ext.updates.structured.orthogonal import Blocks, OrthogonalLaw, Reflections
from git_theta_ext.updates.structured.precision import as_pays
from git_theta_ext.updates.structured.sides import Side

ROWS, COLUMNS = 40, 24
Wide = NDArray[np.float64]


def numbers(seed: int, *shape: int, size: float = 0.3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, size, shape).astype(np.float32)


def thin(seed: int, rows: int, columns: int, rank: int = 2) -> Side:
    return Side(numbers(seed, rows, rank), numbers(seed + 1, rank, columns))


CORED = Side(numbers(1, ROWS, 2), numbers(2, 3, 8), numbers(3, 2, 3, 3))
UNITS = numbers(5, 3, COLUMNS) / np.linalg.norm(numbers(5, 3, COLUMNS), axis=1, keepdims=True)
LAWS: dict[str, Law] = {
    "kronecker": KroneckerLaw(Side(numbers(1, 8, 6)), thin(2, 5, 4, 1), 1.7, 0, ROWS),
    "kronecker rows": KroneckerLaw(thin(1, 6, 6), Side(numbers(2, 9, 4)), 0.5, 7, ROWS),
    "hadamard": HadamardLaw(thin(1, ROWS, COLUMNS), thin(4, ROWS, COLUMNS, 3), 2.5),
    "hadamard core": HadamardLaw(CORED, thin(4, ROWS, COLUMNS), 1.0),
    "cayley": OrthogonalLaw(Blocks(numbers(1, 1, 6, 6), 4, COLUMNS)),
    "shared": OrthogonalLaw(Blocks(numbers(1, 1, 1, 15), 6, COLUMNS, turned=True)),
    "series": OrthogonalLaw(Blocks(numbers(1, 1, 6, 6, size=0.02), 4, COLUMNS, terms=5)),
    "butterfly": OrthogonalLaw(
        Blocks(numbers(1, 3, 12, 1), 2, COLUMNS), np.abs(numbers(2, ROWS)) + np.float32(0.5)
    ),
    "reflections": OrthogonalLaw(Reflections(UNITS, False)),
    "together": OrthogonalLaw(Reflections(UNITS, True)),
}


def bits(dtype: DType, seed: int) -> Values:
    """Ordinary weights."""
    floats = numbers(seed, ROWS * COLUMNS)
    return narrow(dtype, floats, np.zeros(len(floats), values_dtype(dtype)))


# -- by hand ---------------------------------------------------------------------------------------


def matrix(side: Side) -> Wide:
    """The product of a side, as exactly as float64 has it."""
    if side.right is None:
        return side.left.astype(float)
    right = side.right.astype(float)
    if side.core is not None:
        right = np.einsum("ijk,jr->irk", side.core.astype(float), right).reshape(side.rank, -1)
    return side.left.astype(float) @ right


def blocks_of(law: Blocks) -> list[Wide]:
    """Each factor of the rotation as one matrix that rows are multiplied by from the right."""
    found = []
    for number, above in enumerate(law.skew):
        whole = np.zeros((COLUMNS, COLUMNS))
        count = COLUMNS // law.size
        for block in range(count):
            skew = np.zeros((law.size, law.size))
            skew[np.triu_indices(law.size, 1)] = above[block % len(above)]
            skew -= skew.T
            one = np.eye(law.size)
            if law.terms:
                made = one + 2 * sum(np.linalg.matrix_power(skew, n) for n in range(1, 4))
                made = made + np.linalg.matrix_power(skew, 4)
            else:
                made = (one - skew) @ np.linalg.inv(one + skew)
            some = slice(block * law.size, (block + 1) * law.size)
            whole[some, some] = made.T if law.turned else made
        order = np.eye(COLUMNS)
        if len(law.skew) > 1:
            places = rotation.butterfly(COLUMNS, count >> number, law.size // 2)
            order = order[:, places]
        found.append(order.T @ whole @ order)
    return found


def by_hand(law: Law, dtype: DType, old: Values) -> Values:
    wide = widen(dtype, old).astype(float).reshape(ROWS, COLUMNS)
    if isinstance(law, HadamardLaw):
        wide = wide + matrix(law.first) * matrix(law.second) * law.scaling
    elif isinstance(law, KroneckerLaw):
        whole = np.kron(matrix(law.first), matrix(law.second)) * law.scaling
        wide = wide + whole[law.start : law.start + ROWS]
    elif isinstance(law, OrthogonalLaw):
        if isinstance(law.rotation, Blocks):
            for one in blocks_of(law.rotation):
                wide = wide @ one.T
        else:
            first = wide
            for unit in law.rotation.vectors.astype(float):
                along = (first if law.rotation.together else wide) @ unit
                wide = wide - 2 * np.outer(along, unit)
        if law.factors is not None:
            wide = wide * law.factors[:, None]
    floats = wide.ravel() if dtype.name == "F64" else wide.ravel().astype(np.float32)
    return narrow(dtype, floats, old)


@pytest.mark.parametrize("case", list(LAWS))
def test_what_is_predicted_is_what_the_page_says(case: str) -> None:
    for name in ("F32", "F64", "BF16"):
        dtype, law = DTYPES[name], LAWS[case]
        if name == "F64" and law.kind == "orthogonal":
            continue
        old = bits(dtype, 9)
        found = widen(dtype, law.predict(dtype, old.copy()))
        expected = widen(dtype, by_hand(law, dtype, old))
        assert np.abs(found - expected).max() <= (2**-6 if name == "BF16" else 1e-6)
        assert np.mean(found == expected) > {"BF16": 0.99, "F32": 0.4, "F64": -1}[name]
        assert not np.array_equal(found, widen(dtype, old))


@pytest.mark.parametrize("name", sorted(KNOWN))
@pytest.mark.parametrize("case", list(LAWS))
def test_what_is_decoded_is_what_was_encoded(case: str, name: str) -> None:
    dtype, law = DTYPES[name], LAWS[case]
    spec, old = BlockSpec(dtype, (ROWS, COLUMNS)), bits(dtype, 4)
    kept = law.stored(spec)
    if name == "F64" and law.kind == "orthogonal":
        assert kept is None
        return
    assert kept is not None
    predicted = law.predict(dtype, old.copy())
    many, few = predicted.copy(), predicted.copy()
    many[::7] += 1
    few[::90] += 1
    for new in (predicted, many, few, bits(dtype, 5)):
        one = encoded(spec, new, old, kept)
        assert one.kind == law.kind
        file = parse(b"".join(one.pieces))
        assert (file.settings["coder"] == "exact") == (new is predicted)
        assert (file.settings["coder"] == "list") == (new is few)
        chain = [parse(b"".join(Dense().encode(spec, old).pieces)), file]
        assert decode_chain(spec, chain).tobytes() == new.tobytes()


def test_numbers_that_short_weights_do_not_need_are_left_out() -> None:
    spec = BlockSpec(DTYPES["BF16"], (ROWS, COLUMNS))
    old = bits(spec.dtype, 4)
    for law in LAWS.values():
        kept = law.stored(spec)
        assert kept is not None
        new = kept.predict(spec.dtype, old.copy())
        short, whole = as_pays(spec, new, old, kept, COLUMNS), encoded(spec, new, old, kept)
        assert short.nbytes <= whole.nbytes * (0.8 if law.kind == "hadamard" else 1)
        chain = [parse(b"".join(Dense().encode(spec, old).pieces)), parse(b"".join(short.pieces))]
        assert decode_chain(spec, chain).tobytes() == new.tobytes()


@pytest.mark.parametrize("case", list(LAWS))
def test_blocks_of_a_tensor_are_changed_as_the_whole_is(case: str) -> None:
    dtype, law = DTYPES["F32"], LAWS[case]
    old = bits(dtype, 4)
    whole = law.predict(dtype, old.copy())
    for first, last in ((0, 16), (16, 32), (32, ROWS), (3, 11)):
        piece = slice(first * COLUMNS, last * COLUMNS)
        found = law.of_rows(slice(first, last)).predict(dtype, old[piece].copy())
        assert found.tobytes() == whole[piece].tobytes()


def test_a_rotation_is_one_object_for_all_blocks_of_a_tensor() -> None:
    dtype, law = DTYPES["F32"], LAWS["cayley"]
    files = set()
    for rows, seed in ((ROWS, 4), (20, 5)):
        spec, old = BlockSpec(dtype, (rows, COLUMNS)), bits(dtype, seed)[: rows * COLUMNS]
        new = law.predict(dtype, old.copy())
        files.add(b"".join(encoded(spec, new, old, law).pieces))
    assert len(files) == 1


def test_odd_values_are_predicted_and_put_right() -> None:
    """NaN, infinite and huge numbers: of weights, and of the law."""
    odd = np.array([np.nan, np.inf, -np.inf, 3e38, -0.0, 1e-45], np.float32)
    old = np.resize(odd, ROWS * COLUMNS).view(np.uint32)
    spec = BlockSpec(DTYPES["F32"], (ROWS, COLUMNS))
    wild = HadamardLaw(
        Side(np.resize(odd, (ROWS, 1)), np.resize(odd, (1, COLUMNS))), thin(1, ROWS, COLUMNS), 1e30
    )
    for law in (wild, LAWS["cayley"], LAWS["together"]):
        with np.errstate(all="raise"):
            file = parse(b"".join(encoded(spec, bits(spec.dtype, 1), old, law).pieces))
            chain = [parse(b"".join(Dense().encode(spec, old).pieces)), file]
            assert decode_chain(spec, chain).tobytes() == bits(spec.dtype, 1).tobytes()


def test_numbers_are_kept_to_the_bit_and_short_ones_are_short() -> None:
    random = np.random.default_rng(0)
    patterns = random.integers(0, 1 << 32, 5000, dtype=np.uint32).view(np.float32)
    halves = random.normal(0, 1, 5000).astype(np.float16).astype(np.float32)
    for value in (patterns, halves, -np.zeros(7, np.float32), np.zeros(0, np.float32)):
        packed = pack(value)
        found = unpack(memoryview(packed).cast("B"), value.shape)
        assert found.tobytes() == value.tobytes()
    assert len(pack(halves)) < 0.55 * halves.nbytes
    for data in (b"", b"\x20abc", pack(halves)[:-1]):
        with pytest.raises(CorruptObjectError):
            unpack(memoryview(data), (5, 1000))


def test_nothing_is_stored_that_costs_more_than_a_reader_has() -> None:
    spec = BlockSpec(DTYPES["F32"], (ROWS, COLUMNS))
    large = BlockSpec(DTYPES["F32"], (300, 256))
    refused: list[tuple[BlockSpec, Law]] = [
        (large, HadamardLaw(thin(1, 300, 256, 60), thin(2, 300, 256, 60), 1.0)),
        (large, OrthogonalLaw(Blocks(numbers(1, 1, 2, 128 * 127 // 2), 128, 256))),
        (large, OrthogonalLaw(Reflections(numbers(1, 60, 256), False))),
        (large, OrthogonalLaw(Blocks(numbers(1, 1, 64, 6), 4, 256, terms=40))),
        (BlockSpec(DTYPES["F32"], (3, COLUMNS)), LAWS["cayley"]),
        (BlockSpec(DTYPES["I32"], (ROWS, COLUMNS)), LAWS["hadamard"]),
        # A block that needs more of the second matrix than it has values itself.
        (spec, KroneckerLaw(Side(numbers(1, 1, 1)), Side(numbers(2, 9000, COLUMNS)), 1.0, 0, ROWS)),
    ]
    for block, law in refused:
        assert law.stored(block) is None
    # Factors that are no smaller than their product are multiplied.
    wide = HadamardLaw(thin(1, ROWS, COLUMNS, 30), thin(2, ROWS, COLUMNS), 1.0).stored(spec)
    assert wide is not None
    assert wide.first.right is None


def test_a_chain_has_few_updates_that_cost_much() -> None:
    dense = UpdateRef("dense", "0" * 64, 1 << 20)
    refs = [UpdateRef(kind, f"{number:064x}", 10) for number, kind in
            enumerate([*sorted(cost.KINDS)] * 2 + ["hadamard", "sparse", "low-rank"])]  # fmt: skip
    update = Encoded("orthogonal", [bytes(10)])
    assert choose._may_grow((dense, *refs), update)
    full = (dense, *refs, UpdateRef("kronecker", "f" * 64, 10))
    assert not choose._may_grow(full, update)
    assert choose._may_grow(full, Encoded("low-rank", [bytes(10)]))


# -- forged ----------------------------------------------------------------------------------------


def forged(case: str, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Parameters:
    spec = BlockSpec(DTYPES["BF16"], (ROWS, COLUMNS))
    old = bits(spec.dtype, 4)
    kept = LAWS[case].stored(spec)
    assert kept is not None
    file = parse(b"".join(encoded(spec, bits(spec.dtype, 5), old, kept).pieces))
    settings, parts = dict(file.settings), dict(file.parts)
    settings.update({key: dict(one) for key, one in settings.items() if isinstance(one, dict)})
    change(settings, parts)
    kind = settings.pop("kind")
    return parse(b"".join(build(kind, settings, parts)))


def setting(*path: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    def change(settings: dict[str, Any], parts: dict[str, Any]) -> None:
        for key in path[:-1]:
            settings = settings[key]
        settings[path[-1]] = value

    return change


BIG = 1 << 40
FORGED = [
    *[("kronecker", setting("first", "shape", value=value)) for value in
      ([BIG, BIG], [8], [8, -6], [8.0, 6], [True, 6], "xy", None)],
    *[("kronecker", setting("second", "rank", value=value)) for value in (0, 5, 300, True, 1.0)],
    *[("kronecker", setting("start", value=value)) for value in (-1, 5, 1, True, None)],
    *[("hadamard", setting("scaling", value=value)) for value in (1, float("nan"), "1", None)],
    ("hadamard", setting("first", value=None)), ("hadamard", setting("second", value=[])),
    ("hadamard", setting("first", "shape", value=[24, 40])),
    *[("hadamard core", setting("first", "core", value=value)) for value in
      ([3], [3, 5], [300, 3], [0, 3], [BIG, 1], ["3", 3], 3)],
    *[("cayley", setting("size", value=value)) for value in (1, 0, 41, 5, 300, BIG, True, "4")],
    *[("cayley", setting("columns", value=value)) for value in (0, 23, BIG, -24, 48)],
    *[("cayley", setting("blocks", value=value)) for value in (2, 0, 7, BIG)],
    *[("cayley", setting("form", value=value)) for value in ("x", None, ["blocks"])],
    *[("series", setting("terms", value=value)) for value in (0, 33, -1, BIG, 2.0)],
    *[("butterfly", setting("matrices", value=value)) for value in (0, 4, 21, BIG)],
    *[("shared", setting("turned", value=value)) for value in (1, "true")],
    *[("reflections", setting("vectors", value=value)) for value in (0, 2, 41, 300, BIG)],
    ("butterfly", lambda settings, parts: parts.update(factors=parts["factors"][:-4])),
    ("together", lambda settings, parts: parts.pop("vectors")),
    ("hadamard", lambda settings, parts: parts.update({"first.left": b""})),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_what_is_forged_is_refused_before_it_is_computed(number: int) -> None:
    case, change = FORGED[number]
    spec = BlockSpec(DTYPES["BF16"], (ROWS, COLUMNS))
    base = parse(b"".join(Dense().encode(spec, bits(spec.dtype, 4)).pieces))
    file = forged(case, change)
    with pytest.raises(CorruptObjectError):
        decode_chain(spec, [base, file])
    most = 4 * 256 * spec.count * (256 + 35)
    assert 0 <= cost.products(file.kind, file.settings, spec.count) <= most


def test_what_a_law_costs_is_known_from_its_settings() -> None:
    spec = BlockSpec(DTYPES["F32"], (ROWS, COLUMNS))
    counts = {}
    for case, law in LAWS.items():
        kept = law.stored(spec)
        assert kept is not None
        counts[case] = cost.products(kept.kind, kept.packed()[0], 1000)
    assert {case: round(count) for case, count in counts.items()} == {
        "kronecker": 1000, "kronecker rows": 2000, "hadamard": 5000, "hadamard core": 7000,
        "cayley": 1000 * 12 + 6 * 64 * 3, "shared": 1000 * 14 + 216 * 3,
        "series": 1000 * 12 + 6 * 64 * 8, "butterfly": 1000 * 30 + 36 * 8 * 3,
        "reflections": 6000, "together": 6000,
    }  # fmt: skip
    assert cost.KINDS == {law.kind for law in LAWS.values()} < set(updates.kinds())
    for case in ("hadamard", "cayley"):
        assert cost.products(LAWS[case].kind, None, 10) == 5120


def test_elimination_without_pivots_is_the_solution() -> None:
    skew = rotation.skew_of(numbers(1, 5, 45, size=3), 10)
    made = rotation.cayley(skew).astype(float)
    unit = np.eye(10)
    exact = (unit - skew) @ np.linalg.inv(unit + skew.astype(float))
    assert np.abs(made - exact).max() < 1e-7
    assert np.abs(made @ made.swapaxes(1, 2) - unit).max() < 1e-6
    np.testing.assert_array_equal(rotation.above_of(skew), numbers(1, 5, 45, size=3))
    for length in (1, 2, 7, 64):
        some = np.arange(3 * length, dtype=float).reshape(3, length)
        np.testing.assert_array_equal(rotation.summed(some.copy()), some.sum(axis=1))
