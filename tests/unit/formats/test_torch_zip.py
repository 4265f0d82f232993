"""PyTorch archives: which tensors are found, what they are called, how storages are cut."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from git_theta_ext import formats
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Crc32, Layout, SerializationId, Span
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.storages import memory_order
from git_theta_ext.formats.layout.views import unique_names
from git_theta_ext.formats.torch import zipped
from tests.scenarios.torchzip import (
    Call,
    Global,
    Record,
    Storage,
    archive,
    save,
    state_dict,
    tensor,
)


def read(value: Any, storages: Mapping[str, bytes], **options: Any) -> Layout:
    layout = formats.read_layout(BytesSource(save(value, storages, **options)))
    assert layout.format == "torch-zip"
    return layout


def table(layout: Layout) -> dict[str, tuple[Any, ...]]:
    infos = [item.tensor for item in layout.segments if isinstance(item, Span)]
    return {info.name: (info.dtype.name, info.shape, info.order) for info in infos}


def f32(key: str, count: int) -> Storage:
    return Storage(key, "FloatStorage", count)


def one(value: Any, nbytes: int = 16) -> dict[str, tuple[Any, ...]]:
    return table(read(value, {"0": bytes(nbytes)}))


T = tensor(f32("0", 4), (4,))
PLAIN = ("F32", (4,), None)


def test_a_state_dict_has_no_prefix() -> None:
    value = state_dict({"encoder.weight": tensor(f32("0", 6), (2, 3))})
    assert one(value, 24) == {"encoder.weight": ("F32", (2, 3), None)}


def test_a_checkpoint_keeps_its_keys() -> None:
    moments = {0: {"exp_avg": tensor(f32("1", 4), (4,)), "step": tensor(f32("2", 1), ())}}
    value = {"state_dict": state_dict({"w": T}), "optimizer": {"state": moments}, "epoch": 3}
    found = table(read(value, {"0": bytes(16), "1": bytes(16), "2": bytes(4)}))
    assert found == {
        "state_dict.w": PLAIN,
        "optimizer.state.0.exp_avg": PLAIN,
        "optimizer.state.0.step": ("F32", (), None),
    }


def test_a_pickled_module_has_the_names_of_its_state_dict() -> None:
    def module(tensors: dict[str, Any], children: dict[str, Any]) -> Call:
        tables = {"training": True, "_parameters": tensors, "_buffers": {}, "_modules": children}
        return Call(Global("nets", "Net"), (), state=tables, new=True)

    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (T, True, state_dict({})))
    assert one(module({}, {"layer": module({"weight": parameter}, {})})) == {"layer.weight": PLAIN}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (T, "tensor"),
        ([1, (2, T)], "1.1"),
        ({(1, 2): T}, "<0>"),
        ({"a": {True: T}}, "a.<0>"),
        ({"a.b": T}, "a.b"),
        (Call(Global("x", "f"), ("no", T)), "1"),
        (Call(Global("x", "Slots"), (), state=(None, {"w": T}), new=True), "w"),
        (Call(Global("collections", "defaultdict"), (Global("x", "list"),), {"k": [T]}), "k.0"),
        ({"p": Call(Global("torch._utils", "_rebuild_parameter_with_state"), (T, True, 0))}, "p"),
        (
            {"s": Call(
                Global("torch._tensor", "_rebuild_from_type_v2"),
                (T.function, Global("x", "Sub"), T.args, {}),
            )},
            "s",
        ),
    ],
)  # fmt: skip
def test_names(value: Any, name: str) -> None:
    assert one(value) == {name: PLAIN}


def test_ambiguous_names_are_told_apart() -> None:
    assert unique_names([("a.b",), ("a", "b"), ("c.d",)]) == ["a\\.b", "a.b", "c.d"]
    assert unique_names([("7",), ("7",), ("7~2",)]) == ["7", "7~3", "7~2"]


@pytest.mark.parametrize(
    ("kind", "dtype", "size"),
    [("DoubleStorage", "F64", 8), ("BFloat16Storage", "BF16", 2), ("BoolStorage", "BOOL", 1),
     ("ComplexFloatStorage", "C64", 8), ("LongStorage", "I64", 8)],
)  # fmt: skip
def test_dtypes_come_from_the_storage(kind: str, dtype: str, size: int) -> None:
    value = {"t": tensor(Storage("0", kind, 3), (3,))}
    assert one(value, 3 * size) == {"t": (dtype, (3,), None)}


def test_version_3_names_its_dtype() -> None:
    storage = Storage("0", "UntypedStorage", 4, "torch.storage")
    args = (storage, 0, (2,), (1,), False, state_dict({}), Global("torch", "uint16"))
    value = {"t": Call(Global("torch._utils", "_rebuild_tensor_v3"), args)}
    assert one(value, 4) == {"t": ("U16", (2,), None)}


def test_quantized_and_sparse_tensors_have_parts() -> None:
    scales, zeros = (
        tensor(Storage("1", "DoubleStorage"), (2,)),
        tensor(Storage("2", "LongStorage"), (2,)),
    )
    scheme = Global("torch", "per_channel_affine")
    q_args = (Storage("0", "QInt8Storage"), 0, (2, 2), (2, 1), (scheme, scales, zeros, 0), False)
    indices, values = tensor(Storage("3", "LongStorage"), (1, 1)), tensor(f32("4", 1), (1,))
    value = {
        "q": Call(Global("torch._utils", "_rebuild_qtensor"), q_args),
        "s": Call(
            Global("torch._utils", "_rebuild_sparse_tensor"), (0, (indices, values, (4,), True))
        ),
    }
    bodies = {"0": bytes(4), "1": bytes(16), "2": bytes(16), "3": bytes(8), "4": bytes(4)}
    assert list(table(read(value, bodies))) == [
        "q", "q.scales", "q.zero_points", "s.indices", "s.values",
    ]  # fmt: skip


def test_a_bare_storage_is_a_vector() -> None:
    assert one({"s": f32("0", 4)}) == {"s": PLAIN}


def test_a_transposed_tensor_keeps_its_memory_order() -> None:
    value = {"t": tensor(f32("0", 6), (2, 3), (1, 2))}
    assert one(value, 24) == {"t": ("F32", (2, 3), (1, 0))}


@pytest.mark.parametrize(
    ("size", "stride", "order"),
    [
        ((), (), ()),
        ((2, 3), (3, 1), (0, 1)),
        ((2, 3), (1, 2), (1, 0)),
        ((2, 3, 4, 5), (60, 1, 15, 3), (0, 2, 3, 1)),
        ((1, 3), (99, 1), (0, 1)),
        ((3, 1), (1, 99), (0, 1)),
        ((0, 3), (7, 7), (0, 1)),
        ((2, 3), (0, 1), None),
        ((2, 3), (4, 1), None),
        ((3,), (2,), None),
        ((2, 2), (1, 1), None),
    ],
)
def test_memory_order(
    size: tuple[int, ...], stride: tuple[int, ...], order: tuple[int, ...] | None
) -> None:
    assert memory_order(size, stride) == order


def test_ties_are_aliases_and_gaps_are_spans() -> None:
    shared = f32("0", 20)
    value = {
        "b": tensor(shared, (2, 3), offset=10),
        "a": tensor(shared, (4,), offset=2),
        "b2": tensor(shared, (3, 2), offset=10),
        "part": tensor(shared, (2,), offset=11),
        "strided": tensor(shared, (5,), (4,)),
    }
    layout = read(value, {"0": bytes(80)})
    assert table(layout) == {
        "storage.0[0:8]": ("F32", (2,), None),
        "a": PLAIN,
        "storage.0[24:40]": PLAIN,
        "b": ("F32", (2, 3), None),
        "storage.0[64:80]": PLAIN,
    }
    assert layout.aliases == {"b2": "b", "part": "b"}


def test_a_view_that_reaches_past_its_storage_is_not_believed() -> None:
    assert one({"t": tensor(f32("0", 9), (9,))}) == {"storage.0": PLAIN}


def test_storages_without_names() -> None:
    layout = read({"storage.0": tensor(f32("1", 1), (1,))}, {"0": b"12345", "1": bytes(4)})
    spans = [item for item in layout.segments if isinstance(item, Span)]
    assert [(item.tensor.name, item.opaque) for item in spans] == [
        ("storage.0~2", True), ("storage.0", False),
    ]  # fmt: skip


@pytest.mark.parametrize("pickle", [b"", b"\x80\x02r\x00\x00\x00\x10.", b"}" * 99])
def test_a_pickle_that_cannot_be_read_leaves_storages_unnamed(pickle: bytes) -> None:
    assert list(table(read(pickle, {"0": bytes(16), "1": bytes(4)}))) == ["storage.0", "storage.1"]


def test_constants_of_torchscript() -> None:
    from tests.scenarios.torchzip import dumps

    constants = dumps((tensor(f32("0", 1), (1,)),))
    records = [Record("m/data/0", bytes(16)), Record("m/data.pkl", dumps({"w": T}))]
    records += [Record("m/code/x.py", b"\x4b\x04\x00", crc=7, method=8)]
    records += [Record("m/constants/0", bytes(4)), Record("m/constants.pkl", constants)]
    layout = formats.read_layout(BytesSource(archive(records)))
    assert table(layout) == {"w": PLAIN, "constants.0": ("F32", (1,), None)}


def test_derived_fields() -> None:
    layout = read({"w": T}, {"0": bytes(range(16))})
    kinds = [type(item) for item in layout.segments]
    assert kinds.count(SerializationId) == 1
    assert kinds.count(Crc32) == 4  # of data/0 and of serialization_id, in two places each


@pytest.mark.parametrize("crc", [0, 1])
def test_a_wrong_crc_stays_literal(crc: int) -> None:
    from tests.scenarios.torchzip import dumps

    records = [Record("m/data.pkl", dumps({"w": T})), Record("m/data/0", bytes(16), crc=crc)]
    layout = formats.read_layout(BytesSource(archive(records)))
    assert table(layout) == {"w": PLAIN}
    assert not any(isinstance(item, Crc32) for item in layout.segments)


def refuse(records: list[Record], message: str, **options: Any) -> None:
    source = BytesSource(archive(records, **options))
    with pytest.raises(FormatError, match=message):
        zipped.layout(source)
    assert formats.read_layout(source).format == "opaque"


def test_archives_that_are_not_split() -> None:
    pickle = Record("m/data.pkl", b"\x80\x02}.")
    refuse([Record("m/other", b"x")], "data.pkl")
    refuse([pickle, Record("n/data/0", b"x")], "data.pkl")
    refuse([pickle, Record("m/byteorder", b"big")], "little-endian")
    refuse([pickle, Record("m/data/0", b"xx", method=8)], "compressed")
    refuse([pickle, Record("m/data/0", b"xx", flags=0x809)], "encrypted")
    refuse([pickle, pickle], "second entry")
    refuse([pickle], "before the first entry|central directory ends", prefix=b"#!/bin/sh\n")
    refuse([pickle, Record("m/code", random.Random(1).randbytes(65 << 20))], "outside all tensors")
    refuse([], "data.pkl")
