"""Manual pages out of the documents: the Markdown that they are written in as roff, and as text.

What the documents use of Markdown: headings, paragraphs, indented and fenced code, lists of terms
(`term`, then `:   text`), bullets, numbered lists, tables; in a line code, emphasis and links. Pure
text in, text out, of nothing but the standard library: a wheel is built with it, too.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping

_TERM = re.compile(r":   (.*)")
_ITEM = re.compile(r"(?:[*-]|(\d+)\.) +(.*)")
_WORDS = re.compile(
    r"(?:\[(?:[^\]\[]|\[[^\]\[]*\])*\]|\([^()]*\)|--?[a-z][a-z-]* (?=[A-Z])|[^\s\[(]|[\[(])+"
)
"""The words of a synopsis: what stands in brackets is one, and so is an option with its value."""
_WIDTH = 69
"""Of a line of code, which stands in a line of 80 characters behind eleven blanks."""
_FENCE = re.compile(r"```\w*$")
_INLINE = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|(?<![\w*])\*(?P<slanted>[^*\s][^*]*)\*(?![\w*])"
    r"|!?\[(?P<text>[^\]]*)\]\((?P<link>[^)\s]+)\)|\\(?P<literal>[\\|*_`\[\]])"
)
_FONT = re.compile(r"\\f[BIR]|\\[&:]")
_CODE = re.compile(r"\\e|\\-|\\\((?:aq|ga|ha|ti)|\\\[u([0-9A-F]{4,6})\]")
_PLAIN = {r"\e": "\\", r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~"}


def page(markdown: str, name: str, section: int, source: str, pages: Mapping[str, str]) -> str:
    """A document as a manual page.

    Args:
        markdown: the document; its first heading is its title.
        name: of the page, such as `git-theta-log`.
        section: of the manual: 1 is commands, 5 files.
        source: what the foot of the page names, a program and its version.
        pages: of other documents, by the link to each: what it becomes. That is a page, such as
            `git-theta-log(1)`, or where the document is, in place of a text that is its name.
    """
    lines = markdown.replace("\r\n", "\n").split("\n")
    if lines and lines[0].startswith("# "):
        title, lines = lines[0][2:], lines[1:]
        if "## NAME" not in lines:
            lines = ["## NAME", "", f"{name} - {title}", "", "## DESCRIPTION", *lines]
    head = f'.TH "{name.upper()}" "{section}" "" "{_escaped(source)}" "Git Theta Manual"'
    body = _blocks(lines, lambda text: _inline(text, pages))
    return "\n".join([head, ".nh", ".ad l", *body]) + "\n"


def plain(roff: str, width: int = 78) -> str:
    """A page that `page` wrote as text, for where there is no program that shows manual pages."""
    found: list[str] = []
    indents, margin = [4], 4
    lead = ""  # what stands before the next line: a bullet, or nothing
    term, as_it_is = False, False
    for line in roff.split("\n"):
        macro, _, rest = line.partition(" ")
        if macro in (".SH", ".SS"):
            found += ["", _unescaped(rest.strip('"'))]
            margin = indents[0]
        elif macro in (".PP", ".IP", ".TP"):
            found.append("")
            margin, term = indents[-1], macro == ".TP"
            if macro == ".IP":
                lead = _unescaped(rest.partition('" ')[0].strip('"')).ljust(3) + " "
        elif macro == ".RS":
            indents.append(indents[-1] + int(rest))
            margin = indents[-1]
        elif macro == ".RE":
            margin = indents.pop() - 4
        elif macro in (".nf", ".fi"):
            as_it_is = macro == ".nf"
        elif line and not line.startswith("."):
            text = _unescaped(line)
            start = " " * margin + lead
            margin, lead = margin + len(lead) + 4 * term, ""
            term = False
            lines = [start + text] if as_it_is else textwrap.wrap(
                text, max(width, 40), initial_indent=start, subsequent_indent=" " * (margin),
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
            found += [one.rstrip() for one in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(found).strip("\n")) + "\n"


def _blocks(lines: list[str], inline: Callable[[str], str]) -> Iterator[str]:
    """The lines of roff for lines of Markdown; what is in a list comes here again."""
    at = 0
    heading = ""
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip():
            continue
        if line.startswith("#"):
            heading = line
            level = len(line) - len(line.lstrip("#"))
            text = line.lstrip("#").strip()
            text = text if "`" in text else text.upper()
            yield f'.SH "{_quoted(text)}"' if level <= 2 else f'.SS "{_quoted(text)}"'
        elif _FENCE.match(line):
            start = at
            while at < len(lines) and lines[at].rstrip() != "```":
                at += 1
            yield from _code(lines[start:at])
            at += 1
        elif line.startswith("    "):
            start, at = at - 1, _end(lines, at, 4)
            code = [one[4:] for one in lines[start:at]]
            yield from _code(_narrow(code) if heading == "## SYNOPSIS" else code)
        elif line.startswith("|"):
            start = at - 1
            while at < len(lines) and lines[at].startswith("|"):
                at += 1
            yield from _table(lines[start:at], inline)
        elif match := _TERM.match(line):  # the text of the term that was written before it
            start, at = at, _end(lines, at, 4)
            yield from _inside([match[1], *(one[4:] for one in lines[start:at])], inline)
        elif match := _ITEM.match(line):
            width = len(line) - len(match[2])
            start, at = at, _end(lines, at, 2)
            rest = [one[min(width, len(one) - len(one.lstrip())) :] for one in lines[start:at]]
            yield f'.IP "{match[1]}." 4' if match[1] else r'.IP "\(bu" 4'
            yield from _inside([match[2], *rest], inline)
        else:
            start = at - 1
            while at < len(lines) and _goes_on(lines[at]):
                at += 1
            is_term = at < len(lines) and _TERM.match(lines[at])
            yield ".TP" if is_term else ".PP"
            joined = " ".join(one.strip() for one in lines[start:at])
            yield _safe(inline(joined))


def _inside(lines: list[str], inline: Callable[[str], str]) -> Iterator[str]:
    """The text of a term or an item: its first paragraph follows as it is, others are indented."""
    found = list(_blocks(lines, inline))
    if found[:1] == [".PP"]:
        found = found[1:]
    first = next((n for n, line in enumerate(found) if line.startswith(".")), len(found))
    yield from found[:first]
    if found[first:]:
        yield ".RS 4"
        yield from found[first:]
        yield ".RE"


def _end(lines: list[str], at: int, indent: int) -> int:
    """Where lines end that are indented so far, or empty with such a line after them."""
    end = at
    while at < len(lines):
        if lines[at].startswith(" " * indent):
            end = at + 1
        elif lines[at].strip():
            break
        at += 1
    return end


def _goes_on(line: str) -> bool:
    """Whether a line belongs to the paragraph before it."""
    return bool(line.strip()) and not (
        line.startswith(("#", "|", "```")) or _TERM.match(line) or _ITEM.match(line)
    )


def _narrow(lines: list[str]) -> list[str]:
    """The commands of a synopsis in lines that are not too long, broken between arguments."""
    commands: list[str] = []
    for line in lines:
        if line.startswith(" ") and commands:
            commands[-1] += f" {line.strip()}"
        else:
            commands.append(line)
    found = []
    for command in commands:
        words = _WORDS.findall(command)
        line, indent = "", " " * (len(" ".join(words[:3])) + 1)  # below the first argument
        for word in words:
            if line.strip() and len(line) + 1 + len(word) > _WIDTH:
                found.append(line)
                line = indent + word
            else:
                line = f"{line} {word}" if line else word
        found.append(line)
    return found


def _code(lines: list[str]) -> Iterator[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    yield from (".PP", ".RS 4", ".nf")
    yield from (_safe(_escaped(line)) for line in lines)
    yield from (".fi", ".RE")


def _table(rows: list[str], inline: Callable[[str], str]) -> Iterator[str]:
    """A row is a term, its first cell, with the others below, from the third on under their head.

    Tables of roff need a preprocessor, and cells of sentences do not fit in their lines.
    """
    cells = [
        [one.strip().replace(r"\|", "|") for one in re.split(r"(?<!\\)\|", row.strip().strip("|"))]
        for row in rows
    ]
    for row in cells[2:]:
        first, *others = row
        others[1:] = [
            f"{head}: {cell}" if head and cell else cell
            for head, cell in zip(cells[0][2:], others[1:], strict=False)
        ]
        yield ".TP"
        yield _safe(inline(first)) or r"\&"
        yield _safe(inline(_joined(filter(None, others)))) or r"\&"


def _joined(cells: Iterable[str]) -> str:
    """What stands in the cells of a row as one text: after a sentence another one begins."""
    text = ""
    for cell in cells:
        if text.endswith((".", ":", "!")):
            text += f" {cell[:1].upper()}{cell[1:]}"
        else:
            text += f"; {cell}" if text else cell
    return text


def _inline(text: str, pages: Mapping[str, str]) -> str:
    """One paragraph's text with its fonts."""
    found: list[str] = []
    last = 0
    for match in _INLINE.finditer(text):
        found.append(_escaped(text[last : match.start()]))
        last = match.end()
        if match["code"] is not None:
            code = _escaped(match["code"]).replace("|", r"|\:")  # where a line may end
            found.append(rf"\fB{code}\fR")
        elif match["bold"] is not None:
            found.append(rf"\fB{_inline(match['bold'], pages)}\fR")
        elif match["slanted"] is not None:
            found.append(rf"\fI{_escaped(match['slanted'])}\fR")
        elif match["literal"] is not None:
            found.append(_escaped(match["literal"]))
        else:
            found.append(_linked(match["text"], match["link"], pages))
    found.append(_escaped(text[last:]))
    return "".join(found)


def _linked(text: str, link: str, pages: Mapping[str, str]) -> str:
    """A link: to a document that is a page its name, to the web the address, else the text.

    A text that only names a document becomes its place: the name alone leads nobody there.
    """
    found = pages.get(link.partition("#")[0], "")
    name, section, rest = found.partition("(")
    if section:
        return rf"\fB{_escaped(name)}\fR({rest}"
    shown = _inline(text, pages)
    stem = link.partition("#")[0].rpartition("/")[2].removesuffix(".md")
    if found and text.removesuffix(".md").lower().replace(" ", "-") == stem:
        return _escaped(found)
    return rf"{shown} <{_escaped(link)}>" if link.startswith("https:") and link != text else shown


def _escaped(text: str) -> str:
    """Text that roff prints as it is."""
    for char, code in (("\\", r"\e"), ("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"),
                       ("^", r"\(ha"), ("~", r"\(ti")):  # fmt: skip
        text = text.replace(char, code)
    return "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in text)


def _quoted(text: str) -> str:
    return _escaped(text.replace("`", "")).replace('"', r"\(dq")


def _safe(line: str) -> str:
    """A line that is no request, whatever it begins with."""
    return rf"\&{line}" if line.startswith((".", "'")) else line


def _unescaped(line: str) -> str:
    line = _FONT.sub("", line).replace(r"\(bu", "*").replace(r"\(dq", '"')
    return _CODE.sub(lambda match: _PLAIN.get(match[0]) or chr(int(match[1], 16)), line)
