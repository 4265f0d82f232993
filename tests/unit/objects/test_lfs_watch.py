"""Of git-lfs's progress file: objects that grow past their size, and transfers that stand still."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_ext.core.errors import TransferError
from git_theta_ext.objects.transfer.lfs_watch import Watch

A, B = "a" * 64, "b" * 64


def watching(path: Path, timeout: float = 0) -> tuple[Watch, list[int]]:
    told: list[int] = []
    return Watch(path, timeout, told.append, {A: 100_000, B: 10}), told


def test_bytes_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    watch, told = watching(path)
    assert not watch.report()
    path.write_text(f"download 1/2 70000/100000 {A}\ndownload 1/2 99")
    assert watch.report()
    path.write_text(path.read_text() + f"999/100000 {A}\ndownload 2/2 10/10 {B}\n")
    assert watch.report()
    assert told == [70_000, 29_999, 10]
    assert watch.moved == {A, B}
    assert not watch.report()


def test_little_is_no_progress_unless_it_is_the_end(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    watch, _ = watching(path)
    for done, enough in ((10_000, False), (65_535, False), (65_536, True), (65_600, False)):
        with path.open("a") as file:
            file.write(f"download 1/1 {done}/100000 {A}\n")
        assert watch.report() == enough
    with path.open("a") as file:
        file.write(f"download 1/1 10/10 {B}\n")
    assert watch.report()


def test_more_than_an_object_has_ends_it(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text(f"download 1/1 11/11 {B}\n")
    watch, _ = watching(tmp_path / "progress")
    with pytest.raises(TransferError, match=f"more than the 10 bytes of object {B}"):
        watch.tick()


@pytest.mark.parametrize("line", ["", "download", "download 1/1 x/9 name", "a b -1/3 name"])
def test_lines_of_another_kind_say_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "progress").write_text(f"{line}\n")
    watch, told = watching(tmp_path / "progress")
    assert (watch.report(), told, watch.moved) == (False, [], set())


def test_standing_still_ends_it_after_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [0.0]
    monkeypatch.setattr(
        "git_theta_ext.objects.transfer.lfs_watch.time.monotonic", lambda: moment[0]
    )
    path = tmp_path / "progress"
    watch, _ = watching(path, timeout=5)
    forever, _ = watching(path)
    moment[0] = 4.0
    path.write_text(f"download 1/1 70000/100000 {A}\n")
    watch.tick()
    moment[0] = 8.9
    watch.tick()
    moment[0] = 9.1
    with pytest.raises(TransferError, match="no progress for 5 seconds"):
        watch.tick()
    moment[0] = 1e9
    forever.tick()
    moment[0] = 2e9
    forever.tick()
