"""The laws of coupled groups, over random groups, dtypes and containers."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.decide.decisions import Plan, content_of, entries_of
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.decide.plan_several import plan_several
from git_theta_ext.merge.decide.products import STRATEGIES
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.table import TABLE
from tests.scenarios.coupled_layouts import LAYOUTS, Types, version

CONTAINERS = ("safetensors", "torch-zip", "torch-legacy", "gguf", "onnx", "npz", "hdf5")
COMPUTED = [one.name for one in TABLE if one.name not in ("ours", "theirs", "base")]
FACTORS = ("LoRA", "LoRA of an embedding", "DoRA", "AdaLoRA", "LoHa", "LoKr", "VeRA", "kohya")
"""Groups that some strategies blend as what they are: products."""


@st.composite
def models(draw: st.DrawFn) -> tuple[Types, dict[str, set[str]], set[str]]:
    """Random modules of known and unknown layouts, with floats outside them."""
    types: dict[str, tuple[str, tuple[int, ...]]] = {}
    groups: dict[str, set[str]] = {}
    for number, layout in enumerate(draw(st.lists(st.sampled_from(sorted(LAYOUTS)), max_size=3))):
        given_types, *_ = LAYOUTS[layout]
        renamed = {f"block{number}.{name}": kind for name, kind in given_types.items()}
        types.update(renamed)
        groups[f"{number} {layout}"] = set(renamed)
    floats = {f"plain.{number}.weight" for number in range(draw(st.integers(1, 3)))}
    dtype = draw(st.sampled_from(["F32", "BF16", "F16", "F64"]))
    types.update(dict.fromkeys(floats, (dtype, (8, 8))))
    return types, groups, floats


def side(draw: st.DrawFn, types: Types, container: str, number: int) -> Manifest:
    changed = draw(st.sets(st.sampled_from(sorted(types))))
    gone = draw(st.sets(st.sampled_from(sorted(types)), max_size=1))
    values = {name: draw(st.sampled_from([number, 9])) for name in changed}
    kept = {name: kind for name, kind in types.items() if name not in gone}
    return version(kept, values, container, draw(st.integers(0, 1)) * number)


def state(version_: Manifest, names: set[str]) -> dict[str, object]:
    table = entries_of(version_)
    return {name: content_of(table[name]) for name in names if name in table}


def outcome(plan: Plan, names: set[str]) -> dict[str, object] | None:
    """The contents that some tensors get, or None if one of them is made of two versions."""
    versions = {"ours": plan.ours, "theirs": plan.theirs, "base": plan.base}
    found: dict[str, object] = {}
    for one in plan.decisions:
        if one.name not in names or one.action == "drop":
            continue
        if one.action == "merge":
            return None
        label = one.action if one.action in versions else "ours"
        version_ = versions[label]
        assert version_ is not None
        table = entries_of(version_)
        if one.name in table:
            found[one.name] = content_of(table[one.name])
    return found


@given(st.data())
@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_a_group_is_never_made_of_two_versions(data: st.DataObject) -> None:
    types, groups, floats = data.draw(models())
    container = data.draw(st.sampled_from(CONTAINERS))
    base = version(types, {}, container)
    ours, theirs = (side(data.draw, types, container, number) for number in (1, 2))
    strategy = data.draw(st.sampled_from(["conflict", "ours", "theirs", "base", *COMPUTED]))
    plan = make_plan(base, ours, theirs, lambda _: Choice(strategy))
    versions = {"base": base, "ours": ours, "theirs": theirs}
    for layout, names in groups.items():
        # Of a layout that nobody knows, floats are coupled with codes that changed with them.
        coupled = {one for group in plan.groups for one in group.members} & names
        made = outcome(plan, coupled)
        if made is None:
            assert strategy in STRATEGIES
            assert layout.split(" ", 1)[1] in FACTORS
            continue
        for group in plan.groups:
            members = set(group.members)
            if group.kind != "renamed" and members <= names:
                wholes = [state(one, members) for one in versions.values()]
                assert {name: made[name] for name in members if name in made} in wholes
        if strategy == "ours":
            before = {name: state(one, coupled) for name, one in versions.items()}
            if before["base"] not in (before["ours"], before["theirs"]):
                assert {name: made[name] for name in coupled if name in made} == before["ours"]
    outside = floats - {name for group in plan.groups for name in group.members}
    for one in plan.decisions:
        if one.name in outside and one.ours == one.theirs == "changed":
            assert one.action in ("merge", "same")


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_nor_of_several_sides(data: st.DataObject) -> None:
    types, groups, _ = data.draw(models())
    container = data.draw(st.sampled_from(CONTAINERS))
    base = version(types, {}, container)
    sides = [side(data.draw, types, container, number) for number in (1, 2, 3)]
    strategy = data.draw(st.sampled_from(["conflict", "ours", "theirs", "base", "average"]))
    plan = plan_several(base, sides, lambda _: Choice(strategy))
    rows = {row.decision.name: row for row in plan.rows}
    for names in groups.values():
        here = {name: rows[name] for name in names if name in rows}
        coupled = {name for name, row in here.items() if row.decision.leader}
        if any(row.decision.action == "open" for row in here.values()):
            continue
        made = {}
        for name in coupled:
            row = here[name]
            assert not row.movers
            if row.entry is not None:
                made[name] = content_of(row.entry)
        for leader in {here[name].decision.leader for name in coupled}:
            members = {name for name in coupled if here[name].decision.leader == leader}
            if members == {n for n, row in rows.items() if row.decision.leader == leader}:
                wholes = [state(one, members) for one in (base, *sides)]
                assert {name: made[name] for name in members if name in made} in wholes
