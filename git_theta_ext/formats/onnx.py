"""ONNX: a protocol buffer whose graph holds initialisers and constants.

Source: onnx/onnx.proto. Only the fields that lead to tensors are read (graphs within nodes too); a
tensor's `raw_data`, or its packed `float_data` or `double_data`, is its span. Values written one by
one (`int64_data` and the like are varints) and texts stay literal. External data, in a file of its
own, is split where the model beside it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.messages import BYTES, FIELDS_OF_TENSOR, VARINT, Messages
from git_theta_ext.formats.layout.tiles import tile, tile_with_gaps

NAME = "onnx"
EXTERNAL = "onnx-data"
_FIRST_TAGS = {0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72}
"""Tags of the fields that may follow `ir_version` in a model."""

_DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16",
    11: "F64", 12: "U32", 13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3",
    18: "F8_E4M3FNUZ", 19: "F8_E5M2", 20: "F8_E5M2FNUZ",
}  # fmt: skip
_RAW, _FLOATS, _DOUBLES = 9, 4, 10
_PACKED = {_FLOATS: {1: "F32", 14: "C64"}, _DOUBLES: {11: "F64", 15: "C128"}}
_GRAPHS = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
"""Message -> field number -> message that is looked into."""


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file begins with a version and a field of a model."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in _FIRST_TAGS


@dataclass(slots=True)
class _Tensor:
    """What a TensorProto says, as far as it was read."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    data: tuple[int, int, int] | None = None
    """Number of the field that holds the values, their offset and length."""
    external: dict[str, str] = field(default_factory=dict)
    """Where the values are in another file: `location`, `offset`, `length`."""


class _Reader:
    """Walks a model, noting where tensors lie; every byte must belong to a field."""

    def __init__(self, source: Source) -> None:
        self._messages = Messages(source, NAME)
        self.found: list[tuple[int, TensorInfo]] = []
        self.external: list[tuple[str, int, TensorInfo]] = []

    def message(self, kind: str, start: int, stop: int, owner: str, depth: int) -> None:
        """Read a message; `owner` names a tensor that has no name of its own.

        Args:
            kind: a key of `_GRAPHS`, which says what its fields hold.
            start, stop: byte offsets of the message in the file.
            owner: the output of the node around it, or a name from further out.
            depth: how many messages are around it.
        """
        if depth > limits.ONNX_DEPTH:
            raise BoundError(
                f"onnx: messages nested deeper than {limits.ONNX_DEPTH} at offset {start}"
            )
        inner = _GRAPHS[kind]
        outputs: list[str] = []
        later: list[tuple[str, int, int]] = []
        for number, wire, at, length in self._messages.walk(start, stop):
            if (
                kind == "node"
                and not outputs
                and number == 2
                and wire == BYTES
                and length <= limits.MESSAGE_TEXT_BYTES
            ):
                outputs.append(self._messages.text(at, length))
            elif wire == BYTES and number in inner:
                later.append((inner[number], at, at + length))
        name = outputs[0] if outputs else owner
        for child, at, end in later:
            if child == "tensor":
                self._tensor(at, end, name)
            else:
                self.message(child, at, end, name, depth + 1)

    def _tensor(self, start: int, stop: int, owner: str) -> None:
        """Note a TensorProto between two offsets; `owner` names it if it has no name of its own."""
        tensor = _Tensor()
        self._messages.count += FIELDS_OF_TENSOR
        for number, wire, at, length in self._messages.walk(start, stop):
            if number == 1:
                tensor.dims += self._messages.shape(wire, at, length)
            elif number == 2 and wire == VARINT:
                tensor.kind = self._messages.number(at, length)
            elif number == 8 and wire == BYTES and length <= limits.MESSAGE_TEXT_BYTES:
                tensor.name = self._messages.text(at, length)
            elif number == 13 and wire == BYTES and length <= limits.MESSAGE_TEXT_BYTES:
                tensor.external |= self._pair(at, at + length)
            elif number in (_RAW, _FLOATS, _DOUBLES) and wire == BYTES:
                # A field that comes again counts for nothing here: then nothing is split.
                tensor.data = (number, at, length) if tensor.data is None else (0, at, length)
        self._note(tensor, owner)

    def _pair(self, start: int, stop: int) -> dict[str, str]:
        """A key and its value."""
        texts = {
            n: self._messages.text(at, size)
            for n, wire, at, size in self._messages.walk(start, stop)
            if wire == BYTES
        }
        return {texts.get(1, ""): texts.get(2, "")}

    def _note_external(self, tensor: _Tensor, owner: str) -> None:
        where = tensor.external
        offset, length = where.get("offset", "0"), where.get("length", "")
        dtype = _DTYPES.get(tensor.kind)
        if dtype is None or not (offset.isascii() and offset.isdigit() and len(offset) < 20):
            return
        info = TensorInfo(tensor.name or owner, DTYPES[dtype], tuple(tensor.dims))
        if length in ("", str(info.nbytes)):
            self.external.append((where.get("location", ""), int(offset), info))

    def _note(self, tensor: _Tensor, owner: str) -> None:
        if tensor.external and len(tensor.dims) <= limits.AXES and tensor.data is None:
            self._note_external(tensor, owner)
        if tensor.data is None or len(tensor.dims) > limits.AXES:
            return
        number, at, length = tensor.data
        known = _DTYPES if number == _RAW else _PACKED.get(number, {})
        dtype = known.get(tensor.kind)
        if dtype is None or any(axis >= 2**63 for axis in tensor.dims):
            return
        if prod(tensor.dims) * DTYPES[dtype].bits == 8 * length:
            info = TensorInfo(tensor.name or owner, DTYPES[dtype], tuple(tensor.dims))
            self.found.append((at, info))


def layout(source: Source) -> Layout:
    """The tensors of all graphs; everything else is literal."""
    reader = _Reader(source)
    reader.message("model", 0, source.size, "constant", 0)
    if not reader.found:
        raise FormatError("onnx: no tensors")
    return tile(NAME, source, reader.found)


def layout_beside(source: Source, path: str, model: Source) -> Layout:
    """The layout of a file of external data that a model describes to its last byte.

    There are no checksums: a model of the same shapes is as good, for only names come from it.

    Raises:
        FormatError: the model is damaged, or its tensors do not fill this file.
    """
    reader = _Reader(model)
    reader.message("model", 0, model.size, "constant", 0)
    name = path.rsplit("/", 1)[-1]
    found = [(at, info) for location, at, info in reader.external if location == name]
    end = max((at + info.nbytes for at, info in found), default=0)
    if not found or end != source.size:
        raise FormatError(f"onnx: the model describes {end} of {source.size} bytes of {name!r}")
    return tile_with_gaps(EXTERNAL, source, found)
