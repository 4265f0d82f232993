"""Versions of tags, and which of them a constraint allows."""

from __future__ import annotations

import itertools

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.locking.versions import (
    Version,
    is_constraint,
    parse_constraint,
    parse_tag,
    parse_version,
)


@pytest.mark.parametrize(
    ("tag", "artifact", "numbers", "pre"),
    [
        ("v1.2", "", (1, 2), ()),
        ("1.2.0", "", (1, 2, 0), ()),
        ("V3", "", (3,), ()),
        ("v2.0.0-rc.1", "", (2, 0, 0), ("rc", 1)),
        ("1.2rc1", "", (1, 2), ("rc", 1)),
        ("v1.2.3+cuda12", "", (1, 2, 3), ()),
        ("model@v1.2.0", "model", (1, 2, 0), ()),
        ("team/model/v1.2.0", "team/model", (1, 2, 0), ()),
    ],
)
def test_tags_that_are_versions(
    tag: str, artifact: str, numbers: tuple[int, ...], pre: tuple[int | str, ...]
) -> None:
    assert parse_tag(tag) == (artifact, Version(numbers, pre))


@pytest.mark.parametrize(
    "tag", ["main", "v", "v1.", "1.2.3.4.5", "@v1", "model#prod#3", "v1.2-", "x1"]
)
def test_tags_that_are_none(tag: str) -> None:
    assert parse_tag(tag) is None


def test_the_order_is_that_of_semver() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
               "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10", "2"]  # fmt: skip
    versions = [parse_version(text) for text in ordered]
    keys = [version.key for version in versions if version is not None]
    assert len(keys) == len(ordered)
    assert all(a < b for a, b in itertools.pairwise(keys))  # type: ignore[operator]
    assert Version((1, 2)).key == Version((1, 2, 0)).key


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("^1.2", "1.2 1.2.9 1.99", "1.1.9 2.0 1.3.0-rc.1 2.0.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.0.1 0.9", "1.0"),
        ("~1.2.3", "1.2.3 1.2.10", "1.3.0 1.2.2"),
        ("~1", "1.0 1.9", "2.0"),
        ("~=1.2", "1.2 1.9", "2.0"),
        ("~=1.2.3", "1.2.9", "1.3"),
        (">=1.2,<2", "1.2 1.9.9", "2.0.0 1.1 2.0.0-rc.1"),
        (">= 1.2 < 2", "1.5", "2.0"),
        ("1.*", "1.0 1.9", "2.0 0.9"),
        ("v1.2.*", "1.2.0 1.2.9", "1.3 1.1"),
        ("==1.2.*, !=1.2.3", "1.2.0 1.2.4", "1.2.3 1.3"),
        ("!=1.2.*", "1.1 1.3", "1.2.0 1.2.9"),
        ("*", "0.1 9.9", "1.0.0-rc.1"),
        ("==1.2", "1.2 1.2.0 v1.2.0+x", "1.2.1"),
        (">=2.0.0-rc.1", "2.0.0-rc.1 2.0.0-rc.2 2.0.0 2.1", "2.0.0-beta 2.1.0-rc.1"),
    ],
)
def test_what_a_constraint_allows(text: str, inside: str, outside: str) -> None:
    assert is_constraint(text)
    constraint = parse_constraint(text)
    for words, allowed in ((inside, True), (outside, False)):
        for word in words.split():
            version = parse_version(word)
            assert version is not None
            assert constraint.allows(version) is allowed, word


def test_a_constraint_may_name_an_artifact() -> None:
    assert parse_constraint("team/model@^1.2").artifact == "team/model"
    assert parse_constraint("model@>=1,<2").artifact == "model"


@pytest.mark.parametrize("text", ["v1.2", "1.2", "model@v1.2.0", "main", "model#prod", "1.x"])
def test_a_name_is_no_constraint(text: str) -> None:
    assert not is_constraint(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("^main", "'^main' is no constraint"),
        (">=1.2,2", "did you mean ==2?"),
        ("~=1", "~= needs two numbers"),
        ("!=*", "'!=*' is no constraint"),
        (">=1,,<2", "',<2' is no constraint"),
    ],
)
def test_what_is_wrong_with_a_constraint_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_constraint(text)
    assert said in str(caught.value)
