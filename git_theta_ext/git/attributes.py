"""Lines of `.gitattributes`: read, add and remove patterns, leaving every other byte alone.

Pure: bytes in, bytes out. The grammar is that of gitattributes(5): a pattern, in double quotes with
C-style escapes where it contains blanks or begins with `"` or `#`, then attributes; later lines
win; a UTF-8 byte order mark and CRLF line ends are allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError

ATTRIBUTES = ("filter=theta", "diff=theta", "merge=theta", "-text")
"""What makes a path ours: Git starts our drivers, and converts no line ends."""

_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 2048
"""Git passes over lines from this length on (attr.h: ATTR_MAX_LINE_LENGTH)."""
_BLANK = " \t\r\n"
_WORD = re.compile(r"[^ \t\r\n]+")
"""Blanks are these four only; `str.split` would also cut at a no-break space of a name."""

_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_NAMES = {code: name for name, code in _ESCAPES.items()}
_QUOTED = re.compile(r'"((?:[^"\\]|\\(?:[abtnvfr"\\]|[0-3][0-7]{2}))*)"')


@dataclass(frozen=True, slots=True)
class Line:
    """A pattern, without quotes, and its attributes, in the order of the file."""

    pattern: str
    attributes: tuple[str, ...]

    @property
    def filter(self) -> str | None:
        """The filter that this line sets, the empty string if it unsets it, None if neither."""
        return self.filter_with({})

    def filter_with(self, macros: Mapping[str, str]) -> str | None:
        """As `filter`, where words of the line may be macros that set one (see `macros`)."""
        for attribute in reversed(self.attributes):
            name, _, value = attribute.lstrip("-!").partition("=")
            if name == "filter":
                return "" if attribute[0] in "-!" else value
            if attribute in macros:
                return macros[attribute]
        return None

    def in_force(self, attribute: str) -> bool:
        """Whether the line sets an attribute so, and no later word of it sets it otherwise."""
        name = _attribute_name(attribute)
        words = [word for word in self.attributes if _attribute_name(word) == name]
        return words[-1:] == [attribute]


def _attribute_name(word: str) -> str:
    return word.lstrip("-!").partition("=")[0]


def parse_line(raw: bytes) -> Line | None:
    """One line, or None where it is blank, a comment, a macro definition, or too long for Git."""
    if len(raw) >= _LONGEST_LINE:
        return None
    text = os.fsdecode(raw.removeprefix(_BOM)).strip(_BLANK)
    if not text or text.startswith(("#", "[attr]")):
        return None
    quoted = _QUOTED.match(text)
    if quoted:
        return Line(_unquote(quoted[1]), tuple(_WORD.findall(text[quoted.end() :])))
    pattern, *attributes = _WORD.findall(text)
    return Line(pattern, tuple(attributes))


def macros(content: bytes) -> dict[str, str]:
    """The filter that each macro sets (`[attr]NAME filter=…`), "" where it unsets it.

    Git takes definitions from the topmost `.gitattributes` of a repository only. Macros that set no
    filter are left out; a later definition wins; one may use those that are defined above it.
    """
    found: dict[str, str] = {}
    for raw in content.split(b"\n"):
        text = os.fsdecode(raw.removeprefix(_BOM)).strip(_BLANK)
        if len(raw) < _LONGEST_LINE and text.startswith("[attr]"):
            name, *words = _WORD.findall(text.removeprefix("[attr]")) or [""]
            value = Line(name, tuple(words)).filter_with(found)
            found.pop(name, None)
            if value is not None:
                found[name] = value
    return found


def lines(content: bytes) -> list[Line]:
    """All patterns of a file, in order."""
    parsed = (parse_line(raw) for raw in content.split(b"\n"))
    return [line for line in parsed if line is not None]


def tracked(content: bytes) -> list[str]:
    """The patterns whose last line that sets a filter sets ours."""
    last: dict[str, str] = {}
    for line in lines(content):
        if line.filter is not None:
            last[line.pattern] = line.filter
    return [pattern for pattern, name in last.items() if name == "theta"]


def add(content: bytes, pattern: str) -> bytes:
    """The file with a line that tracks `pattern` at its end; unchanged if there is such a line.

    Raises:
        UsageError: Git would not accept the pattern, or it could match nothing.
    """
    check(pattern)
    same = [line for line in lines(content) if line.pattern == pattern and line.attributes]
    if same and all(same[-1].in_force(attribute) for attribute in ATTRIBUTES):
        return content
    end = b"\r\n" if content.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    if content.removeprefix(_BOM) and not content.endswith(b"\n"):
        content += end
    return content + os.fsencode(" ".join([quote(pattern), *ATTRIBUTES])) + end


def remove(content: bytes, pattern: str) -> bytes:
    """The file without our attributes for `pattern`; a line with nothing else goes whole."""
    kept = []
    for raw in _split(content):
        line = parse_line(raw)
        if line is None or line.pattern != pattern or line.filter != "theta":
            kept.append(raw)
            continue
        rest = [word for word in line.attributes if word not in ATTRIBUTES]
        bom = _BOM if raw.startswith(_BOM) else b""
        if rest:
            end = raw[len(raw.rstrip(b"\r\n")) :]
            raw = bom + os.fsencode(" ".join([quote(pattern), *rest])) + end
        else:
            raw = bom
        kept.append(raw)
    return b"".join(kept)


def check(pattern: str) -> None:
    """Refuse what Git refuses, ignores, or could never match.

    Raises:
        UsageError: says which, and what to write instead.
    """
    if not pattern or "\0" in pattern:
        raise UsageError("an empty pattern matches nothing")
    if len(os.fsencode(" ".join([quote(pattern), *ATTRIBUTES]))) >= _LONGEST_LINE:
        raise UsageError(
            f"{pattern[:80]}… has {len(pattern)} characters: Git passes over lines of "
            f"{_LONGEST_LINE} bytes and more",
            hint="track a shorter pattern, such as '*.safetensors', in the files' folder",
        )
    if pattern.startswith("!"):
        raise UsageError(
            f"Git does not allow negative patterns in .gitattributes: {pattern}",
            hint="add a line by hand below the one that matches too much: PATTERN -filter -diff",
        )
    if pattern.startswith("[attr]"):
        raise UsageError(f"Git reads {pattern} as the definition of a macro")
    if pattern.endswith("/"):
        raise UsageError(
            f"{pattern} would match nothing: attributes belong to files, not to folders",
            hint=advice.with_name("git theta track FILE", f"{pattern}**"),
        )
    if ".." in pattern.split("/"):
        raise UsageError(
            f"{pattern} would match nothing: patterns are relative to the folder of .gitattributes",
            hint="run git theta track in the folder that holds the checkpoints",
        )


def literal(name: str) -> str:
    """The pattern that matches exactly the file `name`, in the folder of `.gitattributes`."""
    return "/" + re.sub(r"([*?\[\]\\])", r"\\\1", name)


def quote(pattern: str) -> str:
    """A pattern as it has to be written in `.gitattributes`."""
    plain = not pattern.startswith(('"', "#"))
    if plain and all(char > " " and char != "\x7f" for char in pattern):
        return pattern
    return '"' + "".join(map(_escape, pattern)) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if code in _NAMES:
        return "\\" + _NAMES[code]
    return f"\\{code:03o}" if code < 32 or code == 127 else char


def _unquote(text: str) -> str:
    def replace(found: re.Match[bytes]) -> bytes:
        word = found[1].decode("ascii")
        return bytes([_ESCAPES[word] if word in _ESCAPES else int(word, 8)])

    escape = rb'\\([abtnvfr"\\]|[0-3][0-7]{2})'
    return os.fsdecode(re.sub(escape, replace, os.fsencode(text)))


def _split(content: bytes) -> list[bytes]:
    """Lines with their ends; only a line feed ends one, as in Git."""
    return re.findall(rb"[^\n]*\n|[^\n]+", content)
