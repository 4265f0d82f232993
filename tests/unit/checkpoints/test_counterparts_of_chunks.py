"""Which chunk of an earlier version stood in the place of one that changed."""

from __future__ import annotations

import pytest

from git_theta_ext.checkpoints.counterparts import counterparts
from git_theta_ext.manifest.model import Block


@pytest.mark.parametrize(
    ("before", "now", "stood"),
    [
        ("abc", "abc", "---"),
        ("abc", "aXc", "-b-"),
        ("abc", "XYZ", "abc"),
        ("abcd", "aXYd", "-bc-"),
        # Two became one, one became two.
        ("abcd", "aXd", "-b-"),
        ("abc", "aXYc", "-bb-"),
        # Something new between, at the end, at the beginning: it may repeat what stands before.
        ("abc", "abXc", "--b-"),
        ("abc", "abcX", "---c"),
        ("abc", "Xabc", "a---"),
        # Removed, or moved.
        ("abcd", "ad", "--"),
        ("abc", "cab", "---"),
        ("abcd", "cXab", "-d--"),
        ("a", "XYZ", "aaa"),
        ("aab", "aXb", "-a-"),
    ],
)
def test_by_their_place_between_those_that_stayed(before: str, now: str, stood: str) -> None:
    found = counterparts(now, [Block(1, name) for name in before])
    assert "".join("-" if block is None else block.sha256 for block in found) == stood
