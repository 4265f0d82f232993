"""What is printed where a sharded model is in conflict settles it, its index too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.scenarios.advised import advised, do, only
from tests.scenarios.repositories import Repo
from tests.scenarios.sharded import (
    INDEX,
    PATTERN,
    arrays,
    read,
    same,
    sides,
    trained,
    write,
)

ADDED = {
    "ours": {**trained("layers.5.w"), "new.a": np.ones((30, 30), np.float32)},
    "theirs": {**trained("layers.1.w", seed=2), "new.b": np.full((30, 30), 2, np.float32)},
}
"""Each side trains a tensor and adds one, at the same place of the index."""


@pytest.fixture
def added(repo: Repo) -> Repo:
    """Two branches whose shards merge, and whose indices collide as texts."""
    repo.once(lambda: sides(repo, (ADDED["ours"], (0, 6)), (ADDED["theirs"], (0, 6))))
    return repo


def printed(repo: Repo, *command: str, ok: tuple[int, ...] = (1,)) -> str:
    done = repo.run(*command, ok=ok)
    return (done.stdout + done.stderr).decode()


def in_order(repo: Repo, command: str, folder: str = ".") -> None:
    """Run a command, then what it says takes the result; commit, and nothing is left."""
    do(repo, only(do(repo, command, folder), "git add"), folder)
    repo.git("commit", "-q", "--no-edit")
    assert repo.status() == ""


@pytest.mark.parametrize("folder", [".", "llm"])
def test_status_names_what_settles_an_index(added: Repo, folder: str) -> None:
    assert "CONFLICT" in printed(added, "git", "merge", "side")
    assert "<<<<" in (added.path / INDEX).read_text()
    status = do(added, "git theta status", folder)
    in_order(added, only(status, "git theta resolve"), folder)
    assert same(read(added)[0], *ADDED.values())
    assert "index" not in added.theta("status")


def test_git_theta_merge_leaves_no_index_in_conflict(added: Repo) -> None:
    added.theta("merge", "side")
    assert same(read(added)[0], *ADDED.values())
    assert added.status() == ""


def test_shards_that_collide_first_then_their_index(repo: Repo) -> None:
    theirs = {**trained("layers.5.w", seed=2), "new.b": ADDED["theirs"]["new.b"]}
    sides(repo, (ADDED["ours"], (0, 6)), (theirs, (0, 6)))
    said = printed(repo, "git", "merge", "side")
    assert "together with the shards" in repo.theta("status")
    resolve, add = [one for one in advised(said) if "resolve" in one or "git add" in one]
    do(repo, resolve.replace("average", "theirs"))
    do(repo, add)
    in_order(repo, only(repo.theta("status"), "git theta resolve"))
    assert same(read(repo)[0], ADDED["ours"], theirs)


def test_the_index_of_shards_that_collide_settles_all_of_them(repo: Repo) -> None:
    theirs = {**trained("layers.5.w", seed=2), "new.b": ADDED["theirs"]["new.b"]}
    sides(repo, (ADDED["ours"], (0, 6)), (theirs, (0, 6)))
    repo.run("git", "merge", "side", ok=(1,))
    status = [one for one in advised(repo.theta("status")) if INDEX in one]
    listed = do(repo, status[0], ok=(1,))
    in_order(repo, only(listed, "--strategy average").replace("average", "ours"))
    assert same(read(repo)[0], theirs, ADDED["ours"])


def keys(repo: Repo) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((repo.path / INDEX).read_text())
    return found


def with_keys(repo: Repo, branch: str, **metadata: object) -> None:
    """Say more in the index of a branch."""
    repo.git("checkout", "-q", branch)
    index = json.loads((repo.path / INDEX).read_text())
    index["metadata"].update(metadata)
    repo.write(INDEX, json.dumps(index, indent=2).encode())
    repo.commit("keys")


def test_other_keys_are_merged_and_a_side_is_asked_for_where_they_collide(added: Repo) -> None:
    count = sum(value.size for value in arrays().values())
    with_keys(added, "side", format="pt", made="there", total_parameters=count + 900)
    with_keys(added, "main", format="flax", by="Ada", total_parameters=count + 900)
    added.run("git", "merge", "side", ok=(1,))
    command = only(added.theta("status"), "git theta resolve")
    before = (added.path / INDEX).read_bytes()
    listed = do(added, command, ok=(1,))
    assert re.search(r"metadata\.format: both sides", listed)
    assert (added.path / INDEX).read_bytes() == before
    in_order(added, only(listed, "--strategy ours").replace("ours", "theirs"))
    found = keys(added)["metadata"]
    assert (found["format"], found["made"], found["by"]) == ("pt", "there", "Ada")
    assert found["total_parameters"] == count + 1800
    assert same(read(added)[0], *ADDED.values())


def test_a_total_of_another_kind_keeps_its_difference(added: Repo) -> None:
    """Some writers count tied tensors once: such a total changes by what the tensors do."""
    for branch in ("side", "main"):
        with_keys(added, branch, total_size=1000 + 3600)
    added.run("git", "merge", "side", ok=(1,))
    do(added, only(added.theta("status"), "git theta resolve"))
    assert keys(added)["metadata"]["total_size"] == 1000 + 2 * 3600


def test_a_text_that_is_no_index(added: Repo) -> None:
    for branch in ("side", "main"):
        added.git("checkout", "-q", branch)
        added.write(INDEX, f"{branch}\n".encode())
        added.commit("no index")
    added.run("git", "merge", "side", ok=(1,))
    command = only(added.theta("status"), "git theta resolve")
    hint = do(added, command, ok=(2,))
    (added.path / INDEX).write_text("by hand\n")
    do(added, only(hint[hint.index("git add") :]))
    assert "UU" not in added.status()


def test_what_only_tensors_have_is_refused(added: Repo) -> None:
    added.run("git", "merge", "side", ok=(1,))
    for options in (["--undo"], ["--abort"], ["-t", "new.*", "--strategy", "ours"]):
        said = printed(added, "git", "theta", "resolve", INDEX, *options, ok=(2,))
        do(added, only(said))
        assert "<<<<" not in (added.path / INDEX).read_text()
        added.git("checkout", "-m", "--", INDEX)


def test_git_mergetool_takes_the_index(added: Repo) -> None:
    added.run("git", "merge", "side", ok=(1,))
    added.git("-c", "mergetool.keepBackup=false", "mergetool", "-y", "--tool=theta", INDEX)
    added.git("commit", "-q", "--no-edit")
    assert same(read(added)[0], *ADDED.values())
    assert added.status() == ""


# -- tensors that moved ----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [".", "llm"])
def test_the_printed_command_merges_what_moved(repo: Repo, folder: str) -> None:
    """Git merged shard by shard: what stands in the work tree is not the merged model."""
    ours, theirs = trained("layers.5.w"), trained("layers.1.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4)))
    said = printed(repo, "sh", "-c", f"cd {folder} && git merge side")
    in_order(repo, next(one for one in advised(said) if "-*-of-*" in one), folder)
    assert same(read(repo)[0], ours, theirs)


def test_a_shard_whose_tensor_moved_is_not_settled_by_itself(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.5.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4)))
    said = printed(repo, "git", "merge", "side")
    alone = next(one for one in advised(said) if "resolve" in one and "-*-of-*" not in one)
    hint = do(repo, alone, ok=(2,))
    listed = do(repo, only(hint, "resolve"), ok=(1,))
    in_order(repo, only(listed, "--strategy").replace("average", "theirs"))
    assert same(read(repo)[0], theirs)


def test_a_shard_whose_tensor_was_removed_is_settled_by_itself(repo: Repo) -> None:
    ours = trained("layers.5.w")
    sides(repo, (ours, (0, 6)), (trained("layers.1.w"), (0, 6)))
    repo.git("checkout", "-q", "side")
    write(repo, {name: value for name, value in arrays().items() if name != "layers.5.w"}, 0, 5)
    repo.commit("removed")
    repo.git("checkout", "-q", "main")
    said = printed(repo, "git", "merge", "side")
    resolve, add = [one for one in advised(said) if "00001-of" in one]
    do(repo, resolve.replace("ours", "theirs"))
    do(repo, add)
    repo.git("commit", "-q", "--no-edit")
    assert set(read(repo)[0]) == set(arrays()) - {"layers.5.w"}


def test_nothing_of_the_model_is_in_conflict(repo: Repo) -> None:
    sides(repo, (trained("layers.5.w"), (0, 6)), (trained("layers.1.w", seed=2), (0, 6)))
    repo.git("merge", "-q", "--no-commit", "side")
    said = printed(repo, "git", "theta", "resolve", PATTERN, ok=(2,))
    assert "All conflicts fixed" in do(repo, only(said, "git status"))


def test_a_shard_that_is_gone_on_one_side(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.1.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4, 8)))
    repo.run("git", "merge", "-s", "resolve", "side", ok=(1,))  # it follows no renames
    shard = "llm/model-00001-of-00002.safetensors"
    said = printed(repo, "git", "theta", "resolve", shard, "--strategy", "ours", ok=(2,))
    command = only(said, "-*-of-*")
    assert command in repo.theta("status")
    in_order(repo, command)
    assert same(read(repo)[0], ours, theirs)


def test_several_branches_of_which_one_moved_tensors(repo: Repo) -> None:
    ours, theirs, third = (trained(f"layers.{n}.w", seed=n) for n in (5, 1, 9))
    sides(repo, (ours, (0, 6)), (theirs, (0, 6)))
    repo.git("checkout", "-q", "-b", "moved", "main~1")
    write(repo, {**arrays(), **third}, 0, 4)
    repo.commit("moved")
    repo.git("checkout", "-q", "main")
    said = printed(repo, "git", "theta", "merge", "side", "moved", ok=(2,))
    for branch in ("side", "moved"):
        do(repo, only(said, "BRANCH"), BRANCH=branch)
    assert same(read(repo)[0], ours, theirs, third)
