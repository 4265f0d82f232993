"""Clean: what has not changed is named again, what has is an update, and nothing is guessed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints import clean
from git_theta_ext.checkpoints.clean import Cancelled, Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import PathPredecessors, Predecessors
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.errors import (
    ChangedWhileReadError,
    MissingObjectError,
    TransferError,
)
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats.layout.source import BytesSource, FileSource
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks, Fetch
from git_theta_ext.objects.executor import HERE
from git_theta_ext.objects.store.store import Store
from tests.scenarios.checkpoints import NAME, Tensors, changed, safetensors
from tests.scenarios.executors import Posted
from tests.scenarios.objects import damage

RANDOM = np.random.default_rng(5)
WIDE = RANDOM.normal(0, 0.02, (256, 256)).astype(np.float32)
"""256 KiB: more than is read and hashed at once."""
MODEL: Tensors = {
    "wide": WIDE,
    "narrow": RANDOM.normal(0, 0.02, 300).astype(np.float32),
    "step": np.array(7, np.int64),
}


class Committed(Predecessors):
    """What HEAD and the index hold of the one path that there is."""

    def __init__(self, *versions: bytes) -> None:
        super().__init__(Repository(Path(), Path(), Path(), None))
        self.versions = [parse_manifest(version) for version in versions]

    def for_path(self, path: str, tensors: Collection[TensorInfo]) -> PathPredecessors:
        return PathPredecessors(self.versions, self.versions, tensors, self)

    def known_block(self, key: tuple[str, str]) -> Block | None:
        return None

    def blocks_by_form(
        self, forms: Iterable[tuple[str, int, int]]
    ) -> dict[tuple[str, int, int], list[Block]]:
        return {}

    @property
    def work_tree(self) -> Path | None:
        return None

    def manifests(self, path: str) -> Iterator[Manifest]:
        return iter(self.versions)

    def fingerprint(self, path: str) -> str:
        return f"{path}: {len(self.versions)} versions"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "theta")


def cleaner(store: Store, *before: bytes, fetch: Fetch | None = None) -> Cleaner:
    """What cleans in a repository whose last version is this manifest, if there is one."""
    return Cleaner(Blocks(store, fetch), Committed(*before), Memo(store.root / "memo"))


def cleaned(store: Store, data: bytes, *before: bytes) -> bytes:
    """The manifest of a checkpoint."""
    return cleaner(store, *before).clean(NAME, BytesSource(data))


def entry(manifest: bytes, name: str) -> Entry:
    """What a manifest says of a tensor."""
    return parse_manifest(manifest).by_name()[name]


def written(store: Store, manifest: bytes) -> bytes:
    """The checkpoint that a manifest stands for."""
    pieces: list[bytes] = []
    Smudger(parse_manifest(manifest), Blocks(store)).write(lambda data: pieces.append(bytes(data)))
    return b"".join(pieces)


def test_every_tensor_is_named_with_its_hash(store: Store) -> None:
    manifest = parse_manifest(cleaned(store, safetensors(MODEL)))
    assert manifest.format == "safetensors"
    assert [one.tensor.name for one in manifest.entries] == ["narrow", "step", "wide"]
    for name, one in manifest.by_name().items():
        (block,) = one.blocks
        assert one.tensor.shape == MODEL[name].shape
        assert block.sha256 == hashlib.sha256(MODEL[name].tobytes()).hexdigest()
        assert block.nbytes == MODEL[name].nbytes
    assert all(store.has(ref.oid, ref.size) for ref in manifest.objects())


def test_few_bytes_stand_in_the_manifest_itself(store: Store) -> None:
    (block,) = entry(cleaned(store, safetensors(MODEL)), "step").blocks
    assert (block.inline, block.chain) == (MODEL["step"].tobytes(), ())


def test_cleaning_again_gives_the_same_manifest_and_stores_nothing(store: Store) -> None:
    data = safetensors(MODEL)
    first = cleaned(store, data)
    objects = set(store.oids())
    assert cleaned(store, data) == first
    assert cleaned(store, data, first) == first
    assert set(store.oids()) == objects


def test_what_has_not_changed_is_named_again_and_what_has_is_an_update(store: Store) -> None:
    first = cleaned(store, safetensors(MODEL))
    wide = WIDE.copy()
    wide[3, 5] = 1.0
    data = safetensors({**MODEL, "wide": wide})
    second = cleaned(store, data, first)
    assert entry(second, "narrow") == entry(first, "narrow")
    assert parse_manifest(second).skeleton == parse_manifest(first).skeleton
    (old,), (new,) = entry(first, "wide").blocks, entry(second, "wide").blocks
    assert new.sha256 == hashlib.sha256(wide.tobytes()).hexdigest()
    assert new.chain[: len(old.chain)] == old.chain
    assert len(new.chain) == len(old.chain) + 1
    assert new.chain[-1].size < 1000
    assert written(store, second) == data


def test_what_changes_back_is_the_block_that_is_stored(store: Store) -> None:
    data = safetensors(MODEL)
    first = cleaned(store, data)
    second = cleaned(store, safetensors({**MODEL, "wide": changed(WIDE)}), first)
    # The index has the second version by now, HEAD still has the first.
    assert cleaned(store, data, second, first) == first


def test_without_a_predecessor_of_its_name_a_tensor_is_stored_whole(store: Store) -> None:
    first = cleaned(store, safetensors(MODEL))
    moved = changed(WIDE)
    second = cleaned(store, safetensors({"narrow": MODEL["narrow"], "other": moved[:, :7]}), first)
    assert len(entry(second, "other").blocks[0].chain) == 1


def test_the_same_bytes_of_another_dtype_are_no_stored_block(store: Store) -> None:
    first = cleaned(store, safetensors({"w": WIDE}))
    second = cleaned(store, safetensors({"w": WIDE.view(np.int32)}), first)
    assert entry(second, "w").tensor.dtype.name == "I32"
    assert written(store, second) == safetensors({"w": WIDE.view(np.int32)})


class TestOpaqueBytes:
    """What no format knows is cut into chunks by its content."""

    DATA = np.random.default_rng(9).bytes(3 << 20)

    def test_chunks_are_kept_whole(self, store: Store) -> None:
        manifest = parse_manifest(cleaned(store, self.DATA))
        (only,) = manifest.entries
        assert (manifest.format, only.opaque) == ("opaque", True)
        assert sum(block.nbytes for block in only.blocks) == len(self.DATA)
        assert written(store, cleaned(store, self.DATA)) == self.DATA

    def test_an_insertion_names_all_other_chunks_again(self, store: Store) -> None:
        first = cleaned(store, self.DATA)
        longer = self.DATA[:1_500_000] + b"inserted" * 4 + self.DATA[1_500_000:]
        second = cleaned(store, longer, first)
        before = parse_manifest(first).entries[0].blocks
        after = parse_manifest(second).entries[0].blocks
        new = [block for block in after if block not in before]
        assert 1 <= len(new) <= 2 < len(before) - 2
        # And the one that holds the insertion is made of the one that stood there.
        assert new[0].chain[:-1] in [block.chain for block in before]
        assert new[0].chain[-1].size < 2000
        assert written(store, second) == longer

    def test_chunks_that_alter_between_two_looks_are_noticed(self, store: Store) -> None:
        first = cleaned(store, self.DATA)
        other = bytearray(self.DATA)
        other[2 << 20] ^= 1
        # Read once to be cut, once to be hashed, and then to be stored.
        source = Restless(bytes(other), at=2 << 20, looks=2)
        with pytest.raises(ChangedWhileReadError, match="written to while it was read"):
            cleaner(store, first).clean(NAME, source)


class Restless:
    """A source in which one byte is another one from some look at it on."""

    def __init__(self, data: bytes, at: int, looks: int) -> None:
        self._data, self._at, self._looks = bytearray(data), at, looks

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        found = bytes(self._data[offset : offset + length])
        if offset <= self._at < offset + length:
            self._looks -= 1
            if self._looks == 0:
                self._data[self._at] ^= 1
        return found


def test_a_file_that_alters_between_hashing_and_storing_is_refused(store: Store) -> None:
    data = safetensors({"w": WIDE})
    first = cleaned(store, data)
    now = safetensors({"w": changed(WIDE)})
    with pytest.raises(ChangedWhileReadError, match="w: the file was written to"):
        cleaner(store, first).clean(NAME, Restless(now, at=len(now) - 1, looks=1))
    # Still, it is no error: the same source at rest has a version.
    assert written(store, cleaned(store, now, first)) == now


def test_a_file_that_becomes_shorter_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(safetensors(MODEL))
    with FileSource(path) as source:
        path.write_bytes(safetensors(MODEL)[:-5000])
        with pytest.raises(ChangedWhileReadError, match="shorter"):
            cleaner(store).clean(NAME, source)


def test_work_that_is_called_off_stops(store: Store) -> None:
    off = threading.Event()
    off.set()
    with pytest.raises(Cancelled):
        cleaner(store).clean(NAME, BytesSource(safetensors(MODEL)), off)
    assert not list(store.oids())


class TestObjectsThatAreNotThere:
    """A partial clone, a damaged disk: what a new version may and may not rely on."""

    def test_unchanged_blocks_are_named_without_their_objects(self, store: Store) -> None:
        data = safetensors(MODEL)
        first = cleaned(store, data)
        for oid in list(store.oids()):
            store.remove(oid)
        assert cleaned(store, data, first) == first
        assert not list(store.oids())

    def test_an_absent_predecessor_is_fetched_once_and_alone(self, store: Store) -> None:
        first = cleaned(store, safetensors(MODEL))
        data = safetensors({**MODEL, "wide": changed(WIDE)})
        expected = cleaned(store, data, first)
        asked: list[list[str]] = []
        kept = {oid: store.read(oid) for oid in store.oids()}

        def fetch(refs: Iterable[UpdateRef]) -> None:
            asked.append([ref.oid for ref in refs])
            for oid in asked[-1]:
                store.put([kept[oid]])

        for oid in kept:
            store.remove(oid)
        for answer in (store.root / "memo").rglob("*"):
            answer.unlink()
        # What is here and what is not does not show in the manifest.
        assert cleaner(store, first, fetch=fetch).clean(NAME, BytesSource(data)) == expected
        assert asked == [[ref.oid for ref in entry(first, "wide").blocks[0].chain]]

    def test_a_predecessor_that_cannot_be_had_is_an_error(self, store: Store) -> None:
        first = cleaned(store, safetensors(MODEL))
        for ref in entry(first, "wide").blocks[0].chain:
            store.remove(ref.oid)
        moved = safetensors({**MODEL, "wide": changed(WIDE)})

        def fetch(refs: Iterable[UpdateRef]) -> None:
            raise TransferError("the cable is out")

        with pytest.raises(TransferError, match="the cable is out"):
            cleaner(store, first, fetch=fetch).clean(NAME, BytesSource(moved))
        with pytest.raises(MissingObjectError):
            cleaned(store, moved, first)

    @pytest.mark.parametrize("moves", [False, True])
    def test_a_damaged_object_does_not_keep_a_version_from_being_added(
        self, store: Store, moves: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = cleaned(store, safetensors(MODEL))
        (ref,) = entry(first, "wide").blocks[0].chain
        damage(store.path(ref.oid))
        data = safetensors({**MODEL, "wide": changed(WIDE)} if moves else MODEL)
        second = cleaned(Store(store.root), data, first)
        assert ref.oid in capsys.readouterr().err
        assert len(entry(second, "wide").blocks[0].chain) == 1
        assert written(Store(store.root), second) == data


class TestRemembered:
    """The answer for a file that has not changed is there at once, and only then."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / NAME
        path.write_bytes(safetensors(MODEL))
        return path

    @pytest.fixture(autouse=True)
    def _of_any_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clean, "WORTH_REMEMBERING", 0)

    def answer(self, store: Store, path: Path, *before: bytes) -> bytes | None:
        with FileSource(path) as source:
            return cleaner(store, *before).remembered(NAME, source)

    def remember(self, store: Store, path: Path, after: float = 10) -> bytes:
        """Clean the file, some seconds after it was last written to."""
        status = path.stat()
        moment = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9 + after
        with FileSource(path) as source, pytest.MonkeyPatch.context() as patch:
            manifest = cleaner(store).clean(NAME, source)
            patch.setattr(clean.time, "time", lambda: moment)
            cleaner(store).remember(NAME, source, manifest)
        return manifest

    def test_a_file_at_rest_is_known_again(self, store: Store, path: Path) -> None:
        assert self.answer(store, path) is None
        assert self.remember(store, path) == self.answer(store, path) is not None

    @pytest.mark.parametrize(
        ("whole_seconds", "after", "known"),
        [(False, 0.02, False), (False, 0.2, True), (True, 1.0, False), (True, 3.0, True)],
    )
    def test_a_file_so_new_that_it_may_change_unnoticed_is_not(
        self, store: Store, path: Path, whole_seconds: bool, after: float, known: bool
    ) -> None:
        """Where times have no fraction, as on FAT, that is two seconds."""
        os.utime(path, ns=(0, 1_000_000_000 + (0 if whole_seconds else 1_000)))
        self.remember(store, path, after)
        assert (self.answer(store, path) is not None) == known

    def test_a_file_that_was_written_to_is_not(self, store: Store, path: Path) -> None:
        self.remember(store, path)
        path.write_bytes(path.read_bytes() + b"x")
        assert self.answer(store, path) is None

    def test_nor_where_it_would_be_compared_with_something_else(
        self, store: Store, path: Path
    ) -> None:
        manifest = self.remember(store, path)
        assert self.answer(store, path, manifest) is None

    def test_an_answer_does_not_outlive_its_objects(self, store: Store, path: Path) -> None:
        manifest = self.remember(store, path)
        store.remove(next(parse_manifest(manifest).objects()).oid)
        assert self.answer(store, path) is None


OPAQUE = np.random.default_rng(8).bytes(1_500_000)
LARGE = {f"l.{n}": RANDOM.normal(0, 0.02, (300, 300)).astype(np.float32) for n in range(4)}


@pytest.mark.parametrize(
    "files",
    [
        (safetensors(LARGE), safetensors({**LARGE, "l.1": changed(LARGE["l.1"])})),
        (safetensors(LARGE), safetensors({f"m.{n}": changed(LARGE[n]) for n in LARGE})),
        (OPAQUE, OPAQUE[:700_000] + b"in between" + OPAQUE[700_000:]),
    ],
    ids=["changed", "renamed", "opaque"],
)
def test_other_processes_make_the_same(tmp_path: Path, files: tuple[bytes, bytes]) -> None:
    """Of all versions, with what was found stored, remembered, or like another tensor."""
    found = []
    for executor in (HERE, posted := Posted()):
        store = Store(tmp_path / str(executor.far))
        blocks, before = Blocks(store, executor=executor), list[bytes]()
        for data in (*files, files[1]):
            path = store.root / "file"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            made = Cleaner(blocks, Committed(*before), Memo(store.root / "memo"))
            with FileSource(path) as source:
                before = [made.clean(NAME, source)]
            found.append((executor.far, before, sorted(store.oids())))
    assert [one[1:] for one in found if one[0]] == [one[1:] for one in found if not one[0]]
    assert max(posted.lengths) < 4000
