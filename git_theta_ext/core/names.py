"""Tensor names as text: their natural order, and how one is written on a line.

Both are part of the manifest's grammar (`docs/manifest.md`) and therefore depend on nothing that
changes: not on the locale, and not on the Unicode version of the Python that runs.
"""

from __future__ import annotations

import json
import re

_DIGITS = re.compile(r"([0-9]+)")
_BARE = re.compile(r"[!#-~](?:[ -~]*[!-~])?")

NaturalKey = tuple[tuple["str | tuple[int, str]", ...], str]
"""What `natural_key` returns: runs of text and of digits by turns, then the name itself."""


def natural_key(name: str) -> NaturalKey:
    """Sort key of the natural order: `layer.9` before `layer.10`; total, ties by code point.

    The name is split into runs of text and of ASCII digits by turns, beginning with text. Texts
    compare by code point (as their UTF-8 bytes do), digits by their value. Names that still
    compare equal (`a.1`, `a.01`) are ordered by code point as a whole.
    """
    parts: list[str | tuple[int, str]] = list(_DIGITS.split(name))
    for at in range(1, len(parts), 2):
        # Not int(): its cost, and Python's limit of 4,300 digits, would be in a hostile hand.
        digits = str(parts[at]).lstrip("0")
        parts[at] = (len(digits), digits)
    return tuple(parts), name


def quote(name: str) -> str:
    """The one way to write a name on a line: bare, or as an ASCII-only JSON string.

    Bare if it is not empty, all printable ASCII, without a space at either end, and does not
    begin with a double quote. Terminals, too, can be given the result: it holds no control
    characters.

    Raises:
        ValueError: the name holds a surrogate pair as two code points, which no text can carry.
    """
    if _BARE.fullmatch(name):
        return name
    text = json.dumps(name).replace("\x7f", "\\u007f")
    if json.loads(text) != name:
        raise ValueError(f"name {text} is not valid Unicode")
    return text


def unquote(text: str) -> str:
    """The name that `quote` wrote.

    Raises:
        ValueError: `quote` never writes this.
    """
    if _BARE.fullmatch(text):
        return text
    name = json.loads(text)
    if not isinstance(name, str) or quote(name) != text:
        raise ValueError(f"{text} is not how a name is written")
    return name
