"""Zarr, N5 and OCDBT: what the libraries wrote comes apart by array, and lies are not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats import companions
from git_theta_ext.formats.arrays import ocdbt, orbax, zarr, zarr_metadata
from git_theta_ext.formats.base import Layout, Span
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.array_files import NODE, below, frame, leaf, manifest, varint
from tests.scenarios.examples import rebuilt

MATRIX = np.arange(60, dtype="<f4").reshape(10, 6)
Parts = dict[str, tuple[str, tuple[int, ...]]]


def beside(path: str, files: dict[str, bytes]) -> Layout | None:
    """The layout of a file by those around it; it must be the file."""

    def opened(name: str) -> BytesSource | None:
        return BytesSource(files[name]) if name in files else None

    found = companions.read_layout(BytesSource(files[path]), path, opened)
    assert found is None or rebuilt(files[path], found) == files[path]
    return found


def parts(path: str, files: dict[str, bytes]) -> Parts:
    """Element type and shape of each tensor; `opaque` for bytes."""
    found = beside(path, files)
    return {
        one.tensor.name: ("opaque" if one.opaque else one.tensor.dtype.name, one.tensor.shape)
        for one in (found.segments if found is not None else ())
        if isinstance(one, Span)
    }


def values(files: dict[str, bytes]) -> dict[str, bytes]:
    """The bytes of all tensors of all files."""
    found = {}
    for path, data in files.items():
        layout, offset = beside(path, files), 0
        for one in layout.segments if layout is not None else ():
            length = one.tensor.nbytes if isinstance(one, Span) else len(one.data)  # type: ignore[union-attr]
            if isinstance(one, Span):
                found[one.tensor.name] = data[offset : offset + length]
            offset += length
    return found


CHUNKS: dict[str, dict[str, Parts]] = {
    "store2": {
        "model/rows/0.0": {"model/rows[:4]": ("F32", (4, 6))},
        "model/rows/2.0": {
            "model/rows[8:]": ("F32", (2, 6)),
            "model/rows[8:].padding": ("F32", (2, 6)),
        },
        "model/tiles/1.0": {"model/tiles[4:8, :4]": ("F32", (4, 4))},
        "model/tiles/2.1": {"model/tiles[8:10, 4:6]": ("F32", (4, 4))},
        "model/fortran/0.1": {"model/fortran[:, 3:]": ("F32", (10, 3))},
        "model/big/0.0": {"model/big": ("U8", (10, 6, 4))},
        "model/number/0": {"model/number": ("I64", ())},
        "model/packed/0.0": {"model/packed": ("opaque", (117,))},
        "nested/1/0": {"nested[5:]": ("F32", (5, 6))},
    },
    "store3": {
        "rows/c/1/0": {"rows[4:8]": ("F32", (4, 6))},
        "shards/c/1/0": {"shards[6:8]": ("F32", (2, 6)), "shards[8:]": ("F32", (2, 6))},
        "packed/c/0/0": {"packed[:5]": ("opaque", (83,)), "packed[5:]": ("opaque", (83,))},
        "checked/c/0/0": {"checked": ("F32", (10, 6))},
        "turned/c/0/0": {"turned": ("F32", (10, 6))},
    },
    "blocks.n5": {
        "matrix/0/0": {"matrix[:, :4]": ("U8", (6, 4, 4))},
        "matrix/2/0": {"matrix[0:6, 8:10]": ("U8", (6, 4, 4))},
    },
}


@pytest.mark.parametrize("store", CHUNKS)
def test_chunks_are_called_by_their_array_and_slice(store: str) -> None:
    files = below(store)
    assert {path: parts(path, files) for path in CHUNKS[store]} == CHUNKS[store]


def test_an_array_without_a_group_is_called_by_its_folder() -> None:
    files = {f"runs/w/{path}": data for path, data in below("lone").items()}
    assert parts("runs/w/c/0/0", files) == {"w": ("F32", (10, 6))}
    # At the top of a repository it has no folder to be called by.
    assert parts("c/0/0", below("lone")) == {"array": ("F32", (10, 6))}


def test_the_values_are_those_of_the_array() -> None:
    found = values(below("store3"))
    rows = b"".join(found[f"rows[{part}]"] for part in (":4", "4:8", "8:"))
    slices = (":2", "2:4", "4:6", "6:8", "8:")
    assert rows == b"".join(found[f"shards[{part}]"] for part in slices) == MATRIX.tobytes()
    assert found["turned"] == MATRIX.T.tobytes()
    layout = beside("turned/c/0/0", below("store3"))
    assert layout is not None
    assert isinstance(layout.segments[0], Span)
    assert layout.segments[0].tensor.order == (1, 0)


def test_a_database_of_several_levels() -> None:
    found = values(below("database"))
    for number in range(6):
        halves = (found[f"layers/{number}/kernel[{part}]"] for part in (":5", "5:"))
        assert b"".join(halves) == (MATRIX + number).tobytes()


@pytest.mark.parametrize(("folder", "kind"), [("orbax/base", "F32"), ("packed/base", "opaque")])
def test_orbax_by_the_manifest_above_or_that_of_the_process(folder: str, kind: str) -> None:
    files = below(folder)
    whole = {name: told for path in files for name, told in parts(path, files).items()}
    assert sorted(whole) == ["dense.kernel", "emb", "head"]
    assert whole["emb"][0] == kind
    assert values(files)["emb"] == values(below("orbax/base"))["emb"] or kind == "opaque"
    del files["manifest.ocdbt"]
    assert whole == {name: told for path in files for name, told in parts(path, files).items()}
    # Without any of them it is bytes; nodes and manifests are structure by themselves.
    alone = {path: data for path, data in files.items() if not path.endswith(".ocdbt")}
    assert not any(parts(path, alone) for path in alone)
    kinds = {formats.read_layout(BytesSource(data)).format for data in alone.values()}
    assert kinds == {"ocdbt", "opaque"}


def test_unchanged_compressed_chunks_are_the_same_bytes_in_another_file() -> None:
    base, ours = values(below("packed/base")), values(below("packed/ours"))
    assert {name for name in base if base[name] != ours[name]} == {"emb"}


def test_compressed_arrays_are_told_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orbax, "_MENTIONED_BYTES", 1000)
    for folder, expected in (("packed/base", True), ("orbax/base", False), ("store3", False)):
        files = below(folder)
        layouts = [found for path in files if (found := beside(path, files)) is not None]
        assert any(map(orbax.is_compressed, layouts)) == expected


def test_the_model_of_a_data_file() -> None:
    name = "0" * 32
    assert shards.model_of(f"ckpt/d/{name}") == "ckpt/**"
    assert shards.model_of(f"a/ckpt/ocdbt.process_0/d/{name}") == "a/ckpt/**"
    assert shards.model_of(f"d/{name}") is None
    assert shards.model_of(f"ckpt/d/{name}0") is None
    assert shards.paths_of("ckpt/**", ["ckpt/a/b", "ckpt/c", "other/d"]) == ["ckpt/a/b", "ckpt/c"]


# -- lies ------------------------------------------------------------------------------------------


def described(**changes: Any) -> dict[str, bytes]:
    """An array of Zarr 3 whose `zarr.json` was changed."""
    document = json.loads(below("lone")["zarr.json"]) | changes
    return {"w/zarr.json": json.dumps(document).encode(), "w/c/0/0": below("lone")["c/0/0"]}


def gridded(*chunk: int) -> Any:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


def sharded(*inner: int) -> Any:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    options = {"chunk_shape": list(inner), "codecs": index[:1], "index_codecs": index}
    return [{"name": "sharding_indexed", "configuration": options}]


LIES: dict[str, dict[str, Any]] = {
    "another length": {"data_type": "float64"},
    "a smaller array": {"shape": [0, 6]},
    "fewer axes": {"shape": [10]},
    "chunks of nothing": {"chunk_grid": gridded(10, 0)},
    "chunks that overflow": {"chunk_grid": gridded(1 << 62, 1 << 62)},
    "no number": {"shape": ["10", 6]},
    "a boolean": {"shape": [True, 6]},
    "too many axes": {"shape": [1] * 64, "chunk_grid": gridded(*[1] * 64)},
    "no codecs": {"codecs": []},
    "no order": {"codecs": [{"name": "transpose", "configuration": {"order": [0, 0]}}]},
    "a shard of parts": {"codecs": sharded(3, 6)},
    "a shard of nothing": {"codecs": sharded(0, 6)},
    "a shard without its index": {"codecs": sharded(5, 6)},
    "shards in shards": {"codecs": sharded(10, 6, 1)},
    "a group": {"node_type": "group"},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_metadata_of_another_array_are_not_believed(lie: str) -> None:
    assert parts("w/c/0/0", described()) == {"w": ("F32", (10, 6))}
    assert beside("w/c/0/0", described(**LIES[lie])) is None


def test_damaged_metadata_and_places_beyond_the_array() -> None:
    files = described()
    for text in (b"", b"[" * 100_000, b"{}", b"[]", b"\xff", b'{"zarr_format": 3'):
        assert beside("w/c/0/0", {**files, "w/zarr.json": text}) is None
    for path in ("w/c/1/0", "w/c/00/0", "w/c/0", "w/c/0/0/0", f"w/c/{'9' * 30}/0"):
        assert beside(path, {**files, path: files["w/c/0/0"]}) is None


def test_an_index_of_a_shard_that_lies() -> None:
    files = below("store3")
    path = "shards/c/0/0"
    damaged = files[path][:-10] + b"\x01" + files[path][-9:]
    assert beside(path, {**files, path: damaged}) is None
    # More chunks than a shard may have are refused before they are listed.
    many = described(shape=[1 << 40, 6], chunk_grid=gridded(1 << 40, 6), codecs=sharded(1, 6))
    found = beside("w/c/0/0", many)
    assert found is not None
    assert "chunks in a shard" in found.remark


def read(*nodes: bytes) -> list[tuple[str, ocdbt.Value]]:
    """Keys and values of a database whose data file has these nodes; the first is the root."""
    data = b"".join(nodes)
    root = manifest(len(nodes[0]), nodes[0][14])
    return list(ocdbt.values(root, lambda file, start, length: data[start : start + length]))


def interior(child: int, offset: int) -> bytes:
    """A node of one child, of height 1, in the same file."""
    file = b"d/" + b"0" * 32
    table = b"\1" + varint(len(file)) + b"\0" + file
    return frame(b"\1" + table + b"\1\1\1a\0" + varint(offset) + varint(child) + b"\0\0\0")


def test_what_the_made_up_trees_differ_from() -> None:
    below_it = leaf({b"x": b"1", b"y": b"22"})
    length = len(interior(len(below_it), 80))
    assert [key for key, _ in read(interior(len(below_it), length), below_it)] == ["ax", "ay"]


TREES: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "no node": lambda: (b"\0" * 40,),
    "cut short": lambda: (leaf({b"a": b"1"})[:-1],),
    "another checksum": lambda: (leaf({b"a": b"1"})[:-1] + b"\0",),
    "more keys than bytes": lambda: (frame(b"\0\0" + varint(1 << 60)),),
    "no keys": lambda: (frame(b"\0\0\0"),),
    "values longer than it": lambda: (frame(b"\0\0\1\1a" + varint(1 << 40) + b"\0"),),
    "a file that is not there": lambda: (frame(b"\0\0\1\1a\1\1\0\0"),),
    "no compressed bytes": lambda: (frame(b"\0\0\1", NODE, 1),),
    "a child that is its parent": lambda: (interior(80, 0),),
    "a child beyond the file": lambda: (interior(80, 1 << 60),),
}


@pytest.mark.parametrize("tree", TREES)
def test_trees_that_lie_are_refused(tree: str) -> None:
    with pytest.raises(FormatError):
        read(*TREES[tree]())


def test_trees_past_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    node = leaf({b"%d" % number: b"" for number in range(10)})
    assert len(read(node)) == 10
    monkeypatch.setattr(limits, "OCDBT_KEYS", 9)
    with pytest.raises(BoundError, match="keys"):
        read(node)
    monkeypatch.setattr(limits, "OCDBT_NODES", 2)
    assert formats.read_layout(BytesSource(node * 2)).format == "ocdbt"
    assert "nodes" in formats.read_layout(BytesSource(node * 3)).remark
    monkeypatch.setattr(limits, "OCDBT_NODE_BYTES", 100)
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    with pytest.raises(BoundError, match="more than 100 bytes"):
        read(frame(bomb, NODE, 1))


def test_a_tree_reads_no_file_outside_the_work_tree() -> None:
    asked = []
    name = "d/" + "0" * 32
    files = {"manifest.ocdbt": manifest(40, 0, b"../../etc/passwd"), name: b"data"}

    def part(path: str, start: int, length: int) -> bytes | None:
        asked.append(path)

    def opened(path: str) -> BytesSource | None:
        return BytesSource(files[path]) if path in files else None

    assert companions.read_layout(BytesSource(files[name]), name, opened, part) is None
    assert asked == ["../../etc/passwd"]  # which a work tree refuses: test_work_tree


def test_keys_of_chunks() -> None:
    keys = zarr_metadata.Keys("c", "/")
    assert keys.place("c/0/12", 2) == (0, 12)
    assert keys.place("c", 0) == ()
    assert zarr_metadata.Keys("", ".").place("0", 0) == ()
    assert zarr_metadata.Keys("", ".").place("0.1", 2) == (0, 1)
    for key in ("c/0", "c/0/1/2", "0/1", "c/-1/0", "c/01/0", "c/٣/0"):
        assert keys.place(key, 2) is None
    assert list(zarr.folders("a/1/c/0/1")) == ["a/1/c/0", "a/1/c", "a/1", "a"]
