"""The memory of answers gives what was put into it, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.manifest.model import Block, UpdateRef


def test_an_answer_comes_back(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo")
    assert memo.get("a") is None
    memo.put(b"", "a")
    memo.put(b"answer", "a", "b")
    assert (memo.get("a"), memo.get("a", "b"), memo.get("a\0b")) == (b"", b"answer", b"answer")


@pytest.mark.parametrize("answer", [b"", b"an answer"])
def test_no_flipped_bit_and_no_lost_byte_is_an_answer(tmp_path: Path, answer: bytes) -> None:
    memo = Memo(tmp_path)
    memo.put(answer, "key")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert memo.get("key") is None
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert memo.get("key") is None
    path.write_bytes(whole)
    assert memo.get("key") == answer


def test_a_chain_comes_back(tmp_path: Path) -> None:
    memo = Memo(tmp_path)
    chain = (UpdateRef("dense", "0" * 64, 7), UpdateRef("delta", "1" * 64, 3, (("rank", "8"),)))
    memo.put_chain(Block(9, "2" * 64, chain), "key")
    assert memo.get_chain("key") == chain
    assert memo.get_chain("other") is None


def test_the_oldest_answers_go(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo")
    for number in range(9):
        memo.put(b"x", str(number))
        os.utime(memo._path((str(number),)), (number, number))
    memo.trim(tmp_path / "objects", 4)
    kept = [number for number in range(9) if memo.get(str(number)) is not None]
    assert kept == [5, 6, 7, 8]


@pytest.mark.parametrize(("stored", "kept"), [(0, 3), (10 << 20, 26), (100 << 20, 60)])
def test_the_answers_take_a_share_of_the_store(tmp_path: Path, stored: int, kept: int) -> None:
    memo = Memo(tmp_path / "memo")
    for number in range(60):
        memo.put(bytes(20_000), str(number))
        os.utime(memo._path((str(number),)), (number, number))
    for top in range(16) if stored else ():
        path = tmp_path / "objects" / f"{top:02x}" / "ab" / "object"
        path.parent.mkdir(parents=True)
        path.touch()
        os.truncate(path, stored // 16)
    memo.trim(tmp_path / "objects")
    assert [number for number in range(60) if memo.get(str(number)) is not None] == list(
        range(60 - kept, 60)
    )


def test_a_memory_that_did_not_grow_says_so(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo")
    memo.get("a")
    assert not memo.grew
    memo.put(b"x", "a")
    assert memo.grew
