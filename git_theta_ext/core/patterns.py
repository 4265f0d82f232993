"""Patterns for tensor names: `*`, `?`, `[abc]`, and braces such as `{query,value}` and `{0..11}`.

A `*` matches dots too, as tensor names have no folders; matching is case-sensitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import WILD, Globs

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,6})\.\.(\d{1,6})")


def select(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match one of the patterns, in their order; a plain name matches itself.

    Raises:
        UsageError: they are too many or too long, or braces stand for too many names.
    """
    wanted = dict.fromkeys(each for pattern in patterns for each in expand(pattern))
    wild = Globs(each for each in wanted if WILD.search(each))
    return [name for name in names if name in wanted or wild.matches(name)]


def expand(pattern: str) -> list[str]:
    """The patterns that one with braces stands for.

    Raises:
        UsageError: there are more than `limits.GLOBS`, or they are too long together.
    """
    found: list[str] = []
    waiting, characters = [pattern], 0
    while waiting:
        one = waiting.pop()
        match = _BRACES.search(one)
        if match is None:
            found.append(one)
            continue
        choices = _choices(match[1])
        characters += len(choices) * len(one)
        if (
            len(found) + len(waiting) + len(choices) > limits.GLOBS
            or characters > limits.GLOBS_CHARS
        ):
            raise UsageError(
                f"the braces of {pattern[:200]!r} stand for more than {limits.GLOBS} names, or "
                f"{limits.GLOBS_CHARS} characters"
            )
        before, after = one[: match.start()], one[match.end() :]
        waiting += [f"{before}{choice}{after}" for choice in reversed(choices)]
    return found


def _choices(text: str) -> Sequence[str | int]:
    """What stands between braces that have no others in them."""
    span = _RANGE.fullmatch(text)
    return text.split(",") if span is None else range(int(span[1]), int(span[2]) + 1)
