"""A file that was hashed need not be hashed again, unless it is another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from git_theta_ext.objects.store.verified import Verified, only_ours

OID = "a" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object"
    path.write_bytes(b"content")
    return path


def test_it_is_known_in_later_processes(file: Path, tmp_path: Path) -> None:
    memory = tmp_path / "new" / "verified"
    one = Verified(memory)
    assert not one.knows(OID, file.stat())
    one.note(OID, file.stat())
    one.keep()
    one.keep()
    assert Verified(memory).knows(OID, file.stat())
    assert not Verified(memory).knows("b" * 64, file.stat())
    assert not Verified(None).knows(OID, file.stat())
    assert len(memory.read_text().splitlines()) == 1


def test_a_change_that_hides_its_time_is_seen(file: Path) -> None:
    known = Verified()
    before = file.stat()
    known.note(OID, before)
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert not known.knows(OID, file.stat())


def test_what_others_may_write_is_not_told_while_it_is_young(file: Path, tmp_path: Path) -> None:
    memory = tmp_path / "verified"
    one = Verified(memory)
    one.note(OID, file.stat(), lasting=False)
    one.keep()
    assert one.knows(OID, file.stat())
    assert not Verified(memory).knows(OID, file.stat())


def test_a_damaged_memory_is_none(file: Path, tmp_path: Path) -> None:
    memory = tmp_path / "verified"
    for content in (b"\xff\xfe", b"aa bb\n\n", OID.encode() + b" 1 2 3\n"):
        memory.write_bytes(content)
        assert not Verified(memory).knows(OID, file.stat())


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_modes(file: Path) -> None:
    file.chmod(0o444)
    assert only_ours(file.stat())
    for mode in (0o464, 0o446):
        file.chmod(mode)
        assert not only_ours(file.stat())


def test_a_memory_of_what_was_said_otherwise_since_is_written_anew(
    file: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "verified"
    memory.write_text(f"{OID} 1 2 3 4 5\n" * 5000 + f"{'c' * 64} 1 2 3 4 5\n")
    one = Verified(memory)
    one.note("b" * 64, file.stat(), lasting=False)
    one.note(OID, file.stat())
    one.keep()
    lines = memory.read_text().splitlines()
    assert sorted(line[0] for line in lines) == ["a", "c"]  # not what others may write
    assert Verified(memory).knows(OID, file.stat())
    for _ in range(3):
        one.note("d" * 64, file.stat())
        one.keep()
    assert len(memory.read_text().splitlines()) == 5
