"""What a merge made itself."""

from __future__ import annotations

import pytest

from git_theta_ext.packages.patches.merges import undecided


@pytest.mark.parametrize(
    ("base", "sides", "made", "own"),
    [
        ("1", "12", "2", False),
        ("1", "21", "1", True),  # the side that changed it was not taken
        ("1", "22", "2", False),
        ("1", "23", "2", True),
        ("1", "23", "4", True),
        ("1", "11", "2", True),
        ("1", "1-", "-", False),
        ("1", "11", "-", True),
        ("-", "-1", "1", False),
        ("-", "--", "1", True),
    ],
)
def test_a_part_is_as_the_one_side_that_changed_it(
    base: str, sides: str, made: str, own: bool
) -> None:
    tables = [{} if one == "-" else {"part": one} for one in (base, *sides, made)]
    assert list(undecided(tables[0], tables[1:-1], tables[-1])) == (["part"] if own else [])
