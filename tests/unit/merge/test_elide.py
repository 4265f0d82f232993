"""Names cut to a width can still be told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.merge.conflicts.elide import elided


@given(
    st.lists(st.text("ab.{}0", min_size=1, max_size=30), unique=True, max_size=9),
    st.integers(4, 30),
)
def test_no_two_are_alike_and_none_is_too_long(names: list[str], width: int) -> None:
    made = elided(names, width)
    assert len(set(made)) == len(names)
    for name, text in zip(names, made, strict=True):
        assert len(text) <= width
        assert text == name or len(name) > width


def test_a_name_that_fits_stays_beside_one_that_is_cut_to_it() -> None:
    assert elided(["000", "000..", "0000000"], 4)[0] == "000"
    assert len(set(elided(["000..", "000", "000..."], 4))) == 3


@pytest.mark.parametrize("width", range(1, 10))
def test_every_width(width: int) -> None:
    assert all(len(text) <= width for text in elided(["a.bb.ccc.dddd", "a.bb.ccc.eeee"], width))


def test_what_all_share_goes_first() -> None:
    names = [f"model.layers.{n}.attention.{p}.weight" for n in (3, 17) for p in ("query", "key")]
    assert elided(names, 26) == [
        "….3.attention.query.weight", "….3.attention.key.weight",
        "….17.….query.weight", "….17.attention.key.weight",
    ]  # fmt: skip
