"""Lines of a manifest as people read them, one for one: short ids, sizes, numbers of small tensors.

A diff of manifests shows lines of them. What is here turns one such line into another, and never
joins or parts any: `git add -p` counts them. A line that the grammar does not know is no line of a
manifest, and has no other form. Imports nothing but what Python has loaded already: it runs in
filters that a command waits for.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

from git_theta_ext.core.text import size

FIRST_LINE = "git-theta manifest v"
"""What a manifest of any version begins with."""

_HEX = "([0-9a-f]{64})"
_CONTENT = f"(?: sha256:{_HEX}| inline:((?:[0-9a-f]{{2}})*))"
_ENTRY = re.compile(r"(?:tensor|opaque) ([!-~](?:[ -~]*[!-~])?)")
_TENSOR = re.compile(rf"  ([A-Z0-9_]+) (\[[0-9, ]*\])( order=[0-9,]+)?{_CONTENT}?")
_BLOCK = re.compile(rf"  block ([0-9]{{1,19}}){_CONTENT}")
_REMARKS = "((?: [a-z][a-z0-9_-]*=[!-~]+)*)"
_FILE = re.compile(
    rf"(?:  )?  ([a-z][a-z0-9-]*) sha256:{_HEX} ([0-9]{{1,19}})"
    rf"(?:\[([0-9]{{1,19}}):([0-9]{{1,19}})\])?{_REMARKS}"
)
_MERGE = re.compile(r"  (merge [a-z][a-z0-9-]* of [!-~ ]+)")
_AS_IT_IS = re.compile(
    r"|end|git-theta manifest v[0-9]+|# [ -~]+|format [a-z0-9._-]+|skeleton|  from [a-z][a-z0-9-]*"
)
_NESTED = "    "
_SHORT = 7
"""Digits of an id, as Git abbreviates its own."""

_NUMBERS = {
    "BOOL": "?", "U8": "B", "I8": "b", "U16": "H", "I16": "h", "U32": "I", "I32": "i", "U64": "Q",
    "I64": "q", "F16": "e", "F32": "f", "F64": "d",
}  # fmt: skip
_DIGITS = {"e": 5, "f": 9, "d": 17}
"""Digits that tell every number of a type from its neighbours (IEEE 754)."""
_SHOWN = 4
"""Of how many elements an inline tensor may be to be shown as numbers."""


def entry_of(line: str) -> str | None:
    """The name of the entry that a line begins, as written, or `skeleton`; None of other lines."""
    found = _ENTRY.fullmatch(line)
    return found[1] if found else ("skeleton" if line == "skeleton" else None)


def may_be_line(line: str) -> bool:
    """Whether a manifest may have this line."""
    known = (_AS_IT_IS, _ENTRY, _TENSOR, _BLOCK, _FILE, _MERGE)
    return any(pattern.fullmatch(line) for pattern in known)


def readable(line: str, entry: str = "") -> str | None:
    """A line with numbers and ids for people; None for one that is readable, or of no manifest.

    What differs in a manifest differs here: an id keeps seven digits (and where it begins, in an
    object of several), and numbers have the digits that tell them from all others.

    Args:
        line: without its end.
        entry: whose line it is, to be named in it; empty if that is said elsewhere. The lines
            of a merge's parents are not named: they stand below one that is.
    """
    words = _tensor(line) or _block(line) or _file(line) or _merge(line)
    if words is None:
        return None
    text = "  ".join(word for word in words if word)
    if line.startswith(_NESTED):
        return _NESTED + text
    return f"  {entry}: {text}" if entry else f"  {text}"


def _tensor(line: str) -> Sequence[str] | None:
    found = _TENSOR.fullmatch(line)
    if found is None:
        return None
    dtype, shape, order, sha256, raw = found.groups()
    return f"{dtype} {shape}{order or ''}", _identity(sha256, raw, dtype)


def _block(line: str) -> Sequence[str] | None:
    found = _BLOCK.fullmatch(line)
    return found and ("block", size(int(found[1])), _identity(found[2], found[3]))


def _file(line: str) -> Sequence[str] | None:
    found = _FILE.fullmatch(line)
    if found is None:
        return None
    kind, sha256, total, start, stop, remarks = found.groups()
    stored = int(total) if start is None else int(stop) - int(start)
    if stored < 0:
        return None
    at = "" if start is None else f"+{start}"
    return kind, remarks.strip(), f"stored in {size(stored)}", sha256[:_SHORT] + at


def _merge(line: str) -> Sequence[str] | None:
    found = _MERGE.fullmatch(line)
    return found and (found[1],)


def _identity(sha256: str | None, raw: str | None, dtype: str = "") -> str:
    if sha256 is not None:
        return sha256[:_SHORT]
    if raw is None:
        return ""
    return _numbers(bytes.fromhex(raw), _NUMBERS.get(dtype, "")) or f"inline:{raw}"


def _numbers(raw: bytes, letter: str) -> str:
    """A few numbers as text; empty where they are too many, or text does not tell them apart."""
    width = struct.calcsize(f"<{letter}") if letter else 0
    if not width or not raw or len(raw) % width or len(raw) > _SHOWN * width:
        return ""
    values = struct.unpack(f"<{len(raw) // width}{letter}", raw)
    if letter == "?":
        return "" if set(raw) - {0, 1} else f"= {', '.join(map(str, values)).lower()}"
    if any(math.isnan(value) for value in values):
        return ""
    digits = _DIGITS.get(letter)
    return "= " + ", ".join(f"{one:.{digits}g}" if digits else str(one) for one in values)
