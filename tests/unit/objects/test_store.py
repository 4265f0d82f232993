"""The store: written once, named by content, whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError, StoreError
from git_theta_ext.objects.store.store import Store

DATA = b"parameter file" * 1000
OID = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "theta")


def test_an_object_is_named_by_its_bytes(store: Store) -> None:
    assert store.put([DATA[:100], memoryview(DATA)[100:]]) == (OID, len(DATA))
    store.flush()
    assert store.path(OID) == store.root / "objects" / OID[:2] / OID[2:4] / OID
    assert store.read(OID) == DATA
    store.verify(OID, len(DATA))
    assert list(store.oids()) == [OID]


def test_objects_are_read_only(store: Store) -> None:
    store.put([DATA])
    assert not stat.S_IMODE(store.path(OID).stat().st_mode) & 0o222


def test_a_second_put_writes_nothing(store: Store) -> None:
    store.put([DATA])
    before = store.path(OID).stat()
    store.put([DATA])
    after = store.path(OID).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_nothing_is_created_before_a_write(store: Store) -> None:
    assert not store.has(OID)
    with pytest.raises(MissingObjectError, match=OID):
        store.read(OID)
    assert not store.root.exists()


def test_an_object_of_another_size_is_not_the_one(store: Store) -> None:
    store.put([DATA])
    assert store.has(OID)
    assert not store.has(OID, len(DATA) + 1)


def test_a_flipped_bit_is_found(store: Store) -> None:
    store.put([DATA])
    path = store.path(OID)
    path.chmod(0o644)
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    with pytest.raises(CorruptObjectError, match="damaged"):
        store.verify(OID)


@pytest.mark.parametrize("move", [False, True])
def test_take_believes_no_name(store: Store, tmp_path: Path, move: bool) -> None:
    source = tmp_path / "download"
    source.write_bytes(DATA + b"!")
    with pytest.raises(CorruptObjectError, match="should be object"):
        store.take(source, OID, len(DATA), move=move)
    assert source.exists()
    assert not store.has(OID)
    assert not list((store.root / "objects").rglob("*"))


@pytest.mark.parametrize("move", [False, True])
def test_take_makes_an_object_of_a_file(store: Store, tmp_path: Path, move: bool) -> None:
    source = tmp_path / "download"
    source.write_bytes(DATA)
    store.take(source, OID, len(DATA), move=move)
    assert store.read(OID, len(DATA)) == DATA
    assert source.exists() != move
    assert not stat.S_IMODE(store.path(OID).stat().st_mode) & 0o222


def test_an_alternate_is_read_but_not_written(tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.put([DATA])
    store = Store(tmp_path / "theta", [other.root])
    assert store.read(OID) == DATA
    assert store.put([DATA]) == (OID, len(DATA))
    assert not (tmp_path / "theta").exists()


def test_a_full_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        store.put([DATA])
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == ["lock"]


def test_a_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "theta").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write to the object store"):
        Store(tmp_path / "theta").put([DATA])


def test_many_writers_of_one_object_agree(store: Store) -> None:
    results = []
    threads = [threading.Thread(target=lambda: results.append(store.put([DATA]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(OID, len(DATA))] * 8
    assert not list((store.root / "tmp").iterdir())


def test_what_killed_writers_left_is_removed_after_a_day(store: Store) -> None:
    store.put([DATA])
    left = store.root / "tmp" / "1-abc"
    left.write_bytes(b"half")
    store.remove_stale()
    assert left.exists()
    store.remove_stale(time.time() + 25 * 3600)
    assert not left.exists()
    assert store.has(OID)


def damage(path: Path) -> None:
    """Other bytes of the same length, with an old time."""
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, (1_600_000_000, 1_600_000_000))


@pytest.fixture
def remembering(tmp_path: Path) -> Path:
    return tmp_path / "verified"


def test_a_damaged_object_is_written_again(
    tmp_path: Path, remembering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "theta", verified=remembering).put([DATA])
    store = Store(tmp_path / "theta", verified=remembering)
    damage(store.path(OID))
    assert store.put([DATA]) == (OID, len(DATA))
    assert store.read(OID) == DATA
    assert OID in capsys.readouterr().err
    assert (store.root / "damaged" / OID).read_bytes() == bytes(len(DATA))
    assert list(store.oids()) == [OID]


def test_a_damaged_object_is_not_sound_until_it_is_back(tmp_path: Path, remembering: Path) -> None:
    store = Store(tmp_path / "theta", verified=remembering)
    store.put([DATA])
    store.flush()
    assert store.sound(OID, len(DATA))
    damage(store.path(OID))
    for again in (store, store, Store(tmp_path / "theta", verified=remembering)):
        assert not again.sound(OID, len(DATA))
        assert not again.keep(OID, len(DATA))
        assert not again.has(OID)
    store.put([DATA])
    assert Store(tmp_path / "theta").sound(OID, len(DATA))


def test_an_object_that_is_not_here_is_not_called_damaged(store: Store) -> None:
    assert store.sound(OID, len(DATA))


def test_a_truncated_object_is_damaged(store: Store) -> None:
    store.put([DATA])
    store.path(OID).chmod(0o644)
    os.truncate(store.path(OID), 5)
    assert not store.sound(OID, len(DATA))
    store.put([DATA])
    assert store.read(OID) == DATA


def test_a_planted_object_of_another_store_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Store(tmp_path / "other")
    other.put([DATA])
    damage(other.path(OID))
    store = Store(tmp_path / "theta", [tmp_path / "other"])
    assert not store.keep(OID, len(DATA))
    assert not store.has(OID)
    assert str(other.path(OID)) in capsys.readouterr().err
    store.put([DATA])
    assert store.read(OID) == DATA
    assert other.path(OID).read_bytes() == bytes(len(DATA))


def test_an_object_is_hashed_once(
    tmp_path: Path, remembering: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def count(path: Path) -> str:
        hashed.append(path)
        return OID

    store = Store(tmp_path / "theta", verified=remembering)
    store.put([DATA])
    store.flush()
    monkeypatch.setattr("git_theta_ext.objects.store.store.sha256_of", count)
    for _ in range(3):
        again = Store(tmp_path / "theta", verified=remembering)
        assert again.keep(OID, len(DATA))
        os.utime(again.path(OID), (1_600_000_000, 1_600_000_000))
        assert again.keep(OID, len(DATA))
        again.flush()
    # Whoever sets its time changes it: hashed anew each time, but not for the times that we set.
    assert len(hashed) == 3


def test_what_was_written_here_is_not_hashed(
    tmp_path: Path, remembering: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "theta", verified=remembering)
    store.put([DATA])
    store.flush()

    def never(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("git_theta_ext.objects.store.store.sha256_of", never)
    assert store.keep(OID, len(DATA))
    if store._private:  # else others may have written it, and it is too young to tell
        assert Store(tmp_path / "theta", verified=remembering).keep(OID, len(DATA))
