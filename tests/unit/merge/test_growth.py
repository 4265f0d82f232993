"""What a growing rank makes of an adapter's configuration, and of its factors."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.combine.growth import config_with
from git_theta_ext.merge.decide.scaling import GROWS, Configs, Scale, Scalings, Unknown
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.policy import parse_choice, parse_file
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.factors import A, B, config, factors, load
from tests.scenarios.merged import content, manifest

GROW = Choice("average", (("rank", "grow"),))


def grown(
    blocks: Blocks, kind: type, *, writable: bool
) -> tuple[Merged, list[dict[str, np.ndarray]]]:
    sides = [factors(0, 4, kind), factors(1, 8, kind)]
    ours, theirs, base = (manifest(blocks, one) for one in (*sides, factors(2, 4, kind)))
    texts = [config(4, 8), config(8, 16), config(4, 8), config(8, 16)]
    scalings = Scalings(lambda: Configs.parse(texts[:3], texts[3]), writable=writable)
    return merge(base, ours, theirs, blocks, lambda _: GROW, scalings=scalings), sides


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_no_bit_of_a_factor_is_lost(blocks: Blocks, kind: type) -> None:
    found, (ours, theirs) = grown(blocks, kind, writable=True)
    assert found.open == {}
    made = load(content(blocks, found))
    assert np.array_equal(made[A], np.concatenate([ours[A], theirs[A]]))
    halves = [one[B].astype(np.float64) / 2 for one in (ours, theirs)]
    assert np.array_equal(made[B].astype(np.float64), np.concatenate(halves, axis=1))


def test_where_only_the_checkpoint_is_written_it_stays_open(blocks: Blocks) -> None:
    found, (ours, _) = grown(blocks, np.float32, writable=False)
    assert GROWS in found.open[A]
    assert np.array_equal(load(content(blocks, found))[A], ours[A])


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (config(4, 8), config(8, 16), Scale(12, (1.0, 1.0, 1.0), 24)),
        (config(4, 8), config(8, 8), Scale(12, (1.0, 0.5, 1.0), 24)),
        (config(4, 0), config(8, 8), Scale(12, (0.0, 1.0, 1.0), 12)),
        (config(4, 6), config(9, 9), Scale(13, (1.0, 2 / 3, 1.0), 19.5)),
    ],
)
def test_rank_and_alpha(ours: bytes, theirs: bytes, expected: Scale) -> None:
    found = Configs.parse([ours, theirs, None], theirs)
    ranks = (4, json.loads(theirs)["r"], None)
    assert found.grow("q", ranks) == expected


def test_the_root_of_the_rank_scales_where_it_is_asked_for() -> None:
    texts = [config(rank, 8, use_rslora=True) for rank in (4, 12)]
    found = Configs.parse([*texts, None], texts[1]).grow("q", (4, 12, None))
    assert isinstance(found, Scale)
    assert (found.rank, found.alpha) == (16, 16)
    assert found.ratios[:2] == (1.0, 8 / math.sqrt(12) / 4)


@pytest.mark.parametrize(
    ("versions", "result", "why"),
    [
        ([None] * 3, None, "is not beside it in every version"),
        ([config(4)] * 3, None, "the merge has no adapter_config.json"),
        ([config(4)] * 3, Unknown("a clash"), "a clash"),
    ],
)
def test_what_cannot_grow(
    versions: list[bytes | None], result: bytes | Unknown | None, why: str
) -> None:
    found = Configs.parse(versions, result).grow("q", (4, 4, None))
    assert isinstance(found, Unknown)
    assert why in found.why


def test_one_rank_for_all_needs_no_pattern() -> None:
    text = config(4, 8, rank_pattern={"q": 2}, alpha_pattern={"q": 3}, task_type="X")
    made = config_with(text, {"l.0.q": 6, "l.1.q": 6}, {"l.0.q": 9, "l.1.q": 9})
    assert json.loads(made) == {
        "peft_type": "LORA", "r": 6, "lora_alpha": 9, "rank_pattern": {}, "alpha_pattern": {},
        "task_type": "X",
    }  # fmt: skip
    assert made.count(b"\n") == 0


def test_modules_that_differ_come_before_patterns() -> None:
    text = config(4, 8, rank_pattern={"q": 2})
    made = json.loads(config_with(text, {"l.0.q": 8, "l.1.q": 2, "l.0.k": 4}, {"l.0.q": 16}))
    assert list(made["rank_pattern"].items()) == [("l.0.q", 8), ("q", 2)]
    assert made["alpha_pattern"] == {"l.0.q": 16}
    assert (made["r"], made["lora_alpha"]) == (4, 8)


def test_a_name_that_ends_another_one_is_told_apart() -> None:
    made = json.loads(config_with(config(4, 8), {"q": 8, "l.q": 4, "k": 4}, {"q": 16}))
    assert list(made["rank_pattern"].items()) == [("l.q", 4), ("k", 4), ("q", 8)]


def test_a_dot_is_no_other_character() -> None:
    made = json.loads(config_with(config(4, 8), {"a.q": 8, "a0q": 6, "k": 4}, {"a.q": 8, "a0q": 8}))
    assert list(made["rank_pattern"].items()) == [("a0q", 6), ("a.q", 8)]


def test_the_layout_of_the_text_is_kept() -> None:
    text = json.dumps({"r": 4, "lora_alpha": 8, "a": "ü"}, indent=2, ensure_ascii=False) + "\n"
    made = config_with(text.encode(), {"q": 8}, {"q": 16}).decode()
    assert made == text.replace('"r": 4', '"r": 8').replace('"lora_alpha": 8', '"lora_alpha": 16')


def test_names_that_no_pattern_tells_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="every module") as error:
        config_with(config(4, 8), {"a+q": 8, "k": 4}, {"a+q": 16})
    assert error.value.hint is not None


def test_the_setting_is_a_word() -> None:
    assert parse_choice("average,rank=grow", "here") == GROW
    assert str(GROW) == "average,rank=grow"
    text = b'[merge]\nstrategy = "average"\nrank = "grow"\n'
    assert dict(parse_file(text).defaults)["merge"] == GROW
    for wrong in (
        "average,rank=9",
        "average,rank=shrink",
        "ties,rank=grow",
        "average,weights=grow",
    ):
        with pytest.raises(UsageError):
            parse_choice(wrong, "here")
