"""Commits with links where the commands write: nothing outside, and nothing in .git, changes.

Every trap is a committed link, in a clone or on one branch of an honest repository, or a folder of
the work tree that a link has taken the place of. What it leads to is looked at byte by byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import numpy as np
import pytest

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.containers import tensorflow
from tests.scenarios.repositories import Repo
from tests.scenarios.statistics import SCRIPT
from tests.scenarios.traps import SECRET, Trap, in_conflict, link

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")

ANY = (0, 1, 2, 11)
FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
A, B, C = (np.arange(1000, dtype=np.float32) + n for n in range(3))


@pytest.fixture
def trap(repo: Repo) -> Iterator[Trap]:
    made = Trap(repo)
    yield made
    made.check()


# -- sharded models --------------------------------------------------------------------------------


def shards(repo: Repo, a: int = 1, b: int = 1, *, moved: bool = False) -> None:
    tensors = {"a": A * np.float32(a), "b": B * np.float32(b), "c": C}
    for number, names in ((1, "a"), (2, "bc")) if moved else ((1, "ab"), (2, "c")):
        part = {name: tensors[name] for name in names}
        repo.write(f"model-0000{number}-of-00002.safetensors", safetensors(part))


def index_of(*, moved: bool) -> str:
    first, second = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    return json.dumps({"weight_map": {"a": first, "b": second if moved else first, "c": second}})


def resharded(repo: Repo, text: str, linked: str, target: str, *, collide: bool) -> None:
    """Two branches that shard a model differently; one has a link in place of the index."""
    shards(repo)
    repo.write(INDEX, text.encode())
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "theirs")
    shards(repo, b=5 if collide else 1, moved=True)
    if linked == "theirs":
        link(repo, INDEX, target)
    repo.commit("reshard")
    repo.git("checkout", "-q", "main")
    shards(repo, a=2, b=3 if collide else 1)
    if linked == "ours":
        link(repo, INDEX, target)
    repo.commit("ours")


@pytest.mark.sample(3)
@pytest.mark.parametrize("linked", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("what", "target", "collide"),
    [
        ("hostile", ".git/config", True),
        ("hostile", "../outside/victim", False),
        ("honest", ".git/config", False),
        ("honest", "../outside/victim", True),
        ("honest", "../outside/made", False),
    ],
)
def test_an_index_that_is_a_link(
    repo: Repo, trap: Trap, linked: str, what: str, target: str, *, collide: bool
) -> None:
    text = trap.hostile if what == "hostile" else index_of(moved=False)
    resharded(repo, text, linked, target, collide=collide)
    trap.arm()
    said = repo.run("git", "theta", "merge", "theirs", ok=ANY)
    trap.check()
    if collide:
        repo.run("git", "theta", "resolve", "model-*-of-*.safetensors", "--strategy", "average")
        trap.check()
    if what == "hostile":
        assert b"is no index of shards on either side" in said.stderr
        assert (repo.path / INDEX).is_symlink() or b"fsmonitor" in (repo.path / INDEX).read_bytes()
    else:  # the one index that there is now says what the shards hold
        assert not (repo.path / INDEX).is_symlink()
        assert json.loads((repo.path / INDEX).read_text()) == json.loads(index_of(moved=True))


@pytest.mark.sample(3)
@pytest.mark.parametrize("settle", ["resolve", "abort"])
def test_shards_whose_folder_has_become_a_link(repo: Repo, trap: Trap, settle: str) -> None:
    def at(folder: str) -> Repo:
        (repo.path / folder).mkdir(exist_ok=True)
        return Repo(repo.path / folder)

    inner = at("llm")
    resharded(inner, index_of(moved=False), "none", "", collide=True)
    repo.run("git", "theta", "merge", "theirs", ok=(1,))
    for name in [one.name for one in inner.path.iterdir()]:
        (trap.outside / name).write_text(SECRET)
    link(repo, "llm", "../outside")
    trap.arm()
    words = ["--abort"] if settle == "abort" else ["--strategy", "average"]
    done = repo.run("git", "theta", "resolve", "llm/model-*-of-*.safetensors", *words, ok=ANY)
    assert done.returncode != 0


# -- single checkpoints ----------------------------------------------------------------------------


@pytest.mark.sample(3)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("target", ["../outside/victim", ".git/config", "../outside/made"])
def test_resolve_replaces_a_link(repo: Repo, trap: Trap, skip: bool, target: str) -> None:
    in_conflict(repo)
    repo.git("config", "theta.skipSmudge", str(skip).lower())
    link(repo, FILE, target)
    trap.arm()
    repo.theta("resolve", FILE, "--strategy", "average")
    assert not (repo.path / FILE).is_symlink()
    assert (repo.path / FILE).read_bytes()[:9].startswith(b"git-theta") == skip


@pytest.mark.sample(3)
@pytest.mark.parametrize("skip", [False, True])
def test_resolve_writes_nothing_behind_a_linked_folder(repo: Repo, trap: Trap, skip: bool) -> None:
    in_conflict(repo, f"sub/{FILE}")
    repo.git("config", "theta.skipSmudge", str(skip).lower())
    (trap.outside / FILE).write_text(SECRET)
    link(repo, "sub", "../outside")
    trap.arm()
    done = repo.run("git", "theta", "resolve", f"sub/{FILE}", "--strategy", "average", ok=ANY)
    assert done.returncode != 0


@pytest.mark.sample(3)
@pytest.mark.parametrize("command", [("pull",), ("fetch",), ("install", "--local")])
def test_manifests_behind_a_linked_folder_are_let_be(
    repo: Repo, trap: Trap, command: tuple[str, ...]
) -> None:
    repo.write(f"sub/{FILE}", safetensors(model()))
    repo.commit("model")
    (trap.outside / FILE).write_bytes(repo.blob(f"HEAD:sub/{FILE}"))
    repo.git("init", "-q", "--bare", "../remote.git")
    repo.git("remote", "add", "origin", "../remote.git")
    repo.git("push", "-q", "-u", "origin", "main")
    link(repo, "sub", "../outside")
    trap.arm()
    repo.run("git", "theta", *command, ok=(0, 1, 2, 10))


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", ["gram", "fisher"])
@pytest.mark.parametrize("target", ["../outside/victim", ".git/config"])
def test_statistics_replace_a_link(repo: Repo, trap: Trap, kind: str, target: str) -> None:
    repo.write(FILE, safetensors({"layer.weight": np.array([[1.0, 2.0]], np.float32)}))
    (repo.path.parent / "script.py").write_text(SCRIPT.replace("BATCHES", "[[[1, 2]]]"))
    name = f"model.{kind}.safetensors"
    link(repo, name, target)
    repo.commit("hostile")
    trap.arm()
    repo.theta("stats", FILE, "--with", "../script.py", "--kind", kind)
    assert not (repo.path / name).is_symlink()


@pytest.mark.sample(3)
@pytest.mark.parametrize("command", ["track", "untrack"])
@pytest.mark.parametrize("target", ["../outside/victim", ".git/config", ".git/info/attributes"])
def test_linked_attributes_are_not_written(
    repo: Repo, trap: Trap, command: str, target: str
) -> None:
    link(repo, ".gitattributes", target)
    repo.commit("hostile")
    done = repo.run("git", "theta", command, "*.safetensors", ok=ANY)
    assert done.returncode != 0
    assert b"symbolic link" in done.stderr
    assert not (repo.path / ".git/info/attributes").exists()


def test_tracking_in_a_linked_folder_is_tracking_at_the_top(repo: Repo, trap: Trap) -> None:
    """It is a folder outside of the work tree, from where Git means the top as well."""
    link(repo, "sub", "../outside")
    repo.commit("hostile")
    Repo(repo.path / "sub").run(
        "git", "theta", "track", "*.odd",
        env={"GIT_DIR": str(repo.path / ".git"), "GIT_WORK_TREE": str(repo.path)},
    )  # fmt: skip
    assert not (repo.path / "sub/.gitattributes").exists()
    assert "*.odd" in (repo.path / ".gitattributes").read_text()


# -- files that the user names ---------------------------------------------------------------------


LINKS = {
    "docs": "../outside", "internal": ".git", "hooks": ".git/hooks", "sub/up": "../../outside",
    "here": ".", "x": "../outside/victim", "y": ".git/config", "z": "../outside/made",
}  # fmt: skip
REPLACED = ("x", "y", "z")
REFUSED = (
    "docs/victim", "docs/deep/made", "docs/../victim", "internal/config", "hooks/post-checkout",
    "sub/up/victim", "here/.git/config", ".git/config", ".git/hooks/post-checkout", ".GIT/config",
    ".git::$INDEX_ALLOCATION", "git~1", "sub/../.git/config", "internal/../.git/config",
)  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "words", [["diff", "HEAD~1", "HEAD", "--format", "html"], ["export", FILE, "--to", "npz"]]
)
def test_outputs_go_where_they_say(repo: Repo, trap: Trap, words: list[str]) -> None:
    repo.write(FILE, safetensors({"w": A}))
    repo.commit("base")
    repo.write(FILE, safetensors({"w": A + 1}))
    for name, target in LINKS.items():
        link(repo, name, target)
    repo.commit("hostile")
    trap.arm()
    for out in REPLACED:
        repo.theta(*words, "-o", out)
        assert not (repo.path / out).is_symlink()
        assert SECRET.encode() not in (repo.path / out).read_bytes()
        trap.check()
    for number, out in enumerate(REFUSED):
        typed = out if number % 2 else str(repo.path / out)
        done = repo.run("git", "theta", *words, "-o", typed, ok=(11,))
        assert b"hint" in done.stderr
        trap.check()


# -- what is read ----------------------------------------------------------------------------------


def test_linked_settings_are_not_read(repo: Repo, trap: Trap) -> None:
    in_conflict(repo)
    repo.git("merge", "--abort")
    link(repo, ".theta.toml", "../outside/victim")
    done = repo.run("git", "merge", "theirs", ok=(1, 2))
    assert b".theta.toml is a symbolic link" in done.stderr
    assert b"OPENSSH" not in done.stdout + done.stderr


def test_a_checkpoint_that_is_a_link_now_is_not_read_for_a_report(repo: Repo, trap: Trap) -> None:
    repo.write(FILE, safetensors({"w": A}))
    repo.commit("base")
    other = safetensors({"of-somebody-else": A})
    (trap.outside / "theirs").write_bytes(other)
    link(repo, FILE, "../outside/theirs")
    trap.arm()
    said = repo.run("git", "theta", "diff", ok=(0, 1)).stdout
    assert b"of-somebody-else" not in said


def test_a_neighbour_that_is_a_link_describes_nothing(repo: Repo, trap: Trap) -> None:
    data, index = tensorflow({"of-somebody-else": np.ones(600, np.float32)}, b"graph")
    repo.theta("track", "*.data-*-of-*")
    repo.write("saved/variables.data-00000-of-00001", data)
    (trap.outside / "index").write_bytes(index)
    link(repo, "saved/variables.index", "../../outside/index")
    trap.arm()
    repo.commit("hostile")
    text = repo.blob("HEAD:saved/variables.data-00000-of-00001")
    assert b"format opaque" in text
    assert b"of-somebody-else" not in text
