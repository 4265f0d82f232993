"""`.theta.toml`: its bytes as tables, and the words for what is wrong in them.

Who reads a table says which keys it has. A key that nobody knows is refused, never passed over: a
gate with a misspelt rule would hold nothing back.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import check as check_patterns
from git_theta_ext.core.text import nearest
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.git.work_tree import is_link

FILE = ".theta.toml"
TABLES = ("merge", "rebase", "evaluation", "gate", "module")
"""The tables that it may have."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""What an evaluation or a module may be called."""

_SIZES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20,
          "gib": 1 << 30}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B|)", re.IGNORECASE)

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"|\'[^\']*\'')


class _Named(Protocol):
    """What a table was made into."""

    @property
    def name(self) -> str: ...


_One = TypeVar("_One", bound=_Named)


def tables(data: bytes, where: str = FILE, known: Sequence[str] = TABLES) -> dict[str, Any]:
    """The tables of a `.theta.toml`, by name.

    Args:
        data: its bytes.
        where: what messages call it.
        known: the tables that it may have.

    Raises:
        UsageError: it is too large, no TOML, or has a table that nobody knows.
    """
    if len(data) > limits.SETTINGS_BYTES:
        raise UsageError(f"{where} is larger than {limits.SETTINGS_BYTES} bytes")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > limits.SETTINGS_DOTS:
            dots = _QUOTED.sub(b"", line).count(b".")
            if dots > limits.SETTINGS_DOTS:
                raise UsageError(f"{where}, line {number}: a key of more than {dots} parts")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    for name in document:
        if name not in known:
            raise UsageError(f"{where}: unknown table {name!r}; known: {', '.join(known)}")
    return document


class Rows:
    """The tables of one `[[name]]`, which name themselves in messages by number and line."""

    def __init__(
        self, document: Mapping[str, Any], name: str, data: bytes, where: str = FILE
    ) -> None:
        """Take them from a document that was read from `data`; messages call it `where`.

        Raises:
            UsageError: it is written as one table, or as none.
        """
        self._name, self._file = name, where
        found = document.get(name, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise UsageError(f"{where}: write [[{name}]], with two brackets")
        self.rows: list[dict[str, Any]] = found
        lines = _lines_of(name, data.decode("utf-8").split("\n"))
        self._lines = lines if len(lines) == len(found) else []

    @property
    def table(self) -> str:
        """How such a table is written: `[[gate]]`."""
        return f"[[{self._name}]]"

    @property
    def label(self) -> str:
        """What messages call all of them."""
        return f"{self._file}, {self.table}"

    def where(self, number: int, key: str | None = None) -> str:
        """What messages call a table (counted from 0), and the line of one of its keys."""
        line = None
        if number < len(self._lines):
            own, keys = self._lines[number]
            line = keys.get(key, None if key else own) if key else own
        at = f", line {line}" if line else ""
        return f"{self._file}{at}: {self.table} number {number + 1}"

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


class Table:
    """One table, whose values are taken out by kind; UsageError where one is of another kind."""

    def __init__(self, rows: Rows, number: int) -> None:
        """The table of a number, from 0."""
        self._rows, self._number = rows, number
        self._values: Mapping[str, Any] = rows.rows[number]

    def error(self, key: str | None, what: str, hint: str | None = None) -> UsageError:
        """What to raise where a key, or the table, is wrong: it names the line."""
        return UsageError(f"{self._rows.where(self._number, key)}: {what}", hint=hint)

    def has(self, key: str) -> bool:
        """Whether it says anything of a key."""
        return key in self._values

    def text(self, key: str) -> str | None:
        """A text that is not empty; None where there is none."""
        value = self._values.get(key)
        if value is not None and not (isinstance(value, str) and value):
            raise self.error(key, f"{key} is a text in quotes, not {value!r}")
        return value

    def name(self, example: str) -> str:
        """What it is called; `example` is shown where it has no name."""
        name = self.text("name")
        if name is None:
            raise self.error(None, f'it has no name, such as name = "{example}"')
        if not NAME.fullmatch(name):
            words = "is no name: letters, digits and . _ + - make one"
            raise self.error("name", f"{name[:120]!r} {words}")
        return name

    def texts(self, key: str) -> tuple[str, ...]:
        """A text or a list of texts, within the bounds of patterns; empty where there is none."""
        value = self._values.get(key, [])
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(one, str) and one for one in items):
            raise self.error(key, f"{key} is a text or a list of texts, not {value!r}")
        check_patterns(items, self._rows.where(self._number, key))
        return tuple(items)

    def number(self, key: str, least: float = -math.inf) -> float | None:
        """A finite number, not below `least`; None where there is none."""
        value = self._values.get(key)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < least:
            wanted = "a number" if least == -math.inf else f"a number from {least:g} on"
            raise self.error(key, f"{key} is {wanted}, not {value!r}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"{key} is true or false, not {value!r}")
        return value

    def size(self, key: str) -> int | None:
        """A number of bytes, as a number or such as "20 MB"; None where there is none."""
        value = self._values.get(key)
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match:
            return round(float(match[1]) * _SIZES[match[2].lower().removeprefix("b")])
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        raise self.error(key, f'{key} is a number of bytes, such as "20 MB", not {value!r}')


def each(rows: Rows, make: Callable[[Rows, int], _One]) -> tuple[_One, ...]:
    """Every table of a name, made into something; none may be called as another is.

    Raises:
        UsageError: there are more than `limits.EVALUATIONS`, or two of one name.
    """
    if len(rows.rows) > limits.EVALUATIONS:
        raise UsageError(f"{rows.label}: {len(rows.rows)}; at most {limits.EVALUATIONS}")
    found: dict[str, _One] = {}
    for number in range(len(rows.rows)):
        one = make(rows, number)
        if one.name in found:
            raise UsageError(
                f"{rows.where(number)}: there is a {rows.table} {one.name!r} already",
                hint='give each a name of its own: name = "…"',
            )
        found[one.name] = one
    return tuple(found.values())


def bytes_at(repository: Repository, revision: str) -> bytes | None:
    """`.theta.toml` of a revision, or of the index (`""`); None where there is none.

    Raises:
        UsageError: it is larger than is read, or the revision names no commit.
    """
    if revision:
        tree = repository.resolve(f"{revision}^{{tree}}")
        if tree is None:
            raise unknown(repository, revision)
        oid = repository.blob_at(tree, FILE)
    else:
        held = repository.index(f":(top,literal){FILE}")
        oid = next((one.oid for one in held if one.stage == 0), None)
    if oid is None:
        return None
    if repository.blob_size(oid) > limits.SETTINGS_BYTES:
        raise UsageError(f"{FILE} is larger than {limits.SETTINGS_BYTES} bytes")
    return repository.blob(oid)


def committed_bytes(repository: Repository) -> bytes | None:
    """`.theta.toml` as it stands: the work tree's, else HEAD's; None if there is none.

    Raises:
        UsageError: it is a symbolic link, or cannot be read.
    """
    data = None
    if repository.work_tree is not None:
        if is_link(repository.top / FILE):
            raise UsageError(
                f"{FILE} is a symbolic link, which is not followed",
                hint=f"put the file itself in its place: rm {FILE}",
            )
        try:
            with files.plain(repository.top / FILE) as file:
                data = file.read(limits.SETTINGS_BYTES + 1)
        except FileNotFoundError:
            data = None
        except OSError as error:
            raise UsageError(f"cannot read {FILE}: {error.strerror}") from error
    if data is None and repository.resolve("HEAD"):
        data = bytes_at(repository, "HEAD")
    return data
