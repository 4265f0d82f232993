"""Work that is sent away: what is sent is small, and what comes back is what is made here."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.elsewhere.far import FarFile
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.errors import CorruptObjectError, StoreError, ThetaError, UsageError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Block
from git_theta_ext.merge.combine.apply import merge
from git_theta_ext.merge.combine.several import merge_several
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.cluster.choice import address_of
from git_theta_ext.objects.cluster.worker import Token, versions
from git_theta_ext.objects.executor import HERE, Executor, UnseenError
from git_theta_ext.objects.packs import Packing
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.storing import PACK_BELOW
from tests.scenarios.checkpoints import changed, safetensors
from tests.scenarios.executors import Posted
from tests.scenarios.merged import manifest

RANDOM = np.random.default_rng(3)
MODEL = {f"l.{n}.w": RANDOM.normal(0, 0.02, (256, 300)).astype(np.float32) for n in range(5)}
FLOATS = BlockSpec(DTYPES["F32"], (256, 300))


def numbers(seed: int) -> bytes:
    """Bytes that no coder makes much shorter."""
    return np.random.default_rng(seed).bytes(FLOATS.nbytes)


def write(blocks: Blocks, seed: int) -> Block:
    """Work: encode numbers, or zeros, whose parameter file is small."""
    values = np.frombuffer(numbers(seed) if seed else bytes(FLOATS.nbytes), np.uint32)
    return blocks.write(FLOATS, values)


def test_small_parameter_files_come_back_and_large_ones_are_stored(tmp_path: Path) -> None:
    found = {}
    for name, executor in {"near": HERE, "far": Posted()}.items():
        packing = Packing(Blocks(Store(tmp_path / name), executor=executor))
        made = packing.map(write, [1, 0, 2, 0, 3], lambda seed: FLOATS.nbytes)
        blocks = [packing.take(block) for block in made]
        found[name] = blocks, sorted(packing.store.oids())
        for seed, block in zip([1, 0, 2, 0, 3], blocks, strict=True):
            data = numbers(seed) if seed else bytes(FLOATS.nbytes)
            assert packing.read(FLOATS, block).tobytes() == data
    assert found["near"] == found["far"]
    blocks, stored = found["far"]
    small = {ref.oid for block in blocks for ref in block.objects() if ref.size < PACK_BELOW}
    assert len(small) == 1
    assert len(stored) == 3
    assert not small & set(stored)


@pytest.mark.parametrize(
    "choice", [Choice("average"), Choice("ties", (("density", 0.5),)), CONFLICT], ids=str
)
def test_merges_are_the_same(tmp_path: Path, choice: Choice) -> None:
    sides = [{**MODEL, "l.0.w": changed(MODEL["l.0.w"], seed=seed)} for seed in (1, 2, 3)]
    results = []
    for executor in (HERE, posted := Posted()):
        blocks = Blocks(Store(tmp_path / str(executor.far)), executor=executor)
        base, *others = (manifest(blocks, one) for one in (MODEL, *sides))
        results.append(
            (merge(base, *others[:2], blocks, lambda _: choice),
             merge_several(base, others, blocks, lambda _: choice))
        )  # fmt: skip
    assert results[0] == results[1]
    assert len(posted.lengths) == 2
    assert max(posted.lengths) < 4000


class TestFiles:
    """Checkpoints that others read and write."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors(MODEL))
        return path

    def test_a_file_that_is_another_one_is_not_seen(self, file: Path) -> None:
        with FileSource(file) as source:
            far = FarFile.of(source)
        with far.opened() as source:
            assert source.size == far.size
        copy = file.with_name("copy")
        copy.write_bytes(file.read_bytes())
        os.utime(copy, ns=(0, far.mtime_ns))
        copy.replace(file)
        with pytest.raises(UnseenError, match="another file"), far.opened():
            pass
        file.unlink()
        with pytest.raises(UnseenError, match="No such file"), far.opened():
            pass

    def smudger(self, tmp_path: Path, executor: Executor) -> Smudger:
        blocks = Blocks(Store(tmp_path / "theta"), executor=executor)
        return Smudger(manifest(blocks, MODEL), blocks, "m")

    def test_writing(self, tmp_path: Path) -> None:
        near, far = WorkTree(tmp_path / "near"), WorkTree(tmp_path / "far")
        for tree, executor in ((near, HERE), (far, Posted())):
            tree.top.mkdir()
            self.smudger(tmp_path, executor).write_into(tree, "m")
        assert (near.top / "m").read_bytes() == (far.top / "m").read_bytes()
        assert [path.name for path in far.top.iterdir()] == ["m"]

    def test_a_file_system_that_loses_what_others_write(self, tmp_path: Path) -> None:
        """What is lost is found, and the file that was there is as it was."""
        tree = WorkTree(tmp_path / "far")
        tree.top.mkdir()
        (tree.top / "m").write_bytes(b"before")
        posted = Posted()

        def lose() -> None:
            (hidden,) = (path for path in tree.top.iterdir() if path.name != "m")
            with hidden.open("r+b") as file:
                file.seek(4000)
                file.write(bytes(64))

        posted.finished = lose
        with pytest.raises(StoreError, match=r"l\.0\.w was written and reads otherwise"):
            self.smudger(tmp_path, posted).write_into(tree, "m")
        assert (tree.top / "m").read_bytes() == b"before"
        assert [path.name for path in tree.top.iterdir()] == ["m"]


def test_who_cannot_do_the_work_is_told_why(tmp_path: Path) -> None:
    def problem(path: Path, secret: str, *folders: Path, of: object = None) -> str:
        token = Token(str(path), secret, tuple(map(str, folders)), of or versions())  # type: ignore[arg-type]
        return str(token.problem("worker A"))

    seen = tmp_path / "seen"
    seen.write_text("secret")
    assert problem(seen, "secret", tmp_path) == "None"
    assert "worker A does not see" in problem(seen, "other", tmp_path)
    assert "another file is there" in problem(seen, "other", tmp_path)
    assert "at the same path" in problem(tmp_path / "nothing", "secret")
    assert "there is no such folder" in problem(seen, "secret", tmp_path / "nothing")
    older = ((versions()[0][0], "0.0.1"), *versions()[1:])
    assert "install the same versions" in problem(seen, "secret", of=older)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("here", None),
        ("dask://node-1.cluster:8786", "tcp://node-1.cluster:8786"),
        ("dask://[fe80::1]:8786/", "tcp://[fe80::1]:8786"),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize(
    "text", ["", "dask://", "dask://a", "tcp://a:1", "dask://a:1/x", "dask://a b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="says not where"):
        address_of(text)


def test_errors_arrive_as_they_were_raised() -> None:
    """Also their hints, which are no arguments of `Exception`."""
    for kind in (ThetaError, CorruptObjectError, StoreError):
        found = pickle.loads(pickle.dumps(kind("what", hint="type this")))
        assert (type(found), str(found)) == (kind, "what\n  hint: type this")
