"""Programs are found on PATH, and never in the folder of a repository."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git import process

ROOT = Path(__file__).parents[3]


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho planted >> ran\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("planted", ["", ".", "bin", "./bin"])
def test_relative_folders_of_path_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    program(here / planted / "tool")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", os.pathsep.join([planted, str(there)]))
    assert process.find_program("tool") is None
    real = program(there / "tool")
    monkeypatch.setenv("PATH", os.pathsep.join([planted, str(there), ""]))
    assert process.find_program("tool") == str(real)


@pytest.mark.parametrize("planted", ["", "."])
def test_a_git_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    program(tmp_path / "git")
    program(tmp_path / "tool")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", planted + os.pathsep + os.environ["PATH"])
    assert process.run_git(["version"], tmp_path).startswith(b"git version")
    status, _ = process.run_watched(["version"], tmp_path, tick=lambda: None)
    assert status == 0
    assert process.run_program(["git", "version"], tmp_path)[1].startswith(b"git version")
    with pytest.raises(RepositoryError, match="not found on PATH"):
        process.run_program(["tool"], tmp_path)
    assert not (tmp_path / "ran").exists()


def test_without_git_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "git")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join(["", str(tmp_path / "none")]))
    with pytest.raises(RepositoryError, match="git was not found on PATH"):
        process.run_git(["version"], tmp_path)


def test_the_rules_of_windows(tmp_path: Path) -> None:
    """Names get an ending, in the order of PATHEXT; quotes around a folder are no part of it."""
    find = process._on_path
    exe, cmd = program(tmp_path / "a" / "git.exe"), program(tmp_path / "a" / "git.cmd")
    folders = os.pathsep.join(["", ".", f'"{tmp_path / "a"}"'])
    assert find("git", folders, ".COM;.EXE;.CMD") == str(exe)
    assert find("git", folders, ".CMD;.EXE") == str(cmd)
    assert find("git.cmd", folders, ".COM;.EXE;.CMD") == str(cmd)
    program(tmp_path / "b" / "git")  # no program there without an ending
    assert find("git", str(tmp_path / "b"), ".COM;.EXE") is None


def test_children_on_windows_do_not_look_there_either() -> None:
    code = (
        "import os; os.name = 'nt'\n"
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('gp', {process.__file__!r})\n"
        "import sys; module = sys.modules['gp'] = u.module_from_spec(spec)\n"
        "os.name = 'nt'; spec.loader.exec_module(module)\n"
        "print(module._QUIET)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "NoDefaultCurrentDirectoryInExePath" in done.stdout


def calls() -> Iterator[tuple[Path, str]]:
    """Everything in the package that finds or starts a program."""
    for folder in ("git_theta_ext", "drivers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    yield path, f"{node.value.id}.{node.attr}"


def test_nobody_else_looks_for_programs() -> None:
    banned = {"shutil.which", "os.system", "os.popen", "os.execvp", "os.execvpe", "os.startfile"}
    banned |= {f"os.spawn{kind}" for kind in ("lp", "lpe", "vp", "vpe")}
    banned |= {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_output")}
    found = [f"{path.relative_to(ROOT)}: {call}" for path, call in calls() if call in banned]
    # Which starts what `find_program` has found, by its whole path.
    assert [
        one for one in found if not one.startswith("git_theta_ext/git/process.py: subprocess")
    ] == []


def test_gitpython_starts_nothing_as_it_is_imported(tmp_path: Path) -> None:
    """It asks for versions of git, which takes milliseconds in every filter."""
    program(tmp_path / "git")
    code = "from git_theta_ext.git import process; print(process._gitpython().Git.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("Git\n", "")
    assert not (tmp_path / "ran").exists()
