"""Sealed repositories: real git, none of the machine's configuration, fixed identity and dates."""

# ruff: noqa: E402
from __future__ import annotations

import os

# Before NumPy is imported. Threads that wait for each other take most of the processor's time
# where other processes have it: five times the work, for the matrices of a low-rank update.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")

import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.scenarios.repositories import Repo
from tests.scenarios.warm import Warm

# How long an example takes says how busy the machine is, and nothing of the program.
settings.register_profile("theta", deadline=None)
settings.load_profile("theta")


def pytest_addoption(parser: pytest.Parser) -> None:
    """All cases of the tests that are marked with `sample`, not one in so many."""
    parser.addoption("--cold", action="store_true", help="start a Python for every `git theta`")
    parser.addoption("--all-cases", action="store_true", help="also those that `sample` leaves out")


_SECONDS_A_CASE = ("git", "hostile", "reliability")
"""Folders in which a test starts Git, so that each case of it takes seconds."""

_ONE_IN = 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with many cases that take seconds, run one in n (docs/decisions/0011).

    That is every test with cases in the slow folders, one in three of them, and those marked
    `sample(n)`. With `spread=True`, and without a mark, they begin with another case for each test,
    so that the tests of a file have all kinds of cases among them. The others are counted as
    deselected; `--all-cases` runs all.
    """
    if config.getoption("--all-cases"):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        slow = item.path.relative_to(config.rootpath / "tests").parts[0] in _SECONDS_A_CASE
        if slow or item.get_closest_marker("sample") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = []
    for name, alike in cases.items():
        mark = alike[0].get_closest_marker("sample") or pytest.mark.sample(_ONE_IN, spread=True)
        step = min(mark.args[0], len(alike))
        start = zlib.crc32(name.encode()) % step if mark.kwargs.get("spread") else 0
        left_out += [item for at, item in enumerate(alike) if at % step != start]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session", autouse=True)
def needed_programs() -> None:
    """git and git-lfs must be there: a missing one is a failure, never a silent skip."""
    for program in ("git", "git-lfs"):
        assert shutil.which(program), f"{program} is not installed; .ci/run installs it"


@cache
def git_version() -> tuple[int, ...]:
    """The version of the Git on PATH, such as (2, 39, 5)."""
    said = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", said)[:3])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked with a Git that is newer than this one."""
    for mark in item.iter_markers("git"):
        needed = tuple(int(number) for number in mark.args[0].split("."))
        if git_version() < needed:
            pytest.skip(f"needs Git {mark.args[0]}")


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which no configuration of the machine or its user is seen; its HOME."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("GIT_", "XDG_")):
            monkeypatch.delenv(name)
    settings = {
        "HOME": str(home),
        # `git theta` runs the `git-theta` that stands beside this Python, be it active or not.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if Repo.warm is not None:
        monkeypatch.setenv(*Repo.warm.address())
    # Commands started without a folder of their own must not find this project's repository.
    monkeypatch.chdir(home)
    (home / ".gitconfig").write_text(
        '[init]\n\tdefaultBranch = main\n[protocol "file"]\n\tallow = always\n'
        "[advice]\n\tdetachedHead = false\n"
    )
    return home


@pytest.fixture(scope="session", autouse=True)
def kept_repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where `Repo.once` keeps what it made, for all workers; the last one clears it away."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    Repo.kept = folder / "kept"
    Repo.kept.mkdir(exist_ok=True)
    yield
    left = folder / "left"
    with left.open("a") as file:
        file.write(".")
    if left.stat().st_size >= workers:
        shutil.rmtree(Repo.kept)


@pytest.fixture(scope="session", autouse=True)
def warm(pytestconfig: pytest.Config) -> Iterator[None]:
    """What `Repo.theta` runs its commands in, where there is `fork`."""
    if pytestconfig.getoption("--cold") or sys.platform != "linux":
        yield
        return
    Repo.warm = Warm()
    yield
    Repo.warm.close()


@pytest.fixture
def new_repo(sealed: Path, tmp_path: Path) -> Callable[..., Repo]:
    """Makes repositories in which the extension is installed and usual names are tracked."""

    def make(name: str = "repo", *, install: bool = True) -> Repo:
        path = tmp_path / name
        path.mkdir(parents=True)
        repo = Repo(path)

        def initialise() -> None:
            repo.git("init", "-q")
            if install:
                repo.theta("install", "--local")
                repo.theta("track", "*.safetensors", "*.pt", "*.bin", "*.weights")
                repo.commit("Track checkpoints")

        repo.once(initialise, install)
        return repo

    return make


@pytest.fixture
def repo(new_repo: Callable[..., Repo]) -> Repo:
    """One such repository."""
    return new_repo()
