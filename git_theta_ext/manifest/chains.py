"""The lines of a chain: what a block is made of; parameter files, and recipes of merges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from git_theta_ext.core import limits
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.manifest.model import BASE, Chain, Link, Parent, Recipe, UpdateRef
from git_theta_ext.manifest.rules import MAX_INT

INT = "(?:0|[1-9][0-9]{0,18})"
HEX = "[0-9a-f]{64}"
_WORD = "[a-z][a-z0-9-]{0,31}"
_REMARKS = r"((?: [a-z][a-z0-9_-]{0,31}=[!-~]+)*)"
FILE = rf"  ((?!block ){_WORD}) sha256:({HEX}) ({INT})(?:\[({INT}):({INT})\])?{_REMARKS}"
"""A parameter file: kind, object, its size, the part of it, remarks."""
_FILE = re.compile(FILE)
_MERGE = re.compile(rf"  merge ({_WORD}) of ({_WORD}(?:, {_WORD})+) recipe=({INT}){_REMARKS}")
_FROM = re.compile(rf"  from ({_WORD})")
_INDENT = "  "
"""What the lines of a parent's chain begin with, before the indent that every chain has."""


class ChainProblem(ValueError):
    """A line of a chain is not what it has to be; `at` counts from the first line of the chain."""

    def __init__(self, at: int, expected: str) -> None:
        super().__init__(expected)
        self.at = at
        self.expected = expected


def read_chain(lines: Sequence[str], start: int, version: int) -> tuple[Chain, int]:
    """The chain whose lines begin at `start`, and the index of the line after it.

    Raises:
        ChainProblem: it is none, or none of this version of the manifest.
    """
    merge = _MERGE.fullmatch(lines[start]) if version > 1 else None
    if merge is None:
        files, at = _read_files(lines, start, "", version)
        if not files:
            raise ChainProblem(start, f"1 to {limits.CHAIN_LENGTH} lines `  KIND sha256:OID SIZE`")
        return files, at
    recipe, at = _read_recipe(lines, start, merge)
    if at == len(lines):
        raise ChainProblem(at, "more lines")
    files, at = _read_files(lines, at, "", version)
    if len(files) >= limits.CHAIN_LENGTH:
        raise ChainProblem(at, f"fewer than {limits.CHAIN_LENGTH} updates of a merge")
    return (recipe, *files), at


def _read_files(
    lines: Sequence[str], at: int, indent: str, version: int
) -> tuple[tuple[UpdateRef, ...], int]:
    """Every parameter file from a line on."""
    found: list[UpdateRef] = []
    skip = len(indent)
    while lines[at].startswith(indent) and (match := _FILE.fullmatch(lines[at], skip)):
        found.append(_reference(match, at, version))
        at += 1
        if at == len(lines):
            raise ChainProblem(at, "more lines")
    if len(found) > limits.CHAIN_LENGTH:
        raise ChainProblem(at, f"1 to {limits.CHAIN_LENGTH} lines `  KIND sha256:OID SIZE`")
    return tuple(found), at


def _reference(match: re.Match[str], at: int, version: int) -> UpdateRef:
    info = words(match[6]) if match[6] else ()
    if len(dict(info)) != len(info):
        raise ChainProblem(at, "each remark once")
    size, part = int(match[3]), None
    if match[4] is not None:
        part = int(match[4]), int(match[5])
        if version < 2:
            raise ChainProblem(at, "whole objects, for parts of them came with version 2")
    if size > MAX_INT:
        raise ChainProblem(at, "numbers below 2^63")
    found = UpdateRef(match[1], match[2], size, info, part)
    if not _is_part(found):
        raise ChainProblem(at, f"a part [START:STOP] of {size} bytes")
    return found


def _is_part(ref: UpdateRef) -> bool:
    """Whether the part of an object is one: not empty, inside it, and less than all of it."""
    if ref.part is None:
        return True
    start, stop = ref.part
    return 0 <= start < stop <= ref.size and stop - start < ref.size


def _read_recipe(lines: Sequence[str], start: int, merge: re.Match[str]) -> tuple[Recipe, int]:
    """The recipe whose first line, at `start`, was matched, and the index of the line after it."""
    settings, sides = words(merge[4]) if merge[4] else (), merge[2].split(", ")
    number = int(merge[3])
    if number > MAX_INT or len(dict(settings)) != len(settings):
        raise ChainProblem(start, "each setting once, and numbers below 2^63")
    if len(set(sides)) != len(sides) or BASE in sides or len(sides) > limits.MERGED_SIDES:
        raise ChainProblem(start, f"2 to {limits.MERGED_SIDES} different sides, none called base")
    at = start + 1
    parents: list[Parent] = []
    while at < len(lines) and (match := _FROM.fullmatch(lines[at])):
        if at + 1 == len(lines):
            raise ChainProblem(at + 1, "more lines")
        chain, after = _read_files(lines, at + 1, _INDENT, 2)
        if not chain:
            raise ChainProblem(at + 1, "the chain of this version, indented by four spaces")
        parents.append(Parent(match[1], chain))
        at = after
    names = [parent.name for parent in parents]
    if names not in (sides, [BASE, *sides]):
        raise ChainProblem(at, f"`  from NAME` for {', '.join(sides)}, in this order")
    return Recipe(merge[1], number, settings, tuple(parents)), at


def words(text: str) -> tuple[tuple[str, str], ...]:
    """Words `key=value` as pairs."""
    return tuple((word.partition("=")[0], word.partition("=")[2]) for word in text.split())


def chain_lines(chain: Chain, version: int) -> Iterator[str]:
    """The lines of a chain.

    Raises:
        ManifestError: they could not be read again as what they are.
    """
    if not 0 < len(chain) <= limits.CHAIN_LENGTH:
        raise ManifestError(f"a chain of {len(chain)} parameter files does not rebuild it")
    lines = list(_lines(chain))
    try:
        again, end = read_chain([*lines, ""], 0, version)
    except ChainProblem as problem:
        line = lines[problem.at] if problem.at < len(lines) else ""
        raise ManifestError(
            f"{line.strip()!r} cannot be written in a manifest: expected {problem.expected}"
        ) from None
    if end != len(lines) or again != chain:
        raise ManifestError(f"{lines[min(end, len(lines) - 1)].strip()!r} cannot be written so")
    yield from lines


def _lines(chain: Iterable[Link]) -> Iterator[str]:
    for link in chain:
        if isinstance(link, UpdateRef):
            yield _file_line(link)
            continue
        sides, settings = ", ".join(link.sides), _remarks(link.settings)
        yield f"  merge {link.strategy} of {sides} recipe={link.number}{settings}"
        for parent in link.parents:
            yield f"  from {parent.name}"
            for ref in parent.chain:
                yield _INDENT + _file_line(ref)


def _file_line(ref: UpdateRef) -> str:
    part = "" if ref.part is None else f"[{ref.part[0]}:{ref.part[1]}]"
    return f"  {ref.kind} sha256:{ref.oid} {ref.size}{part}{_remarks(ref.info)}"


def _remarks(info: Iterable[tuple[str, str]]) -> str:
    return "".join(f" {key}={value}" for key, value in info)
