"""`theta_tensors.json`: the hash of every tensor, so that a part of a model can be verified.

    {"version": 1, "files": {"model.safetensors": {"tensors": {"lm_head.weight":
        {"dtype": "BF16", "shape": [32000, 4096], "sha256": "9f86…"}}}}}

`sha256` is that of the tensor's bytes as they lie in the file. Where a version is signed, a tensor
of several blocks has `blocks` instead, the SHA-256 of each, as in the manifest (docs/manifest.md);
`order` is there where the bytes do not lie row-major; and a file has its `structure`, the SHA-256
of its skeleton, so that the manifest alone says whether it is the file that was signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo

VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TensorHash:
    """What a tensor is: its element type, shape and memory order, and its bytes.

    `blocks` are hashes in hexadecimal: one of all its bytes, or one of each block.
    """

    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[str, ...]
    order: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class FileHashes:
    """What a file's tensors are, by their names, and its structure, where that is listed."""

    tensors: Mapping[str, TensorHash]
    structure: str | None = None


Table = Mapping[str, FileHashes]
"""What is in each file, by its path."""


def hash_of(info: TensorInfo, blocks: tuple[str, ...]) -> TensorHash:
    """The hash of a tensor that is known."""
    return TensorHash(info.dtype.name, info.shape, blocks, info.order)


def to_bytes(table: Table) -> bytes:
    """The file: JSON, a tensor a line."""
    parts = []
    for path in sorted(table):
        one = table[path]
        rows = [
            f"        {_word(name)}: {json.dumps(_row(it))}" for name, it in one.tensors.items()
        ]
        structure = "" if one.structure is None else f'      "structure": "{one.structure}",\n'
        head = f'    {_word(path)}: {{\n{structure}      "tensors": {{\n'
        parts.append(head + ",\n".join(rows) + "\n      }\n    }")
    text = f'{{\n  "version": {VERSION},\n  "files": {{\n' + ",\n".join(parts) + "\n  }\n}\n"
    return text.encode("ascii")


def _word(text: str) -> str:
    return json.dumps(text)


def _row(one: TensorHash) -> dict[str, object]:
    row: dict[str, object] = {"dtype": one.dtype, "shape": list(one.shape)}
    if one.order is not None:
        row["order"] = list(one.order)
    if len(one.blocks) == 1:
        row["sha256"] = one.blocks[0]
    else:
        row["blocks"] = list(one.blocks)
    return row


def from_bytes(text: bytes, where: str) -> dict[str, FileHashes]:
    """Read the file, strictly.

    Args:
        text: its bytes.
        where: what messages call it.

    Raises:
        UsageError: it is none, is of a newer version, or too long.
    """
    if len(text) > limits.TENSORS_FILE_BYTES:
        raise UsageError(f"{where}: more than {limits.TENSORS_FILE_BYTES} bytes")
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            found = content["version"]
            raise UsageError(f"{where} is of version {found!r}; this program knows {VERSION}")
        return {
            str(path): FileHashes(
                {str(name): _read(row) for name, row in rows["tensors"].items()},
                _structure(rows.get("structure")),
            )
            for path, rows in content["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{where} does not list the hashes of tensors: {error!r}") from error


def _structure(found: object) -> str | None:
    if found is None or (isinstance(found, str) and _SHA256.fullmatch(found)):
        return found
    raise ValueError("what should be a SHA-256 is none")


def _read(row: Mapping[str, object]) -> TensorHash:
    shape, order = row["shape"], row.get("order")
    blocks = row["blocks"] if "blocks" in row else [row["sha256"]]
    if not isinstance(shape, list) or not isinstance(blocks, list):
        raise ValueError("a shape or hashes that are no list")
    if not isinstance(order, list | None):
        raise ValueError("an order that is no list")
    if not all(isinstance(one, str) and _SHA256.fullmatch(one) for one in blocks):
        raise ValueError("what should be a SHA-256 is none")
    numbers = [*shape, *(order or [])]
    if not all(type(one) is int and one >= 0 for one in numbers):
        raise ValueError("a shape that is no list of natural numbers")
    axes = None if order is None else tuple(order)
    return TensorHash(str(row["dtype"]), tuple(shape), tuple(map(str, blocks)), axes)
