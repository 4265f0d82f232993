"""Files of other frameworks and archives, as the libraries wrote them (`make_stack.py`)."""

from __future__ import annotations

import pytest

from git_theta_ext import formats
from git_theta_ext.formats import companions, neighbours
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.compressed import sentence
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.examples import STACK, rebuilt

_DENSE = ["dense.weight F32 [6, 8]", "dense.bias F32 [6]"]
_SLICES = ["dense.weight.chunks.0 F32 [3, 8]", "dense.weight.chunks.1 F32 [3, 8]"]
FILES = {
    "caffe-second.caffemodel": ("caffe", ["fc1.0 F32 [6, 8]", "fc1.1 F32 [6]"]),
    "caffe-old.caffemodel": (
        "caffe", ["conv1.0 F32 [2, 3, 1, 4]", "conv1.0.diff F32 [2, 3, 1, 4]"],
    ),
    "mindspore-first.ckpt": ("mindspore", [*_SLICES, _DENSE[1], "scale F16 []"]),
    "mindspore-second.ckpt": ("mindspore", [*_SLICES, _DENSE[1], "scale F16 []"]),
    "nemo-second.nemo": ("tar", [f"model_weights.ckpt/{one}" for one in _DENSE]),
    "openvino-second.bin": ("openvino", [*_DENSE, "half.weight F16 [6, 6]", "codes I8 [6, 6]"]),
    "paddle-second.pdparams": ("pickle", ["weight F32 [8, 6]", "bias F32 [6]"]),
    "tch.ot": ("torch-zip", [one.replace(".", "|") for one in _DENSE]),
    "torchserve-second.mar": ("zip", [f"model.pt/{one}" for one in _DENSE]),
}  # fmt: skip


def _beside(path: str) -> Source | None:
    file = STACK / path
    return BytesSource(file.read_bytes()) if file.exists() else None


def _layout(name: str, data: bytes) -> Layout:
    found = formats.read_layout(BytesSource(data))
    told = None
    if found.format == "opaque" and neighbours.has_neighbour(name):
        told = companions.read_layout(BytesSource(data), name, _beside)
    return told or found


@pytest.mark.parametrize("name", FILES)
def test_tensors_have_the_names_that_users_know(name: str) -> None:
    data = (STACK / name).read_bytes()
    layout = _layout(name, data)
    assert rebuilt(data, layout) == data
    spans = [one.tensor for one in layout.segments if isinstance(one, Span)]
    found = [f"{info.name} {info.dtype.name} {list(info.shape)}" for info in spans]
    assert (layout.format, found) == FILES[name]
    assert sentence(BytesSource(data), layout) == ""


def test_optimizers_of_paddle() -> None:
    layout = _layout("", (STACK / "paddle.pdopt").read_bytes())
    names = [one.tensor.name for one in layout.segments if isinstance(one, Span)]
    assert "linear_0.w_0_moment1_0" in names


_CONSTANT = '<net><layer type="Const"><data element_type="{}" shape="{}" offset="{}" size="4"/>'


@pytest.mark.parametrize(
    ("xml", "size"),
    [
        ("<net><layers>", 4),
        ('<!DOCTYPE net [<!ENTITY a "b">]><net>&a;</net>', 4),
        (_CONSTANT.format("f32", 2, 0) + "</layer></net>", 4),
        (_CONSTANT.format("f32", "x", 0) + "</layer></net>", 4),
        (_CONSTANT.format("f32", 1, 0) + "</layer></net>", 5),
        (_CONSTANT.format("u4", 8, 2) + "</layer></net>", 4),
        (_CONSTANT.format("f32", 1, 0), 4),
        ("<html></html>", 0),
    ],
)
def test_xml_that_does_not_fit_names_nothing(xml: str, size: int) -> None:
    beside = BytesSource(xml.encode())
    assert companions.read_layout(BytesSource(bytes(size)), "m.bin", lambda _: beside) is None


def test_what_is_compressed_is_told_from_other_bytes() -> None:
    for magic in (b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b""):
        source = BytesSource(magic + bytes(40))
        said = sentence(source, opaque.layout(source))
        assert said.rpartition(": ")[2] == {
            b"\x1f\x8b\x08": "gzip -dc FILE", b"\xfd7zXZ\0": "xz -dc FILE",
            b"\x28\xb5\x2f\xfd": "zstd -dc FILE",
        }.get(magic, "")  # fmt: skip
