"""Predecessors: what is stored already, and what a new version is an update of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha1
from pathlib import Path

import pytest

from git_theta_ext.checkpoints import predecessors
from git_theta_ext.checkpoints.predecessors import PathPredecessors, Predecessors
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.git.repository import IndexEntry, Repository
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.manifest.text import manifest_bytes
from tests.scenarios.manifests import block, entry, manifest

A, B, C = "a.pt", "b.pt", "c.pt"


class InMemory(Repository):
    """A repository of nothing but blobs, an index and heads; counts what is read."""

    def __init__(self) -> None:
        super().__init__(Path("/r"), Path("/r/.git"), Path("/r/.git"), Path("/r"))
        self.contents: dict[str, bytes] = {}
        self.entries: list[IndexEntry] = []
        self.heads: dict[str, dict[str, str]] = {}
        self.read: list[str] = []

    def put(self, content: Manifest | bytes) -> str:
        data = content if isinstance(content, bytes) else manifest_bytes(content)
        oid = sha1(data, usedforsecurity=False).hexdigest()
        self.contents[oid] = data
        return oid

    def stage(self, path: str, content: Manifest | bytes, stage: int = 0) -> str:
        oid = self.put(content)
        self.entries.append(IndexEntry("100644", oid, stage, path))
        return oid

    def commit(self, head: str = "HEAD", **files: Manifest | bytes) -> None:
        """Commit files (`a` is `a.pt`), and stage those that no index has."""
        for name, content in files.items():
            path = f"{name}.pt"
            self.heads.setdefault(head, {})[path] = self.put(content)
            if head == "HEAD" and all(one.path != path for one in self.entries):
                self.stage(path, content)

    @property
    def reads_within_process(self) -> bool:
        return True

    def tracked(self) -> list[IndexEntry]:
        return [one for one in self.entries if not one.path.startswith("untracked")]

    def index(self, *pathspecs: str) -> list[IndexEntry]:
        return [one for one in self.entries if f":(top,literal){one.path}" in pathspecs]

    def blob_at(self, revision: str, path: str) -> str | None:
        return self.heads[revision].get(path)

    def blobs_at(self, revision: str) -> dict[str, str]:
        return dict(self.heads.get(revision, {}))

    def blob_size(self, oid: str) -> int:
        return len(self.contents[oid])

    def small_blobs(
        self, oids: Sequence[str], first_bytes: bytes, limit: int
    ) -> Iterator[tuple[str, bytes]]:
        self.read += oids
        for oid in oids:
            data = self.contents[oid]
            if data.startswith(first_bytes) and len(data) <= limit:
                yield oid, data


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> InMemory:
    made = InMemory()
    monkeypatch.setattr(predecessors, "revisions_in_progress", lambda found: list(found.heads))
    return made


def tensors(*entries: Entry) -> list[TensorInfo]:
    return [one.tensor for one in entries]


def of(
    repository: InMemory,
    path: str,
    *now: Entry,
    written: Mapping[str, bytes] | None = None,
) -> PathPredecessors:
    """What a path is compared with, at which there are now these tensors."""
    return Predecessors(repository, written).for_path(path, tensors(*now))


def opaque(name: str, *labels: str) -> Entry:
    """An entry of bytes in chunks."""
    chunks = tuple(block(1000, label) for label in labels)
    return Entry(TensorInfo(name, DTYPES["U8"], (1000 * len(labels),)), chunks, opaque=True)


def renamed(one: Entry, name: str) -> Entry:
    return replace(one, tensor=replace(one.tensor, name=name))


class TestWhatThePathHas:
    def test_ours_counts_in_a_conflict_and_the_settled_entry_first(
        self, repository: InMemory
    ) -> None:
        base, ours, theirs = (manifest(entry("w", label)) for label in range(3))
        repository.stage(A, base, 1)
        repository.stage(B, theirs, 3)
        oid = repository.stage(A, ours, 2)
        found = Predecessors(repository)
        assert (found.staged(A), found.staged(B), found.staged("none")) == (oid, None, None)
        settled = repository.stage(A, theirs, 0)
        assert Predecessors(repository).staged(A) == settled

    def test_a_path_that_no_filter_has_is_looked_up_by_itself(self, repository: InMemory) -> None:
        oid = repository.stage("untracked.pt", manifest(entry("w")))
        assert Predecessors(repository).staged("untracked.pt") == oid

    def test_each_head_of_a_merge_counts_and_each_blob_once(self, repository: InMemory) -> None:
        one, two = manifest(entry("w", 1)), manifest(entry("w", 2))
        repository.commit(a=one)
        repository.commit("MERGE_HEAD", a=two)
        repository.commit("REBASE_HEAD", a=one)
        repository.commit("CHERRY_PICK_HEAD", b=two)
        found = Predecessors(repository)
        assert found.committed(A) == [repository.put(one), repository.put(two)]
        assert list(found.manifests(A)) == [one, one, two]

    @pytest.mark.parametrize("content", [b"a checkpoint", b"git-theta manifest v1\nbroken\n"])
    def test_what_is_no_manifest_does_not_stop_new_work(
        self, repository: InMemory, content: bytes
    ) -> None:
        repository.commit(a=content)
        found = Predecessors(repository)
        oid = found.staged(A)
        assert oid is not None
        assert (found.blob(oid), found.manifest(oid), list(found.manifests(A))) == (None, None, [])
        assert found.blob_size(oid) == len(content)
        assert found.for_path(A, []).predecessor("w", 0) is None

    def test_a_blob_is_read_once(self, repository: InMemory) -> None:
        repository.commit(a=manifest(entry("w")), b=b"no manifest")
        found = Predecessors(repository)
        for _ in range(2):
            assert len(list(found.manifests(A))) == 2
            assert not list(found.manifests(B))
        assert len(repository.read) == len(set(repository.read)) == 2


class TestWhatItWasBefore:
    def test_the_block_at_the_same_place_of_the_same_name(self, repository: InMemory) -> None:
        large = entry("w", shape=(9, 4 << 20))
        repository.commit(a=manifest(large, entry("v")))
        found = of(repository, A, large)
        assert found.predecessor("w", 4) == (large, large.blocks[4])
        assert found.predecessor("w", 5) is None
        assert found.predecessor("x", 0) is None

    def test_the_commit_counts_and_not_the_index(self, repository: InMemory) -> None:
        """So that adding twice between two commits makes no chain of two."""
        old, new = entry("w", "old"), entry("w", "new")
        repository.commit(a=manifest(old, skeleton="one"))
        repository.entries.clear()
        repository.stage(A, manifest(new, skeleton="two"))
        found = of(repository, A, new)
        assert found.predecessor("w", 0) == (old, old.blocks[0])
        assert found.predecessor_skeleton() == block(1000, "one")

    def test_the_first_head_that_has_it(self, repository: InMemory) -> None:
        ours, theirs = entry("v"), entry("w")
        repository.commit(a=manifest(ours))
        repository.commit("MERGE_HEAD", a=manifest(theirs, entry("v", "theirs")))
        found = of(repository, A, ours)
        assert found.predecessor("w", 0) == (theirs, theirs.blocks[0])
        assert found.predecessor("v", 0) == (ours, ours.blocks[0])

    def test_chunks_are_no_blocks_of_a_tensor(self, repository: InMemory) -> None:
        chunks = opaque("w", "one", "two")
        repository.commit(a=manifest(chunks, entry("v")))
        found = of(repository, A, chunks)
        assert found.predecessor("w", 0) is None
        assert found.chunks("w") == chunks.blocks
        assert found.chunks("v") == found.chunks("x") == ()


class TestANewPath:
    """Compared with the committed checkpoint that is most like it."""

    LAYERS = tuple(entry(f"layer.{n}", n) for n in range(4))

    def looked_at(self, repository: InMemory, *now: Entry) -> str | None:
        """The hash of what the first layer was before."""
        found = of(repository, "new.pt", *now).predecessor("layer.0", 0)
        return None if found is None else found[1].sha256

    def versions(self, repository: InMemory, **labels: str) -> dict[str, str]:
        made = {name: entry("layer.0", label) for name, label in labels.items()}
        repository.commit(**{n: manifest(one, *self.LAYERS[1:]) for n, one in made.items()})
        return {name: one.blocks[0].sha256 for name, one in made.items()}

    def test_of_equals_the_last_in_natural_order(self, repository: InMemory) -> None:
        hashes = self.versions(repository, step_100="x", step_9="y", step_20="z")
        assert self.looked_at(repository, *self.LAYERS) == hashes["step_100"]

    def test_the_one_that_shares_most(self, repository: InMemory) -> None:
        repository.commit(z=manifest(entry("layer.0", "z"), *self.LAYERS[1:3]))
        hashes = self.versions(repository, b="b")
        assert self.looked_at(repository, *self.LAYERS) == hashes["b"]

    @pytest.mark.parametrize(("others", "found"), [(2, True), (4, False)])
    def test_half_of_the_tensors_are_needed(
        self, repository: InMemory, others: int, found: bool
    ) -> None:
        repository.commit(a=manifest(*self.LAYERS[:2]))
        now = [*self.LAYERS[:2], *(entry(f"new.{n}") for n in range(others))]
        assert (self.looked_at(repository, *now) is not None) == found

    def test_another_shape_or_dtype_is_another_tensor(self, repository: InMemory) -> None:
        repository.commit(
            a=manifest(entry("layer.0", shape=(31,))), b=manifest(entry("layer.0", dtype="I32"))
        )
        assert self.looked_at(repository, self.LAYERS[0]) is None

    def test_nothing_is_shared_by_nothing(self, repository: InMemory) -> None:
        repository.commit(a=manifest(entry("other")))
        assert self.looked_at(repository, self.LAYERS[0]) is None

    def test_a_path_that_has_a_version_of_its_own_has_no_other(self, repository: InMemory) -> None:
        self.versions(repository, a="a")
        repository.commit(new=manifest(entry("unlike")))
        assert self.looked_at(repository, *self.LAYERS) is None


class TestWhatIsStored:
    def test_in_this_tensor_then_this_file_then_any_other(self, repository: InMemory) -> None:
        # Three chains for the same bytes.
        chains = [block(120, n).chain for n in range(3)]
        one, two, three = (
            replace(entry("w", "same"), blocks=(replace(block(120, "same"), chain=chain),))
            for chain in chains
        )
        sha256 = one.blocks[0].sha256
        repository.commit(a=manifest(renamed(two, "v"), one), b=manifest(renamed(three, "u")))
        assert of(repository, A).stored("w", 0, sha256, "F32") == one.blocks[0]
        assert of(repository, A).stored("v", 0, sha256, "F32") == two.blocks[0]
        # In this file: the first there.
        assert of(repository, A).stored("x", 0, sha256, "F32") == two.blocks[0]
        assert of(repository, C).stored("x", 0, sha256, "F32") == two.blocks[0]
        assert of(repository, B).stored("x", 0, sha256, "F32") == three.blocks[0]

    def test_only_if_hash_and_dtype_are_those(self, repository: InMemory) -> None:
        one = entry("w")
        repository.commit(a=manifest(one))
        sha256 = one.blocks[0].sha256
        found = of(repository, A)
        assert found.stored("w", 0, sha256, "F32") == one.blocks[0]
        assert found.stored("w", 0, sha256, "I32") is None
        assert found.stored("w", 1, sha256, "F32") == one.blocks[0]
        assert found.stored("w", 0, "0" * 64, "F32") is None

    def test_not_what_stands_in_a_manifest_itself(self, repository: InMemory) -> None:
        small = entry("w", shape=(2,))
        repository.commit(a=manifest(small))
        assert of(repository, A).stored("w", 0, small.blocks[0].sha256, "F32") is None

    def test_in_the_index_and_in_what_git_has_just_written(self, repository: InMemory) -> None:
        """Some commands look at a file that they wrote before they write the index."""
        one, two, three = (entry("w", label) for label in "123")
        repository.commit(a=manifest(one))
        repository.entries.clear()
        repository.stage(A, manifest(two))
        written = {A: manifest_bytes(manifest(three, skeleton="three"))}
        found = of(repository, A, written=written)
        for each in (one, two, three):
            (known,) = each.blocks
            assert found.stored("w", 0, known.sha256, "F32") == known
        assert found.stored_skeleton(block(1000, "three").sha256) == block(1000, "three")
        assert of(repository, A).stored("w", 0, three.blocks[0].sha256, "F32") is None
        # For another path it is not there yet.
        elsewhere = of(repository, B, written=written)
        assert elsewhere.stored("w", 0, three.blocks[0].sha256, "F32") is None

    def test_the_skeleton_of_this_file_or_any_other(self, repository: InMemory) -> None:
        repository.commit(a=manifest(skeleton="one"), b=manifest(skeleton="two"))
        for label in ("one", "two"):
            found = of(repository, A).stored_skeleton(block(1000, label).sha256)
            assert found == block(1000, label)
        assert of(repository, A).stored_skeleton(block(1000, "three").sha256) is None
        # The bytes of a tensor are no skeleton, whatever their hash.
        repository.commit(c=manifest(entry("w")))
        assert of(repository, A).stored_skeleton(entry("w").blocks[0].sha256) is None


class TestKin:
    """A few guesses at what a tensor of a new name was."""

    def guesses(self, repository: InMemory, path: str, name: str, *now: Entry) -> list[str]:
        (one,) = (each for each in now if each.tensor.name == name)
        found = of(repository, path, *now).kin(one.tensor, 0)
        return [each.sha256 for each in found]

    def hashes(self, entries: Iterable[Entry]) -> list[str]:
        return [each.blocks[0].sha256 for each in entries]

    def test_as_many_came_as_went_in_their_order(self, repository: InMemory) -> None:
        old = [entry(f"old.{n}", n) for n in (2, 10)]
        now = [entry(f"new.{n}", f"new {n}") for n in (2, 10)]
        repository.commit(a=manifest(*old, entry("kept", shape=(7, 7))))
        kept = entry("kept", shape=(7, 7))
        two, ten = self.hashes(old)
        assert self.guesses(repository, A, "new.2", *now, kept)[0] == two
        assert self.guesses(repository, A, "new.10", *now, kept)[0] == ten

    def test_where_more_went_there_are_only_those_of_the_form(self, repository: InMemory) -> None:
        old = [entry(f"old.{n}", n) for n in (1, 2)]
        repository.commit(a=manifest(*old), b=manifest(entry("other", 3), entry("i", dtype="I32")))
        found = self.guesses(repository, A, "new", entry("new", "x"))
        assert sorted(found) == sorted(self.hashes([*old, entry("other", 3)]))

    def test_no_more_than_eight_and_each_once(self, repository: InMemory) -> None:
        many = [entry(f"t{n}", n // 2) for n in range(40)]
        repository.commit(a=manifest(*many))
        found = self.guesses(repository, B, "new", entry("new", "x"))
        assert found == self.hashes(many[:16:2])

    def test_chunks_and_blocks_in_the_manifest_are_none(self, repository: InMemory) -> None:
        repository.commit(a=manifest(opaque("bytes", "one"), entry("small", shape=(2,))))
        for new in (entry("new", dtype="U8", shape=(1000,)), entry("new", shape=(2,))):
            assert self.guesses(repository, B, "new", new) == []


class TestTheFingerprint:
    """Of everything, besides its bytes, that a file's manifest may depend on."""

    def of(self, repository: InMemory, path: str = A) -> str:
        return Predecessors(repository).fingerprint(path)

    def test_is_the_same_for_the_same_state(self, repository: InMemory) -> None:
        repository.commit(a=manifest(entry("w")), b=manifest(entry("v")))
        assert self.of(repository) == self.of(repository)

    def test_changes_with_the_index_and_the_heads_of_every_path(self, repository: InMemory) -> None:
        seen = {self.of(repository)}
        steps = [
            lambda: repository.commit(a=manifest(entry("w", 1))),
            lambda: repository.stage(B, manifest(entry("w", 2))),
            lambda: repository.commit(b=manifest(entry("w", 3))),
            lambda: repository.commit("MERGE_HEAD", b=manifest(entry("w", 4))),
            lambda: repository.stage(C, manifest(entry("w", 5)), 2),
        ]
        for number, step in enumerate(steps, 2):
            step()
            seen.add(self.of(repository))
            assert len(seen) == number

    def test_changes_with_the_index_at_a_path_that_no_filter_has(
        self, repository: InMemory
    ) -> None:
        before = self.of(repository, "untracked.pt")
        repository.stage("untracked.pt", manifest(entry("w")))
        assert self.of(repository, "untracked.pt") != before

    def test_is_another_for_another_path(self, repository: InMemory) -> None:
        repository.commit(a=manifest(entry("w")), b=manifest(entry("v")))
        assert self.of(repository, A) != self.of(repository, B)


def test_the_work_tree_is_the_repositorys(repository: InMemory) -> None:
    assert Predecessors(repository).work_tree == Path("/r")


def test_blocks_are_gathered_from_all_tracked_paths(repository: InMemory) -> None:
    repository.commit(a=manifest(entry("w", 1)), b=manifest(entry("w", 2)))
    repository.stage("untracked.pt", manifest(entry("w", 3)))
    found = Predecessors(repository)
    blocks = [entry("w", label).blocks[0] for label in (1, 2, 3)]
    known = [found.known_block((one.sha256, "F32")) for one in blocks]
    assert known == [*blocks[:2], None]
