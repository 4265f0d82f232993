"""Versions as people tag them, their order, and constraints on them.

`v1.2`, `1.2.0`, `v2.0.0-rc.1`, `1.2rc1`, and with the name of an artifact `model@v1.2.0` (as GTO
tags) or `model/v1.2.0`. The order is that of Semantic Versioning 2.0.0, section 11; numbers that
are missing are 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable

_NUMBERS = r"[0-9]{1,18}(?:\.[0-9]{1,18}){0,3}"
_VERSION = re.compile(
    rf"[vV]?({_NUMBERS})"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)|(a|alpha|b|beta|c|rc|pre|preview)\.?([0-9]{1,18}))?"
    r"(?:\+[0-9A-Za-z.-]+)?"
)
_NUMBER_COUNT = 4


@dataclass(frozen=True, slots=True)
class Version:
    """Numbers, and what a pre-release has after them; build metadata does not count.

    Attributes:
        numbers: as written, one to four.
        pre: the identifiers of a pre-release; empty: it is a release.
    """

    numbers: tuple[int, ...]
    pre: tuple[int | str, ...] = ()

    @property
    def release(self) -> tuple[int, ...]:
        """All four numbers."""
        return (*self.numbers, *[0] * (_NUMBER_COUNT - len(self.numbers)))

    @property
    def key(self) -> tuple[object, ...]:
        """What sorts versions: the release comes after its pre-releases, words after numbers."""
        parts = tuple((isinstance(one, str), one) for one in self.pre)
        return self.release, not self.pre, parts

    def __str__(self) -> str:
        text = ".".join(map(str, self.numbers))
        return f"{text}-{'.'.join(map(str, self.pre))}" if self.pre else text


def parse_version(text: str) -> Version | None:
    """The version that a text is, with or without a `v`; None if it is none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    words = match[2].split(".") if match[2] else [match[3], match[4]] if match[3] else []
    pre = tuple(int(word) if word.isdecimal() else word for word in words)
    return Version(tuple(map(int, match[1].split("."))), pre)


def parse_tag(tag: str) -> tuple[str, Version] | None:
    """The artifact (empty: none is named) and version of a tag; None if it is no version."""
    version = parse_version(tag)
    if version is not None:
        return "", version
    at = max(tag.rfind("@"), tag.rfind("/"))
    version = parse_version(tag[at + 1 :]) if at > 0 else None
    return None if version is None else (tag[:at], version)


# -- constraints -----------------------------------------------------------------------------------

_CONSTRAINT = re.compile(
    rf"(?:([^\s^~:?*\[\\<>=!,]+)[@/])?([\^~<>=!].*|[vV]?{_NUMBERS}\.\*.*|\*.*)", re.DOTALL
)
_CLAUSE = re.compile(r"(\^|~=|~|>=|<=|==|!=|=|>|<)?\s*([^\s,]+)(?:\s*,\s*|\s+|$)")
_WILD = re.compile(rf"[vV]?(?:({_NUMBERS})\.)?\*")
_EXAMPLES = "such as ^1.2, ~1.2.3, 1.*, or >=1.2,<2"

_Bound = tuple[str, Version]
"""`>=`, `>`, `<`, `<=`, `==` or `!=`, and a version."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """Which versions of an artifact are allowed.

    Attributes:
        text: as it was written.
        artifact: whose tags are meant; empty: those that name none.
        bounds: all of which hold for a version that is allowed; none: every release.
        holes: ranges (from, below) that are left out, of `!=1.2.*`.
    """

    text: str
    artifact: str
    bounds: tuple[_Bound, ...]
    holes: tuple[tuple[Version, Version], ...] = ()

    def allows(self, version: Version) -> bool:
        """Whether a version meets it.

        A pre-release does only where a clause names one of the same release, as npm and Cargo have
        it: who asks for `^1.2` does not get `2.0.0-rc.1`, nor `1.3.0-rc.1`.
        """
        if version.pre and not any(
            bound.pre and bound.release == version.release for _, bound in self.bounds
        ):
            return False
        inside = any(low.key <= version.key < high.key for low, high in self.holes)
        return not inside and all(_holds(version, bound) for bound in self.bounds)


def is_constraint(text: str) -> bool:
    """Whether a `version` is a constraint, and not the name of a tag, a branch or a commit.

    It begins with an operator, or has a `*`: `^1.2`, `model@>=1,<2`, `1.*`. Git allows neither
    `^`, `~` nor `*` in names.
    """
    return _CONSTRAINT.fullmatch(text) is not None


def parse_constraint(text: str) -> Constraint:
    """A constraint from its text.

    Raises:
        UsageError: it is none; says which part is not understood.
    """
    match = _CONSTRAINT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is no constraint", hint=_EXAMPLES)
    bounds: list[_Bound] = []
    holes: list[tuple[Version, Version]] = []
    at, rest = 0, match[2].strip()
    while at < len(rest):
        clause = _CLAUSE.match(rest, at)
        if clause is None:
            raise UsageError(
                f"in {printable(text)!r}: {printable(rest[at:])!r} is no constraint", hint=_EXAMPLES
            )
        _add(clause[1] or "", clause[2], text, bounds, holes)
        at = clause.end()
    return Constraint(text, match[1] or "", tuple(bounds), tuple(holes))


def _add(
    operator: str,
    word: str,
    text: str,
    bounds: list[_Bound],
    holes: list[tuple[Version, Version]],
) -> None:
    """Put one clause, such as `^` and `1.2`, among the bounds."""
    wild = _WILD.fullmatch(word)
    if wild is not None and operator in ("", "==", "=", "!="):
        if wild[1] is not None:
            low = Version(tuple(map(int, wild[1].split("."))))
            high = _above(low, len(low.numbers) - 1)
            if operator == "!=":
                holes.append((low, high))
            else:
                bounds += [(">=", low), ("<", high)]
            return
        if operator != "!=":
            return
    version = None if wild is not None else parse_version(word)
    if version is None or not operator:
        shown = printable(operator + word)
        hint = f"did you mean =={word}?" if version is not None else _EXAMPLES
        raise UsageError(f"in {printable(text)!r}: {shown!r} is no constraint", hint=hint)
    if operator in ("^", "~", "~="):
        bounds += [(">=", version), ("<", _end(operator, version, text))]
    else:
        bounds.append(("==" if operator == "=" else operator, version))


def _end(operator: str, version: Version, text: str) -> Version:
    """Where `^`, `~` (npm, Cargo) and `~=` (pip) end; the end itself is not allowed."""
    last = len(version.numbers) - 1
    if operator == "^":
        first = next((n for n, number in enumerate(version.numbers) if number), last)
        return _above(version, first)
    if operator == "~":
        return _above(version, min(1, last))
    if last == 0:
        raise UsageError(
            f"in {printable(text)!r}: ~= needs two numbers", hint="did you mean ^ or >=?"
        )
    return _above(version, last - 1)


def _above(version: Version, place: int) -> Version:
    """The next version that differs in the number at a place."""
    return Version((*version.numbers[:place], version.numbers[place] + 1))


def _holds(version: Version, bound: _Bound) -> bool:
    operator, other = bound
    ours, theirs = version.key, other.key
    if operator == "==":
        return ours == theirs
    if operator == "!=":
        return ours != theirs
    if operator == ">=":
        return ours >= theirs
    if operator == "<=":
        return ours <= theirs
    return ours > theirs if operator == ">" else ours < theirs


def newest(versions: Iterable[Version]) -> Version | None:
    """The highest version; None of none."""
    return max(versions, key=lambda one: one.key, default=None)
