"""Text for a terminal: names made harmless, sizes made readable, JSON."""

from __future__ import annotations

import json
from typing import Any


def printable(text: str) -> str:
    """`text` on one line: whatever is not printable (escape sequences, line ends) is escaped.

    Names come from checkpoints and repositories that anybody may have made; shown as they are they
    could move the cursor, forge a further line, or reverse what follows.
    """
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def paragraph(text: str, indent: str = "  ") -> str:
    """`text` made printable line by line, every line after the first one indented."""
    first, *rest = text.strip("\n").split("\n")
    return "\n".join([printable(first), *(indent + printable(line) for line in rest)])


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def size(count: int) -> str:
    """A number of bytes as people read it, in powers of 1000 as git-lfs prints them: `1.4 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.95 or unit == "PB":
            break
    return f"{value:.1f} {unit}"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 tensor`, `2 tensors`, `1,024 tensors`; `nouns` where its plural is not made with an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def to_json(value: Any) -> str:
    """`value` as indented ASCII JSON, keys in the order in which they were put."""
    return json.dumps(value, indent=2)


def table(rows: list[list[str]]) -> list[str]:
    """Rows as lines whose columns are as wide as their widest cell; no blanks at line ends."""
    columns = max(map(len, rows), default=0)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
