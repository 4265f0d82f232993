"""The pickle machine over a file of any size: byte strings stay where they are.

What `pickle_machine` reads from bytes in memory is read here through a window, and a byte string
becomes a `Raw` record that says where it lies. NumPy arrays are put down as the PyTorch call that
describes the same strided view, so that names and spans are found the same way for both.
Sources: numpy/_core/multiarray.py and numeric.py (`_reconstruct`, `_frombuffer`); joblib's
numpy_pickle.py (`NumpyArrayWrapper`: raw data in mid-stream, behind padding).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.pickles.machine import Call, Dict, Global, Persistent, Value

_WINDOW_BYTES = 1 << 20
_DTYPES = {
    "b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8",
    "u2": "uint16", "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32",
    "f8": "float64", "c8": "complex64", "c16": "complex128",
}  # fmt: skip
"""NumPy's type codes, as torch.dtype calls them."""
RECORDS = "records"
"""In place of an element type: a structured array, whose bytes are all that is known of it."""
_REBUILD = Global("torch._utils", "_rebuild_tensor_v3")


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A byte string: where it lies in the file."""

    offset: int
    length: int

    @property
    def key(self) -> str:
        """What views of these bytes name them by."""
        return str(self.offset)


class Budget:
    """Opcodes that a file may still spend, over all of its pickles."""

    def __init__(self) -> None:
        """As many as one pickle in memory may have."""
        self.left = limits.PICKLE_OPCODES


class StreamMachine(machine._Machine):
    """Reads the pickle at an offset of a source; `raws` and `persistents` are what it met."""

    def __init__(
        self, source: Source, offset: int, budget: Budget | None = None, depth: int = 0
    ) -> None:
        """`depth` counts the pickles around this one."""
        super().__init__(b"")
        self.source = source
        self.start = offset
        self.budget = budget or Budget()
        self.depth = depth
        self.raws: list[Raw] = []
        self.persistents: list[Persistent] = []

    @property
    def offset(self) -> int:
        """Where the next byte is read."""
        return self.start + self.position

    def run(self) -> Value:
        """The value of the pickle.

        Raises:
            FormatError: damaged, not supported, or past a limit; names the offset.
        """
        budget, weights = self.budget, machine.WEIGHTS
        while budget.left:
            budget.left -= 1
            if self.position >= len(self.data):
                self._fill(1)
            opcode = self.data[self.position]
            self.position += 1
            if opcode == 0x2E:  # STOP
                return self.pop()
            action = _TABLE[opcode]
            if action is None:
                raise self.error(f"opcode 0x{opcode:02x} is not supported")
            self.left -= weights[opcode]
            if self.left < 0:
                raise self.too_large()
            action(self)
        raise self.bound(f"more than {limits.PICKLE_OPCODES} opcodes")

    def error(self, what: str) -> FormatError:
        """An error that names the offset in the file."""
        return FormatError(f"pickle, offset {self.offset}: {what}")

    def _fill(self, length: int) -> None:
        """Move the window to the current offset; it then holds `length` bytes at least."""
        offset, left = self.offset, self.source.size - self.offset
        if length > left:
            raise self.error(f"{length} bytes announced, {left} left")
        if length > limits.PICKLE_STRING_BYTES:
            raise self.error(f"a string of {length} bytes")
        self.data = self.source.read(offset, min(left, max(length, _WINDOW_BYTES)))
        self.start, self.position = offset, 0

    def take(self, length: int) -> bytes:
        """The next bytes."""
        if length > len(self.data) - self.position:
            self._fill(length)
        piece = self.data[self.position : self.position + length]
        self.position += length
        return piece

    def line(self) -> str:
        """The next bytes up to a line end."""
        if len(self.data) - self.position < limits.PICKLE_LINE_BYTES:
            self._fill(min(1, self.source.size - self.offset))
        return super().line()

    def skip(self, length: int) -> None:
        """Go past bytes without reading them."""
        if length > self.source.size - self.offset:
            raise self.error(f"{length} bytes announced, {self.source.size - self.offset} left")
        self.position += length
        if self.position > len(self.data):
            self.start, self.position, self.data = self.offset, 0, b""

    def raw(self, length: int) -> Raw:
        """The next bytes, left where they are."""
        found = Raw(self.offset, length)
        self.skip(length)
        self.raws.append(found)
        return found

    def persistent(self) -> None:
        """An object outside the pickle."""
        found = Persistent(self.pop())
        self.persistents.append(found)
        self.push(found)

    def call(self) -> None:
        """REDUCE; an array from a buffer becomes a view."""
        super().call()
        target = self.top()
        args = target.args
        if _is_numpy(target.function, "_frombuffer") and isinstance(args, tuple) and len(args) == 4:
            data, dtype, shape, order = args
            _as_view(target, data, dtype, shape, _text(order) == "F")

    def build(self) -> None:
        """BUILD; an array that gets its state becomes a view."""
        super().build()
        target = self.top()
        state = target.states[-1]
        if _is_numpy(target.function, "_reconstruct"):
            if isinstance(state, tuple) and len(state) == 5:
                _, shape, dtype, fortran, data = state
                _as_view(target, data, dtype, shape, fortran is True)
        elif isinstance(target.function, Global) and target.function.name == "NumpyArrayWrapper":
            self._joblib(target, state)

    def _joblib(self, target: Call, state: Value) -> None:
        """The raw data that joblib writes behind the wrapper of an array."""
        fields = {k: v for k, v in state.pairs if _text(k)} if isinstance(state, Dict) else {}
        code, itemsize = _dtype(fields.get("dtype"))
        shape = fields.get("shape")
        if code.startswith("O"):
            self._nested(target)
            return
        if itemsize is None or not isinstance(shape, tuple) or len(shape) > 64:
            raise self.error(f"a joblib array of type {code[:20]!r} without a size")
        if not all(type(extent) is int and 0 <= extent < 1 << 63 for extent in shape):
            raise self.error("a joblib array without a shape")
        if type(fields.get("numpy_array_alignment_bytes")) is int:
            self.skip(self.number(1))
        data = self.raw(math.prod(shape) * itemsize)
        _as_view(target, data, fields["dtype"], shape, _text(fields.get("order")) == "F")

    def _nested(self, target: Call) -> None:
        """An array of objects: joblib writes a pickle of its own in mid-stream."""
        if self.depth >= limits.PICKLES_NESTED:
            raise self.error(f"more than {limits.PICKLES_NESTED} pickles inside each other")
        inner = StreamMachine(self.source, self.offset, self.budget, self.depth + 1)
        inner.left = self.left
        target.states = [inner.run()]
        self.left = inner.left
        self.skip(inner.offset - self.offset)
        self.raws += inner.raws
        self.persistents += inner.persistents


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""


def _is_numpy(function: Value, name: str) -> bool:
    return (
        isinstance(function, Global)
        and function.name == name
        and function.module.split(".", 1)[0] == "numpy"
    )


def _dtype(value: Value) -> tuple[str, int | None]:
    """Type code and bytes of an element of a pickled NumPy dtype; big-endian ones begin with >."""
    if not isinstance(value, Call) or not isinstance(value.args, tuple) or not value.args:
        return "", None
    code = value.args[0]
    if isinstance(code, Global) and code.module.split(".", 1)[0] == "ml_dtypes":
        return code.name, 2 if code.name == "bfloat16" else None
    state = value.states[-1] if value.states else ()
    order = state[1] if isinstance(state, tuple) and len(state) > 6 else ""
    if not _text(code):
        return "", None
    if code in _DTYPES:
        return (">" if _text(order) == ">" else "") + code, int(code[1:])
    size = state[5] if isinstance(state, tuple) and len(state) > 6 else None
    return code, size if type(size) is int and size >= 0 else None


def _is_record(value: Value) -> bool:
    """Whether a pickled NumPy dtype is a structured one: its state has names of fields."""
    state = value.states[-1] if isinstance(value, Call) and value.states else ()
    return isinstance(state, tuple) and len(state) > 6 and isinstance(state[3], tuple)


def _as_view(target: Call, data: Value, dtype: Value, shape: Value, fortran: bool) -> None:
    """Put an array down as a view of its bytes; what has no known element type stays as it is."""
    code, _ = _dtype(dtype)
    name = "bfloat16" if code == "bfloat16" else _DTYPES.get(code)
    if name is None and _is_record(dtype) and isinstance(data, Raw):
        # What it is stays unknown, but not what it is called: a view of all its bytes.
        name, shape = RECORDS, (data.length,)
    if name is None or not isinstance(data, Raw) or not isinstance(shape, tuple):
        return
    strides, step = [], 1
    for extent in shape if fortran else reversed(shape):
        if type(extent) is not int or step >= 1 << 63:
            return
        strides.append(step)
        step *= extent
    stride = tuple(strides if fortran else reversed(strides))
    storage = Persistent(("storage", None, data.key))
    target.function = _REBUILD
    target.args = (storage, 0, shape, stride, False, None, Global("torch", name))
    target.states = []


def _table() -> list[Callable[[StreamMachine], object] | None]:
    table: list[Callable[[StreamMachine], object] | None] = list(machine._TABLE)
    for code, width in ((b"B", 4), (b"C", 1), (b"\x8e", 8), (b"\x96", 8), (b"T", 4)):
        table[code[0]] = lambda s, width=width: s.push(s.raw(s.number(width)))  # type: ignore[misc]
    table[b"Q"[0]] = StreamMachine.persistent
    table[b"R"[0]] = StreamMachine.call
    table[b"b"[0]] = StreamMachine.build
    return table


_TABLE = _table()
