"""What PyTorch writes besides `torch.save`: distributed checkpoints and exported programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats import companions, distcp
from git_theta_ext.formats.base import Crc32, Layout, Literal, SerializationId, Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.pickles.contents import Contents
from git_theta_ext.formats.torch import distributed, rows
from git_theta_ext.manifest.model import Block, Entry, Manifest
from git_theta_ext.merge.combine.pickles import judge
from tests.scenarios.examples import rebuilt
from tests.scenarios.torch_files import torch_files
from tests.scenarios.torchzip import Call, Global, dumps

CHECKPOINT = "torch.distributed.checkpoint"


def described(layout: Layout | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        s.tensor.name: (s.tensor.dtype.name, s.tensor.shape)
        for s in (layout.segments if layout else ())
        if isinstance(s, Span)
    }


# -- distributed checkpoints -----------------------------------------------------------------------


def beside(folder: str, name: str, metadata: bytes | None = None) -> Layout | None:
    """The layout of a data file by a `.metadata`, its own by default."""
    files = torch_files()
    own = files[f"{folder}/.metadata"] if metadata is None else metadata
    data = files[f"{folder}/{name}"]
    found = companions.read_layout(
        BytesSource(data), f"run/{name}",
        lambda path: BytesSource(own) if path == "run/.metadata" else None,
    )  # fmt: skip
    assert found is None or rebuilt(data, found) == data
    return found


def test_items_have_their_names_and_the_part_that_they_are() -> None:
    assert described(beside("single", "__0_0.distcp")) == {
        "model.emb": ("F32", (20, 8)),
        "model.layer.w": ("F32", (8, 8)),
        "optim.state.layer.w.exp_avg": ("F32", (8, 8)),
    }
    assert described(beside("fsdp/base", "__0_0.distcp")) == {
        "model.0.weight[:5]": ("F32", (5, 12)),
        "model.0.bias[:5]": ("F32", (5,)),
        "model.1.weight[:2]": ("F32", (2, 9)),
        "columns[:, :5]": ("F32", (6, 5)),
    }
    last = described(beside("fsdp/base", "__1_0.distcp"))
    assert last["model.0.weight[5:]"] == ("F32", (4, 12))
    assert last["both"] == ("F32", (5, 5))


def test_a_metadata_of_other_files_is_not_believed() -> None:
    files = torch_files()
    assert beside("single", "__0_0.distcp", files["fsdp/base/.metadata"]) is None
    assert beside("fsdp/base", "__1_0.distcp", files["single/.metadata"]) is None
    # By itself it is split all the same.
    alone = formats.read_layout(BytesSource(files["fsdp/base/__0_0.distcp"]))
    assert list(described(alone)) == ["item.0", "item.1", "item.2", "item.3"]


def metadata(size: Any, offsets: Any, sizes: Any, place: Any, name: Any = "w") -> bytes:
    """A `.metadata` of one part of one tensor."""

    def made(kind: str, module: str = "metadata", **state: Any) -> Call:
        return Call(Global(f"{CHECKPOINT}.{module}", kind), (), state=state, new=True)

    def extents(value: Any) -> Any:
        return Call(Global("torch", "Size"), (value,)) if isinstance(value, tuple) else value

    chunk = made("ChunkStorageMetadata", offsets=extents(offsets), sizes=extents(sizes))
    index = made("MetadataIndex", fqn=name, offset=extents(offsets), index=0)
    tensors = {name: made("TensorStorageMetadata", size=extents(size), chunks=[chunk])}
    where = made("_StorageInfo", "filesystem", **place)
    return dumps(made("Metadata", state_dict_metadata=tensors, storage_data={index: where}))


PLACE = {"relative_path": "a.distcp", "offset": 0, "length": 10}
LIES: dict[str, Callable[[], bytes]] = {
    "a part beyond the tensor": lambda: metadata((4, 4), (2, 0), (3, 4), PLACE),
    "sizes that overflow": lambda: metadata((1 << 70,), (0,), (1 << 70,), PLACE),
    "fewer than no rows": lambda: metadata((-4, 4), (0, 0), (-4, 4), PLACE),
    "other axes": lambda: metadata((4, 4), (0,), (4,), PLACE),
    "no size": lambda: metadata((4,), "x", (4,), PLACE),
    "no place": lambda: metadata((4,), (0,), (4,), {"relative_path": "a.distcp"}),
    "no number": lambda: metadata((4,), (0,), (4,), {**PLACE, "offset": "0"}),
    "before the file": lambda: metadata((4,), (0,), (4,), {**PLACE, "offset": -1}),
    "transformed": lambda: metadata((4,), (0,), (4,), {**PLACE, "transform_descriptors": ["z"]}),
    "no name": lambda: metadata((4,), (0,), (4,), PLACE, ""),
    "a name without an end": lambda: metadata((4,), (0,), (4,), PLACE, "w" * 5000),
    "another object": lambda: dumps(Call(Global("os", "system"), ("true",))),
    "its state is itself": lambda: b"\x80\x02c" + CHECKPOINT.encode() + (
        b".metadata\nMetadata\n)\x81q\x00}X\x13\0\0\0state_dict_metadatah\x00sb."
    ),
    "cut short": lambda: metadata((4,), (0,), (4,), PLACE)[:-9],
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_metadata_that_lies_names_nothing(lie: str) -> None:
    with pytest.raises(FormatError):
        distributed.items_of(BytesSource(LIES[lie]()), "a.distcp")


def test_what_the_made_up_ones_differ_from() -> None:
    data = metadata((4, 4), (2, 0), (2, 4), PLACE, "a\nb")
    (item,) = distributed.items_of(BytesSource(data), "a.distcp")
    assert item == distributed.Item("a\nb[2:]", 0, 10, (2, 4))
    assert distributed.items_of(BytesSource(data), "b.distcp") == []
    assert formats.read_layout(BytesSource(data)).format == "distcp-metadata"


def said(data: bytes) -> Contents:
    """What a file says besides its tensors."""
    found = formats.read_layout(BytesSource(data))
    spans = [one.tensor for one in found.segments if isinstance(one, Span)]
    read = distcp.contents if found.format == "distcp" else distributed.contents
    return read(skeleton.decode(skeleton.encode(found)), {one.name: one.nbytes for one in spans})


def test_merges_compare_what_folders_say_besides_their_tensors() -> None:
    files = torch_files()
    sides = [files[f"fsdp/{side}/.metadata"] for side in ("base", "ours", "theirs")]
    assert sides[1] != sides[2]
    assert judge(*(said(data) for data in sides)).side == "ours"
    other = said(files["single/.metadata"])
    assert judge(said(sides[0]), said(sides[1]), other).side == "theirs"

    base = said(files["fsdp/base/__1_0.distcp"])
    epoch = next(path for path, leaf in base.leaves.items() if leaf == ("int", 3))
    assert len(epoch) == 1
    ours, theirs = (
        Contents({**base.leaves, epoch: ("int", value)}, base.files) for value in (4, 5)
    )
    assert judge(base, ours, base).side == "ours"
    assert judge(base, ours, theirs).side is None


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        ({"w[:2]": (2, 3), "w[2:4]": (2, 3), "w[4:]": (1, 3)}, {"w": (5, 3)}),
        ({"w[:2]": (2, 3), "w[4:]": (1, 3)}, None),
        ({"w[:2]": (2, 3), "w[2:4]": (2, 3)}, None),
        ({"w[:2]": (2, 3), "w[2:]": (2, 4)}, None),
        ({"w[:2]": (2, 3), "w[2:]": (2, 3), "w": (9,)}, None),
        ({"w[:, :2]": (3, 2), "w[:, 2:]": (3, 2)}, None),
        ({"w[0]": (2, 3), "w[1]": (2, 3)}, None),
        ({"w[:2]": (2, 3), "w[2:]": (0, 3), "v": ()}, {"w": (2, 3), "v": ()}),
    ],
)
def test_rows_are_put_together_where_all_are_there(
    names: dict[str, tuple[int, ...]], whole: dict[str, tuple[int, ...]] | None
) -> None:
    entries = [
        Entry(info := TensorInfo(name, DTYPES["F32"], shape), (Block(info.nbytes, name),))
        for name, shape in names.items()
    ]
    joined = shards.join([("a", Manifest("distcp", Block(0, ""), tuple(entries)))])
    found = rows.whole(joined)
    shapes = {entry.tensor.name: entry.tensor.shape for entry in found.entries}
    assert shapes == (names if whole is None else whole)
    for entry in found.entries:
        assert sum(spec.nbytes for spec, _ in entry.parts()) == entry.tensor.nbytes


# -- exported programs -----------------------------------------------------------------------------


def test_weights_of_exported_programs_have_their_names() -> None:
    new, old = (
        formats.read_layout(BytesSource(torch_files()[f"exported/{name}.pt2"]))
        for name in ("one", "old")
    )
    wanted = {
        "turned": ("F32", (4, 10)),
        "a.weight": ("F32", (12, 16)),
        "a.bias": ("F32", (12,)),
        "table": ("F32", (6, 8)),
        "constant": ("F32", (3, 3)),
    }
    assert described(new) == wanted
    assert described(old) == {**wanted, "example_inputs.0.0": ("F32", (2, 16))}
    for layout in (new, old):
        assert layout.aliases == {"tied.weight": "a.weight"}
        orders = {s.tensor.name: s.tensor.order for s in layout.segments if isinstance(s, Span)}
        assert orders["turned"] == (1, 0)


@pytest.mark.parametrize("name", ["one", "old"])
def test_other_weights_leave_the_structure_as_it_was(name: str) -> None:
    """What follows from the weights is computed, but for the id of an archive in an archive."""
    data = bytearray(torch_files()[f"exported/{name}.pt2"])
    layout = formats.read_layout(BytesSource(bytes(data)))
    place = 0
    for segment in layout.segments:
        size = segment_size(segment)
        if isinstance(segment, Span) and segment.tensor.name == "a.bias":
            data[place] ^= 1
        place += size
    changed = rebuilt(bytes(data), layout)
    again = formats.read_layout(BytesSource(changed))
    assert again.segments == layout.segments
    assert changed != bytes(data)
    kinds = [type(segment) for segment in layout.segments]
    assert kinds.count(SerializationId) == (name == "one")
    assert kinds.count(Crc32) > 10


def segment_size(segment: object) -> int:
    if isinstance(segment, Literal):
        return len(segment.data)
    if isinstance(segment, Span):
        return segment.tensor.nbytes
    return 4 if isinstance(segment, Crc32) else 20


# -- shards of DeepSpeed ---------------------------------------------------------------------------

STATES = "mp_rank_00_model_states.pt"


def zero(rank: int, states: bytes | None = None, name: str = "") -> Layout | None:
    """The layout of an optimizer shard by the model states beside it, its own by default."""
    files = torch_files()
    file = f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    data, own = files[f"zero/{file}"], files[f"zero/{STATES}"] if states is None else states
    found = companions.read_layout(
        BytesSource(data), f"run/{name or file}",
        lambda path: BytesSource(own) if path == f"run/{STATES}" else None,
    )  # fmt: skip
    assert found is None or rebuilt(data, found) == data
    return found


def test_flat_groups_are_cut_into_the_parameters_that_they_hold() -> None:
    first, second = described(zero(0)), described(zero(1))
    assert first["fp32.0.weight.flat[:46]"] == ("F32", (46,))
    assert first["state.0.weight.exp_avg.flat[:46]"] == ("F32", (46,))
    assert second["fp32.0.weight.flat[46:]"] == ("F32", (8,))
    assert second["fp32.1.weight"] == second["state.1.weight.exp_avg_sq"] == ("F32", (4, 9))
    assert second["state.1.bias.exp_avg"] == ("F32", (4,))
    # The same numbers as in the model itself, before they were rounded.
    model = formats.read_layout(BytesSource(torch_files()[f"zero/{STATES}"]))
    assert described(model)["module.1.weight"] == ("BF16", (4, 9))


def test_flat_groups_stay_whole_where_anything_is_in_doubt() -> None:
    states = torch_files()[f"zero/{STATES}"]
    assert zero(1, states[:-40]) is None
    assert zero(1, torch_files()["exported/old.pt2"]) is None
    # Of a fifth process there is no part; a width of 6 that reads as 7 does not add up.
    assert zero(1, name="zero_pp_rank_4_mp_rank_00_optim_states.pt") is None
    shape = b"K\tK\x06\x86"
    assert states.count(shape) >= 1
    assert zero(1, states.replace(shape, b"K\tK\x08\x86")) is None
    assert zero(1, name="optim_states.pt") is None
