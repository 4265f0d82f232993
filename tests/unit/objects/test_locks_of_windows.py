"""The locks of Windows, on locks of Linux that behave as those do: one owner for each byte."""

from __future__ import annotations

import errno
import importlib.util
import os
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

from git_theta_ext.objects.store import locks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made of locks of Linux")


def msvcrt() -> ModuleType:
    """What Python for Windows has in place of fcntl, with locks that belong to open files."""
    import fcntl

    made = ModuleType("msvcrt")

    def locking(descriptor: int, mode: int, nbytes: int) -> None:
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, nbytes, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, asked)
        except OSError as error:
            raise OSError(errno.EACCES, "Permission denied") from error

    made.LK_NBLCK, made.locking = 2, locking  # type: ignore[attr-defined]
    return made


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as Windows has it."""
    spec = importlib.util.spec_from_file_location("locks_of_windows", locks.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as windows:
        windows.setattr(sys, "platform", "win32")
        windows.setitem(sys.modules, "msvcrt", msvcrt())
        spec.loader.exec_module(module)
    return module


def test_many_share_and_one_owns(there: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    sharing = [there.Lock(path, alone=False, timeout=0) for _ in range(40)]
    with pytest.raises(there.Busy):
        there.Lock(path, alone=True, timeout=0)
    for one in sharing:
        one.release()
    owner = there.Lock(path, alone=True, timeout=0)
    for alone in (True, False):
        with pytest.raises(there.Busy):
            there.Lock(path, alone=alone, timeout=0)
    del owner
    there.Lock(path, alone=False, timeout=0).release()
    assert path.stat().st_size == 0
