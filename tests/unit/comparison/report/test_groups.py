"""Names under one name: what a group's braces list is exactly what it holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.comparison.compare import Change
from git_theta_ext.comparison.report.groups import group
from git_theta_ext.core.patterns import expand
from git_theta_ext.core.tensors import DTYPES, TensorInfo


def change(name: str, kind: str = "delta", rows: int = 4) -> Change:
    tensor = TensorInfo(name, DTYPES["F32"], (rows, 4))
    return Change("changed", tensor, tensor, kind)


def names(*changes: Change) -> list[str]:
    return [one.name for one in group(changes)]


def test_layers_and_kinds_of_a_module() -> None:
    found = names(
        *(
            change(f"encoder.layer.{n}.self.{kind}.weight")
            for n in range(6)
            for kind in ("query", "value")
        )
    )
    assert found == ["encoder.layer.{0..5}.self.{query,value}.weight"]


def test_only_what_changed_alike() -> None:
    found = names(
        change("a.0.w"), change("a.1.w", "sparse"), change("a.2.w"), change("a.3.w", rows=9)
    )
    assert found == ["a.{0,2}.w", "a.1.w", "a.3.w"]


def test_runs_of_numbers() -> None:
    assert names(*(change(f"l.{n}") for n in (0, 1, 2, 5, 7, 8))) == ["l.{0..2,5,7,8}"]


def test_many_alternatives_are_counted() -> None:
    (one,) = group([change(f"m.{letter}.w") for letter in "abcdefghij"])
    assert one.name == "m.{a,b,c,d,e,f,… 4 more}.w"
    assert len(one.changes) == 10


def test_the_order_is_that_of_the_names() -> None:
    assert names(change("b"), change("a.10"), change("a.9", "sparse")) == ["a.9", "a.10", "b"]


@given(
    st.sets(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from(["w", "b"])).map(
            lambda parts: ".".join(map(str, parts))
        ),
        min_size=1,
    )
)
def test_a_group_stands_for_exactly_its_names(found: set[str]) -> None:
    covered: list[str] = []
    for one in group([change(name) for name in sorted(found)]):
        listed = [name for each in _ranges(one.name) for name in expand(each)]
        assert sorted(listed) == sorted(member.name for member in one.changes)
        covered += listed
    assert sorted(covered) == sorted(found)


def _ranges(name: str) -> list[str]:
    """`{0..2,5}` as `{0,1,2,5}`, which `expand` understands."""
    out = name
    for first in range(6):
        for last in range(first, 6):
            numbers = ",".join(map(str, range(first, last + 1)))
            out = out.replace(f"{first}..{last}", numbers)
    return [out]
