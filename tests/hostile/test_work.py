"""A few kilobytes that ask for hours, or for terabytes: refused or announced before it begins."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison.compare import compare
from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError, ManifestError, StoreError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SpanRef
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.objects import bounds
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.work import of_chain
from git_theta_ext.updates.coders import compress, compress_numbers
from git_theta_ext.updates.low_rank import prediction
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.parameter_file import build
from tests.scenarios.repositories import Repo

SIDE = 2896
"""One block: just under 2^23 values."""
SPEC = BlockSpec(DTYPES["F32"], (SIDE, SIDE))
_ONES = compress_numbers(np.full(SIDE * 256, 2, np.uint32))
_STILL = compress_numbers(np.zeros(SIDE, np.uint32))
_FOUR, _THIN = b"\0", {"shape": [SIDE, SIDE], "rank": 4}
_THERE = {"dtype": "F32", "shape": [SIDE * SIDE]}
UPDATES = {
    "low-rank": build(
        "low-rank",
        {"coder": "exact", "exponent": -1000, "order": "sum", "rank": 256, "shape": [SIDE, SIDE]},
        {"left": _ONES, "right": _ONES},
    ),
    "hadamard": build(
        "hadamard", {"coder": "exact", "scaling": 1.0, "first": _THIN, "second": _THIN},
        dict.fromkeys(("first.left", "first.right", "second.left", "second.right"), _FOUR),
    ),
    "kronecker": build(
        "kronecker",
        {"coder": "exact", "scaling": 1.0, "start": 0, "first": {"shape": [1, 1]}, "second": _THIN},
        {"first.left": bytes(4), "second.left": _FOUR, "second.right": _FOUR},
    ),
    "orthogonal": build(
        "orthogonal",
        {"coder": "exact", "form": "blocks", "columns": SIDE, "size": 4, "blocks": 1,
         "matrices": 1},
        {"skew": b"\0"},
    ),
    "scale": build(
        "scale", {"coder": "exact", "shape": [SIDE, SIDE], "axis": 0},
        {"factors": np.ones(1, np.float32).tobytes()
         + compress_numbers(np.zeros(SIDE, np.uint32))},
    ),
    "permute": build("permute", {"coder": "exact", "row": SIDE}, {"order": _STILL}),
    "sparse": build("sparse", {"coder": "list", "count": 0, "split": 0}, {"list": b""}),
    "step": build(
        "step", {"coder": "exact", "width": 0}, {"table": compress(np.zeros(1, "<i4").tobytes(), 3)}
    ),
    "cast": build("cast", {"coder": "exact", "saturate": False, "base": _THERE}, {}),
    "resize": build(
        "resize", {"coder": "exact", "base": {"dtype": "F32", "shape": [SIDE, SIDE]},
                   "extents": [1, SIDE, SIDE, SIDE]}, {"added": b""},
    ),
    "delta": build("delta", {"coder": "pco"}, {"data": b"", "lengths": np.zeros(128, np.uint32)}),
}  # fmt: skip
"""An update of each kind, of a few hundred bytes, that leaves zeros as they are."""
BETWEEN_TWO = {"cast", "resize"}
"""Those that lead to a block of another dtype or shape."""


def put(blocks: Blocks, kind: str) -> UpdateRef:
    return UpdateRef(kind, *blocks.store.put(UPDATES[kind]))


def manifest_of(
    blocks: Blocks, entries: dict[str, tuple[TensorInfo, tuple[Block, ...]]]
) -> Manifest:
    structure = skeleton.encode(Skeleton(tuple(SpanRef(name) for name in entries)))
    return Manifest(
        "npy",
        blocks.write_bytes(structure),
        tuple(Entry(info, made) for info, made in entries.values()),
    )


def bomb(blocks: Blocks, chain: list[UpdateRef], count: int, right: bool = True) -> Manifest:
    """A checkpoint of zeros, each of its tensors with the same chain behind a dense block."""
    base = blocks.write(SPEC, np.zeros(SIDE * SIDE, np.uint32))
    digest = base.sha256 if right else "0" * 64
    block = Block(SPEC.nbytes, digest, (*base.chain, *chain))
    entries = {}
    for number in range(count):
        name = f"w{number}"
        entries[name] = (TensorInfo(name, DTYPES["F32"], (SIDE, SIDE)), (block,))
    return manifest_of(blocks, entries)


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path / "theta"))


@pytest.mark.parametrize("kind", [kind for kind in UPDATES if kind not in BETWEEN_TWO])
def test_each_kind_is_what_it_says_and_leaves_zeros(kind: str, blocks: Blocks) -> None:
    base = blocks.write(SPEC, np.zeros(SIDE * SIDE, np.uint32))
    block = Block(SPEC.nbytes, base.sha256, (*base.chain, put(blocks, kind)))
    assert not blocks.read(SPEC, block).any()


@pytest.mark.parametrize("right", [True, False])
def test_low_rank_updates_past_the_bound_are_refused_at_once(blocks: Blocks, right: bool) -> None:
    manifest = bomb(blocks, [put(blocks, "low-rank")] * 255, 1, right)
    start = time.thread_time()
    with pytest.raises(ManifestError, match=r"ask for about .* of computing"):
        Smudger(manifest, blocks)
    with pytest.raises(CorruptObjectError, match=r"ask for about .* of computing"):
        blocks.read(SPEC, manifest.entries[0].blocks[0])
    assert time.thread_time() - start < 2


@pytest.mark.parametrize("kind", UPDATES)
def test_eighty_kilobytes_of_any_update_are_announced_or_refused(
    kind: str, blocks: Blocks, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = bomb(blocks, [put(blocks, kind)] * 255, 4)
    assert len(manifest_bytes(manifest)) < 120_000
    start = time.thread_time()
    try:
        Smudger(manifest, blocks, "m.npy")
        said = capsys.readouterr().err
    except ManifestError as error:
        said = error.message
    assert "of computing" in said
    assert time.thread_time() - start < 3


@pytest.mark.parametrize("kind", ["resize", "patch"])
def test_small_blocks_cut_out_of_large_ones_count_as_large(kind: str, blocks: Blocks) -> None:
    """What is claimed is a hundred kilobytes; on the way 64 MiB are made for each."""
    if kind == "resize":
        spec = BlockSpec(DTYPES["F32"], (1, SIDE))
        first = blocks.write(SPEC, np.zeros(SIDE * SIDE, np.uint32)).chain[0]
        last = build(
            "resize",
            {"coder": "exact", "base": {"dtype": "F32", "shape": [SIDE, SIDE]},
             "extents": [1, SIDE, 1, SIDE]}, {"added": b""},
        )  # fmt: skip
        chain = (first, *[put(blocks, "scale")] * 60, UpdateRef("resize", *blocks.store.put(last)))
        nbytes = spec.nbytes
    else:
        zeros = np.zeros(64 << 20, np.uint8)
        large = build("dense", {"coder": "zstd", "size": len(zeros)}, {"data": compress(zeros, 1)})
        again = build("patch", {"coder": "zstd", "size": len(zeros)}, {"data": compress(zeros, 1)})
        chain = (
            UpdateRef("dense", *blocks.store.put(large)),
            *[UpdateRef("patch", *blocks.store.put(again))] * 60,
        )
        nbytes = 100
    entries = {}
    for number in range(40):
        name = f"w{number}"
        dtype = "F32" if kind == "resize" else "U8"
        shape = (1, SIDE) if kind == "resize" else (100,)
        block = Block(nbytes, "1" * 64, chain)
        entries[name] = (TensorInfo(name, DTYPES[dtype], shape), (block,))
    with pytest.raises(ManifestError, match="of computing"):
        Smudger(manifest_of(blocks, entries), blocks)


def test_honest_chains_are_far_below_the_bound() -> None:
    """Thirty-two updates of rank 64 on 8-, 16- and 32-bit weights, and of each other kind."""
    worst = 0.0
    for name, itemsize in (("F8_E4M3", 1), ("BF16", 2), ("F32", 4)):
        spec = BlockSpec(DTYPES[name], (2048, 4096))
        for kind in UPDATES:
            refs = [UpdateRef("dense", "a" * 64, spec.nbytes)]
            refs += [UpdateRef(kind, "b" * 64, 100)] * 32
            work = of_chain(spec, refs, lambda ref: {"rank": 64, "row": 32})
            assert work.values == spec.nbytes // itemsize
            worst = max(worst, work.nanoseconds / work.values)
            assert work.too_long() is None
    assert limits.WORK_PER_VALUE / 4 < worst * 0.9 < limits.WORK_PER_VALUE / 3


def test_rows_of_one_value_count_for_what_they_take(blocks: Blocks) -> None:
    """They cost up to 56 ns each, whatever their size: 14 for a byte of F32, 45 for one of I8."""
    refs = [UpdateRef("dense", "a" * 64, 10), UpdateRef("permute", "b" * 64, 10)]
    for name, least in (("F32", 14), ("I8", 45)):
        spec = BlockSpec(DTYPES[name], (1 << 20, 8))
        for said in ({"row": 1}, {}, {"row": "1"}, {"row": -1}, {"row": True}):
            settings = {"permute": said}
            work = of_chain(spec, refs, lambda ref, known=settings: known.get(ref.kind))
            assert least < work.nanoseconds / spec.nbytes < 5 * least
    order = compress_numbers(np.zeros(SIDE * SIDE, np.uint32))
    data = build("permute", {"coder": "exact", "row": 1}, {"order": order})
    manifest = bomb(blocks, [UpdateRef("permute", *blocks.store.put(data))] * 255, 1)
    with pytest.raises(ManifestError, match="ask for about 2 minutes"):
        Smudger(manifest, blocks)


def test_a_wrong_hash_is_decoded_once(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = LowRank.decode
    monkeypatch.setattr(LowRank, "decode", lambda *a: calls.append(1) or real(*a))  # type: ignore[func-returns-value]
    manifest = bomb(blocks, [put(blocks, "low-rank")], 1, right=False)
    with pytest.raises(CorruptObjectError, match="decodes to other bytes"):
        blocks.read(SPEC, manifest.entries[0].blocks[0])
    assert len(calls) == 1


def test_a_library_that_is_not_exact_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    sides = (random.integers(-9999, 9999, shape).astype(float) for shape in ((90, 8), (8, 70)))
    factors = Factors(*sides, -12, "sum")
    old = random.standard_normal(90 * 70).astype(np.float32).view(np.uint32)
    right = prediction.predict(DTYPES["F32"], old.copy(), factors)
    real = np.matmul

    def rounding(left: object, other: object, **more: object) -> object:
        found = real(left, other, **more)  # type: ignore[call-overload]
        if found.dtype == np.float64:
            found[...] = found.astype(np.float32)
        return found

    prediction.library_is_exact.cache_clear()
    assert prediction.library_is_exact()
    try:
        monkeypatch.setattr(np, "matmul", rounding)
        prediction.library_is_exact.cache_clear()
        assert not prediction.library_is_exact()
        assert np.array_equal(prediction.predict(DTYPES["F32"], old.copy(), factors), right)
    finally:
        prediction.library_is_exact.cache_clear()


# -- bytes that are claimed ------------------------------------------------------------------------


def zeros(blocks: Blocks, nbytes: int, value: int = 0) -> Manifest:
    info = TensorInfo("zeros", DTYPES["F32"], (nbytes // (32 << 20) * (8 << 20),))
    spec = next(cut(info))
    block = blocks.write(spec, np.full(spec.count, value, np.uint32))
    return manifest_of(blocks, {"zeros": (info, (block,) * (info.nbytes // spec.nbytes))})


def test_a_comparison_of_terabytes_of_nothing_is_refused(blocks: Blocks) -> None:
    sides = [StoredSide(zeros(blocks, 1 << 40, value), blocks) for value in (0, 1)]
    start = time.thread_time()
    with pytest.raises(ManifestError, match=r"objects stand for 2\.2 TB"):
        compare(*sides)
    assert time.thread_time() - start < 5


def test_a_small_comparison_of_nothing_is_made(blocks: Blocks) -> None:
    sides = [StoredSide(zeros(blocks, 128 << 20, value), blocks) for value in (0, 1)]
    assert len(compare(*sides).changes) == 1


def test_what_swells_is_announced(blocks: Blocks, capsys: pytest.CaptureFixture[str]) -> None:
    Smudger(zeros(blocks, 4 << 30), blocks, "m.npy")
    assert "m.npy" in (said := capsys.readouterr().err)
    assert "become 4.3 GB" in said


def test_room_on_the_disk_and_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(nbytes: int, certain: bool = True) -> None:
        bounds.check_room("m.pt", nbytes, tmp_path / "new", certain=certain, in_memory=True)

    monkeypatch.setattr(bounds, "free_space", lambda folder: 1000)
    monkeypatch.setattr(bounds, "memory", lambda: (100, 500))
    look(100)
    assert capsys.readouterr().err == ""
    look(400)
    assert "holds all 400 B in memory" in capsys.readouterr().err
    with pytest.raises(StoreError, match="memory and swap space together have 500 B"):
        look(501)
    with pytest.raises(StoreError, match=r"has 1\.1 kB; 1\.0 kB are free") as found:
        look(1100)
    assert "git theta pull FILE" in (found.value.hint or "")
    monkeypatch.setattr(bounds, "memory", lambda: (None, None))
    look(1100, certain=False)
    assert "are free on its disk" in capsys.readouterr().err


def test_room_is_known_here(tmp_path: Path) -> None:
    free = bounds.free_space(tmp_path / "not" / "there")
    assert (free or 0) > 0
    _, most = bounds.memory()
    assert most is None or most > 1 << 28


def test_git_checkout_says_that_a_file_does_not_fit(repo: Repo) -> None:
    """Before any of it is rebuilt, and with the way out."""
    repo.theta("track", "*.npy")
    repo.write("m.npy", b"not one yet")
    repo.commit("first")
    blocks = Blocks.open(Repository.discover(repo.path))
    room = shutil.disk_usage(repo.path).free
    manifest = zeros(blocks, room // 10 * 11)
    (repo.path / "manifest").write_bytes(manifest_bytes(manifest))
    blob = repo.git("hash-object", "-w", "--no-filters", "manifest").strip()
    repo.git("update-index", "--cacheinfo", f"100644,{blob},m.npy")
    (repo.path / "m.npy").unlink()
    start = time.monotonic()
    result = repo.run("git", "checkout", "--", "m.npy", ok=(1, 128))
    said = result.stderr.decode()
    assert "are free on its disk" in said
    assert "git theta pull FILE" in said
    assert time.monotonic() - start < 60
