"""The tensors of a PyTorch pickle and the names that a user knows them by.

A name is the path from the top: dictionary keys, list positions and attributes joined by dots, with
the `_parameters`, `_buffers` and `_modules` of a pickled module left out. Every container is
visited once and a tensor that is reached twice has two names. Nothing recurses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError
from git_theta_ext.core.tensors import DTYPES, DType
from git_theta_ext.formats.layout.views import View, unique_names
from git_theta_ext.formats.pickles.machine import Call, Dict, Global, Persistent, Set, Value

LONE_NAME = "tensor"
"""What a tensor is called that was saved by itself, not in any container."""


STORAGE_DTYPES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128", "QInt8Storage": "QI8", "QUInt8Storage": "QU8",
    "QInt32Storage": "QI32", "QUInt4x2Storage": "QU4X2", "QUInt2x4Storage": "QU2X4",
}  # fmt: skip
"""dtypes of torch's typed storages; an UntypedStorage has none."""

DTYPES_BY_NAME = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "complex32": "C32", "complex64": "C64", "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "U8",
    "bits8": "U8",
}  # fmt: skip
"""torch.dtype as `_rebuild_tensor_v3` names it."""

_PACKED = frozenset({"QU4X2", "QU2X4"})
"""Several elements in a byte: shape and strides count elements that cannot be addressed."""

_STRIDED = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"})
_WRAPPERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
_SUBCLASSES = frozenset({"_rebuild_from_type", "_rebuild_from_type_v2"})
_PARTS = {
    "_rebuild_nested_tensor": ("buffer", "sizes", "strides", "offsets"),
    "sparse2": ("indices", "values"),
    "sparse3": ("compressed_indices", "plain_indices", "values"),
}
_MODULE_TABLES = frozenset({"_parameters", "_buffers", "_modules"})


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """A step of a path; the top has no parent, a transparent step no key."""

    parent: _Node | None
    key: str | None
    depth: int

    def check(self, key: str | None) -> None:
        """Refuse what is too deep, or a key that is too long, for names."""
        if self.depth >= limits.NAME_DEPTH:
            raise BoundError(f"pickle: nested deeper than {limits.NAME_DEPTH}")
        if key is not None and len(key) > limits.NAME_KEY_CHARS:
            raise BoundError(f"pickle: a key of {len(key)} characters")

    def child(self, key: str | None) -> _Node:
        self.check(key)
        return _Node(self, key, self.depth + 1)

    def path(self) -> tuple[str, ...]:
        keys: list[str] = []
        node: _Node | None = self
        while node is not None:
            if node.key is not None:
                keys.append(node.key)
            node = node.parent
        return tuple(reversed(keys))


def find_views(top: Value, prefix: tuple[str, ...] = ()) -> list[View]:
    """Every tensor and bare storage below `top`, in the order of the pickle, names unique.

    Raises:
        FormatError: past a limit on depth, names or their length.
    """
    found: list[tuple[tuple[str, ...], View]] = []
    root = _Node(None, None, 0)
    for key in prefix:
        root = root.child(key)
    pending: list[tuple[Value, _Node]] = [(top, root)]
    visited: dict[int, Value] = {}  # keeps what it names alive, so that identities stay unique
    while pending:
        value, node = pending.pop()
        view = _view(value)
        if view is not None:
            found.append((node.path(), view))
            if len(found) > limits.NAMES:
                raise BoundError(f"pickle: more than {limits.NAMES} tensors")
        if not isinstance(value, list | tuple | Dict | Set | Call) or id(value) in visited:
            continue
        visited[id(value)] = value
        if isinstance(value, list | tuple):
            if value:
                node.check(None)
        elif _is_plain(value, node):
            continue
        children = []
        for step, item in _children(value, view is not None):
            if _may_hold(item):
                children.append((item, node.child(step)))
            else:
                node.check(step)
        children.reverse()
        pending += children
    names = unique_names([path or (LONE_NAME,) for path, _ in found])
    return [
        View(name, view.key, view.dtype, view.offset, view.size, view.stride)
        for name, (_, view) in zip(names, found, strict=True)
    ]


_LEAVES = frozenset({type(None), bool, int, float, str, bytes})


def _is_plain(value: Value, node: _Node) -> bool:
    """Whether a dictionary has nothing but plain values, below keys that names may have.

    A pickle of settings is nearly all such, and the sets of types are made in C.
    """
    if not isinstance(value, Dict) or node.depth >= limits.NAME_DEPTH:
        return False
    keys, items = zip(*value.pairs, strict=True) if value.pairs else ((), ())
    if not _LEAVES.issuperset(map(type, items)) or not {str}.issuperset(map(type, keys)):
        return False
    return max(map(len, keys), default=0) <= limits.NAME_KEY_CHARS


def _may_hold(value: Value) -> bool:
    """Whether a value can be a tensor or have one below it."""
    if isinstance(value, Dict):
        return bool(value.pairs)
    if isinstance(value, Set):
        return bool(value.items)
    return bool(value) if isinstance(value, list | tuple) else isinstance(value, Call | Persistent)


def _function(value: Call) -> str:
    """The name of the torch function that a call names; empty for others."""
    function = value.function
    known = isinstance(function, Global) and function.module.split(".", 1)[0] == "torch"
    return function.name if known else ""


def _unwrap(value: Value) -> Value:
    """The call that makes a tensor's data, below parameters and subclasses around it."""
    for _ in range(limits.NAME_WRAPPERS):
        if not isinstance(value, Call) or not isinstance(value.args, tuple):
            break
        function, args = _function(value), value.args
        if function in _WRAPPERS and args:
            value = args[0]
        elif function in _SUBCLASSES and len(args) >= 4:
            value = Call(args[0], args[2])
        else:
            break
    return value


def _view(value: Value) -> View | None:
    """The view that a value is, if it is a tensor or a bare storage; its name is left empty."""
    if isinstance(value, Persistent):
        storage = _storage(value)
        return None if storage is None else View("", *storage)
    value = _unwrap(value)
    if not isinstance(value, Call) or not isinstance(value.args, tuple):
        return None
    function, args = _function(value), value.args
    if (function in _STRIDED or function == "_rebuild_qtensor") and len(args) >= 4:
        return _strided(function, args)
    return None


def _strided(function: str, args: tuple[Value, ...]) -> View | None:
    storage = _storage(args[0])
    offset, size, stride = args[1:4]
    if storage is None or type(offset) is not int or offset < 0:
        return None
    key, dtype = storage
    if function == "_rebuild_tensor_v3" and len(args) > 6 and isinstance(args[6], Global):
        dtype = DTYPES.get(DTYPES_BY_NAME.get(args[6].name, ""))
    if dtype is not None and dtype.name in _PACKED:
        return View("", key, dtype)
    if not _is_shape(size) or not _is_shape(stride) or len(size) != len(stride):
        return None
    return View("", key, dtype, offset, tuple(size), tuple(stride))


def _is_shape(value: Value) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) <= limits.AXES
        and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
    )


def _storage(value: Value) -> tuple[str, DType | None] | None:
    """Key and dtype of the storage that a persistent id names: ("storage", type, key, ...)."""
    parts = value.key if isinstance(value, Persistent) else None
    if not isinstance(parts, tuple) or len(parts) < 3 or not isinstance(parts[2], str):
        return None
    kind = parts[1].name if isinstance(parts[1], Global) else ""
    return parts[2], DTYPES.get(STORAGE_DTYPES.get(kind, ""))


def _children(value: Value, is_tensor: bool) -> Iterator[tuple[str | None, Value]]:
    """What lies directly below a container, each with its key; None where it adds no key."""
    if isinstance(value, Dict):
        yield from _keyed(value.pairs)
    elif isinstance(value, Set):
        yield from _numbered(value.items)
    elif isinstance(value, list | tuple):
        yield from _numbered(value)
    elif isinstance(value, Call):
        yield from _arguments(value, is_tensor)
        yield from _numbered(value.items)
        yield from _keyed(value.pairs)
        for state in value.states:
            yield from _state(state)


def _numbered(items: Iterable[Value]) -> Iterator[tuple[str, Value]]:
    """Items by their positions, without plain values: nothing is below these."""
    return ((str(index), item) for index, item in enumerate(items) if type(item) not in _LEAVES)


def _keyed(pairs: list[tuple[Value, Value]]) -> Iterator[tuple[str | None, Value]]:
    for index, (key, item) in enumerate(pairs):
        if isinstance(key, str) or type(key) is int:
            yield str(key), item
        else:
            yield f"<{index}>", item


def _arguments(value: Call, is_tensor: bool) -> Iterator[tuple[str | None, Value]]:
    """Tensors among the arguments of a call: parts of one tensor, or of an unknown object."""
    function, args = _function(value), value.args
    if not isinstance(args, tuple):
        yield None, args
        return
    if function in _WRAPPERS or (function in _SUBCLASSES and len(args) >= 4):
        inner = _unwrap(value)
        if isinstance(inner, Call) and inner.function is not value.function:
            yield from _arguments(inner, is_tensor)
        elif not is_tensor:
            yield from _numbered(args)
        if function in _SUBCLASSES:
            yield from _state(args[3])
    elif function == "_rebuild_sparse_tensor" and len(args) > 1 and isinstance(args[1], tuple):
        parts = _PARTS["sparse2" if len(args[1]) < 4 or _is_flag(args[1][3]) else "sparse3"]
        yield from zip(parts, args[1], strict=False)
    elif function in _PARTS:
        yield from zip(_PARTS[function], args, strict=False)
    elif function == "_rebuild_qtensor" and len(args) > 4 and isinstance(args[4], tuple):
        yield from zip(("scales", "zero_points"), args[4][1:3], strict=False)
    elif not is_tensor and len(args) == 1 and isinstance(args[0], Dict | list):
        yield None, args[0]
    elif not is_tensor:
        yield from _numbered(args)
    if isinstance(value.kwargs, Dict):
        yield None, value.kwargs


def _is_flag(value: Value) -> bool:
    return isinstance(value, bool) or value is None


def _state(state: Value) -> Iterator[tuple[str | None, Value]]:
    """The attributes of an object: a dictionary, or (dictionary or None, slots)."""
    if isinstance(state, Dict):
        keys = {key for key, _ in state.pairs if isinstance(key, str)}
        tables = _MODULE_TABLES if keys >= _MODULE_TABLES else frozenset[str]()
        for key, item in _keyed(state.pairs):
            yield (None if key in tables else key), item
    elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Dict):
        yield None, state[0]
        yield None, state[1]
    else:
        yield None, state
