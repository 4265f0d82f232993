"""Smudge: the bytes that were added, or an error before a wrong one is out."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.checkpoints.placed import write_file
from git_theta_ext.checkpoints.smudge import Smudger, differing
from git_theta_ext.core.errors import CorruptObjectError, ManifestError, MissingObjectError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import Crc32, Layout, Literal, Segment, SerializationId, Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.places import blocks_of
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.manifest.model import Block, Entry, Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from tests.scenarios.checkpoints import awkward, safetensors
from tests.scenarios.manifests import entry
from tests.scenarios.objects import damage

WEIGHT = np.arange(300, dtype=np.float32)
BIAS = np.arange(40, dtype=np.float16)
DATA = safetensors({"weight": WEIGHT, "bias": BIAS})


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path / "theta"))


def stored(blocks: Blocks, data: bytes, layout: Layout | None = None) -> Manifest:
    """The manifest of some bytes, each block stored by itself."""
    source = BytesSource(data)
    layout = layout or read_layout(source)
    found: dict[str, list[Block]] = {}
    for place in blocks_of(layout, source):
        raw = source.read(place.offset, place.spec.nbytes)
        made = blocks.write(place.spec, np.frombuffer(raw, values_dtype(place.spec.dtype)))
        found.setdefault(place.span.tensor.name, []).append(made)
    spans = {one.tensor.name: one for one in layout.segments if isinstance(one, Span)}
    blocks.store.flush()
    return Manifest(
        layout.format,
        blocks.write_bytes(skeleton.encode(layout)),
        tuple(
            Entry(spans[name].tensor, tuple(found[name]), spans[name].opaque)
            for name in sorted(found)
        ),
    )


def rebuilt(blocks: Blocks, manifest: Manifest) -> bytes:
    """What is written for a manifest; as long as it was said to be."""
    smudger = Smudger(manifest, blocks)
    pieces: list[bytes] = []
    smudger.write(lambda data: pieces.append(bytes(data)))
    data = b"".join(pieces)
    assert len(data) == smudger.size
    fed: list[bytes] = []
    assert Smudger(manifest, blocks).same_as(BytesSource(data), feed=fed.append)
    assert b"".join(fed) == data
    for known in (lambda start, block: False, hashed(data)):
        assert Smudger(manifest, blocks).same_as(BytesSource(data), known)
        assert not Smudger(manifest, blocks).same_as(BytesSource(data + b"x"), known)
    return data


def hashed(data: bytes) -> Callable[[int, Block], bool]:
    """Whether bytes have a block's hash at an offset."""
    return lambda at, one: hashlib.sha256(data[at : at + one.nbytes]).hexdigest() == one.sha256


class TestTheBytesComeBack:
    def test_of_values_that_lossy_systems_lose(self, blocks: Blocks) -> None:
        data = safetensors(awkward())
        assert rebuilt(blocks, stored(blocks, data)) == data

    def test_of_a_file_that_no_format_knows(self, blocks: Blocks) -> None:
        data = np.random.default_rng(0).bytes(1 << 20)
        assert rebuilt(blocks, stored(blocks, data)) == data

    def test_of_a_file_without_bytes(self, blocks: Blocks) -> None:
        assert rebuilt(blocks, stored(blocks, b"")) == b""

    def test_of_fields_that_follow_from_other_bytes(self, blocks: Blocks) -> None:
        """One CRC-32 after the tensor that it covers, one before it, and digits made of both."""
        crc = zlib.crc32(b"head" + WEIGHT.tobytes())
        value = 0
        for one in (crc, 99):  # as PyTorch folds them
            value ^= (one + 0x9E3779B9 + (value << 6) + (value >> 2)) & (2**64 - 1)
        data = (
            crc.to_bytes(4, "little")
            + b"head"
            + WEIGHT.tobytes()
            + crc.to_bytes(4, "little")
            + b"%020d" % value
        )
        segments: tuple[Segment, ...] = (
            Crc32(1, 3),
            Literal(b"head"),
            Span(TensorInfo("weight", DTYPES["F32"], (300,))),
            Crc32(1, 3),
            SerializationId(((1, 3), 99)),
        )
        manifest = stored(blocks, data, Layout("made", segments))
        assert rebuilt(blocks, manifest) == data
        for at in range(0, len(data), 3):
            other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            for known in (lambda start, block: False, hashed(other)):
                assert not Smudger(manifest, blocks).same_as(BytesSource(other), known)

    @settings(max_examples=15)
    @given(
        st.dictionaries(
            st.text("ab.0\n\u2028é", min_size=1, max_size=4),
            st.tuples(st.sampled_from(["<f4", "<f2", "<i8", "u1"]), st.integers(0, 40)),
            max_size=4,
        ),
        st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    )
    def test_of_any_safetensors_file(
        self, tensors: Mapping[str, tuple[str, int]], metadata: Mapping[str, str]
    ) -> None:
        random = np.random.default_rng(0)
        data = safetensors(
            {
                name: np.frombuffer(random.bytes(count * np.dtype(dtype).itemsize), dtype)
                for name, (dtype, count) in tensors.items()
            },
            metadata,
        )
        with tempfile.TemporaryDirectory() as folder:
            blocks = Blocks(Store(Path(folder)))
            assert rebuilt(blocks, stored(blocks, data)) == data


class TestAStructureOfAnotherVersion:
    """Skeleton and manifest must be of one another, or nothing is written."""

    def test_that_has_a_tensor_more(self, blocks: Blocks) -> None:
        manifest = stored(blocks, DATA)
        fewer = replace(manifest, entries=manifest.entries[:1])
        with pytest.raises(ManifestError, match="tensor 'weight' that the manifest does not list"):
            Smudger(fewer, blocks)

    @pytest.mark.parametrize("listed", [("a",), ("a", "b")])
    def test_that_has_a_tensor_twice(self, blocks: Blocks, listed: tuple[str, ...]) -> None:
        twice = skeleton.Skeleton((skeleton.SpanRef("a"), skeleton.SpanRef("a")))
        entries = tuple(entry(name, shape=(1,)) for name in listed)
        made = Manifest("made", blocks.write_bytes(skeleton.encode(twice)), entries)
        with pytest.raises(ManifestError, match="has the tensor 'a' more than once"):
            Smudger(made, blocks)

    def test_that_has_a_tensor_less(self, blocks: Blocks) -> None:
        manifest = stored(blocks, DATA)
        more = replace(manifest, entries=(*manifest.entries, entry("zz", shape=(1,))))
        with pytest.raises(ManifestError, match="tensor 'zz' that the file's structure does not"):
            Smudger(more, blocks)

    @pytest.mark.parametrize(
        ("other", "problem"),
        [
            (TensorInfo("weight", DTYPES["I32"], (300,)), r"weight is F32 \[300\] there"),
            (TensorInfo("weight", DTYPES["F32"], (3, 100)), r"weight is F32 \[300\] there"),
        ],
    )
    def test_that_gives_a_tensor_another_dtype_or_shape(
        self, blocks: Blocks, other: TensorInfo, problem: str
    ) -> None:
        manifest = stored(blocks, DATA)
        bias, weight = manifest.entries
        changed = replace(manifest, entries=(bias, replace(weight, tensor=other)))
        with pytest.raises(ManifestError, match=f"header does not belong .*{problem}") as caught:
            Smudger(changed, blocks)
        assert "git add FILE" in (caught.value.hint or "")

    def test_whose_header_lists_a_tensor_more(self, blocks: Blocks) -> None:
        """One without elements, which leaves the length of the file as it is."""
        longer = safetensors({"weight": WEIGHT, "bias": BIAS, "none": np.zeros(0, np.float32)})
        layout = read_layout(BytesSource(longer))
        left = [s for s in layout.segments if not (isinstance(s, Span) and s.tensor.name == "none")]
        header = blocks.write_bytes(skeleton.encode(replace(layout, segments=tuple(left))))
        with pytest.raises(ManifestError, match="it has 3, the manifest 2"):
            Smudger(replace(stored(blocks, DATA), skeleton=header), blocks)

    @pytest.mark.parametrize("header", [b"", b"no header at all"])
    def test_without_a_header(self, blocks: Blocks, header: bytes) -> None:
        layout = read_layout(BytesSource(DATA))
        spans = [segment for segment in layout.segments if isinstance(segment, Span)]
        bare = replace(layout, segments=(Literal(header), *spans))
        made = blocks.write_bytes(skeleton.encode(bare))
        with pytest.raises(ManifestError, match="header does not belong"):
            Smudger(replace(stored(blocks, DATA), skeleton=made), blocks)

    def test_other_formats_have_no_header_to_compare(self, blocks: Blocks) -> None:
        """The control: the same manifest, and the file is whatever it says."""
        manifest = replace(stored(blocks, DATA), format="made")
        bias, weight = manifest.entries
        other = replace(weight, tensor=TensorInfo("weight", DTYPES["I32"], (300,)))
        chain = blocks.write(other.specs()[0], WEIGHT.view("<u4"))
        changed = replace(manifest, entries=(bias, replace(other, blocks=(chain,))))
        assert rebuilt(blocks, changed) == DATA


class TestDamage:
    def test_a_damaged_object_stops_everything_and_its_tensor_is_named(
        self, blocks: Blocks
    ) -> None:
        manifest = stored(blocks, DATA)
        (ref,) = manifest.by_name()["weight"].blocks[0].chain
        damage(blocks.store.path(ref.oid))
        with pytest.raises(CorruptObjectError, match=rf"^weight: .*{ref.oid}"):
            rebuilt(blocks, manifest)

    def test_sound_objects_of_other_bytes_are_not_believed(self, blocks: Blocks) -> None:
        manifest = stored(blocks, DATA)
        bias, weight = manifest.entries
        (block,) = weight.blocks
        other = blocks.write(weight.specs()[0], (WEIGHT + 1).view("<u4"))
        planted = replace(weight, blocks=(replace(block, chain=other.chain),))
        out: list[bytes] = []
        smudger = Smudger(replace(manifest, entries=(bias, planted)), blocks)
        with pytest.raises(CorruptObjectError, match=r"^weight: "):
            smudger.write(lambda data: out.append(bytes(data)))
        assert (WEIGHT + 1).tobytes() not in b"".join(out)

    def test_a_damaged_skeleton_is_noticed_before_anything_is_out(self, blocks: Blocks) -> None:
        manifest = stored(blocks, DATA)
        damage(blocks.store.path(manifest.skeleton.chain[0].oid))
        with pytest.raises(CorruptObjectError):
            Smudger(manifest, blocks)

    def test_what_is_missing_is_asked_for_in_one_batch(self, blocks: Blocks) -> None:
        manifest = stored(blocks, DATA)
        for ref in manifest.objects():
            blocks.store.remove(ref.oid)
        asked: list[list[str]] = []
        with_remote = Blocks(
            blocks.store, lambda refs: asked.append(sorted(ref.oid for ref in refs))
        )
        with pytest.raises(MissingObjectError):
            Smudger(manifest, with_remote)
        assert asked[0] == sorted({ref.oid for ref in manifest.objects()})

    def test_a_file_is_whole_or_as_it_was(self, blocks: Blocks, tmp_path: Path) -> None:
        manifest = stored(blocks, DATA)
        path = tmp_path / "out" / "model.safetensors"
        path.parent.mkdir()
        path.write_bytes(b"as it was")
        sound = Smudger(manifest, blocks)
        damage(blocks.store.path(manifest.by_name()["weight"].blocks[0].chain[0].oid))
        with pytest.raises(CorruptObjectError):
            write_file(path, sound)
        assert path.read_bytes() == b"as it was"
        assert list(path.parent.iterdir()) == [path]

    def test_a_sound_file_takes_its_place(self, blocks: Blocks, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"as it was")
        write_file(tmp_path / "file", Smudger(stored(blocks, DATA), blocks))
        assert (tmp_path / "file").read_bytes() == DATA


class TestWhatDiffers:
    """Of several versions of a tensor only the blocks that are not in all of them are read."""

    LARGE = (9, 4 << 20)

    def versions(self, *labels: str) -> list[Entry]:
        """Tensors of five blocks; each letter stands for one."""
        base = entry("w", shape=self.LARGE)
        assert len(base.blocks) == 5
        return [
            replace(
                base,
                blocks=tuple(
                    replace(one, sha256=letter * 64)
                    for one, letter in zip(base.blocks, label, strict=False)
                ),
            )
            for label in labels
        ]

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (("abcde", "abcde"), ""),
            (("abcde", "abXde"), "cX"),
            (("abcde", "abcde", "aXcdY"), "bebeXY"),
            (("abcde",), "abcde"),
        ],
    )
    def test_blocks_that_stand_in_all_are_left_out(
        self, labels: tuple[str, ...], expected: str
    ) -> None:
        found = list(differing(self.versions(*labels)))
        assert "".join(block.sha256[0] for _, block in found) == expected

    def test_a_version_without_the_tensor_says_nothing(self) -> None:
        (one, other) = self.versions("abcde", "abcdX")
        assert [b.sha256[0] for _, b in differing([one, None, other])] == ["e", "X"]
        assert len(list(differing([None, one]))) == 5
