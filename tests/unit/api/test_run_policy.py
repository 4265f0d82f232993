"""Which checkpoints of a run stay, and what the messages of its commits say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from git_theta_ext.api.runs import messages
from git_theta_ext.api.runs.policy import Saved, parse
from git_theta_ext.core.errors import UsageError


def saves(*losses: float | None, every: int = 100) -> list[Saved]:
    return [
        Saved(every * at, f"out/checkpoint-{every * at}", {} if loss is None else {"loss": loss})
        for at, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("keep", "mode", "losses", "steps"),
    [
        ("last:2", "min", (1, 2, 3), [200, 300]),
        ("last:9", "min", (1, 2), [100, 200]),
        ("best:1", "min", (3, 1, 2), [200, 300]),
        ("best:1", "max", (3, 1, 2), [100, 300]),
        ("best:2,last:1", "min", (3, 1, 2, 9), [200, 300, 400]),
        ("best:1", "min", (1, 1, 5), [100, 300]),
        ("best:1", "min", (math.nan, None, -math.inf, 4, 5), [400, 500]),
        ("best:1", "min", (None, math.nan), [100, 200]),
        ("every:200", "min", (1, 2, 3, 4, 5), [200, 400, 500]),
        (" every:300 , best:1,last:2", "min", (0, 2, 3, 4, 5), [100, 300, 400, 500]),
    ],
)
def test_what_stays(
    keep: str, mode: str, losses: tuple[float | None, ...], steps: list[int]
) -> None:
    found = parse(keep, "loss", mode).kept(saves(*losses))
    assert [one.step for one in found] == steps


def test_nothing_that_was_let_go_would_have_stayed() -> None:
    """Applied after each save, a policy keeps what it keeps of all of them: `best` and `last`."""
    rng = np.random.default_rng(1)
    policy = parse("best:2,last:2,every:500", "loss", "min")
    everything = saves(*rng.integers(0, 4, 30).astype(float))
    held: list[Saved] = []
    for number, one in enumerate(everything, 1):
        held = policy.kept([*held, one])
        assert held == policy.kept(everything[:number])


@pytest.mark.parametrize(
    "keep",
    ["", "best", "best:0", "best:-1", "first:2", "last:2,last:3", "last:2;every:3", "last:x"],
)
def test_what_cannot_be_read_is_refused(keep: str) -> None:
    with pytest.raises(UsageError, match="cannot be read at"):
        parse(keep, "loss", "min")


def test_the_best_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="the best by what"):
        parse("best:3", None, "min")
    with pytest.raises(UsageError, match="mode is min or max"):
        parse("last:3", None, "more")


def test_a_message_is_read_again() -> None:
    metrics = {"loss": 1.25, "eval_loss": 1.5, "f1: macro\nStep: 9": 0.5, "gone": math.nan}
    text = messages.compose(70, metrics, prefix="tiny", epoch=0.5, path='out/a "b"\n/c')
    assert text.splitlines()[:3] == ["tiny: step 70, eval_loss 1.5, loss 1.25", "", "epoch: 0.5"]
    found = messages.read(text)
    assert found is not None
    assert (found.step, found.path) == (70, 'out/a "b"\n/c')
    assert found.metrics["eval_loss"] == 1.5
    assert found.metrics["f1: macro Step: 9"] == 0.5
    assert messages.read(messages.compose(70, metrics)) is None
    assert messages.read(f"x\n\nStep: 1\nCheckpoint: {'[' * 100_000}\n") is None
    assert messages.read("Merge\n\nStep: x\nCheckpoint: [1]\n") is None


def test_numbers_of_metrics() -> None:
    given = {
        "a": 1,
        "b": np.float32(2),
        "c": np.ones((1,)),
        "d": "text",
        "e": np.ones(3),
        "f": True,
    }
    assert messages.numbers(given) == {"a": 1.0, "b": 2.0, "c": 1.0}
    assert messages.numbers(None) == {}
    assert messages.finite({"a": 1.0, "b": math.inf}) == {"a": 1.0}
