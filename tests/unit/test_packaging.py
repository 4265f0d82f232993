"""What users install holds all of the package and nothing else, under one version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import git_theta_ext
from git_theta_ext.cli.frame.completion import PLACES
from git_theta_ext.cli.frame.manual import pages as pages_of

TOP = Path(__file__).parents[2]
SOURCES = ("git_theta_ext", "drivers", "docs", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))


def test_every_package_is_installed() -> None:
    listed = pyproject()["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(TOP).parts)
        for path in (TOP / "git_theta_ext").rglob("__init__.py")
    }
    assert sorted(listed) == sorted(found | {"git_theta_ext.drivers"})


def test_the_version_is_the_same_everywhere() -> None:
    version = pyproject()["project"]["version"]
    assert git_theta_ext.__version__ == version
    text = (TOP / "docs" / "pull-requests.md").read_text("utf-8")
    assert set(re.findall(r"git-theta-ext@v(\S+)", text)) == {version}
    assert f"\nversion: {version}\n" in (TOP / "CITATION.cff").read_text("utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a release builds (docs/releasing.md)."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(TOP / name, folder / name)
    subprocess.run(
        [sys.executable, "-I", "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "--no-index", "-w", str(folder / "dist"), str(folder)],
        check=True, cwd=folder, capture_output=True,
    )  # fmt: skip
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """The names of the files in it."""
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_what_the_repository_does(wheel: set[str]) -> None:
    modules = {
        path.relative_to(TOP).as_posix()
        for path in (TOP / "git_theta_ext").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    drivers = {f"git_theta_ext/drivers/{path.name}" for path in (TOP / "drivers").glob("*.py")}
    inside = {name for name in wheel if ".dist-info/" not in name and ".data/" not in name}
    assert inside == modules | drivers


def test_the_wheel_has_the_manual_and_completion(wheel: set[str]) -> None:
    found = {name.partition(".data/data/")[2] for name in wheel} - {""}
    pages = {f"share/man/man{name[-1]}/{name}" for name, _ in pages_of(TOP / "docs")}
    assert found == pages | set(PLACES.values())
    assert {"share/man/man1/git-theta.1", "share/man/man5/theta.toml.5"} <= found


def test_the_wheel_says_what_it_is_and_may(wheel: set[str]) -> None:
    kept = {name.partition(".dist-info/")[2] for name in wheel if ".dist-info/" in name}
    assert {"METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE"} <= kept


def test_links_of_the_description_work_elsewhere(built: Path) -> None:
    """PyPI shows the README beside no other file: each link and picture is at the host."""
    with zipfile.ZipFile(built) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("/METADATA"))
        text = archive.read(name).decode("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    host = f"https://github.com/git-theta-ext/git-theta-ext/{{}}/v{git_theta_ext.__version__}/docs/"
    assert f"{host.format('raw')}pictures/report.png" in links
    assert f"{host.format('blob')}merging.md" in links
    assert not [one for one in links if not one.startswith("https://")]
    assert "Description-Content-Type: text/markdown" in text
