"""Text for people: names made harmless for each medium, sizes made readable, JSON.

Names come from checkpoints, repositories and servers that anybody may have made. Shown as they are
they could move the cursor, forge a further line, reverse what follows, mention people, or become
markup. There is one function for each place that a name can reach: `printable` (a line of a
terminal, and the first step of all others), `harmless` (what a whole stream may say), `markdown_*`,
`annotation` (a workflow command) and `to_json`; HTML is `html.escape(printable(...))`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_UNSEEN = frozenset(
    map(
        chr,
        [
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0,
            *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
        ],
    )
)  # fmt: skip
"""Characters that Unicode calls printable, and that nobody sees: fillers, joiners, variants."""

_EMOJI = "\ufe0f"
"""Makes an emoji of the character before it; our own reports have it."""


def printable(text: str) -> str:
    """`text` on one line: whatever is not printable (escape sequences, line ends) is escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() and char not in _UNSEEN else _escape(char) for char in text
    )


def paragraph(text: str, indent: str = "  ") -> str:
    """`text` made printable line by line, every line after the first one indented."""
    first, *rest = text.strip("\n").split("\n")
    return "\n".join([printable(first), *(indent + printable(line) for line in rest)])


def harmless(text: str) -> str:
    """`text` of any number of lines, with line ends as the only characters that do something."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(
        char
        if (char.isprintable() and char not in _UNSEEN) or char in ("\n", _EMOJI)
        else _escape(char)
        for char in text
    )


def from_program(data: bytes) -> str:
    """What another program printed, to be passed on: its tabs are blanks, the rest harmless."""
    text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    return harmless("\n".join(line.expandtabs() for line in text.split("\n")))


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


# -- markdown, and what runs it --------------------------------------------------------------------

_MEANING = re.compile(r"([\\`*_{}\[\]()#+.!|~$:@<>&-])")
_ENTITIES = str.maketrans({char: f"&#{ord(char)};" for char in "\\`*_[]()#!|~$:&<>"})
_WWW = re.compile(r"(?i)(www)\.")
_PLAIN = re.compile(r"[(\[]*(?:[A-Za-z]{1,40}|[0-9][0-9,.]{0,14})?[)\],;.:!?%]*")
_HASH = re.compile(r"[(\[]*[0-9a-fA-F]{7,}[)\],;.:!?%]*")
"""GitHub makes a link of seven hexadecimal digits and more, where a commit begins with them."""


def markdown_code(text: str) -> str:
    """`text` as code, in a table's cell too: no mention, reference, link or emphasis.

    Entities keep the parser from finding anything; what looks for mentions and references
    afterwards, once entities are read, passes over code. An address of electronic mail is looked
    for in between: the comment after the `@` parts it.
    """
    safe = _WWW.sub(r"\1&#46;", printable(text).translate(_ENTITIES))
    return f"<code>{safe.replace('@', '&#64;<!-- -->')}</code>"


def markdown_text(text: str) -> str:
    """A sentence that may have names in it: words stay, anything that is not one becomes code."""
    return " ".join(_markdown_word(word) for word in printable(text).split(" "))


def _markdown_word(word: str) -> str:
    if _PLAIN.fullmatch(word) and not _HASH.fullmatch(word):
        return _MEANING.sub(r"\\\1", word)
    return markdown_code(word)


def markdown_escaped(text: str) -> str:
    """Words of ours in markdown. Names are for `markdown_code`: mentions survive this."""
    return _MEANING.sub(r"\\\1", printable(text))


def annotation(text: str) -> str:
    """A text for one line of a GitHub workflow command (`::error::…`), which it cannot end."""
    return no_workflow_command(printable(text.replace("\n", " "))).replace("%", "%25")


def annotation_property(text: str) -> str:
    """A text for a property of a workflow command (`::error file=…::`)."""
    return annotation(text).replace(":", "%3A").replace(",", "%2C")


_COMMAND = re.compile(r"^(\s*):(?=:)|#(?=#\[)", re.MULTILINE)


def no_workflow_command(text: str) -> str:
    """`text` without lines that a GitHub runner obeys (`::add-mask::`, `##[group]`).

    Source: actions/runner reads them from both streams of every step.
    """
    return _COMMAND.sub(lambda found: f"{found[1]}\\x3a" if found[1] is not None else "\\x23", text)


# -- figures ---------------------------------------------------------------------------------------


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


def all_here(count: int, noun: str) -> str:
    """`All 3 objects are`, `The object is`: the beginning of a sentence on where they are."""
    return f"The {noun} is" if count == 1 else f"All {plural(count, noun)} are"


def to_json(value: Any) -> str:
    """`value` as indented ASCII JSON, keys in the order in which they were put.

    DEL is ASCII to JSON, but a terminal acts on it.
    """
    return json.dumps(value, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")


def table(rows: list[list[str]]) -> list[str]:
    """Rows as lines whose columns are as wide as their widest cell; no blanks at line ends."""
    columns = max(map(len, rows), default=0)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


_MOST_NAMES, _LONGEST_NAME, _ALIKE = 5000, 300, 0.8
"""Of how many names, and how long ones, the most alike is looked for; from which likeness on."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant; None where none is near.

    By the letters to swap with the next (1), add (2), replace or leave out (3), which Git weighs in
    this order for its commands too; the beginning of a word counts as near.
    """
    if len(word) > 40:
        return None
    away = {each: _distance(word, each) for each in known}
    if not away:
        return None
    best = min(away, key=lambda each: (away[each], not each.startswith(word[:1]), each))
    begun = sorted(each for each in away if len(word) > 1 and each.startswith(word))
    if away[best] <= 3 * max(1, len(word) // 3):
        return best
    return begun[0] if begun else None


def near_name(name: str, known: Sequence[str]) -> str | None:
    """The name of a file or a tensor that was most likely meant; None where none is much like it.

    Names are long, and there may be very many: of more than a few thousand none is looked at.
    """
    if len(known) > _MOST_NAMES or len(name) > _LONGEST_NAME:
        return None
    import difflib  # not where nothing is wrong

    found = difflib.get_close_matches(name, known, 1, _ALIKE)
    return found[0] if found else None


def _distance(one: str, other: str) -> int:
    """The distance of Damerau and Levenshtein, with weights; letters are swapped once at most."""
    rows = [[2 * j for j in range(len(other) + 1)]]
    for i, a in enumerate(one, 1):
        row = [3 * i]
        for j, b in enumerate(other, 1):
            least = min(rows[-1][j] + 3, row[-1] + 2, rows[-1][j - 1] + 3 * (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                least = min(least, rows[-2][j - 2] + 1)
            row.append(least)
        rows.append(row)
    return rows[-1][-1]
