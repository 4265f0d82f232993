"""Our lines in `.gitattributes`, added so that they can be taken out again without a trace.

A file without a line end at its end gets none, and an empty one stays without: so it is seen, when
the lines go, whether there was a file and how it ended. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from git_theta_ext import formats
from git_theta_ext.git import attributes

LFS = ("filter=lfs", "diff=lfs", "merge=lfs", "-text")
"""What `git lfs track` writes."""

NONE = ("!filter", "!diff", "!merge", "!text")
"""What undoes it, as `git lfs migrate export` writes it."""

_KEPT = b"# as before git theta migrate:"


def line_of(pattern: str, words: Sequence[str]) -> bytes:
    """A line of `.gitattributes`, without its end."""
    return os.fsencode(" ".join([attributes.quote(pattern), *words]))


def with_lines(
    content: bytes | None, patterns: Sequence[str], kept: Sequence[tuple[str, Sequence[str]]] = ()
) -> bytes | None:
    """The file with lines that track patterns, and lines below them for what they do not mean.

    Args:
        content: the file, or None where there is none.
        patterns: those to track; what is tracked already gets no second line.
        kept: literal paths, with the attributes that they keep.
    """
    there = attributes.lines(content or b"")
    added = [
        line_of(pattern, attributes.ATTRIBUTES)
        for pattern in patterns
        if not _is_tracked(there, pattern)
    ]
    if added and kept:
        added += [_KEPT, *(line_of(path, words) for path, words in kept)]
    return _appended(content, added)


def with_plain_lines(content: bytes | None, lines: Sequence[bytes]) -> bytes | None:
    """The file with further lines at its end."""
    return _appended(content, list(lines))


def _is_tracked(there: list[attributes.Line], pattern: str) -> bool:
    same = [line for line in there if line.pattern == pattern and line.attributes]
    return bool(same) and all(same[-1].in_force(word) for word in attributes.ATTRIBUTES)


def _appended(content: bytes | None, added: list[bytes]) -> bytes | None:
    if not added:
        return content
    if content is None:
        return b"".join(line + b"\n" for line in added)
    end = b"\r\n" if content.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    if content.endswith(b"\n"):
        return content + b"".join(line + end for line in added)
    return (content + end if content else b"") + end.join(added)


def left_to_lfs(content: bytes) -> list[str]:
    """The patterns of checkpoints, by their endings, that git-lfs goes on to track."""
    last = {line.pattern: line.filter for line in attributes.lines(content) if line.filter}
    ours = {pattern for pattern, name in last.items() if name == "theta"}
    return [
        pattern
        for pattern, name in last.items()
        if name == "lfs" and formats.promises(pattern)
        if f"*{os.path.splitext(pattern)[1]}" not in ours
    ]


def without_lines(content: bytes) -> tuple[bytes | None, list[str]]:
    """The file without our lines, None where nothing is left of it, and the patterns they had."""
    kept: list[bytes] = []
    patterns: list[str] = []
    is_ours = below = False
    for raw in re.findall(rb"[^\n]*\n|[^\n]+", content):
        line = attributes.parse_line(raw)
        is_head = bool(patterns) and raw.rstrip(b"\r\n") == _KEPT
        below = is_head or (below and line is not None)
        is_ours = below
        if below:
            continue
        if line is not None and line.filter == "theta":
            patterns.append(line.pattern)
            raw = attributes.remove(raw, line.pattern)
            is_ours = not raw
        kept.append(raw)
    left = b"".join(kept)
    if not patterns:
        return content, []
    if not is_ours or content.endswith(b"\n"):
        return left or None, patterns
    return left.removesuffix(b"\n").removesuffix(b"\r"), patterns
