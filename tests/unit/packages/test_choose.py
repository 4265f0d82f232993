"""Which commit is meant, of the refs that a remote lists; and what is said where there is none."""

from __future__ import annotations

import pytest

from git_theta_ext.packages.locking.choose import VersionError, allowed_by, choose, group
from git_theta_ext.packages.locking.requirements import Requirement


def commit(number: int) -> str:
    return f"{number:040x}"


REFS = {
    "HEAD": commit(9),
    "refs/heads/main": commit(9),
    "refs/heads/1.x": commit(8),
    "refs/tags/v1.0": commit(1),
    "refs/tags/v1.2.0": commit(2),
    "refs/tags/v1.10.0": commit(3),
    "refs/tags/v2.0.0-rc.1": commit(4),
    "refs/tags/nightly": commit(5),
    "refs/tags/head@v1.0.0": commit(1),
    "refs/tags/head@v1.1.0": commit(6),
    "refs/tags/head@v1.2.0": commit(7),
    "refs/tags/head@v1.2.0!#9": commit(7),
    "refs/tags/head#prod#1": commit(1),
    "refs/tags/head#prod#3": commit(6),
    "refs/tags/head#prod!#4": commit(6),
    "refs/tags/head#dev#2": commit(1),
    "refs/tags/head#dev!#5": commit(1),
}


def asks(
    version: str | None, name: str = "m", url: str = "../m", alone: bool = False
) -> Requirement:
    where = f"models.toml, line {len(name)}"
    return Requirement(name, url, version, into=name, alone=alone, where=where)


@pytest.mark.parametrize(
    ("asked", "ref", "number"),
    [
        (None, "refs/heads/main", 9),
        ("main", "refs/heads/main", 9),
        ("1.x", "refs/heads/1.x", 8),
        ("nightly", "refs/tags/nightly", 5),
        ("v1.2.0", "refs/tags/v1.2.0", 2),
        ("1.2", "refs/tags/v1.2.0", 2),
        ("refs/tags/v1.0", "refs/tags/v1.0", 1),
        (commit(77), None, 77),
        ("^1.0", "refs/tags/v1.10.0", 3),
        ("~1.2", "refs/tags/v1.2.0", 2),
        ("latest", "refs/tags/v1.10.0", 3),
        (">=2.0.0-rc.0", "refs/tags/v2.0.0-rc.1", 4),
        ("head@v1.1.0", "refs/tags/head@v1.1.0", 6),
        ("head@1.1", "refs/tags/head@v1.1.0", 6),
        ("head@^1", "refs/tags/head@v1.1.0", 6),  # v1.2.0 was taken back
        ("head@latest", "refs/tags/head@v1.1.0", 6),
        ("head#prod", "refs/tags/head#prod#1", 1),  # the one of number 3 was taken back
        ("head#prod#3", "refs/tags/head#prod#3", 6),
    ],
)
def test_what_is_chosen(asked: str | None, ref: str | None, number: int) -> None:
    (found,) = choose([asks(asked)], REFS)
    assert (found.ref, found.commit) == (ref, commit(number))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "^3",
            "no version of ../m is ^3\n  hint: its versions: v1.0, v1.2.0, v1.10.0, v2.0.0-rc.1",
        ),
        ("other@^1", 'its versions are of head: write version = "head@^1"'),
        ("mian", "has no version mian\n  hint: did you mean main?"),
        ("zzzzzzzzzzzzz", "it has 14 tags, and the branches main, 1.x"),
        ("head#dev", "has no version head#dev"),
        ("abcdef1", "a commit is named by its whole id"),
    ],
)
def test_what_is_not_there_is_said(asked: str, said: str) -> None:
    with pytest.raises(VersionError) as caught:
        choose([asks(asked)], REFS)
    assert said in str(caught.value)


def test_only_pre_releases() -> None:
    with pytest.raises(VersionError, match=r"where it is asked for: >=1\.0-rc"):
        allowed_by(asks("*"), {"refs/tags/v1.0-rc": commit(1)})


def test_no_default_branch() -> None:
    with pytest.raises(VersionError, match="has no default branch"):
        choose([asks(None)], {"refs/heads/a": commit(1)})


def test_one_version_on_two_commits_is_refused() -> None:
    refs = {"refs/tags/v1.2": commit(1), "refs/tags/1.2.0": commit(2)}
    with pytest.raises(VersionError, match="are one version and two commits"):
        choose([asks("^1")], refs)
    assert choose([asks("v1.2")], refs)[0].commit == commit(1)
    same = {"refs/tags/v1.2": commit(1), "refs/tags/1.2.0": commit(1)}
    assert choose([asks("^1")], same)[0].commit == commit(1)


def test_entries_of_one_repository_get_one_version() -> None:
    wanted = [asks("^1", "weights"), asks("<1.10", "tokenizer"), asks("v1.2.0", "card")]
    assert group(wanted) == [wanted]
    assert [one.ref for one in choose(wanted, REFS)] == ["refs/tags/v1.2.0"] * 3


def test_a_branch_that_is_a_version_pleases_both() -> None:
    refs = {"refs/heads/main": commit(1), "refs/tags/v1.0": commit(1), "refs/tags/v1.1": commit(2)}
    found = choose([asks("main", "a"), asks("^1", "b")], refs)
    assert [one.ref for one in found] == ["refs/heads/main", "refs/tags/v1.0"]


def test_a_clash_names_both_and_what_they_ask_for() -> None:
    with pytest.raises(VersionError) as caught:
        choose([asks("*", "a"), asks("^1.2", "bb"), asks("<1.2", "ccc")], REFS)
    assert caught.value.message == (
        "bb and ccc need different versions of ../m. The conflict is caused by:\n"
        "bb (models.toml, line 2) asks for ^1.2, which is v1.2.0, v1.10.0\n"
        "ccc (models.toml, line 3) asks for <1.2, which is v1.0"
    )


def test_who_is_alone_and_who_asks_for_another_artifact_clashes_with_nobody() -> None:
    wanted = [
        asks("^1", "a"),
        asks("<1.1", "b", alone=True),
        asks("head@^1", "c"),
        asks("1", "d", "x"),
    ]
    assert [[one.name for one in each] for each in group(wanted)] == [["a"], ["b"], ["c"], ["d"]]
