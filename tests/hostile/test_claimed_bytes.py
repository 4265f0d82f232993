"""Kilobytes that claim terabytes: each command refuses or announces them, before it allocates."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.api.handle import Handle
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.checkpoints.write import export
from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError, ManifestError, StoreError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.drivers import room_ahead
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SpanRef
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import BASE, Block, Entry, Manifest, Parent, Recipe, UpdateRef
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.objects import bounds
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.updates.coders import compress
from git_theta_ext.updates.parameter_file import build
from tests.scenarios.repositories import Repo

BLOCK = 32 << 20
TERABYTE = 1 << 40


def claim(blocks: Blocks, nbytes: int, value: int = 0, rows: int = 8192) -> Manifest:
    """A tensor of one value, of so many bytes, in blocks of whole rows."""
    width = (8 << 20) // rows
    info = TensorInfo("w", DTYPES["F32"], (nbytes // BLOCK * rows, width))
    spec = next(cut(info))
    block = blocks.write(spec, np.full(spec.count, value, np.uint32))
    entry = Entry(info, (block,) * (nbytes // BLOCK))
    return Manifest("npy", blocks.write_bytes(skeleton.encode(Skeleton((SpanRef("w"),)))), (entry,))


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path / "theta"))


@pytest.fixture
def quick() -> Iterator[None]:
    """No test here computes or allocates what is claimed."""
    start = time.thread_time()
    yield
    assert time.thread_time() - start < 20


def committed(repo: Repo, manifests: dict[str, Manifest], message: str = "claims") -> None:
    """Commit manifests as they are, which stay in the work tree."""
    for name, manifest in manifests.items():
        (repo.path / name).write_bytes(manifest_bytes(manifest))
        blob = repo.git("hash-object", "-w", "--no-filters", name).strip()
        repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    repo.git("commit", "-qm", message)


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.theta("track", "*.npy")
    repo.git("add", ".gitattributes")
    repo.git("commit", "-qm", "track")
    return repo


def of(repo: Repo) -> Blocks:
    return Blocks.open(Repository.discover(repo.path))


@pytest.mark.usefixtures("quick")
def test_a_tensor_of_a_terabyte_is_not_made(blocks: Blocks) -> None:
    checkpoint = Checkpoint(claim(blocks, TERABYTE), blocks, "HEAD:m.npy")
    for read in (
        lambda: checkpoint["w"],
        lambda: checkpoint.raw("w"),
        checkpoint.select,
        lambda: checkpoint.rows("w", 0, 1 << 28),
        lambda: Handle(checkpoint, "np", "cpu").get_tensors(),
    ):
        with pytest.raises(ManifestError, match=r"HEAD:m\.npy.*objects stand for"):
            read()
    assert checkpoint.rows("w", 5, 7).shape == (2, 1024)


@pytest.mark.usefixtures("quick")
def test_what_memory_cannot_hold_is_refused_and_what_is_not_free_is_said(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint(claim(blocks, 4 * BLOCK), blocks, "HEAD:m.npy")
    monkeypatch.setattr(bounds, "memory", lambda: (1 << 20, 100 << 20))
    with pytest.raises(StoreError, match=r"tensor 'w' takes 134\.2 MB; memory and swap") as found:
        checkpoint["w"]
    assert "rows(name, start, stop)" in (found.value.hint or "")
    monkeypatch.setattr(bounds, "memory", lambda: (1 << 20, 1 << 40))
    assert not checkpoint["w"].any()
    assert "takes 134.2 MB of memory; at most 1.0 MB are free" in capsys.readouterr().err
    monkeypatch.setattr(bounds, "memory", lambda: (None, None))
    assert not checkpoint["w"].any()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("coder", ["zstd", "planes"])
def test_a_structure_of_a_terabyte_is_not_made(coder: str, blocks: Blocks) -> None:
    """It is one block, whatever its size."""
    if coder == "zstd":
        zeros = bytes(limits.WHOLE_BLOCK_BYTES + 1)
        data = build("dense", {"coder": "zstd"}, {"data": compress(zeros, 1)})
        nbytes = len(zeros)
    else:
        data, nbytes = build("dense", {"coder": "planes", "word": 1}, {}), TERABYTE
    oid, size = blocks.store.put(data)
    block = Block(nbytes, "0" * 64, (UpdateRef("dense", oid, size),))
    with pytest.raises(CorruptObjectError, match=r"a block of .* bytes; at most 268435456"):
        blocks.read_bytes(block)


@pytest.mark.usefixtures("quick")
def test_a_merge_of_large_structures_is_not_made(blocks: Blocks) -> None:
    """All its versions would be held at once: 33, of up to 256 MiB each."""
    parents = []
    for number in range(33):
        zeros = bytes([number]) + bytes(BLOCK)
        oid, size = blocks.store.put(
            build("dense", {"coder": "zstd"}, {"data": compress(zeros, 1)})
        )
        parents.append(Parent(f"s{number}" if number else BASE, (UpdateRef("dense", oid, size),)))
    recipe = Recipe("entries", 1, (), tuple(parents))
    with pytest.raises(CorruptObjectError, match="a merge of blocks of 33554433 bytes"):
        blocks.read_bytes(Block(BLOCK + 1, "0" * 64, (recipe,)))


def test_whoever_reads_block_by_block_stops_at_the_bound(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choke point: every command that needs no bytes for themselves reads through it."""
    monkeypatch.setattr(limits, "CLAIMED_FREE", 3 * BLOCK)
    monkeypatch.setattr(limits, "CLAIMED_PER_ENCODED", 1)
    (entry,) = claim(blocks, 8 * BLOCK).entries
    spec = BlockSpec(DTYPES["F32"], (8192, 1024))
    for _ in range(3):
        blocks.read(spec, entry.blocks[0])
    with pytest.raises(CorruptObjectError, match="objects stand for 134"):
        blocks.read(spec, entry.blocks[0])
    for _ in range(8):
        blocks.passing_on().read(spec, entry.blocks[0])


def test_computing_counts_for_all_files_of_a_command(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file of a checkout has blocks that pass bytes on; what they compute is one account."""
    monkeypatch.setattr(limits, "WORK_FREE", 2 * BLOCK)
    monkeypatch.setattr(limits, "WORK_PER_VALUE", 0)
    monkeypatch.setattr(limits, "WORK_PER_ENCODED", 0)
    (entry,) = claim(blocks, BLOCK).entries
    spec = BlockSpec(DTYPES["F32"], (8192, 1024))
    blocks.passing_on().read(spec, entry.blocks[0])
    blocks.read(spec, entry.blocks[0])
    with pytest.raises(CorruptObjectError, match="of computing"):
        blocks.passing_on().read(spec, entry.blocks[0])


@pytest.mark.usefixtures("quick")
def test_commands_refuse_a_terabyte(tracked: Repo, tmp_path: Path) -> None:
    committed(tracked, {"m.npy": claim(of(tracked), TERABYTE)})
    for command in (
        ("cat", "m.npy", "w"),
        ("show", "m.npy", "w"),
        ("export", "m.npy", "-o", str(tmp_path / "m.safetensors")),
    ):
        result = tracked.run("git", "theta", *command, ok=(4, 11))
        said = result.stderr.decode()
        assert "objects stand for 1.1 TB" in said or "are free on its disk" in said, command
        assert result.stdout == b""
    assert not (tmp_path / "m.safetensors").exists()
    assert tracked.theta("show", "m.npy").count("1.1 TB") == 1


def test_an_export_looks_at_the_disk_and_not_at_a_pipe(
    blocks: Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(claim(blocks, 2 * BLOCK), blocks, "HEAD:m.npy")
    folders = []

    def free(folder: Path) -> int:
        folders.append(folder)
        return BLOCK

    monkeypatch.setattr(bounds, "free_space", free)
    with pytest.raises(StoreError, match="are free on its disk"):
        export(checkpoint, ["w"], tmp_path / "m.safetensors", "safetensors")
    assert folders == [tmp_path]
    assert not (tmp_path / "m.safetensors").exists()
    if sys.platform != "win32":
        read, write = os.pipe()
        thread = threading.Thread(target=lambda: _drain(read))
        thread.start()
        assert export(checkpoint, ["w"], Path(f"/dev/fd/{write}"), "safetensors")[0] > 2 * BLOCK
        os.close(write)
        thread.join()


def _drain(read: int) -> None:
    while os.read(read, 1 << 20):
        pass
    os.close(read)


@pytest.mark.usefixtures("quick")
def test_a_merge_of_terabytes_is_refused(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_THETA_SKIP_SMUDGE", "1")
    blocks = of(tracked)
    committed(tracked, {"m.npy": claim(blocks, TERABYTE, 0)}, "base")
    tracked.git("branch", "theirs")
    committed(tracked, {"m.npy": claim(blocks, TERABYTE, 1)}, "ours")
    tracked.git("switch", "-q", "theirs")
    committed(tracked, {"m.npy": claim(blocks, TERABYTE, 2)}, "their change")
    tracked.git("switch", "-q", "-")
    for command in (
        ("git", "theta", "merge", "theirs", "--strategy", "average"),
        ("git", "merge", "theirs"),
    ):
        start = time.monotonic()
        result = tracked.run(*command, ok=tuple(range(1, 256)))
        said = (result.stderr + result.stdout).decode()
        assert "objects stand for 3.3 TB" in said, said
        assert time.monotonic() - start < 60
        tracked.run("git", "merge", "--abort", ok=(0, 128))
        tracked.git("reset", "-q", "--hard")


@pytest.mark.usefixtures("quick")
def test_fsck_names_the_manifest_and_checks_the_others(tracked: Repo) -> None:
    blocks = of(tracked)
    good = claim(blocks, 2 * BLOCK, 3)
    (entry,) = claim(blocks, 2200 * BLOCK).entries
    (kept,) = {block.chain for block in entry.blocks}
    lies = tuple(Block(BLOCK, f"{n:064x}", kept) for n in range(len(entry.blocks)))
    bad = Manifest("npy", good.skeleton, (Entry(entry.tensor, lies),))
    committed(tracked, {"bad.npy": bad, "good.npy": good})
    result = tracked.run("git", "theta", "fsck", ok=tuple(range(1, 256)))
    said = (result.stdout + result.stderr).decode()
    assert "objects stand for 73.8 GB" in said
    assert f"manifest {tracked.git('rev-parse', ':bad.npy').strip()}" in said
    assert "1 block: 1 problem" in said


# -- several files together ------------------------------------------------------------------------


def test_files_that_do_not_fit_together_are_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bounds, "free_space", lambda folder: 1000)
    bounds.check_together({"a": 600, "b": 400}, tmp_path)
    assert capsys.readouterr().err == ""
    bounds.check_together({"a": 600, "b": 500}, tmp_path)
    assert "2 files: together they need 1.1 kB more" in capsys.readouterr().err
    (tmp_path / "a").write_bytes(bytes(200))
    bounds.check_together({"a": 600, "b": 500}, tmp_path)
    assert capsys.readouterr().err == ""


def test_the_filter_looks_at_the_whole_tree_once_room_gets_scarce(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Git asks it for one file after another; the first that matters tells of all."""
    manifests = {f"m{n}.npy": claim(of(tracked), 2 * BLOCK, n) for n in range(4)}
    committed(tracked, manifests)
    tracked.git("rm", "-q", *manifests)
    tree = tracked.git("rev-parse", "HEAD").strip()
    repository = Repository.discover(tracked.path)

    def look(free: int, done: set[str]) -> str:
        monkeypatch.setattr(room_ahead, "free_space", lambda folder: free)
        monkeypatch.setattr(bounds, "free_space", lambda folder: free)
        ahead = room_ahead.RoomAhead(repository)
        ahead.look(None, 2 * BLOCK, set())
        ahead.look(tree, 2 * BLOCK, done)
        ahead.look(tree, 2 * BLOCK, done)
        return capsys.readouterr().err

    said = look(7 * BLOCK, set())
    assert said.count("4 files: together they need 268.4 MB more than now; 234.9 MB are free") == 1
    assert look(7 * BLOCK, {"m1.npy"}) == ""
    assert look(8 * BLOCK, set()) == ""
    (tracked.path / "m1.npy").write_bytes(bytes(BLOCK))
    assert look(7 * BLOCK, set()) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is that of a process on Unix")
def test_the_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    from git_theta_ext.objects import memory

    monkeypatch.setattr(resource, "getrlimit", lambda what: (123456, -1))
    assert memory.memory()[1] == 123456
