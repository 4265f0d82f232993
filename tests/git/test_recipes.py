"""A merge stores nothing but what was decided: its recipe, for as long as anything needs it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.model import BASE, Block, Recipe
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.merges import branches, content
from tests.scenarios.remotes import bare, objects_of
from tests.scenarios.repositories import Repo

START = model(layers=1)
NAMES = [name for name, value in START.items() if name.endswith(".weight")]


def tuned(seed: int, tensors: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Every matrix moves."""
    before = START if tensors is None else tensors
    return {
        name: changed(value, 1e-4, seed + at) if name in NAMES else value
        for at, (name, value) in enumerate(before.items())
    }


OURS, THEIRS = tuned(10), tuned(50)


@pytest.fixture
def two(repo: Repo) -> Repo:
    """Two fine-tunes of one model."""
    branches(repo, safetensors(START), safetensors(OURS), safetensors(THEIRS))
    return repo


def blocks(repo: Repo, spec: str = "HEAD:" + NAME) -> dict[str, Block]:
    """The first block of each matrix."""
    found = parse_manifest(repo.blob(spec)).by_name()
    return {name: found[name].blocks[0] for name in NAMES}


def recipes(repo: Repo, spec: str = "HEAD:" + NAME) -> dict[str, Recipe]:
    """The recipes of those that are stored as one."""
    found = {name: block.chain[0] for name, block in blocks(repo, spec).items()}
    return {name: link for name, link in found.items() if isinstance(link, Recipe)}


def stored(repo: Repo) -> set[str]:
    """The objects of the store."""
    top = repo.path / ".git/theta/objects"
    return {path.name for path in top.rglob("*") if path.is_file()}


def again(repo: Repo) -> bytes:
    """The checkpoint, written anew from what is stored."""
    (repo.path / NAME).unlink()
    repo.git("checkout", "-q", "--", NAME)
    return content(repo)


@pytest.mark.parametrize("strategy", ["average,weights=0.7:0.3", "ties,density=0.4", "theirs"])
def test_a_merge_stores_no_object(two: Repo, strategy: str) -> None:
    before = stored(two)
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": strategy})
    assert stored(two) == before
    merged = content(two)
    found = recipes(two)
    if strategy == "theirs":  # these are the other side's own blocks
        assert {(one.strategy, one.sides) for one in found.values()} == {
            ("entries", ("theirs", "ours"))  # of entries that ours alone changed
        }
    else:
        assert set(found) == set(NAMES)
        assert {one.strategy for one in found.values()} == {strategy.partition(",")[0]}
        assert {one.sides for one in found.values()} == {("ours", "theirs")}
    assert again(two) == merged
    assert two.status() == ""
    two.git("reset", "-q", "--hard", "HEAD~1")
    two.git("-c", "theta.mergeStorage=values", "merge", "-q", "--no-edit", "side",
            env={"GIT_THETA_MERGE": strategy})  # fmt: skip
    assert content(two) == merged
    assert not recipes(two)
    two.theta("fsck")


def test_the_manifest_reads_well(two: Repo) -> None:
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    text = two.blob(f"HEAD:{NAME}").decode()
    assert text.count("\n  merge average of ours, theirs recipe=1\n  from base\n    dense ") == 3
    assert "merge by=average" in two.git("diff", "HEAD~1", "HEAD")
    said = two.theta("log", NAME).split("\n\n")[0]
    assert "merge by=average" in said
    assert "stores 0 B" in said


def test_it_outlives_the_branches_and_a_prune(two: Repo) -> None:
    remote = bare(two)
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    merged = content(two)
    two.git("push", "-q", "origin", "main")
    two.git("branch", "-D", "side")
    two.git("reflog", "expire", "--expire=now", "--all")
    for path in (two.path / ".git/theta/objects").rglob("*"):
        os.utime(path, (0, 0))
    two.theta("prune", "--keep-days", "0")
    assert again(two) == merged
    for options in ([], ["--depth", "1"], ["--filter=blob:none"]):
        clone = Repo(two.path.parent / "clone")
        two.git("clone", "-q", *options, f"file://{remote}", str(clone.path))
        clone.theta("install", "--local")
        clone.theta("pull")
        assert content(clone) == merged, options
        needed = {ref.oid for ref in objects_of(clone, f"HEAD:{NAME}")}
        assert needed <= stored(clone)
        clone.theta("fsck")
        shutil.rmtree(clone.path)


def test_the_next_fine_tune_stands_on_it_and_a_merge_of_merges_stores_values(two: Repo) -> None:
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    two.git("branch", "-f", "side")
    merged = {
        name: ((OURS[name].astype(np.float64) + THEIRS[name]) / 2).astype(value.dtype)
        for name, value in START.items()
    }
    for branch, seed in (("side", 100), ("main", 200)):
        two.git("checkout", "-q", branch)
        two.write(NAME, safetensors(tuned(seed, merged)))
        two.commit(branch)
        kinds = {name: [link.kind for link in block.chain] for name, block in blocks(two).items()}
        assert [kinds[name] for name in NAMES[:2]] == [["merge", "delta"]] * 2
        assert again(two) == safetensors(tuned(seed, merged))
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    whole = content(two)
    for block in blocks(two).values():
        inner = [link for link in block.chain if isinstance(link, Recipe)]
        assert len(inner) <= 1
        assert block.chain[-1].kind != "merge"
    assert again(two) == whole
    two.theta("fsck")


def test_what_stays_open_stands_as_ours_until_it_is_settled(two: Repo) -> None:
    two.run("git", "merge", "side", ok=(1,))
    two.theta("resolve", NAME, "--strategy", "average")
    two.git("add", NAME)
    two.git("commit", "-qm", "settled")
    assert {one.strategy for one in recipes(two).values()} == {"average"}
    mean = (OURS[NAMES[0]].astype(np.float64) + THEIRS[NAMES[0]]) / 2
    assert mean.astype(np.float32).tobytes() in again(two)


@pytest.mark.git("2.38")
def test_several_sides_and_other_ways_to_bring_changes_together(two: Repo) -> None:
    two.git("branch", "third", "main~1")
    two.git("checkout", "-q", "third")
    two.write(NAME, safetensors(tuned(90)))
    two.commit("third")
    two.git("checkout", "-q", "main")
    two.theta("merge", "side", "third", "--strategy", "average")
    names = {"side-1", "side-2", "side-3"}
    assert {frozenset(one.sides) for one in recipes(two).values()} == {frozenset(names)}
    assert again(two) == content(two)
    two.git("reset", "-q", "--hard", "HEAD~1")
    two.git("cherry-pick", "side")
    assert {one.strategy for one in recipes(two).values()} == {"reapply"}
    picked = again(two)
    two.git("revert", "--no-edit", "HEAD")
    two.git("revert", "--no-edit", "HEAD")
    assert len(picked) == len(again(two))
    two.theta("fsck")


def test_a_damaged_parent_is_named(two: Repo) -> None:
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    recipe = recipes(two)[NAMES[0]]
    assert recipe.parents[0].name == BASE
    victim = recipe.parents[1].chain[-1].oid
    path = two.path / ".git/theta/objects" / victim[:2] / victim[2:4] / victim
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = content(two)
    (two.path / NAME).unlink()
    done = two.run("git", "checkout", "--", NAME, ok=(1, 128))
    assert victim in done.stderr.decode()
    assert not (two.path / NAME).exists() or content(two) == before
    assert victim in two.theta("fsck", ok=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10))


def test_a_setting_that_is_neither_word_is_refused(two: Repo) -> None:
    two.git("config", "theta.mergeStorage", "cleverly")
    done = two.run("git", "merge", "side", ok=(1, 2, 128), env={"GIT_THETA_MERGE": "average"})
    said = done.stderr.decode()
    assert "theta.mergeStorage is 'cleverly': it is recipe or values" in said
    two.run(*["git", "merge", "--abort"], ok=(0, 128))
    do(two, only(said, "mergeStorage"))
    two.git("reset", "-q", "--hard")
    two.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    assert recipes(two)
    two.git("config", "theta.packBelow", "small")
    two.write(NAME, safetensors(tuned(500)))
    said = two.run("git", "add", NAME, ok=(1, 128)).stderr.decode()
    assert "theta.packBelow is 'small': it is a size, such as 256k, or 0" in said
    do(two, only(said, "packBelow"))
    two.git("add", NAME)


def test_what_was_just_merged_is_not_merged_again_to_be_written(repo: Repo) -> None:
    """The driver leaves its result to the filter that Git has write it; nothing stays behind."""
    random = np.random.default_rng(0)
    start, *sides = (random.normal(0, 1, (200, 200)).astype(np.float32) for _ in range(3))
    changes = [safetensors({"w": start + 1e-3 * side}) for side in sides]
    branches(repo, safetensors({"w": start}), *changes)
    log = repo.path / ".git/counted"
    counted = Path(__file__).parents[1] / "scenarios/counted.py"
    command = shlex.join([sys.executable, str(counted), str(log), "filter"])
    repo.git("config", "filter.theta.process", command)
    repo.git("merge", "-q", "--no-edit", "side", env={"GIT_THETA_MERGE": "average"})
    chain = parse_manifest(repo.blob("HEAD:" + NAME)).by_name()["w"].blocks[0].chain
    assert isinstance(chain[0], Recipe)

    def carried_out() -> int:
        lines = log.read_text().splitlines()
        log.write_text("")
        assert lines
        return sum(json.loads(line).get("recipes carried out", 0) for line in lines)

    assert carried_out() == 0
    assert list((repo.path / ".git/theta/tmp").iterdir()) == []
    merged = content(repo)
    assert again(repo) == merged
    assert carried_out() == 1
