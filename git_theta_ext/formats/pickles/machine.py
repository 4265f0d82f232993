"""What a pickle says, as plain records: a stack machine that never hashes, compares or calls.

All opcodes of protocols 0 to 5 (Lib/pickletools.py of CPython 3.13 is the reference) except
out-of-band buffers and the extension registry. Globals, calls and persistent ids become records,
dictionaries lists of pairs, so that no value, however it is nested or shared, runs code or takes
more time and memory than its opcodes. Lists and tuples are Python's own: iterate over them, but
never compare, hash or print what came out of a pickle.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError

Value = Any
"""None, bool, int, float, str, bytes, list, tuple or one of the records below."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class or function, by name only."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object that lies outside the pickle; PyTorch's storages are such."""

    key: Value


@dataclass(slots=True, eq=False)
class Dict:
    """A dictionary: its pairs in the order in which they were set, keys possibly repeated."""

    pairs: list[tuple[Value, Value]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Set:
    """A set or frozenset: its items as they came."""

    items: list[Value] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Call:
    """An object made by calling `function` with `args`, and what was then put into it."""

    function: Value
    args: Value
    kwargs: Value = None
    items: list[Value] = field(default_factory=list)
    pairs: list[tuple[Value, Value]] = field(default_factory=list)
    states: list[Value] = field(default_factory=list)


_STOP = ord(".")


def load(data: bytes) -> Value:
    """The value of the pickle at the start of `data`.

    Raises:
        FormatError: damaged, an opcode that is not supported, or past a limit; names the offset.
    """
    with no_search_for_cycles():
        return _Machine(data).run()


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Python looks for cycles to free each time that so many objects were made; not meanwhile.

    A pickle makes a million that all stay: looking through them took a quarter of the time. If two
    threads do this at once, one of them searches again earlier; that is all.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Machine:
    __slots__ = ("data", "left", "marks", "memo", "position", "stack")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Value] = []
        self.marks: list[list[Value]] = []
        self.memo: dict[int, Value] = {}
        self.left = limits.PICKLE_MEMORY

    def run(self) -> Value:
        data, size, table, weights = self.data, len(self.data), _TABLE, WEIGHTS
        for _ in range(limits.PICKLE_OPCODES):
            position = self.position
            if position >= size:
                raise self.error("the pickle has no end")
            opcode = data[position]
            self.position = position + 1
            if opcode == _STOP:
                return self.pop()
            action = table[opcode]
            if action is None:
                raise self.error(f"opcode 0x{opcode:02x} is not supported")
            self.left -= weights[opcode]
            if self.left < 0:
                raise self.too_large()
            action(self)
        raise self.bound(f"more than {limits.PICKLE_OPCODES} opcodes")

    def error(self, what: str) -> FormatError:
        return FormatError(f"pickle, offset {self.position}: {what}")

    def bound(self, what: str) -> BoundError:
        """A limit that was reached, and where."""
        return BoundError(self.error(what).message)

    def too_large(self) -> BoundError:
        """The limit on memory was reached."""
        return self.bound(f"values that take more than {limits.PICKLE_MEMORY:,} bytes of memory")

    # Reading

    def take(self, length: int) -> bytes:
        stop = self.position + length
        if stop > len(self.data):
            raise self.error(f"{length} bytes announced, {len(self.data) - self.position} left")
        piece = self.data[self.position : stop]
        self.position = stop
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + limits.PICKLE_LINE_BYTES)
        if end < 0:
            raise self.error("a line without an end")
        raw = self.data[self.position : end]
        self.position = end + 1
        return self.text(raw)

    def text(self, raw: bytes) -> str:
        self.left -= len(raw)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self.error("a string that is not UTF-8") from None

    def decimal(self, text: str) -> int:
        if len(text) > limits.PICKLE_INTEGER_BYTES or not text.removeprefix("-").isdecimal():
            raise self.error(f"not an integer: {text[:40]!r}")
        return int(text)

    # Stack

    def pop(self) -> Value:
        if not self.stack:
            raise self.error("the stack is empty")
        return self.stack.pop()

    def top(self) -> Value:
        if not self.stack:
            raise self.error("the stack is empty")
        return self.stack[-1]

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Value]:
        if not self.marks:
            raise self.error("no mark")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def pop_or_mark(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def get(self, index: int) -> None:
        try:
            self.stack.append(self.memo[index])
        except KeyError:
            raise self.error(f"nothing was memoized as {index}") from None

    def put(self, index: int) -> None:
        if index < 0 or index >= 1 << 32:
            raise self.error(f"memo index {index}")
        self.memo[index] = self.top()

    def memoize(self) -> None:
        if not self.stack:
            raise self.error("the stack is empty")
        self.memo[len(self.memo)] = self.stack[-1]

    # Objects

    def pairs(self, items: list[Value]) -> list[tuple[Value, Value]]:
        if len(items) % 2:
            raise self.error("a key without a value")
        return list(zip(items[::2], items[1::2], strict=True))

    def set_items(self, items: list[Value]) -> None:
        target = self.top()
        if not isinstance(target, Dict | Call):
            raise self.error(f"items set in a {type(target).__name__}")
        target.pairs.extend(self.pairs(items))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append_items(self, items: list[Value]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Call | Set):
            target.items.extend(items)
        else:
            raise self.error(f"items appended to a {type(target).__name__}")

    def append_item(self) -> None:
        value = self.pop()
        self.append_items([value])

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        self.push(Call(function, args))

    def call_with_keywords(self) -> None:
        kwargs, args, function = self.pop(), self.pop(), self.pop()
        self.push(Call(function, args, kwargs))

    def call_marked(self) -> None:
        items = self.pop_mark()
        if not items:
            raise self.error("OBJ without a class")
        self.push(Call(items[0], tuple(items[1:])))

    def instance(self) -> None:
        function = Global(self.line(), self.line())
        self.push(Call(function, tuple(self.pop_mark())))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Call):
            raise self.error(f"state set on a {type(target).__name__}")
        target.states.append(state)

    def named_global(self) -> None:
        module = self.line()
        self.push(Global(module, self.line()))

    def stacked_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.error("a global that is not named by strings")
        self.push(Global(module, name))

    # Values

    def string(self, width: int) -> None:
        self.push(self.text(self.take(self.number(width))))

    def old_string(self, raw: bytes) -> None:
        """A string of Python 2: text as far as it is such, else bytes."""
        try:
            self.push(raw.decode("ascii"))
        except UnicodeDecodeError:
            self.push(raw)

    def quoted(self) -> None:
        text = self.line()
        if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
            raise self.error("a string without quotes")
        self.push(text[1:-1])

    def long(self, width: int) -> None:
        length = self.number(width)
        if length > limits.PICKLE_INTEGER_BYTES:
            raise self.error(f"an integer of {length} bytes")
        self.push(int.from_bytes(self.take(length), "little", signed=True))

    def int_line(self) -> None:
        text = self.line()
        special = {"00": False, "01": True}
        self.push(special[text] if text in special else self.decimal(text))

    def float_line(self) -> None:
        text = self.line()
        try:
            self.push(float(text))
        except ValueError:
            raise self.error(f"not a number: {text[:40]!r}") from None

    def protocol(self) -> None:
        if (version := self.number(1)) > 5:
            raise self.error(f"protocol {version}; known are 0 to 5")


# -- opcodes ---------------------------------------------------------------------------------------

# Those of which a pickle has hundreds of thousands take one call: what they need lies in the window
# nearly always. Where it does not, or there is nothing on the stack, the long way says so.

Action = Callable[[_Machine], object]


def _pushing(value: Value) -> Action:
    """An opcode that pushes a constant."""
    return lambda s: s.stack.append(value)


def _fixed(width: int, convert: Callable[[bytes], Value]) -> Action:
    """An opcode that pushes what its next bytes are converted to."""

    def action(s: _Machine) -> None:
        start, data = s.position, s.data
        stop = start + width
        if stop <= len(data):
            s.position = stop
            s.stack.append(convert(data[start:stop]))
        else:
            s.stack.append(convert(s.take(width)))

    return action


def _string(width: int) -> Action:
    """An opcode that pushes text, behind its length in so many bytes."""

    def action(s: _Machine) -> None:
        start, data = s.position + width, s.data
        stop = start + int.from_bytes(data[s.position : start], "little")
        if start <= len(data) and stop <= len(data):
            s.position = stop
            s.stack.append(s.text(data[start:stop]))
        else:
            s.string(width)

    return action


def _put(width: int) -> Action:
    """An opcode that memoizes the top of the stack under a number of so many bytes."""

    def action(s: _Machine) -> None:
        start, data, stack = s.position, s.data, s.stack
        stop = start + width
        if stack and stop <= len(data):
            s.position = stop
            s.memo[int.from_bytes(data[start:stop], "little")] = stack[-1]
        else:
            s.put(s.number(width))

    return action


def _tuple(count: int) -> Action:
    """An opcode that makes a tuple of so many values."""

    def action(s: _Machine) -> None:
        stack = s.stack
        if len(stack) < count:
            raise s.error("the stack is empty")
        stack[-count:] = [tuple(stack[-count:])]

    return action


def _unsigned(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _double(data: bytes) -> float:
    number: float = _DOUBLE.unpack(data)[0]
    return number


_DOUBLE = struct.Struct(">d")


def _table() -> list[Action | None]:
    """What to do for each opcode byte; None where there is no such opcode."""
    m = _Machine
    actions: dict[bytes, Action] = {
        b"\x80": m.protocol, b"\x95": lambda s: s.take(8),
        b"(": m.mark, b"0": m.pop_or_mark, b"1": m.pop_mark, b"2": lambda s: s.push(s.top()),
        b"N": _pushing(None),
        b"\x88": _pushing(True), b"\x89": _pushing(False),
        b"I": m.int_line, b"L": lambda s: s.push(s.decimal(s.line().removesuffix("L"))),
        b"K": _fixed(1, _unsigned), b"M": _fixed(2, _unsigned), b"J": _fixed(4, _signed),
        b"\x8a": lambda s: s.long(1), b"\x8b": lambda s: s.long(4),
        b"F": m.float_line, b"G": _fixed(8, _double),
        b"S": m.quoted, b"V": lambda s: s.push(s.line()),
        b"T": lambda s: s.old_string(s.take(s.number(4))),
        b"U": lambda s: s.old_string(s.take(s.number(1))),
        b"X": _string(4), b"\x8c": _string(1), b"\x8d": _string(8),
        b"B": lambda s: s.push(s.take(s.number(4))), b"C": lambda s: s.push(s.take(s.number(1))),
        b"\x8e": lambda s: s.push(s.take(s.number(8))),
        b"\x96": lambda s: s.push(s.take(s.number(8))),
        b")": _pushing(()), b"t": lambda s: s.push(tuple(s.pop_mark())),
        b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3),
        b"]": lambda s: s.push([]), b"l": lambda s: s.push(s.pop_mark()),
        b"a": m.append_item, b"e": lambda s: s.append_items(s.pop_mark()),
        b"}": lambda s: s.push(Dict()), b"d": lambda s: s.push(Dict(s.pairs(s.pop_mark()))),
        b"s": m.set_item, b"u": lambda s: s.set_items(s.pop_mark()),
        b"\x8f": lambda s: s.push(Set()), b"\x90": lambda s: s.append_items(s.pop_mark()),
        b"\x91": lambda s: s.push(Set(s.pop_mark())),
        b"c": m.named_global, b"\x93": m.stacked_global, b"i": m.instance, b"o": m.call_marked,
        b"R": m.call, b"\x81": m.call, b"\x92": m.call_with_keywords, b"b": m.build,
        b"P": lambda s: s.push(Persistent(s.line())),
        b"Q": lambda s: s.push(Persistent(s.pop())),
        b"p": lambda s: s.put(s.decimal(s.line())), b"q": _put(1), b"r": _put(4),
        b"\x94": m.memoize,
        b"g": lambda s: s.get(s.decimal(s.line())), b"h": lambda s: s.get(s.number(1)),
        b"j": lambda s: s.get(s.number(4)),
    }  # fmt: skip
    return [actions.get(bytes([code])) for code in range(256)]


_TABLE = _table()


def _weights() -> list[int]:
    """About how many bytes of memory each opcode takes for good, on a 64-bit CPython."""
    sizes = {
        b"]}l": 160, b"\x8f\x91d": 200, b"RRo\x81\x92i": 240, b"c\x93": 240, b"PQ": 140,
        b"\x85\x86\x87t": 80, b"(": 72, b"pqr\x94": 96, b"XVSUT\x8c\x8dBC\x8e\x96": 72,
        b"JIL\x8a\x8bFGM": 40, b"KN\x88\x89)2hjg": 8, b"sub": 24, b"ae": 8,
    }  # fmt: skip
    found = [8] * 256
    for codes, size in sizes.items():
        for code in codes:
            found[code] = size
    return found


WEIGHTS = _weights()
