"""The law of `quantise`: it predicts what ggml makes of floats, and all bytes come back."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.checkpoints.counterparts import quantised_from, source_of
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.formats import gguf
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.places import Place, blocks_of
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.work import of_chain
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.find import converting_update
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.quantise import Quantise
from git_theta_ext.updates.quantisers import QUANTISERS, quantise

GOLDEN = Path(__file__).parents[1] / "golden" / "quantised"
FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def through(spec: BlockSpec, encoded: Encoded, old: BlockSpec, base: Values) -> Values:
    dense = parse(b"".join(Dense().encode(old, base).pieces))
    return decode_chain(spec, [dense, parse(b"".join(encoded.pieces))])


def read(name: str) -> dict[str, tuple[BlockSpec, Values]]:
    """The tensors of a file of one block each."""
    with FileSource(GOLDEN / name) as source:
        return {
            place.span.tensor.name: (
                place.spec,
                np.frombuffer(
                    source.read(place.offset, place.spec.nbytes), values_dtype(place.spec.dtype)
                ),
            )
            for place in blocks_of(gguf.layout(source), source)
        }


def test_what_gguf_wrote_is_predicted_to_the_bit() -> None:
    before, after = read("floats.gguf"), read("codes.gguf")
    assert {name.split(".")[0] for name in after} == set(QUANTISERS)
    assert {spec.dtype.name for spec, _ in before.values()} == set(FLOATS)
    for name, (spec, new) in after.items():
        old, base = before[name]
        encoded = converting_update(spec, new, old, base)
        assert encoded is not None
        assert encoded.kind == "quantise"
        assert encoded.info == (("from", old.dtype.name), ("to", name.split(".")[0]))
        assert b'coder\\":\\"exact' in bytes(encoded.pieces[0])
        assert encoded.nbytes < 300
        assert through(spec, encoded, old, base).tobytes() == new.tobytes()


def floats(name: str, count: int, seed: int = 1) -> Values:
    wide = np.random.default_rng(seed).normal(0, 0.02, count).astype(np.float32)
    return wide.astype(FLOATS[name]).view(values_dtype(DTYPES[name]))


@pytest.mark.parametrize("name", sorted(FLOATS))
@pytest.mark.parametrize("kind", sorted(QUANTISERS))
def test_what_is_wrong_comes_back_too(kind: str, name: str) -> None:
    """Codes that were changed, fused arithmetic, and a predecessor of which a part is meant."""
    one, base = QUANTISERS[kind], floats(name, 64 * 128)
    old, spec = BlockSpec(DTYPES[name], (64, 128)), BlockSpec(DTYPES["U8"], (16, 4, one.size))
    wide = base.view(FLOATS[name]).astype(np.float32).reshape(-1, 32)
    new = quantise(one, wide, fused=True)[:64].ravel().copy()
    exact = Quantise().encode_from(spec, new, old, base)
    assert exact is not None
    assert exact.nbytes < 300
    new[::50] ^= 1
    encoded = Quantise().encode_from(spec, new, old, base)
    assert encoded is not None
    assert encoded.nbytes < new.nbytes // 3
    assert through(spec, encoded, old, base).tobytes() == new.tobytes()
    # Of other floats it is no quantisation.
    other = floats(name, 64 * 128, seed=2)
    assert Quantise().encode_from(spec, new, old, other) is None
    assert Quantise().encode_from(BlockSpec(DTYPES["U8"], (new.size,)), new, old, base) is None
    assert Quantise().encode_from(spec, new, BlockSpec(DTYPES["F64"], (64, 128)), base) is None


@pytest.mark.parametrize("fused", [False, True])
def test_numbers_that_machines_differ_in(fused: bool) -> None:
    """NaN, infinities, subnormals, zeros of both signs: what is made of them is written down."""
    rows: NDArray[np.float32] = np.zeros((7, 32), np.float32)
    rows[0, 3], rows[1, 5], rows[2, 7] = np.nan, np.inf, -3e38
    rows[3] = -0.0
    rows[4, 1:3] = 1e-45, -1e-44
    rows[5] = 65504 * 200
    rows[6] = np.linspace(-1, 1, 32)
    with np.errstate(all="raise"):
        for one in QUANTISERS.values():
            made = quantise(one, rows, fused=fused)
            assert made.shape == (7, one.size)
            np.testing.assert_array_equal(made[:3], made[[0, 0, 0]])
            assert made[5, 1] & 0x7C == 0x7C or one.minimum
            np.testing.assert_array_equal(made[3], made[0])


FORGED = (
    {"type": "Q4_K"}, {"type": ["Q8_0"]}, {"start": -32}, {"start": True}, {"start": 32},
    {"start": 1 << 70}, {"fused": 1}, {"base": {"dtype": "F64", "shape": [64]}}, {"base": None},
    {"base": {"dtype": "U8", "shape": [256]}}, {"base": {"dtype": "F16", "shape": [1 << 40]}},
    {"coder": "plain"}, {"fused": None},
)  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
def test_forged_settings_are_refused(forged: dict[str, object]) -> None:
    base, old = floats("F32", 64), BlockSpec(DTYPES["F32"], (64,))
    right = {"coder": "exact", "type": "Q8_0", "start": 0, "fused": False,
             "base": {"dtype": "F32", "shape": [64]}}  # fmt: skip
    spec = BlockSpec(DTYPES["U8"], (2, 34))

    def decoded(settings: dict[str, object], spec: BlockSpec) -> Values:
        dense = parse(b"".join(Dense().encode(old, base).pieces))
        return decode_chain(spec, [dense, parse(b"".join(build("quantise", settings, {})))])

    assert decoded(right, spec).nbytes == 68
    for wrong, at in ((right | forged, spec), (right, BlockSpec(DTYPES["U8"], (69,)))):
        with pytest.raises(CorruptObjectError):
            decoded(wrong, at)
    with pytest.raises(CorruptObjectError):
        decoded(right, BlockSpec(DTYPES["I8"], (2, 34)))


def test_a_large_tensor_is_made_of_the_blocks_that_have_its_rows() -> None:
    """Blocks of codes are cut at other rows than those of floats."""
    now, then = (
        TensorInfo("w", DTYPES["U8"], (5000, 128, 34)), TensorInfo("w", DTYPES["F16"], (5000, 4096))
    )  # fmt: skip
    assert then in quantised_from(now)
    specs = list(cut(now))
    assert [spec.shape[0] for spec in specs] == [1024, 1024, 1024, 1024, 904]
    found = [source_of(then, Place(Span(now), at, spec, 0)) for at, spec in enumerate(specs)]
    assert [None if one is None else (one[0], one[1].shape[0]) for one in found] == [
        (0, 2048), (0, 2048), (1, 2048), (1, 2048), (2, 904)
    ]  # fmt: skip
    # Rows of two blocks of floats in one of codes: none has all of them.
    wide, narrow = (
        TensorInfo("w", DTYPES["U8"], (5000, 160, 18)), TensorInfo("w", DTYPES["F16"], (5000, 5120))
    )  # fmt: skip
    assert source_of(narrow, Place(Span(wide), 0, next(cut(wide)), 0)) is None
    assert source_of(then, Place(Span(wide), 0, next(cut(wide)), 0)) is None


def test_it_costs_what_it_reads() -> None:
    """A few bytes that are made of a large predecessor count as that."""
    said = {"base": {"dtype": "F32", "shape": [1 << 20]}}
    chain = [UpdateRef("dense", "a" * 64, 9), UpdateRef("quantise", "b" * 64, 9)]
    spec = BlockSpec(DTYPES["U8"], (1, 34))
    work = of_chain(spec, chain, lambda ref: said if ref.kind == "quantise" else {})
    assert work.nanoseconds >= 6 * (4 << 20)
