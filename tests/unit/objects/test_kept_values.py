"""Merged values that one process leaves to another, and what becomes of those that nobody takes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.objects import kept
from git_theta_ext.objects.kept import Kept
from git_theta_ext.objects.store.store import Store

SPEC = BlockSpec(DTYPES["C64"], (100, 200))
VALUES: Values = np.random.default_rng(0).integers(0, 2**32, 40_000, np.uint32)
DIGEST = hashlib.sha256(VALUES.tobytes()).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "theta")


def left(store: Store) -> list[Path]:
    return list((store.root / "tmp").glob("*"))


def test_they_are_taken_once(store: Store) -> None:
    Kept(store).keep(DIGEST, VALUES)
    Kept(store).keep(DIGEST, VALUES)
    found = Kept(store).take(SPEC, DIGEST)
    assert found is not None
    assert found.dtype == VALUES.dtype
    assert found.flags.writeable
    assert found.tobytes() == VALUES.tobytes()
    assert left(store) == []
    assert Kept(store).take(SPEC, DIGEST) is None


@pytest.mark.parametrize("wrong", [b"", VALUES.tobytes()[:-1], bytes(VALUES.nbytes)])
def test_other_bytes_are_no_values(store: Store, wrong: bytes) -> None:
    Kept(store).keep(DIGEST, VALUES)
    (path,) = left(store)
    path.write_bytes(wrong)
    assert Kept(store).take(SPEC, DIGEST) is None
    assert left(store) == []


def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(VALUES.tobytes())
    (store.root / "tmp").mkdir(parents=True)
    (store.root / "tmp" / f"kept-{DIGEST}").symlink_to(other)
    Kept(store).keep(DIGEST, VALUES[::-1].copy())
    assert Kept(store).take(SPEC, DIGEST) is None
    assert other.read_bytes() == VALUES.tobytes()


def test_small_ones_are_rebuilt(store: Store) -> None:
    Kept(store).keep(DIGEST, VALUES[:100])
    assert left(store) == []


def test_what_is_left_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the memory that is free, over all processes; what is old goes."""
    monkeypatch.setattr(kept, "memory", lambda: (4 * 5 * VALUES.nbytes // 2, None))
    for first in range(3):
        leaving = Kept(store)
        for number in range(3):
            leaving.keep(f"{first}{number}", VALUES)
        assert len(left(store)) == 2
    old = time.time() - 2 * 3600
    for path in left(store):
        os.utime(path, (old, old))
    leaving = Kept(store)
    for number in range(3):
        leaving.keep(f"new-{number}", VALUES)
    assert sorted(path.name for path in left(store)) == ["kept-new-0", "kept-new-1"]


def test_where_memory_is_not_known_nothing_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "memory", lambda: (None, None))
    Kept(store).keep(DIGEST, VALUES)
    assert left(store) == []
