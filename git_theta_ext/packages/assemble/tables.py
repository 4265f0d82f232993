"""A TOML file of a user, read strictly: its tables, and the words for what is wrong in them.

A key that nobody knows is refused, never passed over: a misspelt rename would rename nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from git_theta_ext.core import globs, limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import nearest
from git_theta_ext.git.settings_file import Rows, tables

_MARKER = re.compile(rb"^(?:<{7}|>{7}|\|{7}|={7})(?: |\r?$)", re.MULTILINE)

Where = Callable[[str | None], str]
"""What messages call a table, or the line of one of its keys."""


def document(data: bytes, file: str, known: Sequence[str]) -> dict[str, Any]:
    """The tables of a file.

    Args:
        data: its bytes.
        file: what messages call it.
        known: the tables that it may have.

    Raises:
        UsageError: it is too large, has conflict markers, or is no TOML.
    """
    marker = _MARKER.search(data)
    if marker is not None:
        number = data.count(b"\n", 0, marker.start()) + 1
        raise UsageError(
            f"{file}, line {number}: a conflict marker: both sides of a merge changed it",
            hint="edit the file so that it says what is wanted, then try again",
        )
    return tables(data, file, known)


def rows_of(found: Mapping[str, Any], name: str, data: bytes, file: str) -> list[Table]:
    """All tables of one `[[name]]`.

    Args:
        found: what `document` gave.
        name: of the tables.
        data: the bytes of the file, for the lines that messages name.
        file: what messages call it.

    Raises:
        UsageError: it is written as one table, or as none.
    """
    rows = Rows(found, name, data, file)

    def where(number: int) -> Where:
        return lambda key: rows.where(number, key)

    return [Table(row, where(number)) for number, row in enumerate(rows.rows)]


class Table:
    """One table, whose values are taken out by kind."""

    def __init__(self, values: object, where: str | Where) -> None:
        """Of what TOML has at that place.

        Raises:
            UsageError: that is no table.
        """
        self._where: Where = (lambda _: where) if isinstance(where, str) else where
        if not isinstance(values, dict):
            raise UsageError(f"{self.where()} is a table, not {_shown(values)}")
        self.values: Mapping[str, Any] = values

    def where(self, key: str | None = None) -> str:
        """What messages call it, and the line of one of its keys."""
        return self._where(key)

    def error(self, what: str, hint: str | None = None, *, key: str | None = None) -> UsageError:
        """An error that names the table, and the line of a key."""
        return UsageError(f"{self.where(key)}: {what}", hint=hint)

    def inner(self, key: str) -> Table:
        """The table that is the value of a key.

        Raises:
            UsageError: it is none.
        """
        return Table(self.values[key], f"{self.where(key)}: {key}")

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Refuse a key that is not among those known.

        Raises:
            UsageError: names the key, and the one that was likely meant.
        """
        names = sorted(known)
        for key in self.values:
            if key not in names:
                near = nearest(key, names)
                hint = f"did you mean {near}?" if near else f"known: {', '.join(names)}"
                raise self.error(f"unknown key {key[:100]!r}", hint, key=key)

    def has(self, key: str) -> bool:
        """Whether the table has a key."""
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str | None:
        """A text; `default` where there is none.

        Raises:
            UsageError: it is another kind of value, empty, or too long.
        """
        if key not in self.values:
            return default
        return self._text(key, self.values[key])

    def needed(self, key: str, example: str) -> str:
        """A text that must be there.

        Raises:
            UsageError: it is not.
        """
        found = self.text(key)
        if found is None:
            raise self.error(f"it has no {key}, such as {key} = {example}")
        return found

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise self.error(f"{key} is a text in quotes, not {_shown(value)}", key=key)
        if len(value) > limits.GLOB_CHARS:
            what = f"{key} has {len(value)} characters; at most {limits.GLOB_CHARS}"
            raise self.error(what, key=key)
        return value

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A text, or a list of some; `default` where there is none.

        Raises:
            UsageError: it is another kind of value, or there are too many.
        """
        if key not in self.values:
            return default
        value = self.values[key]
        items = value if isinstance(value, list) else [value]
        if not items:
            raise self.error(f"{key} is empty", key=key)
        found = tuple(self._text(key, one) for one in items)
        globs.check(found, f"{self.where(key)}: {key}")
        return found

    def flag(self, key: str) -> bool:
        """A flag; false where there is none.

        Raises:
            UsageError: it is neither true nor false.
        """
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"{key} is true or false, not {_shown(value)}", key=key)
        return value

    def pairs(self, key: str) -> tuple[tuple[str, str], ...] | None:
        """A table of texts, in its order; None where there is none.

        Raises:
            UsageError: it is another kind of value, or too large.
        """
        if key not in self.values:
            return None
        inner = self.inner(key)
        found = []
        for name, value in inner.values.items():
            if not isinstance(value, str):
                raise inner.error(f"{name[:100]!r} is a text in quotes, not {_shown(value)}")
            found.append((name, value))
        globs.check([text for pair in found for text in pair], inner.where())
        return tuple(found)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
