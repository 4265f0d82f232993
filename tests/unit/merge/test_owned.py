"""What becomes of a tensor, told by module, for each way in which it is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.conflicts.owned import Owned, plan_by_module
from git_theta_ext.merge.decide.decisions import Decision, Plan
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from tests.scenarios.manifests import manifest

MODULES = Modules((Module("all", ("*",), ("@all",)), Module("x", ("x.*",))))
OWNED = Owned("m", MODULES)
BOTH = Decision("a", "weights", "changed", "changed", "merge", None)
COLLIDED = {"a": Measure(entries=10, collided=1)}


def lines(decision: Decision, measured: dict[str, Measure]) -> list[str]:
    plan = Plan(None, manifest(), manifest(), (decision,))
    return plan_by_module(plan, OWNED, measured)


@pytest.mark.parametrize(
    ("decision", "measured", "said"),
    [
        (BOTH, COLLIDED, "1 open"),
        (replace(BOTH, choice=Choice("average")), COLLIDED, "1 combined"),
        (BOTH, {"a": Measure(entries=10)}, "1 combined"),
        (BOTH, {}, "1 combined"),  # (a product of factors is blended, not measured)
        (replace(BOTH, action="open"), {}, "1 open"),
        (replace(BOTH, action="ours"), {}, "1 from ours"),
        (replace(BOTH, action="theirs", ours="kept"), {}, "1 from theirs"),
        (replace(BOTH, action="base"), {}, "1 as in the base"),
        (replace(BOTH, action="drop", ours="removed", theirs="kept"), {}, "1 from ours"),
        (replace(BOTH, action="drop", ours="-", theirs="removed"), {}, "1 from theirs"),
        (replace(BOTH, action="drop", ours="removed", theirs="removed"), {}, ""),
        (replace(BOTH, action="same"), {}, ""),
        (replace(BOTH, action="ours", ours="kept", theirs="kept"), {}, ""),
    ],
)
def test_each_way(decision: Decision, measured: dict[str, Measure], said: str) -> None:
    assert BOTH.choice == CONFLICT
    assert lines(decision, measured) == ([f"module all  @all  {said}"] if said else [])


def test_several_modules_and_none() -> None:
    assert lines(replace(BOTH, name="x.a"), {}) == [
        "module all  @all               1 combined",
        "module x    no owner is named  1 combined",
    ]
    assert OWNED.tag("x.a") == " [all: @all; x: no owner is named]"
    assert OWNED.to_ask(["x.a", "y"]) == [
        "to ask: @all (all: 2 open), no owner is named (x: 1 open)"
    ]
    # The header is nobody's, whatever a pattern matches.
    assert OWNED.tag(skeleton.NAME) == ""
    assert OWNED.to_ask([skeleton.NAME]) == []
    plan = Plan(None, manifest(), manifest(), (BOTH,))
    assert plan_by_module(plan, Owned("m"), {}) == []
