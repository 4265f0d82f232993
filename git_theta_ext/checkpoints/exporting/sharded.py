"""A model cut into files of a bounded size, with the index that says which tensor is where.

As the libraries of Hugging Face write and read it: `model-00001-of-00003.safetensors` and
`model.safetensors.index.json`; a model that fits is one file without an index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
MOST_SHARDS = 99_999
"""What five digits of a name can count."""


def size_named(text: str) -> int:
    """The bytes that `5GB`, `500MB` or `2GiB` stands for: powers of 1000, or of 1024 with an `i`.

    Raises:
        UsageError: it is no size, or none that anything fits into.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size such as 5GB, 500MB or 2GiB")
    unit = (match[2] or "").lower()
    count = int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[:1]])
    if count < 1:
        raise UsageError(f"{text!r}: nothing fits into that")
    return count


def shards_of(infos: Mapping[str, TensorInfo], most_bytes: int | None) -> list[list[str]]:
    """The names of tensors file by file, in their order.

    Args:
        infos: the tensors by name.
        most_bytes: what the tensors of a file take at most; a larger tensor has a file for itself.
            None is one file.

    Raises:
        UsageError: there would be more than `MOST_SHARDS`.
    """
    shards: list[list[str]] = [[]]
    taken = 0
    for name, info in infos.items():
        if most_bytes is not None and shards[-1] and taken + info.nbytes > most_bytes:
            shards.append([])
            taken = 0
        shards[-1].append(name)
        taken += info.nbytes
    if len(shards) > MOST_SHARDS:
        raise UsageError(f"the model would be cut into {len(shards):,} files: choose a larger size")
    return shards


def file_names(stem: str, count: int, suffix: str = ".safetensors") -> list[str]:
    """What the files of a model are called: `model.safetensors`, or numbered if there are more."""
    if count == 1:
        return [f"{stem}{suffix}"]
    return [f"{stem}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]


def index_name(stem: str, suffix: str = ".safetensors") -> str:
    """What the index of shards is called."""
    return f"{stem}{suffix}.index.json"


def index_of(infos: Mapping[str, TensorInfo], shards: Sequence[tuple[str, Sequence[str]]]) -> bytes:
    """The index of shards as a file.

    Args:
        infos: the tensors by name.
        shards: the name of each file, and of the tensors in it.
    """
    where = {name: file for file, names in shards for name in names}
    total = sum(info.nbytes for info in infos.values())
    content = {
        "metadata": {"total_size": total},
        "weight_map": {name: where[name] for name in sorted(where)},
    }
    return (json.dumps(content, indent=2) + "\n").encode("ascii")
