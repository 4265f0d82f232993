"""What a merge does for four times as many tensors is about four times as much, not sixteen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.combine import apply, several
from git_theta_ext.merge.conflicts.board import Board, Settling
from git_theta_ext.merge.conflicts.distance import Weighed, weigh
from git_theta_ext.merge.conflicts.elide import elided
from git_theta_ext.merge.conflicts.explain import plan_lines
from git_theta_ext.merge.conflicts.resolve import Conflict
from git_theta_ext.merge.conflicts.state import Resolution, State
from git_theta_ext.merge.decide import plan
from git_theta_ext.merge.decide.groups import find_groups
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.decide.plan_several import plan_several
from git_theta_ext.merge.decide.scaling import Scalings
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.policy import Policy
from git_theta_ext.objects import executor
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from tests.scenarios.manifests import entry, manifest

FEW, MANY = 30, 120
MOST = 6.0
"""Sixteen if all is looked at for each; sorting and the like make it a little more than four."""


def steps(work: Callable[[], Any]) -> int:
    """How many steps of Python some work takes: a number that no load of a machine changes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def version(count: int, label: object, name: str = "l.{}.weight", **options: Any) -> Manifest:
    """A version of a model; the tensors of one label are those of no other."""
    options = {"shape": (8,), **options}
    return manifest(*(entry(name.format(n), f"{label} {n}", **options) for n in range(count)))


def all_alike(count: int, label: object) -> Manifest:
    return manifest(*(entry(f"l.{n}.lora_B", label, shape=(40, 20)) for n in range(count)))


def coupled(count: int, label: object) -> Manifest:
    made = []
    for n in range(count):
        made.append(entry(f"l.{n}.qweight", f"{label} {n}", "I32", (8, 8)))
        made.append(entry(f"l.{n}.scales", f"{label} s{n}", "F16", (8,)))
    return manifest(*made)


def mixed(count: int, label: object) -> Manifest:
    """Codes and numbers in one module, which nothing but their place could tie together."""
    codes = [entry(f"q{n}", f"{label} {n}", "I8", (4, 2)) for n in range(count)]
    return manifest(*codes, *(entry(f"w{n}", f"{label} {n}", shape=(8,)) for n in range(count)))


def factors(count: int, label: object) -> Manifest:
    made = []
    for n in range(count):
        for side in "AB":
            made.append(entry(f"l.{n}.lora_{side}.weight", f"{label} {n} {side}", shape=(2, 2)))
    return manifest(*made)


def versions(make: Callable[..., Manifest], count: int, labels: str = "012") -> list[Manifest]:
    return [make(count, label) for label in labels]


def renamed(count: int) -> list[Manifest]:
    """One side put a prefix before all names, the others trained the last tensor alone."""
    base = version(count, 0)
    last = manifest(*base.entries[:-1], entry(f"l.{count - 1}.weight", "new", shape=(8,)))
    return [base, version(count, 0, "module.l.{}.weight"), last]


def renamed_twice(count: int) -> list[Manifest]:
    return [version(count, n, name) for n, name in
            enumerate(("l.{}.weight", "module.l.{}.weight", "_orig_mod.l.{}.weight"))]  # fmt: skip


MAKERS: dict[str, Callable[[int], list[Manifest]]] = {
    "trained": lambda count: versions(version, count),
    "equal": lambda count: versions(all_alike, count),
    "equal in one": lambda count: [
        *versions(all_alike, count, "01"), version(count, 2, "l.{}.lora_B", shape=(40, 20)),
    ],
    "codes": lambda count: versions(coupled, count),
    "mixed": lambda count: versions(mixed, count),
    "factors": lambda count: versions(factors, count),
    "renamed": renamed,
    "renamed twice": renamed_twice,
    "removed": lambda count: [
        *versions(version, count, "01"), version(count, 2, "m.{}.weight")
    ],
    "large and removed": lambda count: [
        version(count, 0, shape=(400,)), version(count, 1, shape=(400,)),
        version(count, 2, "m.{}.weight", shape=(400,)),
    ],
}  # fmt: skip


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path))


def assert_about_linear(work: Callable[[int], Callable[[], Any]]) -> None:
    # From Python 3.12 on, the first call of a function goes by uncounted: hence once more.
    _, few, many = (steps(work(count)) for count in (FEW, FEW, MANY))
    assert few > FEW
    assert many < MOST * few, f"{few:,} steps for {FEW}, {many:,} for {MANY}"


@pytest.mark.parametrize("scene", MAKERS)
@pytest.mark.parametrize("strategy", ["conflict", "average", "theirs"])
def test_planning(scene: str, strategy: str) -> None:
    def work(count: int) -> Callable[[], Any]:
        base, ours, theirs = MAKERS[scene](count)
        return lambda: list(plan_lines(make_plan(base, ours, theirs, lambda _: Choice(strategy))))

    assert_about_linear(work)


@pytest.mark.parametrize("scene", MAKERS)
def test_planning_several(scene: str) -> None:
    def work(count: int) -> Callable[[], Any]:
        base, *sides = MAKERS[scene](count)
        return lambda: plan_several(base, (*sides, base), lambda _: CONFLICT)

    assert_about_linear(work)


@pytest.mark.parametrize("name", ["w{}", "{}", "m.w{}", "l.{}.weight_q"])
@pytest.mark.parametrize("dtype", ["I8", "U8", "I32", "F32"])
def test_finding_groups(name: str, dtype: str) -> None:
    def work(count: int) -> Callable[[], Any]:
        base, *sides = (
            version(count, label, name, dtype=dtype, shape=(4, 2)) for label in range(3)
        )
        return lambda: find_groups(base, sides)

    assert_about_linear(work)


def side_by_side(work: Callable[[Any], Any], items: Any, cost: object, budget: int = 0) -> Any:
    """As `ordered_map`, in this thread, which is the one that is watched."""
    return map(work, items)


@pytest.mark.parametrize("strategy", ["conflict", "average", "theirs"])
def test_carrying_out(blocks: Blocks, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "ordered_map", side_by_side)

    def two(count: int) -> Callable[[], Any]:
        base, ours, theirs = versions(version, count)
        return lambda: apply.merge(base, ours, theirs, blocks, lambda _: Choice(strategy))

    def three(count: int) -> Callable[[], Any]:
        base, *sides = versions(version, count, "0123")
        return lambda: several.merge_several(base, sides, blocks, lambda _: Choice(strategy))

    assert_about_linear(two)
    assert_about_linear(three)


def conflict(count: int, resolutions: tuple[Resolution, ...] = ()) -> Conflict:
    base, ours, theirs = versions(version, count)
    nowhere = Repository(Path("."), Path("."), Path("."), None)
    state = State(Policy(CONFLICT, (), "test"), resolutions)
    return Conflict(nowhere, "m", (base, ours, theirs), "key", state, Scalings())


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many plans were made."""
    made: list[int] = []
    whole = plan.make_plan

    def counting(*versions: Any, **options: Any) -> Any:
        made.append(1)
        return whole(*versions, **options)

    monkeypatch.setattr("git_theta_ext.merge.conflicts.resolve.make_plan", counting)
    return iter([made])


def board(blocks: Blocks, count: int) -> Board:
    def merged(settling: Settling, name: str) -> Weighed:
        assert isinstance(settling, Conflict)
        return weigh(settling, name, blocks)

    return Board(conflict(count), merged)


def test_the_board(blocks: Blocks) -> None:
    def opened(count: int) -> Callable[[], Any]:
        return lambda: board(blocks, count)

    def settled(count: int) -> Callable[[], Any]:
        made = board(blocks, count)

        def press() -> None:
            for key in ("a", "v", "u", "f", "o"):
                made.press(key)
                made.screen(100, 40)

        return press

    assert_about_linear(opened)
    assert_about_linear(settled)


def test_a_plan_is_made_once_for_every_choice(blocks: Blocks, plans: Iterator[list[int]]) -> None:
    made = next(plans)
    found = board(blocks, FEW)
    assert len(made) == 1
    found.press("a")
    found.press("v")
    assert len(made) == 2
    assert found.left == 0


def test_choices_that_were_made_one_by_one() -> None:
    def work(count: int) -> Callable[[], Any]:
        each = tuple(Resolution(frozenset([f"l.{n}.weight"]), "ours") for n in range(count))
        return lambda: conflict(count, each).plan()

    assert_about_linear(work)


def test_names_that_are_cut() -> None:
    def work(count: int) -> Callable[[], Any]:
        names = [f"{'x' * 40}{n}{'y' * 40}" for n in range(count)]
        return lambda: elided(names, 6)

    assert_about_linear(work)
