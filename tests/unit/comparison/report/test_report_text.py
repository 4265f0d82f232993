"""The words of a report."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.comparison.measure import Measure, Moments
from git_theta_ext.comparison.report.text import Style, percentage, position, render, spark
from git_theta_ext.comparison.report.words import relation, reshaping
from git_theta_ext.comparison.skeletons import Note
from git_theta_ext.core.tensors import DTYPES, TensorInfo


def tensor(name: str = "w", *shape: int, dtype: str = "F32") -> TensorInfo:
    return TensorInfo(name, DTYPES[dtype], shape or (2, 3))


def lines(*changes: Change, notes: tuple[Note, ...] = (), **style: bool) -> str:
    comparison = Comparison(
        changes, 10, 100, 12, 1500, 400, "safetensors", "safetensors", bool(notes), notes
    )
    return "\n".join(render("m.safetensors", comparison, Style(**style)))


def test_a_changed_tensor() -> None:
    moments = Moments(6, 3.0, 4.0)
    measure = Measure(
        6, 0.04, 3.9, moments, moments, 0.1, 4, sample=(np.array([0.1, -0.1, 0], np.float32),)
    )
    text = lines(Change("changed", tensor(), tensor(), "low-rank", (("rank", "8"),), 900, measure))
    assert text.splitlines()[0] == (
        "m.safetensors  1 of 10 tensors changed · 12 of 100 parameters · change 10 % · "
        "stores 1.5 kB of 400 B"
    )
    assert "~ w  F32 [2, 3]   low-rank rank=8   stores 900 B" in text
    assert "change 10 %   cos 0.9750   Δ █   █   █ ±0.1 at [1, 1]   mean 0.5   std 0.645" in text


def test_new_not_finite_values_are_an_alarm() -> None:
    measure = Measure(3, not_finite=3, not_finite_at=5)
    text = lines(Change("changed", tensor(), tensor(), measure=measure), colour=True)
    assert "\x1b[1;31m  ! w" in text
    assert "w: 3 new NaN or infinite, the first at [1, 2]" in text


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ((8, 4), (10, 4), "2 rows added"),
        ((8, 4), (7, 4), "1 row removed"),
        ((8, 4), (8, 6), "2 columns added"),
        ((8, 4, 2), (8, 4, 3), "1 slice of axis 2 added"),
        ((8, 4), (4, 8), "reshaped"),
        ((8, 4), (32,), "reshaped"),
    ],
)
def test_reshaping(then: tuple[int, ...], now: tuple[int, ...], words: str) -> None:
    assert reshaping(tensor("w", *then), tensor("w", *now)) == words


def test_notes_from_outside_the_tensors() -> None:
    notes = (Note("step", "1200", "1800"), Note("new", None, "x"), Note("gone", "y", None))
    text = lines(notes=notes)
    assert "    step  1200 → 1800" in text
    assert "  + new   x" in text
    assert "  - gone  y" in text


def test_names_cannot_forge_lines() -> None:
    evil = tensor("w\n+ forged\x1b[2J\u202egpj")
    text = lines(
        Change("added", None, evil), notes=(Note("a\nb", "\x1b[0m", "\u202e"),), colour=False
    )
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 3


def test_a_flat_index_in_memory_order() -> None:
    assert position(5, tensor("w", 2, 3)) == "[1, 2]"
    assert position(1, TensorInfo("w", DTYPES["F32"], (2, 3), (1, 0))) == "[1, 0]"
    assert position(0, TensorInfo("w", DTYPES["F32"], ())) == "[]"


def test_bars() -> None:
    assert spark([0, 1, 4, 8, 4, 1, 0]) == " ▁▄█▄▁ "
    assert spark([1, 8], unicode=False) == "_@"
    assert spark([]) == ""
    assert spark([0, 0]) == "  "


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0094, "0.94 %"), (1.3, "130 %"), (2.1e-8, "2.1e-06 %"), (0, "0 %"), (0.5, "50 %")],
)
def test_percentages(share: float, text: str) -> None:
    assert percentage(share) == text


@pytest.mark.parametrize(
    ("old", "new", "measure", "words"),
    [
        (tensor("w", 4, 3), tensor("w", 6, 3), Measure(old=Moments(12, 1, 1)),
         ["2 rows added, others unchanged"]),
        (tensor("w", 4, 3), tensor("w", 3, 3), Measure(2, old=Moments(9, 1, 1)),
         ["1 row removed"]),
        (tensor("w", 4, 3), tensor("w", 3, 4), Measure(old=Moments(12, 1, 1)),
         ["reshaped, same values"]),
        (tensor("w", 4, 3), tensor("w", 4, 1, 3), Measure(3, old=Moments(12, 1, 1)), ["reshaped"]),
        (tensor("w", 4, 3), tensor("w", 3, 4), None, ["reshaped"]),
        (tensor("w", 4), tensor("w", 4, dtype="BF16"), Measure(0, 0.1, old=Moments(4, 1, 1)),
         ["retyped, only rounded"]),
        (tensor("w", 4), tensor("w", 4, dtype="F64"), Measure(0, 0.0, old=Moments(4, 1, 1)),
         ["retyped exactly"]),
        (tensor("w", 4), tensor("w", 4, dtype="BF16"), Measure(1, 0.1, old=Moments(4, 1, 1)),
         ["retyped"]),
        (tensor("w", 4), tensor("w", 5, dtype="BF16"), Measure(0, 0.1, old=Moments(4, 1, 1)),
         ["retyped, only rounded", "1 row added"]),
    ],
)  # fmt: skip
def test_what_a_new_type_or_shape_left(
    old: TensorInfo, new: TensorInfo, measure: Measure | None, words: list[str]
) -> None:
    assert relation(Change("changed", old, new, measure=measure)) == words


def test_rounding_is_called_so() -> None:
    measure = Measure(0, 0.04, 4, Moments(4, 1, 4), Moments(4, 1, 4), 0.1, 2)
    text = lines(Change("changed", tensor("w", 4), tensor("w", 4, dtype="BF16"), measure=measure))
    assert "F32 [4] → BF16 [4]   retyped, only rounded" in text
    assert "rounding 10 %" in text
    assert "change 10 %" not in text.splitlines()[2]


def test_an_added_tensor_has_its_mean() -> None:
    measure = Measure(grown=Moments(4, 2.0, 5.0))
    text = lines(Change("added", None, tensor("w", 4), "dense", measure=measure))
    assert text.splitlines()[2].split() == ["mean", "0.5", "std", "1"]
