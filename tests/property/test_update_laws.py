"""Properties of the updates: exact for whatever values, bounded for whatever settings."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

from git_theta_ext import updates
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.updates import correction
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.find import smallest_update
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.residual import is_ordered
from tests.scenarios.patterns import patterns

WHOLE_BYTES = [name for name, dtype in DTYPES.items() if dtype.bits % 8 == 0]
FLOATS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[BlockSpec, Values, Values]:
    """A block and its predecessor: unrelated, alike but for a few, or a few ulps apart."""
    name = draw(st.sampled_from(WHOLE_BYTES))
    parts = 2 if DTYPES[name].kind == "complex" else 1
    shape = (draw(st.integers(1, 70)), draw(st.integers(1, 70)))
    count = shape[0] * shape[1] * parts
    base = patterns(draw, name, count)
    kind = draw(st.sampled_from(["unrelated", "few", "near", "row"]))
    if kind == "unrelated":
        new = patterns(draw, name, count)
    else:
        new = base.copy()
        if kind == "few":
            new[:: draw(st.integers(5, 50))] += base.dtype.type(draw(st.integers(1, 100)))
        elif kind == "near":
            new += np.arange(count).astype(base.dtype) % base.dtype.type(5)
        else:
            new[: count // shape[0]] = patterns(draw, name, count // shape[0])
    return BlockSpec(DTYPES[name], shape), new, base


@given(pairs())
@settings(deadline=None, max_examples=150)
def test_every_update_that_applies_is_exact(pair: tuple[BlockSpec, Values, Values]) -> None:
    spec, new, base = pair
    for kind in updates.kinds():
        update = updates.get(kind)
        encoded = update.encode(spec, new, base if update.needs_base else None)
        if encoded is not None:
            parameters = parse(b"".join(encoded.pieces))
            old = base.copy() if update.needs_base else None
            assert update.decode(spec, parameters, old).tobytes() == new.tobytes(), kind


@given(pairs())
@settings(deadline=None, max_examples=100)
def test_the_chosen_update_is_exact(pair: tuple[BlockSpec, Values, Values]) -> None:
    spec, new, base = pair
    encoded = smallest_update(spec, new, base)
    if encoded is not None:
        parameters = parse(b"".join(encoded.pieces))
        found = updates.get(encoded.kind).decode(spec, parameters, base.copy())
        assert found.tobytes() == new.tobytes()


@given(pairs())
@settings(deadline=None, max_examples=100)
def test_corrections_are_exact_whatever_was_predicted(
    pair: tuple[BlockSpec, Values, Values],
) -> None:
    spec, new, predicted = pair
    floats = is_ordered(spec.dtype)
    chosen, parts = correction.encode(new, predicted, floats)
    file = parse(b"".join(build("test", chosen, parts)))
    found = predicted.copy()
    correction.apply(file.settings, file.parts, found, floats)
    assert found.tobytes() == new.tobytes()


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-3, 1 << 40), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
KEYS = [
    "coder", "count", "split", "unit", "plain", "width", "shape", "axis", "rank", "exponent",
    "order", "base", "saturate", "extents", "type", "start", "fused",
]  # fmt: skip
KINDS = ["delta", "sparse", "step", "scale", "low-rank", "cast", "resize", "quantise"]


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(KEYS), JUNK),
    st.sampled_from(["list", "pco", "exact"]),
    st.dictionaries(
        st.sampled_from(["data", "lengths", "list", "table", "factors", "left", "right", "added"]),
        st.binary(max_size=40),
    ),
)
@settings(deadline=None, max_examples=300)
def test_forged_settings_are_refused(
    kind: str, forged: dict[str, object], coder: str, parts: dict[str, bytes]
) -> None:
    spec = BlockSpec(DTYPES["F32"], (8, 5))
    dense = parse(b"".join(Dense().encode(spec, np.zeros(40, np.uint32)).pieces))
    file = parse(b"".join(build(kind, {"coder": coder, **forged}, parts)))
    try:
        found = decode_chain(spec, [dense, file])
    except CorruptObjectError:
        return
    assert found.nbytes == spec.nbytes


@pytest.mark.parametrize(
    "base",
    [
        {"dtype": "F32", "shape": [1 << 40]},
        {"dtype": "F32", "shape": [-1, -40]},
        {"dtype": "F99", "shape": [40]},
        {"dtype": "F32", "shape": [1 << 20, 1 << 20]},
        {"dtype": "F32", "shape": [True]},
        {"dtype": ["F32"], "shape": [40]},
        {"shape": [40]},
        [40],
        7,
    ],
)
@pytest.mark.parametrize("kind", ["cast", "resize", "delta"])
def test_a_forged_predecessor_is_refused(kind: str, base: object) -> None:
    spec = BlockSpec(DTYPES["F32"], (8, 5))
    dense = parse(b"".join(Dense().encode(spec, np.zeros(40, np.uint32)).pieces))
    forged = {"coder": "exact", "base": base, "saturate": False, "extents": [1, 40, 40, 1]}
    with pytest.raises(CorruptObjectError):
        decode_chain(spec, [dense, parse(b"".join(build(kind, forged, {"added": b""})))])


def test_a_cast_block_is_rebuilt_from_the_store(tmp_path: Path) -> None:
    blocks = Blocks(Store(tmp_path))
    first = (np.random.default_rng(0).standard_normal((64, 90)) * 0.02).astype(np.float32)
    second = first.astype(ml_dtypes.bfloat16)
    third = np.concatenate([second, second[:2]])
    specs = [
        BlockSpec(DTYPES[name], array.shape)
        for name, array in (("F32", first), ("BF16", second), ("BF16", third))
    ]
    arrays = [
        np.ascontiguousarray(array).reshape(-1).view(values_dtype(spec.dtype))
        for array, spec in zip((first, second, third), specs, strict=True)
    ]
    block = blocks.write(specs[0], arrays[0])
    kinds = []
    for number in (1, 2):
        block = blocks.write(
            specs[number], arrays[number], predecessor=block, predecessor_spec=specs[number - 1]
        )
        kinds.append(block.chain[-1].kind)
        assert blocks.read(specs[number], block).tobytes() == arrays[number].tobytes()
    assert kinds == ["cast", "resize"]
    # The same bytes elsewhere, in another shape, are the same block.
    flat = BlockSpec(DTYPES["BF16"], (67 * 90 - 90,))
    assert blocks.read(flat, block).tobytes() == arrays[2].tobytes()
