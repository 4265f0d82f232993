"""Patterns for tensor names: `*`, `?`, `[abc]`, and braces such as `{query,value}` and `{0..11}`.

A `*` matches dots too, as tensor names have no folders; matching is case-sensitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from git_theta_ext.errors import UsageError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,6})\.\.(\d{1,6})")
_MAX_PATTERNS = 10_000
_MAX_CHARACTERS = 4 << 20
"""Of all patterns on the way together."""


def select(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match one of the patterns, in their order; a plain name matches itself.

    Raises:
        UsageError: braces stand for too many names.
    """
    wanted = [each for pattern in patterns for each in expand(pattern)]
    exact = set(wanted)
    return [
        name for name in names if name in exact or any(fnmatchcase(name, each) for each in wanted)
    ]


def expand(pattern: str) -> list[str]:
    """The patterns that one with braces stands for.

    Raises:
        UsageError: there are more than 10,000, or it takes too long to find them.
    """
    found, characters = [pattern], 0
    while any(_BRACES.search(each) for each in found):
        last, found = found, []
        for each in (new for one in last for new in _expand_first(one)):
            found.append(each)
            characters += len(each)
            if len(found) > _MAX_PATTERNS or characters > _MAX_CHARACTERS:
                raise UsageError(
                    f"the braces of {pattern[:200]!r} stand for more than {_MAX_PATTERNS} names"
                )
    return found


def _expand_first(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    span = _RANGE.fullmatch(match[1])
    if span is None:
        choices = match[1].split(",")
    else:
        first, last = int(span[1]), int(span[2])
        if last - first > _MAX_PATTERNS:
            raise UsageError(f"{match[0]} stands for more than {_MAX_PATTERNS} names")
        choices = [str(number) for number in range(first, last + 1)]
    for choice in choices:
        yield pattern[: match.start()] + choice + pattern[match.end() :]
