"""The demonstration runs to its end, tells the truth, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.cli.demo import subjects
from git_theta_ext.cli.demo.session import folder, sealed
from git_theta_ext.core.errors import UsageError
from git_theta_ext.objects.store.store import sha256_of
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

_COMMAND = [sys.executable, "-m", "git_theta_ext.cli.main", "demo"]


@pytest.fixture
def outside(sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository of the user's that Git's environment points to, as inside a hook."""
    path = tmp_path / "mine"
    path.mkdir()
    repo = Repo(path)
    repo.git("init", "-q")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("GIT_DIR", str(path / ".git"))
    return repo


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_learns_merges_and_touches_nothing(outside: Repo, sealed: Path, tmp_path: Path) -> None:
    before = _files(outside.path), _files(sealed)
    shown = outside.run(*_COMMAND).stdout.decode()
    assert (_files(outside.path), _files(sealed)) == before
    assert list((tmp_path / "temporary").iterdir()) == []
    assert shown.count("byte for byte (SHA-256") == 3
    for command in (
        "git init",
        "git theta install",
        "git diff",
        "git merge",
        "git push",
        "git clone",
    ):
        assert f"$ {command}" in shown
    assert "\x1b" not in shown
    scores = [
        dict(re.findall(r"(digit|odd|large) ([\d.]+)%", line))
        for line in shown.splitlines()
        if "accuracy:" in line
    ]
    first, tuned, odd, large, merged = [
        {head: float(share) for head, share in score.items()} for score in scores
    ]
    assert first["digit"] > 75
    assert tuned["digit"] > 75
    assert odd["odd"] > 70 > odd["large"]
    assert large["large"] > 70 > large["odd"]
    assert merged == {"digit": tuned["digit"], "odd": odd["odd"], "large": large["large"]}


def test_your_own_checkpoint_kept(outside: Repo, tmp_path: Path) -> None:
    mine = tmp_path / "my model.safetensors"
    mine.write_bytes(safetensors(model()))
    digest = sha256_of(mine)
    kept = tmp_path / "kept"
    shown = outside.run(*_COMMAND, "--model", str(mine), "--keep", str(kept)).stdout.decode()
    assert sha256_of(mine) == digest
    assert "accuracy" not in shown
    assert (kept / "clone" / mine.name).is_file()
    done = outside.run(*_COMMAND, "--keep", str(kept), ok=(2,))
    assert b"is not empty" in done.stderr


@pytest.mark.parametrize("content", [b"", b"no container of tensors"])
def test_a_file_without_tensors_is_refused(outside: Repo, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.bin"
    file.write_bytes(content)
    done = outside.run(*_COMMAND, "--model", str(file), ok=(2,))
    assert b"changes two or more" in done.stderr


def test_an_interrupt_removes_the_folder(outside: Repo, tmp_path: Path) -> None:
    # A shell that runs these tests in the background has them, and what they start, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        _COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    while b"first version" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: all of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_environment_comes_back_after_an_error(sealed_root: Path, outside: Repo) -> None:
    before = dict(os.environ)
    inside = {}

    def fail() -> None:
        with sealed(sealed_root):
            inside.update(os.environ)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside["GIT_CONFIG_GLOBAL"].startswith(str(sealed_root))
    assert "GIT_AUTHOR_NAME" not in inside
    assert dict(os.environ) == before


@pytest.fixture
def sealed_root(tmp_path: Path) -> Path:
    """A folder to seal an environment in."""
    root = tmp_path / "root"
    root.mkdir()
    return root


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError), folder(tmp_path / "file" / "sub"):
        pass


def test_a_nudge_moves_the_named_tensors_only(tmp_path: Path) -> None:
    tensors = {
        "a": np.linspace(1, 2, 3000, dtype=np.float32),
        "b": np.linspace(1, 2, 100, dtype=np.float32),
        "half": np.linspace(1, 2, 3000).astype(ml_dtypes.bfloat16),
        "odd": np.array([np.nan, np.inf, -np.inf, 0, -0.0], np.float32),
        "ids": np.arange(9),
    }
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(tensors))
    before = path.read_bytes()
    subjects.nudge(path, {"a", "half", "odd"}, seed=1)
    after = path.read_bytes()
    assert len(after) == len(before)
    start = len(safetensors(tensors)) - sum(value.nbytes for value in tensors.values())
    assert after[:start] == before[:start]
    offset = start
    for name, value in tensors.items():
        new = np.frombuffer(after[offset : offset + value.nbytes], value.dtype)
        offset += value.nbytes
        if name in ("a", "half"):
            ratio = new.astype(np.float64) / value.astype(np.float64)
            assert 0 < np.abs(ratio - 1).max() < 0.02, name
        elif name == "odd":
            np.testing.assert_array_equal(new, value)
        else:
            assert new.tobytes() == value.tobytes(), name
