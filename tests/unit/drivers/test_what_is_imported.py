"""What Git starts for each command imports what nearly every file needs, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

_READERS = {"base", "layout", "neighbours", "safetensors"}
"""Of `formats`, what most files need; each other container is imported for its own files."""
_CASES = {
    "filter_commands": {
        "git_theta_ext.objects.left_behind", "git_theta_ext.objects.transfer.transport",
        "git_theta_ext.checkpoints.companions", "git_theta_ext.evaluation", "xml", "pcodec",
    },
    "pre_push": {"numpy", "zstandard", "git_theta_ext.checkpoints", "git_theta_ext.formats"},
    "diff": {
        "git_theta_ext.formats.companions", "git_theta_ext.formats.arrays", "xml", "pcodec",
        "git_theta_ext.objects.transfer.transport", "git_theta_ext.checkpoints.clean",
    },
    "merge": {"git_theta_ext.formats.companions", "git_theta_ext.formats.arrays", "xml"},
}  # fmt: skip


@pytest.mark.parametrize("driver", _CASES)
def test_a_driver_starts_with_little(driver: str) -> None:
    code = f"import sys, git_theta_ext.drivers.{driver}; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    found = set(shown.stdout.split())
    assert f"git_theta_ext.drivers.{driver}" in found
    assert _CASES[driver] & found == set()
    if driver == "filter_commands":
        prefix = "git_theta_ext.formats."
        parts = {name.removeprefix(prefix).split(".")[0] for name in found if prefix in name}
        assert parts - _READERS == set()
