"""Files of no known container: a later version is stored against the chunks of the earlier one."""

from __future__ import annotations

import random

import pytest

from tests.scenarios.repositories import Repo

NAME = "trees.bin"


def text(rounds: int, seed: int = 0) -> bytes:
    """What a library of boosted trees writes: numbers as text, more of them after each round."""
    draw = random.Random(seed)
    trees = [" ".join(f"{draw.gauss(0, 1):.17g}" for _ in range(300)) + "\n" for _ in range(rounds)]
    return f"trees={rounds}\n".encode() + "".join(trees).encode()


def stored(repo: Repo) -> int:
    objects = (repo.path / ".git/theta/objects").rglob("*")
    return sum(path.stat().st_size for path in objects if path.is_file())


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(lambda first: first + text(20, len(first)), id="rounds added at the end"),
        pytest.param(lambda first: b"another head\n" + first, id="inserted at the beginning"),
        pytest.param(lambda first: first[:9000] + first[9500:], id="removed"),
        pytest.param(lambda first: first[: len(first) // 3], id="much shorter"),
        pytest.param(lambda first: first[:70], id="hardly anything left"),
        pytest.param(lambda first: first.replace(b"1", b"2", 50), id="changed in many places"),
    ],
)
def test_a_later_version_stores_what_changed(repo: Repo, changes: object) -> None:
    assert callable(changes)
    versions = [text(400)]
    for _ in range(3):
        versions.append(changes(versions[-1]) if len(versions[-1]) > 100 else text(9))
    repo.write(NAME, versions[0])
    repo.commit("0")
    first = stored(repo)
    for number, content in enumerate(versions[1:], 1):
        repo.write(NAME, content)
        repo.commit(str(number))
    assert stored(repo) < 1.4 * first
    for number, content in enumerate(reversed(versions)):
        repo.git("checkout", "-q", f"main~{number}" if number else "main")
        assert (repo.path / NAME).read_bytes() == content
    repo.theta("fsck")


def test_bytes_that_have_nothing_in_common_are_stored_whole(repo: Repo) -> None:
    for seed in (1, 2):
        repo.write(NAME, random.Random(seed).randbytes(300_000))
        repo.commit(str(seed))
    assert "patch" not in repo.theta("du")
    assert stored(repo) > 600_000
