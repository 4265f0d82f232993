"""`.theta.toml`: its bytes as tables, and the words for what is wrong in them.

Who reads a table says which keys it has. A key that nobody knows is refused, never passed over: a
gate with a misspelt rule would hold nothing back.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import nearest

FILE = ".theta.toml"
TABLES = ("merge", "rebase", "evaluation", "gate")
"""The tables that it may have."""

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"|\'[^\']*\'')


def tables(data: bytes) -> dict[str, Any]:
    """The tables of a `.theta.toml`, by name.

    Raises:
        UsageError: it is too large, no TOML, or has a table that nobody knows.
    """
    if len(data) > limits.SETTINGS_BYTES:
        raise UsageError(f"{FILE} is larger than {limits.SETTINGS_BYTES} bytes")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > limits.SETTINGS_DOTS:
            dots = _QUOTED.sub(b"", line).count(b".")
            if dots > limits.SETTINGS_DOTS:
                raise UsageError(f"{FILE}, line {number}: a key of more than {dots} parts")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{FILE} is not TOML: {error}") from error
    for name in document:
        if name not in TABLES:
            raise UsageError(f"{FILE}: unknown table {name!r}; known: {', '.join(TABLES)}")
    return document


class Rows:
    """The tables of one `[[name]]`, which name themselves in messages by number and line."""

    def __init__(self, document: Mapping[str, Any], name: str, data: bytes) -> None:
        """Take them from a document that was read from `data`.

        Raises:
            UsageError: it is written as one table, or as none.
        """
        self._name = name
        found = document.get(name, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise UsageError(f"{FILE}: write [[{name}]], with two brackets")
        self.rows: list[dict[str, Any]] = found
        lines = _lines_of(name, data.decode("utf-8").splitlines())
        self._lines = lines if len(lines) == len(found) else []

    def where(self, number: int, key: str | None = None) -> str:
        """What messages call a table (counted from 0), and the line of one of its keys."""
        line = None
        if number < len(self._lines):
            own, keys = self._lines[number]
            line = keys.get(key, None if key else own) if key else own
        at = f", line {line}" if line else ""
        return f"{FILE}{at}: [[{self._name}]] number {number + 1}"

    def refuse_unknown(self, number: int, known: Iterable[str]) -> None:
        """Refuse a key that is not among those known.

        Raises:
            UsageError: names the line, the key, and the one that was likely meant.
        """
        names = sorted(known)
        for key in self.rows[number]:
            if key in names:
                continue
            near = nearest(key, names)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(names)}"
            raise UsageError(f"{self.where(number, key)}: unknown key {key!r}", hint=hint)


def _lines_of(name: str, lines: list[str]) -> list[tuple[int, dict[str, int]]]:
    """The line of each `[[name]]` and of its keys, as far as a plain way of writing shows them."""
    head = re.compile(r"\s*\[\[\s*[\"']?" + re.escape(name) + r"[\"']?\s*\]\]")
    entry = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*[=.]")
    found: list[tuple[int, dict[str, int]]] = []
    inside = False
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("["):
            inside = head.match(line) is not None
            if inside:
                found.append((number, {}))
        elif inside and (match := entry.match(line)):
            found[-1][1].setdefault(match[1], number)
    return found
