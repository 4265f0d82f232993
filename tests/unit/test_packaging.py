"""What an installed copy consists of."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "git_theta_ext").rglob("__init__.py")
        if "drivers" not in path.parts
    }
    assert set(listed["packages"]) == {*found, "git_theta_ext.drivers"}
