"""A file that is not what its extension promises is told when it is added, or refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WHOLE = safetensors(model())
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    + f"oid sha256:{hashlib.sha256(WHOLE).hexdigest()}\nsize {len(WHOLE)}\n".encode()
)


def said(repo: Repo, *command: str, ok: tuple[int, ...] = (0,)) -> str:
    return repo.run("git", *command, ok=ok).stderr.decode()


@pytest.mark.parametrize("length", [7, 100, len(WHOLE) // 2, len(WHOLE) - 1])
def test_a_truncated_checkpoint_is_told_and_kept(repo: Repo, length: int) -> None:
    repo.write(NAME, WHOLE[:length])
    text = said(repo, "add", NAME)
    assert f"'{NAME}' is no safetensors file: " in text
    assert text.count("hint") == 1
    repo.git("commit", "-q", "-m", "truncated")
    (repo.path / NAME).unlink()
    repo.git("checkout", "-q", "--", NAME)
    assert (repo.path / NAME).read_bytes() == WHOLE[:length]


def test_it_is_told_again_though_the_answer_is_remembered(repo: Repo) -> None:
    repo.write(NAME, WHOLE[:-1])
    repo.git("add", "-N", NAME)
    said(repo, "status")
    assert "is no safetensors file" in said(repo, "add", NAME)


def test_strict_refuses_and_leaves_the_index(repo: Repo) -> None:
    repo.write(NAME, WHOLE)
    repo.commit("whole")
    repo.git("config", "theta.strict", "true")
    repo.write(NAME, WHOLE[: len(WHOLE) // 2])
    before = repo.blob(f":{NAME}")
    assert "theta.strict refuses it" in said(repo, "add", NAME, ok=(1, 128))
    assert repo.blob(f":{NAME}") == before
    # What only looks goes on.
    assert NAME in repo.status()
    said(repo, "diff", "--stat")
    repo.write(NAME, WHOLE)
    assert said(repo, "add", NAME) == ""


def test_a_pointer_of_git_lfs_is_no_checkpoint(repo: Repo) -> None:
    repo.write(NAME, POINTER)
    assert "it is a pointer of Git LFS" in said(repo, "add", NAME)


def test_what_promises_nothing_or_keeps_it_is_quiet(repo: Repo, tmp_path: Path) -> None:
    repo.theta("track", "*.bin", "*.npy", "*.pt")
    repo.write("weights.bin", WHOLE[:99])
    np.save(repo.path / "array.npy", np.ones(9))
    repo.write(NAME, WHOLE)
    repo.write("empty.pt", b"")
    assert said(repo, "add", ".") == ""
