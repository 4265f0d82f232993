"""Names cut to a width so that they can still be told apart: what differs between them is kept."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PART = re.compile(r"(?:\{[^}]*\}|[^.{])+|\{")
"""A part between dots; those inside braces, as in `{0..31}`, separate nothing."""

_MARK = "…"


def elided(names: Sequence[str], width: int) -> list[str]:
    """Each name in at most `width` characters, no two of them alike; those that fit as they are.

    Parts between dots that all names of as many parts share are left out first, the rest is cut in
    the middle. Where that leaves two names alike, they are cut to where they differ, or numbered.
    """
    if all(len(name) <= width for name in names):
        return list(names)
    parts = [_PART.findall(name) for name in names]
    shared = _shared(parts)
    made = [
        name if len(name) <= width else _middle(_without(one, shared[len(one)], width), width)
        for name, one in zip(names, parts, strict=True)
    ]
    return _distinct(list(names), made, width)


def _shared(names: Sequence[Sequence[str]]) -> dict[int, list[bool]]:
    """By how many parts there are, which of them are the same in all names of so many."""
    kinds: dict[int, list[set[str]]] = {}
    for parts in names:
        seen = kinds.setdefault(len(parts), [set() for _ in parts])
        for found, part in zip(seen, parts, strict=True):
            found.add(part)
    return {count: [len(found) == 1 for found in seen] for count, seen in kinds.items()}


def _without(parts: Sequence[str], shared: Sequence[bool], width: int) -> str:
    """The parts without as few as need be of those that are shared, the first ones first."""
    kept = [True] * len(parts)
    text = ".".join(parts)
    for number, same in enumerate(shared):
        if len(text) <= width:
            break
        if same:
            kept[number] = False
            text = _joined(parts, kept)
    return text


def _joined(parts: Sequence[str], kept: Sequence[bool]) -> str:
    shown: list[str] = []
    for part, keep in zip(parts, kept, strict=True):
        if keep:
            shown.append(part)
        elif shown[-1:] != [_MARK]:
            shown.append(_MARK)
    return ".".join(shown)


def _middle(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    if width < 1:
        return ""
    head = (width - 1) // 2
    return f"{text[:head]}{_MARK}{text[len(text) - (width - 1 - head) :]}"


def _distinct(names: list[str], made: list[str], width: int) -> list[str]:
    """`made`, with those that came out alike made anew from where their names differ."""
    alike: dict[str, list[int]] = {}
    for number, text in enumerate(made):
        alike.setdefault(text, []).append(number)
    for numbers in alike.values():
        if len({names[number] for number in numbers}) < 2:
            continue
        first = _first_difference([names[number] for number in numbers])
        for number in numbers:
            if len(names[number]) <= width:
                continue
            cut = f"{_MARK}{names[number][max(0, first - 3) :]}"
            made[number] = cut if len(cut) <= width else cut[: width - 1] + _MARK
    return _numbered(names, made, width)


def _numbered(names: Sequence[str], made: Sequence[str], width: int) -> list[str]:
    """The texts, with a number at the end of each that stood before; names that fit stay."""
    seen = {name for name in names if len(name) <= width}
    counts: dict[str, int] = {}
    found = []
    for text, name in zip(made, names, strict=True):
        if text == name:
            found.append(text)
            continue
        shown, count = text, counts.get(text, 1)
        while shown in seen and count <= len(made):
            mark = f"~{count}"
            shown, count = (text[: max(0, width - len(mark))] + mark)[: max(0, width)], count + 1
        counts[text] = count
        seen.add(shown)
        found.append(shown)
    return found


def _first_difference(names: Sequence[str]) -> int:
    low, high = min(names), max(names)
    for place, (one, other) in enumerate(zip(low, high, strict=False)):
        if one != other:
            return place
    return min(len(low), len(high))
