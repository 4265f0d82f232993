"""OpenVINO's IR: `X.bin` has the constants of the graph that the `X.xml` beside it describes.

Sources: OpenVINO's documentation, "OpenVINO IR format", and src/core/xml_util (`Const` with
`element_type`, `shape`, `offset`, `size`). The XML is read event by event, without a document type.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from xml.parsers import expat

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.tiles import tile_with_gaps

NAME = "openvino"
_SLICE_BYTES = 1 << 20
_DTYPES = {
    "f16": "F16", "f32": "F32", "f64": "F64", "bf16": "BF16", "f8e4m3": "F8_E4M3",
    "f8e5m2": "F8_E5M2", "f8e8m0": "F8_E8M0", "i8": "I8", "i16": "I16", "i32": "I32", "i64": "I64",
    "u8": "U8", "u16": "U16", "u32": "U32", "u64": "U64", "boolean": "BOOL",
}  # fmt: skip
_PACKED = ("u1", "u2", "u3", "u4", "u6", "i4", "nf4", "f4e2m1")
"""Types of less than a byte: their bytes are U8, flat."""


class _Graph:
    """What the XML says of constants: offset and tensor of each, bodies of loops too."""

    def __init__(self) -> None:
        self.found: list[tuple[int, TensorInfo]] = []
        self._layer: Mapping[str, str] = {}
        self._root = True

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        if self._root and tag != "net":
            raise FormatError(f"openvino: an XML file of {tag!r}")
        self._root = False
        if tag == "layer":
            self._layer = attributes
        elif tag == "data" and self._layer.get("type") == "Const":
            self._constant(self._layer.get("name", ""), attributes)
            self._layer = {}

    def _constant(self, name: str, said: Mapping[str, str]) -> None:
        kind = said.get("element_type", "")
        offset, size = _number(said.get("offset", "")), _number(said.get("size", ""))
        shape = tuple(_number(axis.strip()) for axis in said.get("shape", "").split(",") if axis)
        if len(self.found) >= limits.NAMES or len(shape) > limits.AXES:
            raise BoundError("openvino: too many constants, or axes of one")
        if kind in _DTYPES:
            info = TensorInfo(name, DTYPES[_DTYPES[kind]], shape)
            if info.nbytes != size:
                raise FormatError(f"openvino: {name!r} of {prod(shape)} {kind} in {size} bytes")
        elif kind in _PACKED:
            info = TensorInfo(name, DTYPES["U8"], (size,))
        else:
            return
        self.found.append((offset, info))


def layout_beside(source: Source, path: str, xml: Source) -> Layout:
    """The layout of a file of constants that an XML file describes to its last byte.

    There are no checksums: a graph of the same shapes is as good, for only names come from it.

    Raises:
        FormatError: the XML is damaged, has a document type, or its constants do not fill this
            file.
    """
    graph = _read(xml)
    found: list[tuple[int, TensorInfo]] = []
    end = 0
    # Equal constants are stored once: the first name counts.
    for offset, info in sorted(graph.found, key=lambda item: item[0]):
        if offset >= end:
            found.append((offset, info))
            end = offset + info.nbytes
    if not found or end != source.size:
        raise FormatError(f"openvino: the XML describes {end} of {source.size} bytes")
    return tile_with_gaps(NAME, source, found)


def _read(xml: Source) -> _Graph:
    graph = _Graph()
    parser = expat.ParserCreate()
    parser.StartElementHandler = graph.start
    parser.StartDoctypeDeclHandler = _refuse
    try:
        for start in range(0, xml.size, _SLICE_BYTES):
            parser.Parse(xml.read(start, min(_SLICE_BYTES, xml.size - start)), False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise FormatError(f"openvino: XML that cannot be read ({error})") from error
    return graph


def _refuse(*_: object) -> None:
    raise FormatError("openvino: XML with a document type")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"openvino: {text[:40]!r} is no number")
    return int(text)
