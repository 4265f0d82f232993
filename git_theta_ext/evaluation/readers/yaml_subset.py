"""The part of YAML that files of results are written in.

Mappings and lists in blocks or in one line, texts plain, quoted, or in blocks, and comments. No
anchors, aliases, tags or several documents: what has those is refused, by line. PyYAML would be
one more thing to install for files that hold a dozen lines; the tests compare with it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError

_COLON = re.compile(r":(?=\s|$)")
_COMMENT = re.compile(r"(?:^|\s)#")
_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+\.")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".nan": float("nan"), ".NaN": float("nan"), ".inf": float("inf"), "-.inf": float("-inf"),
}  # fmt: skip
_LINES = 1000
"""Lines of one text in quotes, or of one list in brackets."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = {"0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f",
            "r": "\r", "e": "\x1b", " ": " ", '"': '"', "/": "/", "\\": "\\", "N": "\x85",
            "_": "\xa0", "L": "\u2028", "P": "\u2029"}  # fmt: skip


@dataclass(slots=True)
class _Line:
    number: int
    indent: int
    text: str


def parse(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        FormatError: it is none, or uses what is not read; names the line.
    """
    reader = _Reader(text)
    value = reader.block(0, 0)
    if reader.at < len(reader.lines):
        raise reader.error("this is not part of what stands before it")
    return value


class _Reader:
    """Lines, and how far they are read."""

    def __init__(self, text: str) -> None:
        self.lines: list[_Line] = []
        self.at = 0
        for number, line in enumerate(text.splitlines(), 1):
            if "\t" in line[: len(line) - len(line.lstrip())]:
                raise FormatError(f"line {number}: it is indented by a tab")
            found = _Line(number, len(line) - len(line.lstrip(" ")), line.strip())
            if found.text == "---" and not any(one.text for one in self.lines):
                continue
            if found.indent == 0 and found.text in ("---", "..."):
                raise FormatError(f"line {number}: a second document")
            self.lines.append(found)

    def error(self, what: str) -> FormatError:
        number = self.lines[min(self.at, len(self.lines) - 1)].number if self.lines else 1
        return FormatError(f"line {number}: {what}")

    def peek(self) -> _Line | None:
        """The next line that says something."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.text and not line.text.startswith("#"):
                return line
            self.at += 1
        return None

    def block(self, least: int, depth: int) -> Any:
        """The value that stands in the next lines, indented by `least` at least."""
        if depth > limits.YAML_DEPTH:
            raise self.error(f"more than {limits.YAML_DEPTH} levels")
        line = self.peek()
        if line is None or line.indent < least:
            return None
        if line.text == "-" or line.text.startswith("- "):
            return self.items(line.indent, depth)
        if _key(line.text)[0]:
            return self.mapping(line.indent, depth)
        self.at += 1
        return self.scalar(line.text, line.indent - 1, depth)

    def items(self, indent: int, depth: int) -> list[Any]:
        """A list whose items begin with a dash at this place."""
        found = []
        while (line := self.peek()) is not None and line.indent == indent:
            if line.text != "-" and not line.text.startswith("- "):
                break
            rest = line.text[1:]
            inner = rest.lstrip()
            if not inner or inner.startswith("#"):
                self.at += 1
                found.append(self.block(indent + 1, depth + 1))
                continue
            # What follows the dash is a block of its own, whose first line begins there.
            place = indent + 1 + len(rest) - len(inner)
            self.lines[self.at] = _Line(line.number, place, inner)
            found.append(self.block(place, depth + 1))
        return found

    def mapping(self, indent: int, depth: int) -> dict[str, Any]:
        """A mapping whose keys begin at this place."""
        found: dict[str, Any] = {}
        while (line := self.peek()) is not None and line.indent == indent:
            key, rest = _key(line.text)
            if not key:
                break
            name = self._quoted(key) if key[0] in "\"'" else key
            if name in found:
                raise self.error(f"the key {name!r} comes twice")
            self.at += 1
            if rest and not rest.startswith("#"):
                found[name] = self.scalar(rest, indent, depth)
                continue
            after = self.peek()
            same = after is not None and after.indent == indent and after.text[:2] in ("-", "- ")
            found[name] = self.block(indent if same else indent + 1, depth + 1)
        return found

    def scalar(self, text: str, indent: int, depth: int) -> Any:
        """A value that begins in a line that was taken, and goes on in deeper ones."""
        first = text[0]
        if first in "&*!%@`" or text == "?" or text.startswith("? "):
            self.at -= 1
            raise self.error(f"{first} (an anchor, an alias, a tag or a key) is not read")
        if first in "|>":
            return self._literal(text, indent)
        closed = {'"': _ends_double, "'": _ends_single, "[": _ends_flow, "{": _ends_flow}.get(first)
        began = self.at
        while closed is not None and not closed(text):
            line = self.lines[self.at] if self.at < len(self.lines) else None
            if line is None or (line.text and line.indent <= indent):
                raise self.error(f"what begins with {first} does not end")
            if not line.text:
                raise self.error("an empty line within a text is not read")
            text = text[:-1] + line.text if _continues(text) else f"{text} {line.text}"
            self.at += 1
            if self.at - began > _LINES:
                raise self.error(f"what begins with {first} does not end")
        if closed is None:
            text = self._plain(text, indent)
            return _plain_value(text)
        if first in "[{":
            value, end = _Flow(text, self).value(0, depth)
            rest = text[end:]
        else:
            end = _end_of_quoted(text)
            value, rest = self._quoted(text[:end]), text[end:]
        if rest.strip() and not rest.lstrip().startswith("#"):
            self.at -= 1
            raise self.error(f"{rest.strip()[:20]!r} follows a value")
        return value

    def _plain(self, text: str, indent: int) -> str:
        """A text without quotes, and the deeper lines that it goes on in."""
        match = _COMMENT.search(text)
        if match is not None:
            return text[: match.start()].rstrip()
        while (before := self.at) < len(self.lines) and (line := self.peek()) is not None:
            if line.indent <= indent:
                break
            if any(not one.text for one in self.lines[before : self.at]):
                raise self.error("an empty line within a text is not read")
            if _key(line.text)[0]:
                raise self.error("a key within a text")
            match = _COMMENT.search(line.text)
            self.at += 1
            if match is not None:
                return f"{text} {line.text[: match.start()].rstrip()}"
            text = f"{text} {line.text}"
        return text

    def _literal(self, head: str, indent: int) -> str:
        """The text of a block that `|` or `>` begins."""
        match = re.fullmatch(r"([|>])([-+]?)(?:\s+#.*)?", head)
        if match is None:
            self.at -= 1
            raise self.error(f"{head!r} is not read")
        lines: list[_Line] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.text and line.indent <= indent:
                break
            lines.append(line)
            self.at += 1
        least = min((line.indent for line in lines if line.text), default=0)
        texts = [" " * (line.indent - least) + line.text if line.text else "" for line in lines]
        while texts and not texts[-1]:
            texts.pop()
        joined = "\n".join(texts) if match[1] == "|" else " ".join(texts)
        return joined if match[2] == "-" or not texts else f"{joined}\n"

    def _quoted(self, text: str) -> str:
        if text[0] == "'":
            return text[1:-1].replace("''", "'")

        def unescape(match: re.Match[str]) -> str:
            word = match[1]
            if word[0] in "xuU" and len(word) > 1:
                return chr(min(int(word[1:], 16), 0x10FFFF))
            if word not in _ESCAPES:
                raise self.error(f"\\{word} is not read")
            return _ESCAPES[word]

        return _ESCAPE.sub(unescape, text[1:-1])


def _key(text: str) -> tuple[str, str]:
    """The key that a line begins with, and what follows its colon; empty where there is none."""
    if text[0] in "\"'":
        end = _end_of_quoted(text)
        rest = text[end:].lstrip()
        return (text[:end], rest[1:].lstrip()) if end and _COLON.match(rest) else ("", "")
    match = _COLON.search(text)
    comment = _COMMENT.search(text)
    if (
        match is None
        or text[0] in "[]{}#&*!|>%@`,"
        or text.startswith("? ")
        or (comment and comment.start() < match.end())
    ):
        return "", ""
    return text[: match.start()].rstrip(), text[match.end() :].lstrip()


def _end_of_quoted(text: str) -> int:
    """Where a quoted text ends that a text begins with; 0 where it does not."""
    pattern = r'"(?:[^"\\]|\\.)*"' if text[0] == '"' else r"'(?:[^']|'')*'(?!')"
    match = re.match(pattern, text, re.DOTALL)
    return match.end() if match else 0


def _ends_double(text: str) -> bool:
    return _end_of_quoted(text) > 0


_ends_single = _ends_double


def _ends_flow(text: str) -> bool:
    """Whether every bracket is closed, those in quotes not counted."""
    bare = _QUOTED.sub("", text)
    if '"' in bare or re.search(r"[\[{,:]\s*'", bare):
        return False
    return sum(bare.count(one) for one in "[{") <= sum(bare.count(one) for one in "]}")


def _continues(text: str) -> bool:
    """Whether a line ends with a backslash, in double quotes: the next follows at once."""
    odd = len(text) - len(text.rstrip("\\")) & 1 == 1
    return odd and '"' in _QUOTED.sub("", text)


def _plain_value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 40:
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text) and len(text) < 400:
        return float(text.replace("_", ""))
    return text


class _Flow:
    """Lists and mappings in one line."""

    def __init__(self, text: str, reader: _Reader) -> None:
        self._text, self._reader = text, reader

    def _skip(self, at: int) -> int:
        while at < len(self._text) and self._text[at] == " ":
            at += 1
        return at

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """The value that begins at a place, and where it ends."""
        if depth > limits.YAML_DEPTH:
            raise self._reader.error(f"more than {limits.YAML_DEPTH} levels")
        at = self._skip(at)
        first = self._text[at : at + 1]
        if first in ("[", "{"):
            return self._group(at, first, depth)
        if first in ('"', "'"):
            end = at + _end_of_quoted(self._text[at:])
            if end == at:
                raise self._reader.error(f"what begins with {first} does not end")
            return self._reader._quoted(self._text[at:end]), end
        if first and (first in "&*!%@`|>" or self._text.startswith("? ", at)):
            raise self._reader.error(f"{first} is not read")
        match = re.compile(r"(?:[^,\[\]{}:#]|:(?=\S)|(?<=\S)#)*").match(self._text, at)
        end = match.end() if match else at
        return _plain_value(self._text[at:end].strip()), end

    def _group(self, at: int, first: str, depth: int) -> tuple[Any, int]:
        """The list or mapping that begins at a place, and where it ends."""
        close = "]" if first == "[" else "}"
        items: list[Any] = []
        found: dict[str, Any] = {}
        at = self._skip(at + 1)
        while self._text[at : at + 1] != close:
            value, at = self.value(at, depth + 1)
            at = self._skip(at)
            if first == "{":
                name = value if isinstance(value, str) else json.dumps(value)
                if self._text[at : at + 1] == ":":
                    found[name], at = self.value(at + 1, depth + 1)
                    at = self._skip(at)
                else:
                    found[name] = None
            items.append(value)
            if self._text[at : at + 1] == ",":
                at = self._skip(at + 1)
            elif self._text[at : at + 1] != close:
                raise self._reader.error(f"{close} or a comma is missing")
        return (items if first == "[" else found), at + 1
