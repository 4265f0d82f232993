"""Results as values: outcomes come back, and what cannot be compared is refused."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.results import Examples, Score
from git_theta_ext.manifest.model import Block, Entry, Manifest


def test_outcomes_come_back_in_the_order_of_their_ids() -> None:
    random = np.random.default_rng(3)
    for count in (1, 7, 8, 9, 10_000):
        right = {f"q{number}": float(random.integers(2)) for number in range(count)}
        real = {one: float(random.normal()) for one in right}
        one, other = Examples.of(right, "right"), Examples.of(real, "real")
        assert one.ids_hash == other.ids_hash
        assert one.values().tolist() == [right[key] for key in sorted(right)]
        assert other.values().tolist() == [real[key] for key in sorted(real)]
        assert len(one.outcomes) == (count + 7) // 8


def test_other_ids_have_another_hash() -> None:
    hashes = {
        Examples.of(dict.fromkeys(ids, 1.0), "right").ids_hash
        for ids in (["a", "b"], ["ab"], ["a", "c"], ["a"], ["", "ab"])
    }
    assert len(hashes) == 5
    back = [Examples.of(dict.fromkeys(ids, 1.0), "right") for ids in (["b", "a"], ["a", "b"])]
    assert back[0] == back[1]


@pytest.mark.parametrize(
    ("outcomes", "kind", "message"),
    [
        ({}, "right", "0 examples"),
        ({"a": 1.0, "b": 0.5}, "right", "'b' is 0.5, not 0 or 1"),
        ({"a": float("nan")}, "real", "'a' is nan, not a finite number"),
    ],
)
def test_outcomes_that_say_nothing_are_refused(outcomes: dict[str, float], kind: str,
                                               message: str) -> None:  # fmt: skip
    with pytest.raises(UsageError, match=message):
        Examples.of(outcomes, kind)  # type: ignore[arg-type]


def test_scores_that_are_no_numbers_are_refused() -> None:
    for value, stderr in ((float("nan"), None), (float("inf"), None), (0.5, -1.0)):
        with pytest.raises(ValueError, match=r"no score|no standard error"):
            Score("rte", "acc", value, stderr)


def test_the_error_of_a_score() -> None:
    examples = Examples.of({str(number): float(number < 75) for number in range(100)}, "right")
    known = Score("rte", "acc", 0.75, ids_hash=examples.ids_hash, examples=examples)
    assert known.error == pytest.approx((0.75 * 0.25 / 99) ** 0.5)
    assert Score("rte", "acc", 0.75, count=100).error == pytest.approx((0.75 * 0.25 / 100) ** 0.5)
    assert Score("rte", "acc", 0.75, 0.01, count=100).error == 0.01
    assert Score("rte", "bleu", 0.75, count=100).error is None


def manifest(*names: str, form: str = "safetensors", skeleton: str = "5" * 64,
             shape: tuple[int, ...] = (2, 3), order: tuple[int, ...] | None = None,
             value: str = "a" * 64) -> Manifest:  # fmt: skip
    entries = [
        Entry(TensorInfo(name, DTYPES["F32"], shape, order), (Block(24, value),)) for name in names
    ]
    return Manifest(form, Block(80, skeleton), tuple(entries))


def test_the_identity_is_of_the_tensors() -> None:
    whole = content_of([manifest("a", "b", "c")])
    assert whole == content_of([manifest("c"), manifest("a", "b", skeleton="6" * 64)])
    others = [
        content_of([one])
        for one in (
            manifest("a", "b"),
            manifest("a", "b", "d"),
            manifest("a", "b", "c", value="b" * 64),
            manifest("a", "b", "c", shape=(3, 2)),
            manifest("a", "b", "c", order=(1, 0)),
            manifest("a", "b", "c", form="gguf"),
            manifest("a", "b", "c", form="gguf", skeleton="6" * 64),
        )
    ]
    assert len({whole, *others}) == 8
