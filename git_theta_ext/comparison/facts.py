"""What a container says besides its tensors, as short texts by name: one reader for each container.

Nothing is executed, and no tensor's bytes are needed: a file is read as its skeleton describes it,
with zeros where tensors lie.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from git_theta_ext.checkpoints.shards import container
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats import fasttext, safetensors
from git_theta_ext.formats.archives import contents as archives
from git_theta_ext.formats.archives import stored, tar
from git_theta_ext.formats.base import Layout, Literal, Source
from git_theta_ext.formats.layout.skeleton import Skeleton
from git_theta_ext.formats.layout.window import Window
from git_theta_ext.formats.pickles.contents import (
    Contents,
    DescribedFile,
    Leaves,
    contents,
    leaves_of,
)
from git_theta_ext.formats.pickles.stream import Budget, StreamMachine
from git_theta_ext.manifest.model import Manifest

_PLAIN = {"int", "float", "str", "bool", "NoneType"}
_NOT_OURS = {"()", "args", "persistent"}
"""Steps of a path into a pickle below which stands how a tensor is rebuilt, not what it says."""
_MAX_TEXT = 200
_SHOWN_ITEMS = 4
_MAX_ITEMS = 1 << 24
_MAX_DEPTH = 64

Facts = dict[str, str]


def facts(manifest: Manifest, found: Skeleton) -> Facts:
    """The facts of one version, in the order of the file.

    Args:
        manifest: its container's name, and the lengths of its tensors.
        found: its structure.

    Raises:
        FormatError: the structure cannot be read as that container.
    """
    name = container(manifest)
    if name == safetensors.NAME:
        return _safetensors(found)
    lengths = {entry.tensor.name: entry.tensor.nbytes for entry in manifest.entries}
    if name == "torch-zip":
        return _torch_zip(found, lengths)
    if name in (tar.NAME, stored.NAME):
        return _archive(archives.contents(name, found, lengths))
    reader = _READERS.get(name)
    return {} if reader is None else dict(reader(DescribedFile(found, lengths)))


def cut(text: str) -> str:
    """`text`, shortened if it is long; its digest then tells it from others that begin alike."""
    if len(text) <= _MAX_TEXT:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[: _MAX_TEXT - 1]}… ({len(text):,} characters, sha256 {digest[:8]})"


def _safetensors(found: Skeleton) -> Facts:
    first = found.segments[0] if found.segments else None
    if not isinstance(first, Literal):
        return {}
    metadata = safetensors.metadata(Layout(safetensors.NAME, (first,)))
    return {f"metadata.{key}": cut(value) for key, value in metadata.items()}


# -- pickles ---------------------------------------------------------------------------------------


def _torch_zip(found: Skeleton, lengths: Mapping[str, int]) -> Facts:
    """The plain values of the pickles, by path, and the archive's small files."""
    archive = contents(found, lengths)
    facts = _plain({path[1:]: leaf for path, leaf in archive.leaves.items()})
    for name, data in archive.files.items():
        # That one says which bytes the file has: it changes with every value.
        if not name.endswith("serialization_id"):
            facts[f"file {name}"] = _bytes(data)
    return facts


def _archive(archive: Contents) -> Facts:
    """The same of the members of an archive of files."""
    facts = _plain(
        {(path[0].rpartition(", ")[0], *path[1:]): leaf for path, leaf in archive.leaves.items()}
    )
    for name, data in archive.files.items():
        if not name.endswith("serialization_id"):
            facts[f"file {name}"] = _bytes(data)
    return facts


def _plain(leaves: Leaves) -> Facts:
    return {
        ".".join(path): cut(repr(value) if kind == "str" else str(value))
        for path, (kind, value) in leaves.items()
        if kind in _PLAIN
        and not _NOT_OURS & set(path)
        and (path[-1:], value) != (("kwargs",), None)
    }


def _bytes(data: bytes) -> str:
    text = data.decode("utf-8", "backslashreplace").strip()
    if len(text) <= 40 and text.isprintable():
        return text
    return f"{len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()[:8]}"


def _pickle(source: Source) -> Facts:
    return _plain(dict(leaves_of(StreamMachine(source, 0).run())))


def _torch_legacy(source: Source) -> Facts:
    """The fourth of five pickles is the object that was saved."""
    budget, offset = Budget(), 0
    value: object = None
    for _ in range(4):
        machine = StreamMachine(source, offset, budget)
        value, offset = machine.run(), machine.offset
    return _plain(dict(leaves_of(value)))


# -- GGUF ------------------------------------------------------------------------------------------

_GGUF_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""Type's number of a key-value -> how `struct` calls it."""


def _gguf(source: Source) -> Iterator[tuple[str, str]]:
    """The version and all key-values. Source: ggml's docs/gguf.md."""
    window = Window(source, 4)
    yield "gguf version", str(window.number(4))
    window.skip(8)
    for _ in range(window.number(8)):
        key = window.take(window.number(8)).decode("utf-8", "backslashreplace")
        yield key, cut(_gguf_value(window, window.number(4), 0))


def _gguf_value(window: Window, kind: int, depth: int) -> str:
    """The value at the window as text; of a long array the first items, and a hash of all."""
    if kind in _GGUF_NUMBERS:
        code = "<" + _GGUF_NUMBERS[kind]
        (value,) = struct.unpack(code, window.take(struct.calcsize(code)))
        return f"{value:.7g}" if kind == 6 else str(value)
    if kind == 8:
        return repr(window.take(window.number(8)).decode("utf-8", "backslashreplace"))
    if kind != 9 or depth > 4:
        raise FormatError(f"gguf: a value of type {kind} at offset {window.position}")
    inner, count = window.number(4), window.number(8)
    if count > _MAX_ITEMS:
        raise FormatError(f"gguf: an array of {count} values at offset {window.position}")
    shown, digest = [], hashlib.sha256()
    for number in range(count):
        text = _gguf_value(window, inner, depth + 1)
        digest.update(text.encode() + b"\0")
        if number < _SHOWN_ITEMS:
            shown.append(text)
    if count <= _SHOWN_ITEMS:
        return f"[{', '.join(shown)}]"
    return f"[{', '.join(shown)}, …] ({count:,} values, sha256 {digest.hexdigest()[:8]})"


# -- ONNX ------------------------------------------------------------------------------------------

_VARINT, _BYTES = 0, 2
_ONNX_NUMBERS = {1: "ir_version", 5: "model_version"}
_ONNX_TEXTS = {2: "producer_name", 3: "producer_version", 4: "domain", 6: "doc_string"}
_ONNX_GRAPH, _ONNX_OPSET, _ONNX_METADATA, _ONNX_NODE, _ONNX_NODE_KIND = 7, 8, 14, 1, 4


def _onnx(source: Source) -> Iterator[tuple[str, str]]:
    """What a ModelProto says of itself, and its nodes by kind. Source: onnx.proto."""
    for number, value in _fields(source, 0, source.size):
        if number in _ONNX_NUMBERS and isinstance(value, int):
            yield _ONNX_NUMBERS[number], str(value)
        elif isinstance(value, int):
            continue
        elif number in _ONNX_TEXTS:
            yield _ONNX_TEXTS[number], cut(repr(_text(source, value)))
        elif number in (_ONNX_OPSET, _ONNX_METADATA):
            pair = dict(_fields(source, *value))
            key, content = (
                _text(source, part) if isinstance(part, tuple) else str(part)
                for part in (pair.get(1, ""), pair.get(2, ""))
            )
            yield f"{'opset' if number == _ONNX_OPSET else 'metadata'}.{key}", cut(content)
        elif number == _ONNX_GRAPH:
            yield from _onnx_nodes(source, *value)


def _onnx_nodes(source: Source, start: int, stop: int) -> Iterator[tuple[str, str]]:
    counts: dict[str, int] = {}
    for number, value in _fields(source, start, stop):
        if number == 2 and isinstance(value, tuple):
            yield "graph.name", cut(repr(_text(source, value)))
        elif number == _ONNX_NODE and isinstance(value, tuple):
            for inner, part in _fields(source, *value):
                if inner == _ONNX_NODE_KIND and isinstance(part, tuple):
                    kind = _text(source, part)
                    counts[kind] = counts.get(kind, 0) + 1
    for kind, count in sorted(counts.items()):
        yield f"nodes.{cut(kind)}", str(count)


def _fields(source: Source, start: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Fields of a message: a number, or where a field's bytes begin and end."""
    window = Window(source, start, stop)
    while window.left:
        tag = window.varint()
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            yield number, window.varint()
            continue
        length = window.varint() if wire == _BYTES else 8 if wire == 1 else 4
        at = window.position
        window.skip(length)
        yield number, (at, at + length)


def _text(source: Source, place: tuple[int, int]) -> str:
    start, stop = place
    return source.read(start, min(stop - start, 1 << 20)).decode("utf-8", "backslashreplace")


# -- msgpack ---------------------------------------------------------------------------------------

_MSGPACK_PLAIN: dict[int, tuple[str, int]] = {
    0xCA: (">f", 4), 0xCB: (">d", 8), 0xCC: (">B", 1), 0xCD: (">H", 2), 0xCE: (">I", 4),
    0xCF: (">Q", 8), 0xD0: (">b", 1), 0xD1: (">h", 2), 0xD2: (">i", 4), 0xD3: (">q", 8),
}  # fmt: skip
_MSGPACK_WORDS = {0xC0: "None", 0xC2: "False", 0xC3: "True"}
_MSGPACK_SIZED = {
    0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xC4: ("bin", 1), 0xC5: ("bin", 2),
    0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4), 0xDC: ("array", 2),
    0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip


def _msgpack(source: Source) -> Iterator[tuple[str, str]]:
    """Numbers, texts and truth values by path; arrays are tensors. Source: the specification."""
    window = Window(source)
    yield from _msgpack_value(window, (), 0)


def _msgpack_value(window: Window, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, str]]:
    """The numbers and texts below a value, each with its path; binary data is skipped."""
    if depth > _MAX_DEPTH:
        raise FormatError(f"msgpack: nested deeper than {_MAX_DEPTH} at offset {window.position}")
    kind, value = _msgpack_item(window)
    if kind == "plain":
        yield ".".join(path), cut(str(value))
    elif kind == "str":
        yield ".".join(path), cut(repr(_msgpack_text(window, value)))
    elif kind in ("bin", "ext"):
        window.skip(value + (kind == "ext"))
    else:
        for number in range(value):
            key = str(number)
            if kind == "map":
                inner, found = _msgpack_item(window)
                key = _msgpack_text(window, found) if inner in ("str", "bin") else str(found)
            yield from _msgpack_value(window, (*path, key), depth + 1)


def _msgpack_text(window: Window, length: int) -> str:
    return window.take(length).decode("utf-8", "backslashreplace")


def _msgpack_item(window: Window) -> tuple[str, Any]:
    """The next item's kind, and its value or length."""
    tag = window.take(1)[0]
    if tag < 0x80 or tag >= 0xE0:
        return "plain", tag - (256 if tag >= 0xE0 else 0)
    if tag in _MSGPACK_WORDS:
        return "plain", _MSGPACK_WORDS[tag]
    if tag in _MSGPACK_PLAIN:
        code, width = _MSGPACK_PLAIN[tag]
        return "plain", struct.unpack(code, window.take(width))[0]
    if tag in _MSGPACK_SIZED:
        kind, width = _MSGPACK_SIZED[tag]
        return kind, int.from_bytes(window.take(width), "big")
    if 0xD4 <= tag <= 0xD8:
        return "ext", 1 << tag - 0xD4
    short = {0x80: "map", 0x90: "array", 0xA0: "str", 0xB0: "str"}.get(tag & 0xF0)
    if short is None:
        raise FormatError(f"msgpack: 0x{tag:02x} at offset {window.position - 1} is no tag")
    return short, tag & (31 if short == "str" else 15)


# -- NumPy -----------------------------------------------------------------------------------------


def _npy(source: Source) -> Iterator[tuple[str, str]]:
    lead = source.read(0, 8)
    yield "npy version", f"{lead[6]}.{lead[7]}"


_READERS: Mapping[str, Callable[[Source], Facts | Iterator[tuple[str, str]]]] = {
    "gguf": _gguf,
    "onnx": _onnx,
    "msgpack": _msgpack,
    "fasttext": fasttext.facts,
    "npy": _npy,
    "pickle": _pickle,
    "torch-legacy": _torch_legacy,
}
