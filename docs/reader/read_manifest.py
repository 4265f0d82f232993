"""Rebuilds a checkpoint from its manifest and its objects, without git-theta-ext.

    git cat-file blob HEAD:model.safetensors > manifest
    python read_manifest.py manifest .git/theta/objects OUT

OUT gets every tensor as a file of raw bytes, `tensors.json` with their names, dtypes and shapes,
and, if everything could be rebuilt, the checkpoint itself. What could not be is named, and the exit
status is 1. It needs Python 3.9 and the package `zstandard`. It follows docs/manifest.md, "A reader
in an afternoon": it knows the kinds `dense` and `patch`, and neither other updates nor recipes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

BITS = {name: bits for bits, names in {
    4: "F4", 6: "F6_E2M3 F6_E3M2", 16: "U16 I16 F16 BF16", 32: "U32 I32 F32 QI32 C32",
    8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ F8_E8M0 QI8 QU8 QU4X2 QU2X4",
    64: "U64 I64 F64 C64", 128: "C128"}.items() for name in names.split()}  # fmt: skip
CONTENT = r"(?: sha256:([0-9a-f]{64})| inline:((?:[0-9a-f]{2})*))"
SPEC = re.compile(rf"  (\w+) \[([\d, ]*)\](?: order=([\d,]+))?{CONTENT}?")
BLOCK = re.compile(rf"  block (\d+){CONTENT}")
FILE = re.compile(r"  ([a-z][a-z0-9-]*) sha256:([0-9a-f]{64}) \d+(?:\[(\d+):(\d+)\])?(?: .*)?")
SLICE = 65536  # values


class Impossible(ValueError):
    """This reader cannot rebuild something; says why."""


@dataclass
class Block:
    """A run of bytes: its length, what they hash to, and the lines that say how to rebuild them."""

    size: int
    sha256: str | None
    inline: str | None
    chain: list[str]


@dataclass
class Entry:
    """A tensor, or bytes of unknown meaning (then dtype U8)."""

    name: str
    dtype: str
    shape: list[int]
    order: list[int] | None
    blocks: list[Block]


def read_manifest(text: str) -> tuple[Entry, list[Entry]]:
    """The skeleton and the entries: paragraphs between empty lines, the last of them is `end`."""
    head, *paragraphs = text.split("\n\n")
    lines = head.split("\n")
    if lines[0] not in ("git-theta manifest v1", "git-theta manifest v2"):
        raise Impossible(f"{lines[0][:40]!r} is not how a manifest of version 1 or 2 begins")
    if paragraphs[-1:] != ["end\n"]:
        raise Impossible("the manifest does not end with `end`: something was cut off")
    entries = []
    for first, *rest in (paragraph.split("\n") for paragraph in paragraphs[:-1]):
        name = first.partition(" ")[2]  # after `tensor` or `opaque`
        entries.append(read_entry(json.loads(name) if name.startswith('"') else name, rest))
    return read_entry("skeleton", lines[lines.index("skeleton") + 1 :]), entries


def read_entry(name: str, lines: list[str]) -> Entry:
    """An entry: the line of the tensor, then one chain, or `block` lines with a chain each."""
    spec = SPEC.fullmatch(lines[0])
    if spec is None or spec[1] not in BITS:
        raise Impossible(f"{name}: {lines[0]!r} is not the line of a tensor")
    shape = [int(word) for word in spec[2].split(", ") if word]
    order = [int(word) for word in spec[3].split(",")] if spec[3] else None
    blocks = [Block((math.prod(shape) * BITS[spec[1]] + 7) // 8, spec[4], spec[5], [])]
    for number, line in enumerate(lines[1:]):
        if block := BLOCK.fullmatch(line):
            if number == 0:  # there are several: that of the whole tensor is none
                blocks.clear()
            blocks.append(Block(int(block[1]), block[2], block[3], []))
        else:
            blocks[-1].chain.append(line)
    return Entry(name, spec[1], shape, order, blocks)


def rebuild(block: Block, objects: Path) -> bytes:
    """The bytes of a block, compared with its SHA-256."""
    files: list[re.Match[str]] = []
    for line in block.chain:
        file = FILE.fullmatch(line)
        if file is None or file[1] != ("patch" if files else "dense"):
            raise Impossible(f"`{' '.join(line.split()[:2])}` is beyond this reader")
        files.append(file)
    data = bytes.fromhex(block.inline or "")
    for file in files:
        data = decode(file[1], *read_parameters(read_object(file, objects)), data, block.size)
    if block.inline is None and hashlib.sha256(data).hexdigest() != block.sha256:
        raise Impossible("the bytes do not have the SHA-256 that the manifest names")
    if len(data) != block.size:
        raise Impossible(f"{len(data)} bytes, and the manifest says {block.size}")
    return data


def read_object(file: re.Match[str], objects: Path) -> bytes:
    """A parameter file: an object, or the part of one that the manifest names."""
    path = objects / file[2][:2] / file[2][2:4] / file[2]
    if not path.exists():
        raise Impossible(f"object {file[2]} is not here")
    with path.open("rb") as stream:
        stream.seek(int(file[3] or 0))
        return stream.read() if file[3] is None else stream.read(int(file[4]) - int(file[3]))


def read_parameters(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The settings and the parts of a parameter file, which is a safetensors file."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    settings = json.loads(header.pop("__metadata__")["theta"])
    offsets = {name: part["data_offsets"] for name, part in header.items()}
    return settings, {name: data[start + a : start + b] for name, (a, b) in offsets.items()}


def decode(
    kind: str, settings: dict[str, Any], parts: dict[str, bytes], before: bytes, size: int
) -> bytes:
    """What a parameter file makes of the bytes before it in the chain."""
    size = settings.get("size", size)
    if settings["coder"] == "planes":
        return join_planes(settings, parts, size)
    if settings["coder"] == "zstd":
        return decompress(parts["data"], size, before if kind == "patch" else b"")
    return parts["data"]


def decompress(frame: bytes, size: int, prefix: bytes = b"") -> bytes:
    """The content of a zstd frame, of which it is known how long it is."""
    if zstandard.frame_content_size(frame) != size:
        raise Impossible(f"a zstd frame does not hold {size} bytes")
    known = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    reader = zstandard.ZstdDecompressor(known if prefix else None, max_window_size=1 << 27)
    return reader.decompress(frame, max_output_size=size)


def join_planes(settings: dict[str, Any], parts: dict[str, bytes], size: int) -> bytes:
    """Values whose bytes were sorted by significance; packed planes are zstd, slice by slice."""
    word, out = settings["word"], bytearray(size)
    for plane in range(word):
        data = parts[f"plane{plane}"]
        if plane in settings["packed"]:
            lengths, at, packed = parts[f"plane{plane}.lengths"], 0, []
            for number in range(len(lengths) // 4):
                length = int.from_bytes(lengths[4 * number : 4 * number + 4], "little")
                values = min(SLICE, size // word - number * SLICE)
                packed.append(decompress(data[at : at + length], values))
                at += length
            data = b"".join(packed)
        out[plane::word] = data
    if settings.get("rotate"):
        for at in range(0, size, SLICE * word):
            out[at : at + SLICE * word] = rotate_right(bytes(out[at : at + SLICE * word]), word)
    return bytes(out)


def rotate_right(data: bytes, word: int) -> bytes:
    """Every value rotated right by one bit: all at once, as one large number."""
    number, top = int.from_bytes(data, "little"), 8 * word - 1
    lowest = int.from_bytes((1).to_bytes(word, "little") * (len(data) // word), "little")
    rotated = number >> 1 & ~(lowest << top) | (number & lowest) << top
    return rotated.to_bytes(len(data), "little")


def write_checkpoint(skeleton: bytes, tensors: dict[str, Path], path: Path) -> None:
    """The file itself: what the skeleton lists, one after the other."""
    text, _, literals = skeleton.partition(b"\n\n")
    first, *lines = text.decode("ascii").split("\n")
    if first != "git-theta skeleton v1":
        raise Impossible(f"{first!r} is not how a skeleton begins")
    for word in {line.partition(" ")[0] for line in lines} - {"literal", "tensor"}:
        raise Impossible(f"a field `{word}`, which follows from other bytes, is beyond this reader")
    with path.open("wb") as file:
        for kind, _, rest in (line.partition(" ") for line in lines):
            if kind == "literal":
                file.write(literals[: int(rest)])
                literals = literals[int(rest) :]
            else:
                file.write(tensors[json.loads(rest)].read_bytes())


def main(manifest: str, objects: str, out: str) -> int:
    """Write what can be rebuilt, and say what cannot; the exit status."""
    problems: list[str] = []
    damage = (ValueError, KeyError, OSError, zstandard.ZstdError)
    folder, store, table = Path(out), Path(objects), []
    folder.mkdir(parents=True)
    skeleton, entries = read_manifest(Path(manifest).read_text("ascii"))
    files = {entry.name: folder / f"{number}.bin" for number, entry in enumerate(entries)}
    for entry in entries:
        path = files[entry.name]
        try:
            with path.open("wb") as file:
                file.writelines(rebuild(block, store) for block in entry.blocks)
            about = {"dtype": entry.dtype, "shape": entry.shape, "order": entry.order}
            table.append({"name": entry.name, "file": path.name, **about})
        except damage as why:
            path.unlink()
            problems.append(f"{entry.name}: {why}")
    (folder / "tensors.json").write_text(json.dumps(table, indent=1), "ascii")
    try:
        structure = rebuild(skeleton.blocks[0], store)
        if not problems:
            write_checkpoint(structure, files, folder / "checkpoint")
    except damage as why:
        problems.append(f"the file's structure: {why}")
    for problem in problems:
        print(f"not rebuilt: {problem}", file=sys.stderr)
    print(f"{len(table)} of {len(entries)} tensors" + ("" if problems else ", and the file itself"))
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python read_manifest.py MANIFEST OBJECTS OUT")
    sys.exit(main(*sys.argv[1:]))
