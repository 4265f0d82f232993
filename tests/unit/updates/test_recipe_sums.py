"""Recipes against sums done by hand, one entry at a time."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import git_theta_ext
from git_theta_ext.core.errors import CorruptObjectError, UnknownUpdateError
from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.manifest.model import Parent, Recipe
from git_theta_ext.updates.recipes import predict
from git_theta_ext.updates.recipes.arithmetic import sum_in_order

F32 = DTYPES["F32"]
SEEDS = f"{'0' * 64},{'1' * 64}"
SIDES = ("ours", "theirs", "third")


def recipe(strategy: str, count: int = 2, number: int = 1, **settings: str) -> Recipe:
    parents = tuple(Parent(name, ()) for name in SIDES[:count])
    return Recipe(strategy, number, tuple(settings.items()), parents)


def merged(made: Recipe, base: list[float] | None, *sides: list[float]) -> list[float]:
    bits = [np.array(one, np.float32).view(np.uint32) for one in sides]
    old = None if base is None else np.array(base, np.float32).view(np.uint32)
    found: list[float] = predict(made, F32, old, bits).view(np.float32).tolist()
    return found


def test_an_entry_that_one_side_moved_is_taken_from_it() -> None:
    for name in ("entries", "average", "reapply"):
        assert merged(recipe(name), [1, 1, 1, 1], [2, 1, 3, 1], [1, 5, 3, 1]) == [2, 5, 3, 1]


def test_sums_are_those_of_every_python() -> None:
    """The builtin `sum` of floats gives other bits from Python 3.12 on: merges use ours."""
    assert sum_in_order([0.7, 0.3, 0.1]) == (0.7 + 0.3) + 0.1 == 1.1
    package = Path(git_theta_ext.__file__).parent
    found = [
        f"{path.name}:{node.lineno}"
        for room in ("updates/recipes", "merge/strategies")
        for path in sorted((package / room).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("sum", "fsum")
        and not ast.unparse(node.args[0]).startswith("map(len, ")
    ]
    assert found == []


def test_what_both_moved_is_computed() -> None:
    base, ours, theirs = [1.0], [2.0], [4.0]
    assert merged(recipe("entries"), base, ours, theirs) == [2]
    assert merged(recipe("average"), base, ours, theirs) == [3]
    assert merged(recipe("average", weights="3.0,1.0"), base, ours, theirs) == [2.5]
    assert merged(recipe("reapply"), base, ours, theirs) == [5]
    assert merged(recipe("reapply", **{"lambda": "0.5"}), base, ours, theirs) == [3.5]
    assert merged(recipe("task-arithmetic"), base, ours, theirs) == [5]
    assert merged(recipe("task-arithmetic", weights="1.0,0.5"), base, ours, theirs) == [3.5]


def test_ties_trims_elects_and_averages() -> None:
    base = [0.0, 0.0, 0.0, 0.0]
    ours, theirs = [1.0, 1.0, 0.1, 0.0], [3.0, -2.0, 4.0, 0.0]
    assert merged(recipe("ties"), base, ours, theirs)[:2] == [2, -2]
    assert merged(recipe("ties", floors="0.5,0.5"), base, ours, theirs) == [2, -2, 4, 0]
    assert merged(recipe("ties", floors="inf,inf"), base, ours, theirs) == [0, 0, 0, 0]


def test_breadcrumbs_drops_both_ends() -> None:
    made = recipe("breadcrumbs", floors="0.5,0.5", ceilings="2.0,2.0")
    assert merged(made, [0, 0, 0], [1.0, 0.1, 1.5], [1.0, 1.0, 9.0]) == [1, 1, 1.5]


def test_of_three_sides_those_that_moved_an_entry_count() -> None:
    sides = [2.0, 2.0, 1.0], [4.0, 1.0, 1.0], [6.0, 4.0, 3.0]
    assert merged(recipe("average", 3), [1, 1, 1], *sides) == [4, 3, 3]
    assert merged(recipe("average", 3, weights="1.0,2.0,1.0"), [1, 1, 1], *sides) == [4, 3, 3]


def test_without_a_base_every_entry_was_moved() -> None:
    assert merged(recipe("average"), None, [1.0, 5.0], [3.0, 5.0]) == [2, 5]


def test_what_is_no_number_is_kept() -> None:
    found = merged(recipe("average"), [1, 1, 1], [np.inf, 3.0e38, 2], [2, 3.2e38, 4])
    assert found[0] == np.inf
    assert found[2] == 3
    found = merged(recipe("task-arithmetic"), [0], [3.0e38], [3.2e38])
    assert found == merged(recipe("entries"), [0], [3.0e38], [3.2e38])


def test_the_result_does_not_depend_on_how_it_is_cut() -> None:
    random = np.random.default_rng(3)
    versions = [random.standard_normal(70_000).astype(np.float32).view(np.uint32) for _ in range(3)]
    for made in (recipe("average"), recipe("ties", floors="0.5,0.7")):
        whole = predict(made, F32, versions[0], versions[1:])
        cuts = [0, 1, 33_000, 70_000]
        parts = [
            predict(made, F32, versions[0][a:b], [one[a:b] for one in versions[1:]])
            for a, b in pairwise(cuts)
        ]
        assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize(
    "bad",
    [
        recipe("average", weights="1.0"),
        recipe("average", weights="1.0,x"),
        recipe("average", weights="nan,1.0"),
        recipe("average", floors="1.0,1.0"),
        recipe("average", 1),
        recipe("ties", floors="1.0,2.0,3.0"),
        recipe("ties", floors="x" * 9999),
        recipe("dare-linear", seeds="0" * 9999),
        *(recipe("dare-ties", seeds=SEEDS, density=bad) for bad in ("inf", "1e300", "-1.0")),
        recipe("dare-ties", seeds=SEEDS, **{"x" * 9999: "1"}),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_few_words(bad: Recipe) -> None:
    versions = [np.array([number] * 4, np.uint32) for number in range(len(bad.parents))]
    with pytest.raises(CorruptObjectError) as refused:
        predict(bad, F32, versions[0], versions)
    assert len(refused.value.message) < 300


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_infinite_without_a_warning() -> None:
    for name in ("floors", "ceilings"):
        made = recipe("breadcrumbs", **{name: "1e300,1e300"})
        expected = 1.0 if name == "floors" else 1.75
        assert merged(made, [1.0], [1.5], [1.25]) == [expected]


def test_a_base_is_needed_where_it_is_computed_with() -> None:
    for name in ("reapply", "task-arithmetic", "ties", "breadcrumbs"):
        with pytest.raises(CorruptObjectError, match="without a base"):
            predict(recipe(name), F32, None, [np.zeros(4, np.uint32)] * 2)


def test_unknown_recipes_are_refused_by_name() -> None:
    for unknown in (recipe("slerp"), recipe("average", number=2)):
        with pytest.raises(UnknownUpdateError, match=unknown.strategy):
            predict(unknown, F32, None, [np.zeros(4, np.uint32)] * 2)


def test_integers_are_not_computed_with() -> None:
    with pytest.raises(CorruptObjectError, match="floats"):
        predict(recipe("average"), DTYPES["I32"], None, [np.zeros(4, np.uint32)] * 2)
