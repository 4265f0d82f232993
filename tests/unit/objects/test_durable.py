"""Files get their names only after their bytes are on disk, with few waits for the disk."""

from __future__ import annotations

import errno
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.objects.store import durable
from git_theta_ext.objects.store.durable import Durable
from git_theta_ext.objects.store.store import Store

MANY = 20


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the disk, in order, on a system where everything can be flushed at once."""
    done: list[str] = []
    move = files.move

    def moved(source: str, target: str) -> None:
        done.append("name")
        move(source, target)

    monkeypatch.setattr(durable, "_libc", object)
    monkeypatch.setattr(durable, "_file_system", lambda folder: os.open(folder, os.O_RDONLY))
    monkeypatch.setattr(durable, "_flush", lambda descriptor: done.append("flush"))
    monkeypatch.setattr(files, "move", moved)
    monkeypatch.setattr(files, "sync_file", lambda path: done.append("file"))
    monkeypatch.setattr(
        files, "sync_folders", lambda folders: done.extend("folder" for _ in set(folders))
    )
    return done


only_posix = pytest.mark.skipif(os.name == "nt", reason="folders cannot be opened on Windows")


def contents(count: int) -> list[bytes]:
    return [f"object {number}".encode() * 10 for number in range(count)]


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "theta", verified=tmp_path / "verified")


@only_posix
@pytest.mark.parametrize("count", [MANY, 10 * MANY])
def test_many_are_flushed_twice_however_many_they_are(
    store: Store, calls: list[str], count: int
) -> None:
    with store.gathering():
        put = [store.put([data]) for data in contents(count)]
        assert calls == []
        assert list(store.oids()) == []
        store.flush()
        assert calls == ["flush", *["name"] * count, "flush"]
    assert calls == ["flush", *["name"] * count, "flush"]
    assert sorted(store.oids()) == sorted(oid for oid, _ in put)
    assert [store.read(*one) for one in put] == contents(count)
    assert not list((store.root / "tmp").iterdir())


@only_posix
def test_few_are_synced_each(store: Store, calls: list[str]) -> None:
    with store.gathering():
        store.put([b"one"])
        store.flush()
    assert calls == ["file", "name", *["folder"] * 5]


@only_posix
def test_what_waits_is_found_here_and_nowhere_else(store: Store, calls: list[str]) -> None:
    with store.gathering():
        oid, size = store.put([b"one"])
        assert store.has(oid, size)
        assert not store.has(oid, size + 1)
        assert store.keep(oid, size)
        assert store.sound(oid, size)
        assert store.read(oid, size) == b"one"
        store.verify(oid, size)
        assert store.put([b"one"]) == (oid, size)
        assert not Store(store.root).has(oid)
    assert Store(store.root).read(oid, size) == b"one"


@only_posix
def test_what_was_flushed_is_not_hashed_again(
    store: Store, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.gathering():
        put = [store.put([data]) for data in contents(MANY)]
        store.flush()
    monkeypatch.setattr("git_theta_ext.objects.store.store.sha256_of", lambda path: "hashed")
    later = Store(store.root, verified=tmp_path / "verified")
    assert all(later.sound(*one) for one in put)


@only_posix
def test_a_batch_has_a_bound(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_MOST_FILES", MANY)
    with store.gathering():
        for data in contents(2 * MANY + 1):
            store.put([data])
            assert len(list((store.root / "tmp").iterdir())) < MANY
        store.flush()
    assert calls.count("flush") == 3, "of two full batches, and of all names"
    assert calls.count("file") == 1


@only_posix
def test_bytes_have_a_bound_too(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_MOST_BYTES", 500)
    with store.gathering():
        for data in contents(MANY):
            store.put([data])
        assert len(list((store.root / "tmp").iterdir())) < MANY // 2


@only_posix
def test_a_disk_that_fails_leaves_no_name(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def fail_once(patch: pytest.MonkeyPatch) -> None:
        with store.gathering():
            put.extend(store.put([data]) for data in contents(MANY))
            patch.setattr(durable, "_flush", failing)
            with pytest.raises(StoreError, match="Input/output"):
                store.flush()
            patch.setattr(durable, "_flush", lambda descriptor: None)
            store.put([b"more"])
            with pytest.raises(StoreError, match="Input/output"):
                store.flush()  # another thread may rely on what has just been lost

    put: list[tuple[str, int]] = []
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="Input/output"):
        fail_once(patch)
    assert files_below(store.root) == []
    with store.gathering():
        assert [store.put([data]) for data in contents(MANY)] == put
        store.flush()
    assert [store.read(*one) for one in put] == contents(MANY)


@only_posix
def test_whoever_tries_again_finds_what_was_whole(store: Store, calls: list[str]) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    def work() -> None:
        with store.gathering():
            put.extend(store.put([data]) for data in contents(MANY))
            store.put(interrupted())

    put: list[tuple[str, int]] = []
    with pytest.raises(KeyboardInterrupt):
        work()
    assert all(store.has(*one) for one in put)
    assert not list((store.root / "tmp").iterdir())


@only_posix
def test_what_else_fails_is_not_called_a_fault_of_the_store(store: Store, calls: list[str]) -> None:
    def work() -> None:
        with store.gathering():
            store.put([b"one"])
            raise PermissionError("the checkpoint cannot be read")

    with pytest.raises(PermissionError, match="checkpoint"):
        work()


@only_posix
def test_threads_that_write_and_read_at_once(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_MOST_FILES", 7)
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for data in contents(100):
                assert store.read(*store.put([data])) == data
        except BaseException as error:
            problems.append(error)

    with store.gathering():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
    assert problems == []
    assert len(list(store.oids())) == 100
    assert not list((store.root / "tmp").iterdir())


@only_posix
def test_a_download_is_taken_over_together_with_others(
    store: Store, calls: list[str], tmp_path: Path
) -> None:
    put = [Store(tmp_path / "other").put([data]) for data in contents(MANY)]
    calls.clear()
    with store.gathering():
        for oid, size in put:
            source = Store(tmp_path / "other").path(oid)
            source.chmod(0o644)
            store.take(source, oid, size, move=True)
            assert not source.exists()
        store.flush()
    assert [call for call in calls if call != "name"] == ["flush", "flush"]
    assert [store.read(*one) for one in put] == contents(MANY)


@pytest.mark.parametrize("lacking", ["file system", "Linux"])
def test_elsewhere_each_is_synced_before_it_has_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    if lacking == "Linux":
        monkeypatch.setattr(durable, "_libc", lambda: None)
    else:
        monkeypatch.setattr(durable, "_FLUSHED", {})
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd))[1])
    with store.gathering():
        for data in contents(MANY):
            oid, _ = store.put([data])
            assert store.path(oid).stat().st_ino in synced
        store.flush()
    if os.name != "nt":
        assert {store.path(oid).parent.stat().st_ino for oid in store.oids()} <= set(synced)


@pytest.mark.parametrize("release", ["5.7.19-generic", "4.4.0", "unknown"])
def test_an_old_linux_does_not_say_what_failed(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    durable._libc.cache_clear()
    try:
        assert durable._libc() is None
    finally:
        durable._libc.cache_clear()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory")
def test_the_kind_of_a_file_system_is_read(tmp_path: Path) -> None:
    libc = durable._libc()
    if libc is None:
        pytest.skip("no Linux that says what syncfs failed to do")
    for folder, kinds in (("/dev/shm", {"tmpfs"}), ("/proc", {None})):
        descriptor = files.folder_to_sync(folder)
        try:
            assert durable._FLUSHED.get(durable._kind(libc, descriptor) or 0) in kinds
        finally:
            os.close(descriptor)
    assert durable._file_system("/proc") is None
    whole = durable._file_system("/dev/shm")
    assert whole is not None
    durable._flush(whole)
    os.close(whole)
    with pytest.raises(OSError, match="Bad file descriptor"):
        durable._flush(whole)


def test_a_folder_that_may_not_be_made_is_an_error(tmp_path: Path) -> None:
    def refuse(folder: str) -> None:
        if not folder.endswith("tmp"):
            raise OSError(errno.EPERM, "refused")
        durable.make_folder(folder)

    target = str(tmp_path / "a" / "b")
    target_of = Durable(str(tmp_path / "tmp"), lambda path: [os.path.dirname(path)], refuse)

    def work() -> None:
        with target_of.gathering():
            with target_of.writing(target) as file:
                file.write(b"bytes")
            target_of.settle()

    with pytest.raises(OSError, match="refused"):
        work()
    assert files_below(tmp_path) == []
