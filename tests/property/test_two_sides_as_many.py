"""Two sides are merged a quicker way: the result is that of the way for any number of sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo, cut
from git_theta_ext.core.values import Values, to_floats, values_dtype
from git_theta_ext.manifest.model import Entry
from git_theta_ext.merge.combine import collisions, merger
from git_theta_ext.merge.combine.collisions import Compared
from git_theta_ext.merge.combine.merger import merge_tensor
from git_theta_ext.merge.combine.result import TensorResult
from git_theta_ext.merge.combine.tensor import Versions
from git_theta_ext.merge.decide.decisions import Decision
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.table import TABLE
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from tests.scenarios.patterns import patterns

FLOATS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"]
INTEGERS = ["BOOL", "U8", "I8", "I32", "I64", "U64", "F4", "F8_E8M0"]
CHOICES = [
    *(Choice(one.name) for one in TABLE if one.name not in ("fisher", "regmean")),
    Choice("conflict"), Choice("zero"), Choice("larger"),
    Choice("average", (("weights", (0.25, 3.0)),)),
]  # fmt: skip
PLAIN = [one for one in CHOICES if one.strategy in ("ours", "theirs", "base", "conflict", "zero")]


@dataclass(frozen=True)
class Case:
    """One tensor: the shapes of base (None: there is none), ours and theirs, and what is done."""

    dtype: str
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...], tuple[int, ...]]
    values: tuple[Values, ...]
    choice: Choice

    @property
    def standing(self) -> TensorInfo:
        old, rows, theirs = self.shapes
        if old is not None and self.choice.strategy == "stack" and old not in (rows, theirs):
            rows = (rows[0] + theirs[0] - old[0], *rows[1:])
        elif rows == old:
            rows = theirs
        return TensorInfo("t", DTYPES[self.dtype], rows)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Awkward values; sides that changed few or all entries, or added rows; shapes with none."""
    floats = draw(st.booleans())
    dtype = draw(st.sampled_from(FLOATS if floats else INTEGERS))
    choice = draw(st.sampled_from(CHOICES if floats else PLAIN))
    shape = draw(st.sampled_from([(), (0,), (1,), (7,), (40, 3), (4, 0), (130, 150)]))
    whole = DTYPES[dtype].bits % 8 == 0  # a row of packed elements may end inside a byte
    grown = whole and len(shape) == 2 and shape[1] > 0 and draw(st.booleans())
    more = [(shape[0] + draw(st.integers(0, 3)), *shape[1:]) if grown else shape for _ in range(2)]
    based = grown or draw(st.booleans())
    shapes = (shape if based else None, more[0], more[1])
    counts = [0 if one is None else count_of(dtype, one) for one in shapes]
    first = patterns(draw, dtype, max(counts))
    versions = [first[: counts[0]], *(moved(draw, dtype, first)[:n] for n in counts[1:])]
    return Case(dtype, shapes, tuple(versions), choice)


def count_of(dtype: str, shape: tuple[int, ...]) -> int:
    size = sum(spec.nbytes for spec in cut(TensorInfo("t", DTYPES[dtype], shape)))
    return size // values_dtype(DTYPES[dtype]).itemsize


def moved(draw: st.DrawFn, dtype: str, first: Values) -> Values:
    """A side: as it was, but for some entries, or for all."""
    other = patterns(draw, dtype, len(first))
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = first.copy()
    if len(first):
        near = draw(st.booleans()) and dtype in ("F64", "F32", "F16", "BF16")
        change = first ^ (other & first.dtype.type(7)) if near else other
        np.copyto(found, change, where=random.random(len(first)) < share)
    return found


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return Blocks(Store(tmp_path_factory.mktemp("store")))


def entry(blocks: Blocks, info: TensorInfo, values: Values) -> Entry:
    found, start = [], 0
    for spec in cut(info):
        length = spec.nbytes // values.itemsize
        found.append(blocks.write(spec, values[start : start + length]))
        start += length
    return Entry(info, tuple(found))


def merged(blocks: Blocks, case: Case) -> TensorResult:
    made = [
        None if shape is None else entry(blocks, TensorInfo("t", DTYPES[case.dtype], shape), values)
        for shape, values in zip(case.shapes, case.values, strict=True)
    ]
    sides = [one for one in made[1:] if one is not None]
    versions = Versions(case.standing, made[0], sides, blocks)
    decision = Decision("t", "weights", "changed", "changed", "merge", case.standing, case.choice)
    return merge_tensor(decision, versions)


def generally(dtype: DType, base: Values | None, sides: Sequence[Values]) -> Compared:
    """The general comparison, and that each side changed what collides said side by side."""
    found = collisions.of_any(dtype, base, sides)
    every = np.ones(len(sides[0]), np.bool_)
    return replace(found, split=replace(found.split, moved=(every,) * len(sides)))


def plainly(dtype: DType, base: Values | None, sides: Sequence[Values]) -> Compared:
    return collisions.of_any(dtype, base, sides)


WAYS: list[Callable[..., Compared]] = [plainly, generally]


@pytest.mark.parametrize("way", WAYS)
@given(cases())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_two_sides_are_merged_as_any_sides_are(
    blocks: Blocks, way: Callable[..., Compared], case: Case
) -> None:
    quick = merged(blocks, case)
    with mock.patch.object(merger, "compare", way):
        slow = merged(blocks, case)
    assert quick == slow


@given(cases())
@settings(deadline=None, max_examples=100)
def test_the_quick_comparison_says_what_the_general_one_does(case: Case) -> None:
    if case.shapes[0] is None:
        return
    common = min(map(len, case.values))
    base, ours, theirs = (one[:common] for one in case.values)
    quick = collisions.of_two(DTYPES[case.dtype], base, ours, theirs)
    slow = collisions.of_any(DTYPES[case.dtype], base, (ours, theirs))
    if quick is None:
        old, *both = (to_floats(DTYPES[case.dtype], one) for one in (base, ours, theirs))
        with np.errstate(over="ignore", invalid="ignore"):
            squares = sum(float(np.sum(np.square(one - old))) for one in both)
        assert not np.isfinite(squares)
        return
    assert np.array_equal(quick.split.exact, slow.split.exact)
    assert np.array_equal(quick.split.collide, slow.split.collide)
    assert (quick.split.count, quick.split.nan) == (slow.split.count, slow.split.nan)
    assert quick.measure == slow.measure


def test_the_quick_way_is_taken_where_numbers_are_finite(blocks: Blocks) -> None:
    values = [np.full(9, one, np.float32).view(np.uint32) for one in (0, 1, 3)]
    shapes = ((9,), (9,), (9,))
    case = Case("F32", shapes, tuple(values), Choice("average"))
    with mock.patch.object(collisions, "of_any", side_effect=AssertionError):
        found = merged(blocks, case)
    assert found.reason == ""
    with (
        mock.patch.object(merger, "compare", partial(generally)),
        mock.patch.object(collisions, "of_two", side_effect=AssertionError),
    ):
        assert merged(blocks, case) == found


def test_a_third_side_that_did_nothing_changes_no_entry(blocks: Blocks, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    base = random.normal(size=70_000).astype(np.float32)
    sides = [np.where(random.random(70_000) < 0.3, base + 1 + n, base) for n in range(2)]
    info = TensorInfo("t", DTYPES["F32"], (70_000,))
    made = [entry(blocks, info, one.astype(np.float32).view(np.uint32)) for one in (base, *sides)]
    for name in ("average", "ours", "theirs", "base", "conflict"):
        decision = Decision("t", "weights", "changed", "changed", "merge", info, Choice(name))
        two = merge_tensor(decision, Versions(info, made[0], made[1:], blocks))
        three = merge_tensor(decision, Versions(info, made[0], [*made[1:], made[0]], blocks))
        # (Their recipes call the sides by other names.)
        assert [one.sha256 for one in three.blocks] == [one.sha256 for one in two.blocks]
        assert three.measure.collided == two.measure.collided > 0
