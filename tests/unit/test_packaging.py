"""What users install holds all of the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    with (TOP / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(TOP).parts)
        for path in (TOP / "git_theta_ext").rglob("__init__.py")
    }
    assert sorted(listed) == sorted(found | {"git_theta_ext.drivers"})
