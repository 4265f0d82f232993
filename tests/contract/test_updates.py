"""The law of every update: decode(encode(new, base), base) == new, bit for bit."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load as load_safetensors

from git_theta_ext import updates
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.updates import choose
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.cast import Cast
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.choose import Predecessor, encode_block, encode_bytes
from git_theta_ext.updates.coders import compress_numbers
from git_theta_ext.updates.delta import Delta
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.find import smallest_update
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.residual import SLICE, apply, difference, is_ordered, zeros_below
from git_theta_ext.updates.resize import Resize

WHOLE_BYTES = [name for name, dtype in DTYPES.items() if dtype.bits % 8 == 0]
LENGTHS = [0, 1, 1500, SLICE - 1, SLICE, SLICE + 1]


def parsed(encoded: Encoded) -> Parameters:
    return parse(b"".join(encoded.pieces))


def random_values(name: str, count: int, seed: int) -> Values:
    """Every bit pattern is as likely as any other: NaNs, infinities and subnormals included."""
    dtype = values_dtype(DTYPES[name])
    size = count * (2 if DTYPES[name].kind == "complex" else 1) * dtype.itemsize
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).view(dtype)


def assert_comes_back(spec: BlockSpec, new: Values, base: Values) -> None:
    """Through every kind of update that applies."""
    dense = Dense().encode(spec, base)
    old = new.copy()
    for kind in updates.kinds():
        update = updates.get(kind)
        encoded = update.encode(spec, new, base if update.needs_base else None)
        if encoded is None:
            continue
        chain = [parsed(dense), parsed(encoded)] if update.needs_base else [parsed(encoded)]
        found = decode_chain(spec, chain)
        assert found.tobytes() == new.tobytes(), kind
        assert new.tobytes() == old.tobytes(), f"{kind} wrote to its input"


@pytest.mark.parametrize("name", WHOLE_BYTES)
@pytest.mark.parametrize("count", LENGTHS)
def test_every_dtype_and_length(name: str, count: int) -> None:
    base = random_values(name, count, 1)
    new = base.copy()
    new[::3] += 1
    assert_comes_back(BlockSpec(DTYPES[name], (count,)), new, base)


@pytest.mark.parametrize("name", ["F16", "BF16", "I16", "U16"])
def test_every_16_bit_pattern_against_awkward_bases(name: str) -> None:
    new = np.arange(65536, dtype=np.uint16)
    spec = BlockSpec(DTYPES[name], (65536,))
    for pattern in (0x0000, 0x8000, 0x7C00, 0x7F80, 0x7FFF, 0xFFFF, 0x0001, 0x3C00):
        assert_comes_back(spec, new, np.full(65536, pattern, np.uint16))
    assert_comes_back(spec, new, new[::-1].copy())


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"])
def test_every_pair_of_8_bit_patterns(name: str) -> None:
    new = np.tile(np.arange(256, dtype=np.uint8), 256)
    base = np.repeat(np.arange(256, dtype=np.uint8), 256)
    assert_comes_back(BlockSpec(DTYPES[name], (65536,)), new, base)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_the_residual_is_a_bijection(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(WHOLE_BYTES))
    dtype = values_dtype(DTYPES[name])
    numbers = st.integers(0, 2 ** (8 * dtype.itemsize) - 1)
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=200))
    new, base = (np.array(side, dtype) for side in zip(*pairs, strict=True))
    floats = is_ordered(DTYPES[name])
    assert (apply(difference(new, base, floats), base, floats) == new).all()


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_low_bits_that_are_zero_are_left_out_and_come_back(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(WHOLE_BYTES))
    dtype = values_dtype(DTYPES[name])
    bits = 8 * dtype.itemsize
    low = data.draw(st.integers(1, bits - 1))
    numbers = st.integers(0, 2 ** (bits - low) - 1).map(lambda number: number << low)
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=200))
    new, base = (np.array(side, dtype) for side in zip(*pairs, strict=True))
    floats = is_ordered(DTYPES[name])
    distances = difference(new, base, floats, low=low)
    assert int(distances.max()) < 2 ** (bits - low)
    assert (apply(distances, base, floats, low=low) == new).all()
    found = zeros_below(new, base)
    assert found >= low or not (new | base).any()
    assert not int(np.bitwise_or.reduce(new | base)) & (2**found - 1)


def test_the_law_of_distances_without_low_bits() -> None:
    """Computed as docs/parameter-files.md says it, with integers alone."""

    def ordered(pattern: int) -> int:
        return (pattern ^ 0xFFFF if pattern >> 15 else pattern ^ 0x8000) >> 5

    patterns = np.arange(0, 65536, 32, dtype=np.uint16)
    new, base = patterns[::-1], np.roll(patterns, 77)
    stored = []
    for after, before in zip(new.tolist(), base.tolist(), strict=True):
        step = (ordered(after) - ordered(before) + 1024) % 2048 - 1024
        stored.append(2 * step if step >= 0 else -2 * step - 1)
    settings = {"coder": "pco-high", "low": 5}
    parts = {
        "data": compress_numbers(np.array(stored, np.uint16)),
        "lengths": np.zeros(1, np.uint32),
    }
    parts["lengths"][0] = len(parts["data"])
    spec = BlockSpec(DTYPES["F16"], (len(new),))
    forged = parse(b"".join(build("delta", settings, parts)))
    found = decode_chain(spec, [parsed(Dense().encode(spec, base)), forged])
    assert found.tobytes() == new.tobytes()
    encoded = Delta().encode(spec, new, base)
    assert encoded is not None
    assert parsed(encoded).settings == {"kind": "delta", "v": 1, **settings}


def test_half_precision_kept_in_float32_costs_what_it_has() -> None:
    random = np.random.default_rng(0)
    before = random.standard_normal(100_000).astype(np.float16)
    after = (before + random.standard_normal(100_000) * 0.01).astype(np.float16)
    sizes = {}
    for name, wide in (("F16", np.float16), ("F32", np.float32), ("C64", np.float32)):
        spec = BlockSpec(DTYPES[name], (100_000 // (2 if name == "C64" else 1),))
        bits = values_dtype(DTYPES[name])
        new, base = (side.astype(wide).view(bits) for side in (after, before))
        encoded = Delta().encode(spec, new, base)
        assert encoded is not None
        sizes[name] = encoded.nbytes
        found = decode_chain(spec, [parsed(Dense().encode(spec, base)), parsed(encoded)])
        assert found.tobytes() == new.tobytes()
    assert sizes["F32"] == sizes["C64"] < 1.01 * sizes["F16"]


def complex_pair(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The same matrix of complex numbers before and after a change."""
    random = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape) + 1j * random.standard_normal(shape)

    base = normal(256, 256).astype(np.complex64)
    if kind == "low-rank":
        return base, (base + 1e-2 * normal(256, 2) @ normal(2, 256)).astype(np.complex64)
    base = (base.real * 100 + 1j * np.round(base.imag, 1)).astype(np.complex64)
    return base, (base + 1e-3 * normal(256, 256)).astype(np.complex64)


@pytest.mark.parametrize("kind", ["low-rank", "halves"])
def test_complex_numbers_are_what_their_two_parts_are(kind: str) -> None:
    base, new = complex_pair(kind)
    spec = BlockSpec(DTYPES["C64"], base.shape)
    before, after = (side.view(np.uint32).ravel() for side in (base, new))
    dense = parsed(Dense().encode(spec, before))
    update = smallest_update(spec, after, before)
    assert update is not None
    found = decode_chain(spec, [dense, parsed(update)])
    assert found.tobytes() == new.tobytes()
    if kind == "low-rank":
        assert update.kind == "low-rank"
        assert update.nbytes < new.nbytes // 8
        return
    # As docs/parameter-files.md says it: real parts, then imaginary ones.
    apart = np.concatenate([before[0::2], before[1::2]])
    plain = BlockSpec(DTYPES["F32"], apart.shape)
    real = {name: dense.settings[name] for name in dense.settings if name not in ("kind", "v")}
    forged = parse(b"".join(build("dense", {**real, "coder": "planes"}, dense.parts)))
    assert decode_chain(plain, [forged]).tobytes() == apart.tobytes()
    coded = parsed(update)
    assert (dense.settings["coder"], coded.settings["coder"]) == ("planes-halves", "pco-halves")
    for chain in ([forged, coded], [dense]):
        with pytest.raises(CorruptObjectError, match="does not fit"):
            decode_chain(plain, chain)


@pytest.mark.parametrize("low", [0, -1, 16, 17, True, 5.0, "5", None])
def test_low_bits_that_nobody_left_out(low: object) -> None:
    spec = BlockSpec(DTYPES["F16"], (3,))
    zeros = np.zeros(3, np.uint16)
    parts = {"data": b"", "lengths": np.zeros(1, np.uint32)}
    forged = parse(b"".join(build("delta", {"coder": "pco-high", "low": low}, parts)))
    with pytest.raises(CorruptObjectError, match="left out"):
        decode_chain(spec, [parsed(Dense().encode(spec, zeros)), forged])


def test_a_predecessor_has_no_bits_where_they_were_left_out() -> None:
    """Else a predecessor that is damaged there would have a successor that is right."""
    spec = BlockSpec(DTYPES["F16"], (3,))
    new, base = np.array([32, 64, 96], np.uint16), np.array([64, 64, 64], np.uint16)
    encoded = Delta().encode(spec, new, base)
    assert encoded is not None
    base[1] += 1
    with pytest.raises(CorruptObjectError, match="are not zero"):
        decode_chain(spec, [parsed(Dense().encode(spec, base)), parsed(encoded)])


def test_neighbouring_floats_are_neighbours() -> None:
    values = np.array([-np.inf, -1.5, -1e-45, -0.0, 0.0, 1e-45, 1.0, np.inf], np.float32)
    following = np.nextafter(values[1:-1], np.float32(np.inf))
    steps = difference(following.view(np.uint32), values[1:-1].view(np.uint32), True)
    # nextafter skips from -1e-45 to -0.0 and from -0.0 to 1e-45, two steps in a row of both zeros.
    assert set(steps.tolist()) <= {2, 4}


@given(st.binary(max_size=5000), st.binary(max_size=5000))
@settings(deadline=None, max_examples=100)
def test_bytes_and_patches(old: bytes, new: bytes) -> None:
    base = encode_bytes(old, None).encoded
    spec = BlockSpec(DTYPES["U8"], (len(old),))
    chain = (UpdateRef("dense", "0" * 64, base.nbytes),)
    rebuild = lambda count: decode_chain(spec, [parsed(base)])  # noqa: E731
    choice = encode_bytes(new, Predecessor(chain, spec, rebuild))
    files = [*[parsed(base)][: choice.keep], parsed(choice.encoded)]
    found = decode_chain(BlockSpec(DTYPES["U8"], (len(new),)), files)
    assert found.tobytes() == new


def test_a_patch_may_change_the_length() -> None:
    old = b"".join(b"line %d of a header\n" % n for n in range(500))
    new = old[:3000] + b"a word more" + old[3000:]
    base = encode_bytes(old, None).encoded
    spec = BlockSpec(DTYPES["U8"], (len(old),))
    chain = (UpdateRef("dense", "0" * 64, base.nbytes),)
    predecessor = Predecessor(chain, spec, lambda count: decode_chain(spec, [parsed(base)]))
    choice = encode_bytes(new, predecessor)
    assert (choice.keep, choice.encoded.kind) == (1, "patch")
    files = [parsed(base), parsed(choice.encoded)]
    assert decode_chain(BlockSpec(DTYPES["U8"], (len(new),)), files).tobytes() == new


def test_a_small_change_is_a_small_update_and_a_new_tensor_is_dense() -> None:
    random = np.random.default_rng(0)
    base = random.standard_normal(100_000).astype(np.float32)
    spec = BlockSpec(DTYPES["F32"], (100_000,))
    dense = Dense().encode(spec, base.view(np.uint32))
    chain = (UpdateRef("dense", "0" * 64, dense.nbytes),)
    predecessor = Predecessor(chain, spec, lambda count: base.view(np.uint32).copy())

    near = base.copy()
    near[500:600] *= np.float32(1.01)
    choice = encode_block(spec, near.view(np.uint32), predecessor)
    assert (choice.keep, choice.encoded.kind) == (1, "sparse")
    assert choice.encoded.nbytes < 0.01 * dense.nbytes
    moved = np.linalg.norm(near.astype(float) - base) / np.linalg.norm(base.astype(float))
    assert dict(choice.encoded.info) == {"change": f"{100 * moved:.2g}%", "entries": "0.1%"}

    other = random.standard_normal(100_000).astype(np.float32)
    choice = encode_block(spec, other.view(np.uint32), predecessor)
    assert (choice.keep, choice.encoded.kind) == (0, "dense")


def test_a_chain_is_bounded_by_its_cost() -> None:
    random = np.random.default_rng(0)
    base = random.standard_normal(50_000).astype(np.float32)
    spec = BlockSpec(DTYPES["F32"], base.shape)
    versions, files = [base], [Dense().encode(spec, base.view(np.uint32))]
    for step in range(40):
        new = versions[-1].copy()
        new[step * 1000 : step * 1000 + 900] += np.float32(0.1)
        chain = tuple(
            UpdateRef(file.kind, f"{n:064x}", file.nbytes) for n, file in enumerate(files)
        )
        kept = list(files)
        rebuild = lambda count, kept=kept: decode_chain(spec, [parsed(f) for f in kept[:count]])  # noqa: E731
        choice = encode_block(spec, new.view(np.uint32), Predecessor(chain, spec, rebuild))
        files = [*files[: choice.keep], *filter(None, [choice.encoded])]
        found = decode_chain(spec, [parsed(file) for file in files])
        assert found.tobytes() == new.tobytes()
        assert len(files) <= 33
        assert len(files) == 2 or sum(f.nbytes for f in files[1:]) <= files[0].nbytes / 2
        versions.append(new)


def rebuilt(spec: BlockSpec, files: list[Encoded], count: int) -> Values:
    return decode_chain(spec, [parsed(file) for file in files[:count]])


class History:
    """A block's versions, each stored against the one before it, as commits do."""

    def __init__(self) -> None:
        self.files: list[Encoded] = []
        self.spec: BlockSpec | None = None

    def add(self, spec: BlockSpec, values: Values) -> None:
        chain = tuple(UpdateRef(f.kind, f"{n:064x}", f.nbytes) for n, f in enumerate(self.files))
        then, kept = self.spec or spec, list(self.files)
        rebuild = lambda count: rebuilt(then if count == len(kept) else spec, kept, count)  # noqa: E731
        choice = encode_block(spec, values, Predecessor(chain, then, rebuild) if chain else None)
        self.files = [*self.files[: choice.keep], *filter(None, [choice.encoded])]
        self.spec = spec
        assert rebuilt(spec, self.files, len(self.files)).tobytes() == values.tobytes()


@pytest.mark.parametrize("exported", [False, True])
def test_what_no_longer_fits_a_chain_is_joined_into_one_update(exported: bool) -> None:
    """Behind a cast, the export is what they are joined on, not the original."""
    random = np.random.default_rng(1)
    weights = (random.standard_normal((256, 256)) * 0.05).astype(np.float32)
    history = History()
    history.add(BlockSpec(DTYPES["F32"], (256, 256)), weights.ravel().view(np.uint32))
    name, size = "F32", np.dtype(np.float32)
    if exported:
        name, size = "BF16", np.dtype(ml_dtypes.bfloat16)
        weights = weights.astype(size)
        history.add(BlockSpec(DTYPES[name], (256, 256)), weights.ravel().view(np.uint16))
    base = len(history.files)
    longest = shortest = base
    for _ in range(34):
        left, right = (random.standard_normal(shape) * 0.02 for shape in ((256, 1), (1, 256)))
        weights = (weights.astype(np.float32) + (left @ right).astype(np.float32)).astype(size)
        values = weights.ravel().view(values_dtype(DTYPES[name]))
        before = len(history.files)
        history.add(BlockSpec(DTYPES[name], (256, 256)), values)
        longest = max(longest, len(history.files))
        if len(history.files) <= before:
            shortest = len(history.files)
            assert history.files[-1].nbytes < 0.5 * values.nbytes
    assert longest > base + 4
    assert shortest == base + 1
    assert [file.kind for file in history.files[:base]] == ["dense", "cast"][:base]


def test_checkpoints_of_one_run_are_stored_on_the_last_three_in_a_row() -> None:
    random = np.random.default_rng(3)
    weights = (random.standard_normal((256, 256)) * 0.05).astype(np.float32)
    spec, history = BlockSpec(DTYPES["F32"], (256, 256)), History()
    history.add(spec, weights.ravel().view(np.uint32))
    sizes, lengths = [], []
    for _ in range(7):
        weights = weights + (random.standard_normal((256, 256)) * 5e-4).astype(np.float32)
        history.add(spec, weights.ravel().view(np.uint32))
        sizes.append(history.files[-1].nbytes / weights.nbytes)
        lengths.append(len(history.files))
    assert {file.kind for file in history.files[1:]} == {"delta"}
    assert lengths == [2, 3, 4, 2, 3, 4, 2]
    assert max(sizes[:3]) < sizes[0] * 1.02 < sizes[3]
    # A few entries changed behind these cost no more than they do behind a dense copy.
    weights = weights.copy()
    weights[::64, ::64] *= 1.5
    history.add(spec, weights.ravel().view(np.uint32))
    assert history.files[-1].kind == "sparse"
    assert len(history.files) == 3


def test_a_large_update_that_saves_little_needs_no_other() -> None:
    dense, large = (
        UpdateRef(kind, "0" * 64, size) for kind, size in (("dense", 100), ("delta", 86))
    )
    update = Encoded("delta", [bytes(86)])
    assert choose._may_grow((dense,), update)
    assert not choose._may_grow((dense, large), update)
    assert choose._may_grow((dense, large), Encoded("delta", [bytes(85)]))


def test_a_parameter_file_is_a_safetensors_file() -> None:
    spec = BlockSpec(DTYPES["F32"], (5000,))
    encoded = Dense().encode(spec, np.arange(5000, dtype=np.uint32))
    assert load_safetensors(b"".join(encoded.pieces)).keys() >= {"plane0", "plane1"}


def test_encoding_is_deterministic() -> None:
    new, base = random_values("F32", 70_000, 1), random_values("F32", 70_000, 2)
    spec = BlockSpec(DTYPES["F32"], (70_000,))
    for kind in ("dense", "delta"):
        first, again = (updates.get(kind).encode(spec, new, base) for _ in range(2))
        assert first is not None
        assert again is not None
        assert b"".join(first.pieces) == b"".join(again.pieces)


FLOATS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]


@pytest.mark.parametrize("old", FLOATS)
@pytest.mark.parametrize("new", FLOATS)
def test_casts_between_all_floats_come_back(old: str, new: str) -> None:
    if old == new:
        return
    before, after = (BlockSpec(DTYPES[name], (3, 700)) for name in (old, new))
    base, values = random_values(old, 2100, 1), random_values(new, 2100, 2)
    encoded = Cast().encode_from(after, values, before, base)
    assert encoded is not None
    files = [parsed(Dense().encode(before, base)), parsed(encoded)]
    assert decode_chain(after, files).tobytes() == values.tobytes()


@pytest.mark.parametrize("name", ["F32", "BF16", "C64", "I64", "U8"])
@pytest.mark.parametrize(("then", "now"), [((9, 50), (12, 50)), ((9, 50), (9, 41))])
def test_resized_blocks_come_back(name: str, then: tuple[int, ...], now: tuple[int, ...]) -> None:
    before, after = (BlockSpec(DTYPES[name], shape) for shape in (then, now))
    base, values = random_values(name, before.count, 1), random_values(name, after.count, 2)
    encoded = Resize().encode_from(after, values, before, base)
    assert encoded is not None
    files = [parsed(Dense().encode(before, base)), parsed(encoded)]
    assert decode_chain(after, files).tobytes() == values.tobytes()


def test_a_cast_then_a_delta_and_a_resize_are_one_chain() -> None:
    random = np.random.default_rng(0)
    first = (random.standard_normal((64, 300)) * 0.02).astype(np.float32)
    exported = first.astype(ml_dtypes.bfloat16)
    tuned = (first * 1.01 + 0.001).astype(ml_dtypes.bfloat16)
    grown = np.concatenate([tuned, exported[:3]])
    specs = [BlockSpec(DTYPES["F32"], (64, 300)), *[BlockSpec(DTYPES["BF16"], (64, 300))] * 2,
             BlockSpec(DTYPES["BF16"], (67, 300))]  # fmt: skip
    files: list[Encoded] = []
    for number, array in enumerate((first, exported, tuned, grown)):
        values = np.ascontiguousarray(array).reshape(-1).view(values_dtype(specs[number].dtype))
        chain = tuple(UpdateRef(f.kind, f"{n:064x}", f.nbytes) for n, f in enumerate(files))
        kept, then = list(files), specs[max(0, number - 1)]
        rebuild = partial(rebuilt, then, kept)
        predecessor = Predecessor(chain, then, rebuild) if files else None
        choice = encode_block(specs[number], values, predecessor)
        files = [*files[: choice.keep], *filter(None, [choice.encoded])]
        found = decode_chain(specs[number], [parsed(file) for file in files])
        assert found.tobytes() == values.tobytes()
        if number == 1:
            assert [file.kind for file in files] == ["dense", "cast"]
            assert files[1].nbytes < 400
        if number == 3:
            assert files[-1].kind == "resize"
            assert dict(files[-1].info) == {"axis": "0", "from": "64", "to": "67"}
