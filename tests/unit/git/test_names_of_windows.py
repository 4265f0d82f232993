"""Names that Windows reads otherwise are refused there; asked on any system."""

from __future__ import annotations

import os

import pytest

from git_theta_ext.core.errors import StoreError
from git_theta_ext.git.work_tree import parts_of

READ_OTHERWISE = [
    "con", "CON.safetensors", "models/aux/m.pt", "nul .bin", "Com1.pt", "lpt9", "com\u00b9.bin",
    "conin$", "m.pt.", "m.pt ", "folder./m.pt", "m.pt:stream", "c:m.pt", "a\\b.pt", "what?.pt",
    "a*.pt", "a|b", "a\x01b",
]  # fmt: skip
PLAIN = ["console.pt", "com.pt", "com10.pt", "auxiliary/m.pt", "a.con", ".hidden", "m (1).pt"]


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_refused_on_windows_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts_of(name) == name.split("/")
    with monkeypatch.context() as there:
        there.setattr(os, "name", "nt")
        with pytest.raises(StoreError, match="Windows reads otherwise"):
            parts_of(name)


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(os, "name", "nt")
        parts = parts_of(name)
    assert parts == name.split("/")
