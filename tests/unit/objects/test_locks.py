"""Locks within one process: every `Lock` is an owner of its own, as another process would be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.objects.store.locks import Busy, Lock


def test_many_share_and_one_owns(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = Lock(path, alone=False), Lock(path, alone=False)
    with pytest.raises(Busy):
        Lock(path, alone=True, timeout=0)
    first.release()
    with pytest.raises(Busy):
        Lock(path, alone=True, timeout=0.1)
    second.release()
    second.release()
    owner = Lock(path, alone=True, timeout=0)
    with pytest.raises(Busy):
        Lock(path, alone=False, timeout=0)
    owner.release()
    Lock(path, alone=False, timeout=0).release()


def test_a_lock_that_is_forgotten_is_released(tmp_path: Path) -> None:
    lock: Lock | None = Lock(tmp_path / "lock", alone=True)
    assert lock is not None
    lock = None
    Lock(tmp_path / "lock", alone=True, timeout=5).release()


def test_the_lock_of_another_user_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.touch()
    real = os.open

    def refuse(name: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "not yours")
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    shared = Lock(path, alone=False)
    with pytest.raises(Busy):
        Lock(path, alone=True, timeout=0)
    shared.release()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "none" / "lock", alone=False)
