"""Whatever a message advises is run here, in the situation that it is given in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from git_theta_ext.core import advice
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"


def advised(text: str) -> list[str]:
    """The commands that a text advises: they end at a line's end, or at several blanks."""
    return [found.strip() for found in re.findall(r"\bgit .+?(?=\s{2,}|$)", text, re.M)]


def run_advice(repo: Repo, command: str, folder: str = ".") -> None:
    """Run an advised command as a user types it."""
    repo.run("sh", "-c", f"cd '{folder}' && {command}")


@pytest.fixture
def raw(repo: Repo) -> bytes:
    """A checkpoint that somebody without this extension committed."""
    content = safetensors(model())
    repo.write(NAME, content)
    repo.write(f"sub folder/{NAME}", content)
    without = ("process=", "clean=cat", "smudge=cat", "required=false")
    settings = [word for one in without for word in ("-c", f"filter.theta.{one}")]
    repo.git(*settings, "add", NAME, "sub folder")
    repo.git(*settings, "commit", "-q", "-m", "raw")
    assert repo.blob(f":{NAME}") == content
    return content


def stored(repo: Repo, name: str = NAME) -> bytes:
    return repo.blob(f":{name}")[:10]


def test_status_advises_how_to_store_a_plain_blob_by_tensor(repo: Repo, raw: bytes) -> None:
    (command,) = [one for one in advised(repo.theta("status")) if "renormalize" in one]
    run_advice(repo, command)
    assert stored(repo) == b"git-theta "
    assert stored(repo, f"sub folder/{NAME}") == b"git-theta "
    repo.git("commit", "-q", "-m", "by tensor")
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() == raw
    assert "plain blob" not in repo.theta("status")


def test_what_asks_only_whether_it_changed_leaves_a_plain_blob(repo: Repo, raw: bytes) -> None:
    for command in (["status"], ["add", "-A"], ["diff"], ["commit", "-qam", "x"], ["stash"]):
        repo.run("git", *command, ok=(0, 1))
        assert repo.blob(f":{NAME}") == raw
        assert NAME not in repo.status()


def test_a_beginning_of_the_option_is_enough_as_for_git(repo: Repo, raw: bytes) -> None:
    repo.git("-c", "core.quotePath=false", "-C", "sub folder", "add", "--renorm", ".")
    assert repo.blob(f":{NAME}") == raw
    assert stored(repo, f"sub folder/{NAME}") == b"git-theta "


def test_the_other_way_to_store_by_tensor(repo: Repo, raw: bytes) -> None:
    """What is advised where the system does not tell which command asks (Windows)."""
    run_advice(repo, f"git rm -q --cached {NAME} && git add {NAME}")
    assert stored(repo) == b"git-theta "
    assert (repo.path / NAME).read_bytes() == raw


def test_open_advises_how_to_have_it_stored_by_tensor(repo: Repo, raw: bytes) -> None:
    done = repo.run("git", "theta", "show", NAME, ok=(2,))
    assert advice.TRACK_FIRST in done.stderr.decode()
    repo.theta("track", "*.safetensors")
    run_advice(repo, advice.STORE_BY_TENSOR.replace("FILE", NAME))
    repo.git("commit", "-q", "-m", "by tensor")
    assert repo.theta("show", NAME)


def test_untrack_advises_how_to_store_the_file_itself_again(repo: Repo) -> None:
    content = safetensors(model())
    repo.write(NAME, content)
    repo.commit("by tensor")
    text = repo.theta("untrack", "*.safetensors")
    (command,) = [one for one in advised(text) if "renormalize" in one]
    run_advice(repo, command)
    assert repo.blob(f":{NAME}") == content


def test_a_mark_of_blame_advises_what_takes_it_away(repo: Repo, tmp_path: Path) -> None:
    for seed in (0, 1):
        repo.write(NAME, safetensors({**model(), "head.bias": model(seed)["head.weight"]}))
        repo.commit(f"version {seed}")
    repo.git("clone", "-q", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    url = (tmp_path / "bare.git").as_uri()
    repo.git("clone", "-q", "--depth", "1", "--no-checkout", url, str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    hint = clone.run("git", "theta", "blame", NAME).stderr.decode()
    (command,) = advised(hint.partition("hint:")[2])
    run_advice(clone, command)
    assert clone.run("git", "theta", "blame", NAME).stderr == b""
