"""`git theta assemble` in real repositories: parts, blame, new versions, merges, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.checkpoints.memo import noted
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.advised import do, only, take
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX

Tensors = dict[str, NDArray[np.generic]]
FILE = "model.safetensors"
RECIPE = """\
[model]
path = "model.safetensors"

[[part]]
from = "../base@v2.0:model.safetensors"
tensors = "*"

[[part]]
from = "../vision@v1.3"
tensors = "vision.*"
rename = { "vision.*" = "vision_tower.*" }
"""


def tensors(*names: str, seed: int = 0) -> Tensors:
    """Matrices of 16 KB, all different."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((64, 64), np.float32) for name in names}


BASE = tensors("embed", *(f"model.layers.{n}.{k}.weight" for n in range(2) for k in "qk"))
VISION = tensors("vision.a", "vision.b", seed=1)


def read(path: Path) -> Tensors:
    """The tensors of a safetensors file of F32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[start:][slice(*one["data_offsets"])], np.float32).reshape(
            one["shape"]
        )
        for name, one in header.items()
    }


def objects(repo: Repo, spec: str = f":{FILE}") -> dict[str, UpdateRef]:
    """The objects that a manifest names."""
    return {ref.oid: ref for ref in parse_manifest(repo.blob(spec)).objects()}


@pytest.fixture(autouse=True)
def vision(new_repo: Callable[..., Repo]) -> Repo:
    """The repositories of a base and of a vision tower, with tags; the latter."""
    base, tower = new_repo("base"), new_repo("vision")
    for one, tag, content in ((base, "v2.0", BASE), (tower, "v1.3", VISION)):
        one.write(FILE, safetensors(content, {"format": "pt"}))
        one.commit("Train")
        one.git("tag", tag)
    return tower


def assembled(repo: Repo, recipe: str = RECIPE) -> str:
    """Write and assemble a recipe, and commit it; what is said."""
    repo.write("recipe.toml", recipe.encode())
    said = repo.theta("assemble", "recipe.toml")
    repo.commit("Assemble")
    return said


def test_parts_are_used_as_they_are_and_blame_names_them(repo: Repo, vision: Repo) -> None:
    repo.write("recipe.toml", RECIPE.encode())
    said = repo.theta("assemble", "recipe.toml")
    assert "7 tensors" in said
    assert "2 objects brought" in said
    assert "added, with its" in said
    assert repo.status() == f"A  {FILE}\nA  recipe.lock\nA  recipe.toml\n"
    found = read(repo.path / FILE)
    assert found.keys() == {*BASE, "vision_tower.a", "vision_tower.b"}
    assert all(np.array_equal(found[name], BASE[name]) for name in BASE)
    assert np.array_equal(found["vision_tower.a"], VISION["vision.a"])
    there = parse_manifest(vision.blob(f"v1.3:{FILE}")).by_name()
    here = parse_manifest(repo.blob(f":{FILE}")).by_name()
    assert here["vision_tower.a"].blocks == there["vision.a"].blocks
    repo.commit("Assemble")
    assert repo.git("status", "--porcelain") == ""

    blamed = repo.theta("blame", FILE)
    assert "from ../vision@v1.3:vision.a" in blamed
    assert "from ../base@v2.0:embed" in blamed
    found["embed"] = found["embed"] * 2
    repo.write(FILE, safetensors(found, {"format": "pt"}))
    repo.commit("Train on")
    blamed = repo.theta("blame", FILE)
    assert "v2.0:embed" not in blamed
    assert "v1.3:vision.a" in blamed
    said = repo.theta("assemble", "--check", "recipe.toml", ok=(1,))
    assert "embed has other values" in said
    do(repo, only(said))
    assert np.array_equal(read(repo.path / FILE)["embed"], BASE["embed"])

    # Other names, and the base as it was: nothing is brought or stored but a header.
    again = RECIPE.replace("vision_tower.*", "tower.*")
    repo.write("recipe.toml", again.encode())
    before = objects(repo)
    said = repo.theta("assemble", "recipe.toml", "--offline")
    assert "2 tensors renamed" in said
    assert "brought" not in said
    new = objects(repo).keys() - before.keys()
    assert sum(ref.size for oid, ref in objects(repo).items() if oid in new) < 16 << 10
    assert "is what recipe.toml makes" in repo.theta("assemble", "--check", "recipe.toml")
    repo.commit("Rename")
    assert "Staged" in repo.theta("repack", "--yes")
    assert repo.status() == f"M  {FILE}\n"
    # What the file was made from counts when Git asks for its manifest: it is the new one, too.
    assert noted(Repository.discover(repo.path), FILE) == parse_manifest(repo.blob(f":{FILE}"))


def test_versions_move_when_they_are_told_to(repo: Repo, vision: Repo) -> None:
    recipe = RECIPE.replace("vision@v1.3", "vision@main")
    assembled(repo, recipe)
    old = vision.git("rev-parse", "HEAD").strip()[:9]
    vision.write(FILE, safetensors({**VISION, "vision.a": VISION["vision.a"] + 1}))
    new = vision.commit("Train on")[:9]
    assert new not in repo.theta("assemble", "recipe.toml")  # as locked
    said = repo.theta("assemble", "recipe.toml", "--update", "vision")
    assert f"{old} -> {new}" in said
    assert "1 tensor changed" in said
    found = read(repo.path / FILE)
    assert np.array_equal(found["vision_tower.a"], VISION["vision.a"] + 1)
    repo.theta("assemble", "recipe.toml", "--locked")
    repo.commit("Update")

    # Two branches with newer versions of one part: nobody knows which is wanted.
    for seed, branch in enumerate(("main", "side")):
        repo.git("checkout", "-q", "-B", branch)
        vision.write(FILE, safetensors(tensors("vision.a", seed=7 + seed)))
        vision.commit("Train on")
        assert "    ~ vision_tower.a\n" in repo.theta("update", "vision")
        repo.commit("Update")
        repo.git("checkout", "-q", "HEAD^")
    repo.git("checkout", "-q", "main")
    done = repo.run("git", "merge", "-q", "side", ok=(1,))
    assert b"assembled on both sides" in done.stderr
    refused = repo.run("git", "theta", "assemble", "recipe.toml", ok=(2,))
    do(repo, only(refused.stderr.decode()))
    repo.git("commit", "-q", "--no-edit")

    assembled(repo, RECIPE)
    vision.git("tag", "-f", "v1.3")
    assert repo.theta("assemble", "recipe.toml", "-q") == ""
    refused = repo.run("git", "theta", "assemble", "recipe.toml", "--locked", ok=(2,))
    assert b"the tag v1.3 was" in refused.stderr
    said = do(repo, only(refused.stderr.decode()))
    assert "1 tensor changed, 1 tensor removed" in said
    repo.theta("assemble", "recipe.toml", "--locked")

    # What is not in the cache is asked for, and what is locked is not taken for something else.
    vision.git("tag", "-f", "v1.3", "HEAD~1")
    repo.theta("cache", "prune", "--all")
    done = repo.run(*PREFIX, "assemble", "recipe.toml", "-q")
    assert b"part vision: the tag v1.3 was" in done.stderr
    lock = (repo.path / "recipe.lock").read_text()
    part = lock.index('name = "vision"')
    for key, why in (
        ("commit = ", b"is not there any more"),
        ("manifest = ", b"and the lock says 1111"),
    ):
        start = lock.index(key, part) + len(key) + 1
        repo.write("recipe.lock", (lock[:start] + "1" * 40 + lock[start + 40 :]).encode())
        assert why in repo.run(*PREFIX, "assemble", "recipe.toml", ok=(2,)).stderr
    do(repo, take(repo, *PREFIX, "assemble", "recipe.toml", has="--update"))


def test_two_assemblies_are_merged_by_their_recipe(repo: Repo, vision: Repo) -> None:
    assembled(repo)
    vision.write(FILE, safetensors({**VISION, "vision.a": VISION["vision.a"] + 1}))
    vision.commit("Train on")
    vision.git("tag", "v1.4")
    repo.git("checkout", "-q", "-b", "side")
    assembled(repo, RECIPE.replace("v1.3", "v1.4"))
    repo.git("checkout", "-q", "main")
    assembled(repo, RECIPE.replace('tensors = "*"', 'tensors = "*"\nwithout = "embed"'))

    done = repo.run("git", "merge", "-q", "side", ok=(0,))
    assert b"assembled on both sides" in done.stderr
    assert "is what recipe.toml makes" in do(repo, only(done.stderr.decode()))
    repo.git("reset", "-q", "--hard", "HEAD^")
    said = repo.theta("merge", "side")
    assert "built of the merged recipe.toml" in said
    found = read(repo.path / FILE)
    assert "embed" not in found
    assert np.array_equal(found["vision_tower.a"], VISION["vision.a"] + 1)
    assert repo.status() == ""
    assert len(repo.git("rev-parse", "HEAD^@").split()) == 2

    # The same part on both sides: the recipe is settled first, and then the checkpoint.
    repo.git("checkout", "-q", "side")
    assembled(repo, RECIPE.replace("v1.3", "v1.4").replace("vision_tower.*", "tower.*"))
    repo.git("checkout", "-q", "main")
    merged = RECIPE.replace('tensors = "*"', 'tensors = "*"\nwithout = "embed"')
    assembled(repo, merged.replace("v1.3", "v1.4").replace("vision_tower.*", "eye.*"))
    said = repo.theta("merge", "side", ok=(1,))
    assert "settle recipe.toml first" in said
    refused = repo.run("git", "theta", "assemble", "recipe.toml", ok=(2,))
    assert b"conflict marker" in refused.stderr
    repo.write("recipe.toml", merged.replace("v1.3", "v1.4").encode())
    do(repo, only(said, "assemble"))
    assert "U" not in repo.status()
    repo.git("commit", "-q", "--no-edit")
    assert "vision_tower.a" in read(repo.path / FILE)


def test_nothing_is_lost_and_nothing_is_silent(repo: Repo) -> None:
    repo.write("recipe.toml", RECIPE.encode())
    repo.write(FILE, b"mine")

    def refused(*options: str) -> str:
        done = repo.run("git", "theta", "assemble", "recipe.toml", *options, ok=(2,))
        assert not done.stdout
        return done.stderr.decode()

    said = refused()
    assert "is not tracked by Git: that would be lost" in said
    do(repo, only(said))
    repo.git("rm", "-q", "--cached", FILE)  # as if it had been killed before it was added
    repo.theta("assemble", "recipe.toml", "-q")
    repo.write(FILE, b"mine again")
    assert "has changes that are not added" in refused()
    assert "--locked moves no part" in refused("--locked", "--update")
    repo.theta("assemble", "recipe.toml", "--force")

    repo.write("other.safetensors", safetensors(tensors("embed", seed=9)))
    repo.commit("Add another", "other.safetensors")
    both = RECIPE + '[[part]]\nfrom = "HEAD:other.safetensors"\ntensors = "embed"\n'
    repo.write("recipe.toml", both.encode())
    assert "the parts base and other give 'embed' differently" in refused()
    assert "part other is not in recipe.lock" in refused("--locked")
    repo.write("recipe.toml", (both + 'overrule = true\ndtype = "bf16"\n').encode())
    repo.theta("assemble", "recipe.toml", "-n")
    assert repo.git("diff", "--name-only") == "recipe.toml\n"
    do(repo, only(refused("--locked")))
    said = json.loads(repo.theta("assemble", "recipe.toml", "--json"))
    assert said["changes"]["changed"] == []
    assert said["parts"][2]["made"] == 1
    embed = parse_manifest(repo.blob(f":{FILE}")).by_name()["embed"]
    assert embed.tensor.dtype.name == "BF16"
    assert [ref.kind for ref in embed.blocks[0].chain if isinstance(ref, UpdateRef)] == [
        "dense",
        "cast",
    ]
    assert "is what recipe.toml makes" in repo.theta("assemble", "--check", "recipe.toml")
    repo.git("diff", "--exit-code")

    repo.write("recipe.lock", b"[[package]]\n")
    do(repo, f"rm recipe.lock && {only(refused())}")
    repo.write("recipe.toml", RECIPE.replace("model.safe", "a/model.ckpt-", 1).encode())
    said = refused()
    assert "is not tracked" in said
    do(repo, only(said))
    repo.theta("assemble", "recipe.toml")
    repo.write("recipe.toml", RECIPE.replace("../base@v2.0", "v9").encode())
    said = refused()
    assert "there is no revision 'v9'" in said
    do(repo, only(said))
