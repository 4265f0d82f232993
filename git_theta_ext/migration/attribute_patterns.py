"""Patterns as `.gitattributes` has them, against paths: without Git, for trees of any commit.

Source: gitattributes(5) and gitignore(5), "PATTERN FORMAT". Matching follows all places that a
pattern can have reached at once, so that it takes time in proportion to pattern times path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from git_theta_ext.git.attributes import Line

_ANY, _STAR, _DEEP, _FOLDERS, _NEVER = "any", "star", "deep", "folders", "never"
_CLASSES: dict[str, Callable[[str], bool]] = {
    "alpha": str.isalpha,
    "digit": str.isdigit,
    "alnum": str.isalnum,
    "upper": str.isupper,
    "lower": str.islower,
    "space": str.isspace,
    "xdigit": lambda char: char in "0123456789abcdefABCDEF",
    "punct": lambda char: char in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
}


@dataclass(frozen=True, slots=True)
class _Token:
    """What stands for one character, or for any number of them."""

    kind: str
    text: str = ""


@lru_cache(maxsize=1024)
def _tokens(pattern: str) -> tuple[_Token, ...]:
    """A pattern taken apart: characters, classes, and what stands for any number of characters."""
    found, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            found.append(_Token("char", pattern[at + 1]))
            at += 2
        elif char == "*":
            end = at
            while pattern[end : end + 1] == "*":
                end += 1
            alone = (at == 0 or pattern[at - 1] == "/") and pattern[end : end + 1] in ("", "/")
            if end - at >= 2 and alone and pattern[end : end + 1] == "/":
                found.append(_Token(_FOLDERS))
                end += 1
            else:
                found.append(_Token(_DEEP if end - at >= 2 and alone else _STAR))
            at = end
        elif char == "?":
            found.append(_Token(_ANY))
            at += 1
        elif char == "[" and (end := _end_of_class(pattern, at)) > 0:
            found.append(_Token("class", pattern[at + 1 : end]))
            at = end + 1
        else:  # a class without an end matches nothing
            found.append(_Token(_NEVER if char == "[" else "char", char))
            at += 1
    return tuple(found)


def _end_of_class(pattern: str, at: int) -> int:
    start = at + 1 + (pattern[at + 1 : at + 2] in ("!", "^"))
    end = start + (pattern[start : start + 1] == "]")
    while end < len(pattern) and pattern[end] != "]":
        if pattern[end] == "\\":
            end += 1
        elif pattern.startswith("[:", end) and (close := pattern.find(":]", end)) > 0:
            end = close + 1
        end += 1
    return end if end < len(pattern) else -1


def _in_class(text: str, char: str) -> bool:
    """Whether a character is of a class, given without its brackets; a slash never is."""
    negated = text[:1] in ("!", "^")
    body, at, inside = text[negated:], 0, False
    while at < len(body):
        if body.startswith("[:", at) and (close := body.find(":]", at)) > 0:
            test = _CLASSES.get(body[at + 2 : close])
            inside |= test is not None and test(char)
            at = close + 2
            continue
        at += body[at] == "\\" and at + 1 < len(body)
        low, high = body[at], body[at]
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            high = body[at + 2]
            at += 2
        inside |= low <= char <= high
        at += 1
    return inside != negated and char != "/"


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path, both counted from the folder of `.gitattributes`."""
    pattern = pattern.removesuffix("\n")
    if "/" in pattern:
        name = path
        pattern = pattern.removeprefix("/")
    else:
        name = path.rpartition("/")[2]
    return _matches(_tokens(pattern), name)


def _matches(tokens: Sequence[_Token], name: str) -> bool:
    """Follow all places of a pattern that the characters so far may have led to."""
    places = _open({0}, tokens, at_start=True)
    for char in name:
        reached = set()
        for place in places:
            if place == len(tokens):
                continue
            token = tokens[place]
            if token.kind in (_DEEP, _FOLDERS) or (token.kind == _STAR and char != "/"):
                reached.add(place)
            elif (
                (token.kind == "char" and token.text == char)
                or (token.kind == _ANY and char != "/")
                or (token.kind == "class" and _in_class(token.text, char))
            ):
                reached.add(place + 1)
        places = _open(reached, tokens, at_start=char == "/")
        if not places:
            return False
    return len(tokens) in places


def _open(places: set[int], tokens: Sequence[_Token], *, at_start: bool) -> set[int]:
    """The places with those that nothing more need be read for."""
    found, todo = set(places), list(places)
    while todo:
        place = todo.pop()
        if place == len(tokens) or place + 1 in found:
            continue
        kind = tokens[place].kind
        if kind in (_STAR, _DEEP) or (kind == _FOLDERS and at_start):
            found.add(place + 1)
            todo.append(place + 1)
    return found


def filter_of(
    path: str,
    files: Iterable[tuple[str, Sequence[Line]]],
    macros: Mapping[str, str] = MappingProxyType({}),
) -> str | None:
    """The value of the `filter` attribute of a path: "" if it is unset, None if nothing is said.

    Args:
        path: from the top.
        files: the folder of each `.gitattributes` above it, from the top ("" is the top), and its
            lines, the topmost file first: the last line that matches wins.
        macros: see `attributes.macros`.
    """
    value = None
    for folder, lines in files:
        inside = path[len(folder) + 1 :] if folder else path
        for line in lines:
            said = line.filter_with(macros)
            if said is not None and matches(line.pattern, inside):
                value = said
    return value
