"""Which tensors are coupled, told from manifests alone: layouts of libraries in use, and others."""

from __future__ import annotations

import pytest

from git_theta_ext.merge.decide.groups import Group, find_groups
from git_theta_ext.merge.decide.plan import Plan, make_plan
from git_theta_ext.merge.strategies.choice import Choice
from tests.scenarios.coupled_layouts import LAYOUTS, Types, version


def groups_of(types: Types, ours: set[str], theirs: set[str], **given: object) -> list[Group]:
    container = str(given.get("container", "safetensors"))
    moved = given.get("skeletons", (0, 0))
    assert isinstance(moved, tuple)
    sides = [
        version(types, dict.fromkeys(names, number), container, skeleton)
        for number, (names, skeleton) in enumerate(zip((ours, theirs), moved, strict=True), 1)
    ]
    return list(find_groups(version(types, {}, container), sides))


E = "l.mlp.experts.gate_up_proj"
F, H, I8, U8 = "F32", "F16", "I8", "U8"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_part_on_each_side_is_one_conflict(layout: str) -> None:
    types, first, second = LAYOUTS[layout]
    (group,) = groups_of(types, {first}, {second})
    assert set(group.members) == {first, second}
    assert group.holds in ("", "follows")
    blended = ("LoRA", "LoRA of an embedding")  # a product has a mean
    for strategy in ("conflict", "ties", *(() if layout in blended else ("average", "reapply"))):
        plan = plan_of(types, {first}, {second}, strategy)
        assert [one.action for one in plan.decisions if one.name in (first, second)] == [
            "open", "open"
        ], strategy  # fmt: skip
        assert [bool(one.reason) for one in plan.decisions if one.leader] in (
            [True, False], [False, True]
        )  # fmt: skip


def plan_of(types: Types, ours: set[str], theirs: set[str], strategy: str) -> Plan:
    versions = [
        version(types, dict.fromkeys(names, n)) for n, names in enumerate((ours, theirs), 1)
    ]
    return make_plan(version(types, {}), *versions, lambda _: Choice(strategy))


APART: dict[str, tuple[Types, str, str]] = {
    "BatchNorm": ({"bn.running_mean": (F, (8,)), "bn.num_batches_tracked": ("I64", ())},
                  "bn.running_mean", "bn.num_batches_tracked"),
    "a bias beside codes": ({"l.weight": (I8, (8, 8)), "l.weight_scale": (F, (8,)),
                             "l.bias": (F, (8,))}, "l.weight", "l.bias"),
    "other modules": ({"a.weight": (I8, (8, 8)), "a.scales": (F, (8,)), "b.weight": (I8, (8, 8)),
                       "b.scales": (F, (8,))}, "a.weight", "b.scales"),
    "other experts": ({f"{E}_blocks": (U8, (8, 8)), f"{E}_scales": (U8, (8, 8)),
                       "l.mlp.experts.down_proj_blocks": (U8, (8, 8)),
                       "l.mlp.experts.down_proj_scales": (U8, (8, 8))},
                      f"{E}_blocks", "l.mlp.experts.down_proj_scales"),
    "a table of ids": ({"e.ids": ("I64", (8, 8)), "e.weight": (F, (8, 8))}, "e.ids", "e.weight"),
    "a model called OPT": ({"opt.q.weight": (F, (8, 8)), "opt.k.weight": (F, (8, 8))},
                           "opt.q.weight", "opt.k.weight"),
    "positions beside learned tables": (
        {"e.position_ids": ("I64", (1, 8)), "e.a": (F, (8, 8)), "e.b": (F, (8, 8))}, "e.a", "e.b"),
    "ids of 32 bits beside a weight": (
        {"e.ids": ("I32", (8, 8)), "e.weight": (F, (8, 8)), "e.shift": (F, (8,))},
        "e.ids", "e.shift"),
    "one name like a moment": ({"attn.m": (F, (8, 8)), "attn.q": (F, (8, 8))}, "attn.m", "attn.q"),
    "bytes without a scale": ({"a.types": (U8, (8,)), "a.weight": (F, (8, 8))},
                              "a.types", "a.weight"),
    "a mask": ({"a.mask": ("BOOL", (8, 8)), "a.weight": (F, (8, 8))}, "a.mask", "a.weight"),
    "layers of GGUF": ({"blk.0.attn_q.weight": (U8, (8, 2, 34)), "blk.1.attn_q.weight":
                        (U8, (8, 2, 34))}, "blk.0.attn_q.weight", "blk.1.attn_q.weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", APART)
def test_what_is_not_coupled_merges_by_itself(case: str) -> None:
    types, first, second = APART[case]
    container = "gguf" if "GGUF" in case else "safetensors"
    for group in groups_of(types, {first}, {second}, container=container):
        assert len({first, second} & set(group.members)) < 2
    if container == "safetensors":
        plan = plan_of(types, {first}, {second}, "conflict")
        found = {one.name: one.action for one in plan.decisions}
        assert (found[first], found[second]) == ("ours", "theirs")


@pytest.mark.parametrize(
    ("types", "container"),
    [
        ({"w": ("QI8", (8, 8)), "b": (F, (8,))}, "torch-zip"),
        ({"w": ("QU8", (8, 8)), "b": (F, (8,))}, "tflite"),
        ({"W_quantized": (I8, (8, 8)), "b": (F, (8,))}, "onnx"),
        ({"l.codes": (I8, (8, 8)), "l.bias": (F, (8,))}, "safetensors"),
        ({"w.indices": ("I64", (2, 9)), "w.values": (F, (9,))}, "torch-zip"),
        ({"cpu": (U8, (5056,))}, "torch-zip"),
        ({"state.0.momentum": (F, (8, 8))}, "torch-zip"),
    ],
)
def test_what_the_skeleton_says_of_codes_is_a_member(types: Types, container: str) -> None:
    first = next(iter(types))
    (group,) = groups_of(types, {first}, set(), container=container, skeletons=(0, 1))
    assert group.holds == "belongs"
    versions = [version(types, {}, container), version(types, {first: 1}, container),
                version(types, {}, container, 1)]  # fmt: skip
    plan = make_plan(*versions)
    assert {one.name: one.action for one in plan.decisions}[first] == "open"
    for side in ("ours", "theirs", "base"):
        plan = make_plan(*versions, lambda _, side=side: Choice(side))
        assert (plan.side, {one.name: one.action for one in plan.decisions}[first]) == (side, side)


def test_a_skeleton_that_says_nothing_of_codes_is_left_alone() -> None:
    types: Types = {"l.weight": (I8, (8, 8)), "l.weight_scale": (F, (8,))}
    (group,) = groups_of(types, {"l.weight"}, set(), skeletons=(0, 1))
    assert group.holds == ""


@pytest.mark.parametrize("side", ["ours", "theirs", "base"])
def test_one_name_of_a_group_decides_all_of_it(side: str) -> None:
    types, first, second = LAYOUTS["GPTQ"]
    rules = {first: Choice(side)}
    plan = make_plan(
        version(types, {}),
        version(types, {first: 1}),
        version(types, {second: 2}),
        lambda name: rules.get(name, Choice("average")),
    )
    assert {one.action for one in plan.decisions if one.leader} == {side}


def test_rules_that_name_two_sides_for_a_group_leave_it_open() -> None:
    types, first, second = LAYOUTS["GPTQ"]
    rules = {first: Choice("ours"), second: Choice("theirs")}
    versions = (version(types, {}), version(types, {first: 1}), version(types, {second: 2}))
    plan = make_plan(*versions, lambda name: rules.get(name, Choice("average")))
    (reason,) = (one.reason for one in plan.decisions if one.reason)
    assert "from different sides" in reason


def test_members_that_a_side_added_or_removed_go_with_the_group() -> None:
    types = LAYOUTS["GPTQ"][0]
    fewer = {name: kind for name, kind in types.items() if name != "l.g_idx"}
    base, ours = version(types, {}), version(fewer, {"l.qweight": 1})
    theirs = version({**types, "l.bias": (F, (8,))}, {"l.scales": 2})
    for side, there in (("ours", set(fewer)), ("theirs", {*types}), ("base", {*types})):
        plan = make_plan(base, ours, theirs, lambda _, side=side: Choice(side))
        kept = {one.name for one in plan.decisions if one.standing is not None}
        assert kept - {"l.bias"} == there
