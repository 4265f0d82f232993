"""What users install holds all of the package, and what GitHub reads is what it takes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    with (TOP / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(TOP).parts)
        for path in (TOP / "git_theta_ext").rglob("__init__.py")
    }
    assert sorted(listed) == sorted(found | {"git_theta_ext.drivers"})


def lint(schema: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_action_is_one() -> None:
    lint("vendor.github-actions", TOP / "action.yml")


def test_the_workflow_in_the_docs_is_one(tmp_path: Path) -> None:
    text = (TOP / "docs" / "pull-requests.md").read_text("utf-8")
    (workflow,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "workflow.yml"
    path.write_text(workflow, "utf-8")
    lint("vendor.github-workflows", path)


def test_the_linter_refuses_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "action.yml"
    path.write_text((TOP / "action.yml").read_text("utf-8").replace("shell: bash", "shel: bash"))
    with pytest.raises(AssertionError):
        lint("vendor.github-actions", path)
