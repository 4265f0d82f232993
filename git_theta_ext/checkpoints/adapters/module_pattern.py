"""Regular expressions for names of modules, matched in bounded time.

PEFT matches the keys of `alpha_pattern` by `re.match(rf"(.*\\.)?({pattern})$", module)`. A pattern
that came with an adapter could keep `re` busy for ever, so the usual ones are matched here: plain
characters, `.`, classes, groups, alternatives and repetitions. All places that a part can reach are
followed at once, so there is no backtracking; what still takes long is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError

_COUNT = re.compile(r"\{(\d{1,3})(?:(,)(\d{1,3})?)?\}")
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\\n]|\\[dwsDWS.\-\]\[\\])*\]")
_ESCAPE = re.compile(r"\\[dwsDWS]|\\[^\w\s]")
_SPECIAL = "*+?{}()[]|\\"


@dataclass(frozen=True, slots=True)
class _One:
    """One character that an expression of a single character matches."""

    expression: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class _Edge:
    """The beginning, or the end, of the name."""

    end: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of several sequences."""

    sequences: tuple[tuple[_Node, ...], ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """Something from `least` to `most` times; any number of times if `most` is None."""

    node: _Node
    least: int
    most: int | None


_Node = _One | _Edge | _Choice | _Repeat


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern matches the end of a module's name, from a dot or the beginning on.

    Raises:
        UsageError: the pattern is none, has something that is not known here, or takes too long.
    """
    return Patterns([pattern]).first(module) is not None


class Patterns:
    """The patterns of one adapter, in order; each is read once, when it is first needed."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Check the bounds.

        Raises:
            UsageError: there are too many, or one is too long.
        """
        if len(patterns) > limits.ADAPTER_PATTERNS:
            raise UsageError(
                f"{len(patterns)} patterns; at most {limits.ADAPTER_PATTERNS} are matched"
            )
        for number, pattern in enumerate(patterns, 1):
            if len(pattern) > limits.ADAPTER_PATTERN_CHARS:
                raise UsageError(
                    f"pattern {number} ({pattern[:40]!r}…) has {len(pattern)} characters; at most "
                    f"{limits.ADAPTER_PATTERN_CHARS} are matched"
                )
        self._patterns = patterns
        self._parsed: list[_Choice] = []
        self._steps = 0

    def first(self, module: str) -> int | None:
        """The number, from 0, of the first that matches the end of a module's name, at a dot.

        Raises:
            UsageError: one on the way is no pattern, has something that is not known here, or takes
                too long; or all together do.
        """
        starts = {0, *(place + 1 for place, char in enumerate(module) if char == ".")}
        for number, pattern in enumerate(self._patterns):
            if number == len(self._parsed):
                self._parsed.append(_Parser(pattern).whole())
            matcher = _Matcher(pattern, module)
            reached = matcher.follow(self._parsed[number], starts)
            self._steps += matcher.steps
            if self._steps > limits.ADAPTER_PATTERN_STEPS:
                raise UsageError(f"{len(self._patterns)} patterns take too long to match")
            if len(module) in reached:
                return number
        return None


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def error(self, what: str) -> UsageError:
        return UsageError(f"pattern {self.pattern[:80]!r}, character {self.at}: {what}")

    def whole(self) -> _Choice:
        """The pattern from its first character to its last."""
        found = self.choice(0)
        if self.at != len(self.pattern):
            raise self.error("a bracket that was never opened")
        return found

    def choice(self, depth: int) -> _Choice:
        if depth > limits.PATTERN_DEPTH:
            raise self.error("too many groups inside each other")
        sequences = [self._sequence(depth)]
        while self._take("|"):
            sequences.append(self._sequence(depth))
        return _Choice(tuple(sequences))

    def _take(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _sequence(self, depth: int) -> tuple[_Node, ...]:
        nodes: list[_Node] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            nodes.append(self._repeated(self._atom(depth)))
        return tuple(nodes)

    def _atom(self, depth: int) -> _Node:
        """What a quantifier can follow: a group, an edge of the text or one character."""
        char = self.pattern[self.at]
        if char == "(":
            self.at += 1
            if self._take("?") and not self._take(":"):
                raise self.error("only plain groups are known")
            found = self.choice(depth + 1)
            if not self._take(")"):
                raise self.error("a group that is not closed")
            return found
        if char in "^$":
            self.at += 1
            return _Edge(char == "$")
        match = _CLASS.match(self.pattern, self.at) or _ESCAPE.match(self.pattern, self.at)
        if match is None and char in _SPECIAL:
            raise self.error(f"{char!r} is not known here")
        text = match[0] if match else "." if char == "." else re.escape(char)
        self.at += len(match[0]) if match else 1
        try:
            return _One(re.compile(text))
        except re.error as error:
            raise self.error(str(error)) from error

    def _repeated(self, node: _Node) -> _Node:
        char = self.pattern[self.at : self.at + 1]
        if char in ("*", "+", "?"):
            self.at += 1
            self._lazy()
            return _Repeat(node, int(char == "+"), 1 if char == "?" else None)
        match = _COUNT.match(self.pattern, self.at)
        if match is None:
            return node
        self.at = match.end()
        least = int(match[1])
        most_text = match[3] if match[2] else match[1]
        self._lazy()
        return _Repeat(node, least, int(most_text) if most_text else None)

    def _lazy(self) -> None:
        """A repetition may be marked as lazy, which changes nothing in what matches."""
        self._take("?")
        if self.at < len(self.pattern) and self.pattern[self.at] in "*+?{":
            raise self.error("a repetition of a repetition")


class _Matcher:
    def __init__(self, pattern: str, text: str) -> None:
        self._pattern, self._text = pattern, text
        self.steps = 0

    def follow(self, node: _Node, places: set[int]) -> set[int]:
        """Where a node can end that begins at one of some places."""
        self.steps += 1 + len(places)
        if self.steps > limits.PATTERN_STEPS:
            raise UsageError(f"pattern {self._pattern[:80]!r} takes too long to match")
        if isinstance(node, _One):
            text, one = self._text, node.expression
            return {at + 1 for at in places if at < len(text) and one.match(text, at)}
        if isinstance(node, _Edge):
            return places & {len(self._text) if node.end else 0}
        if isinstance(node, _Choice):
            return self._choose(node, places)
        return self._repeat(node, places)

    def _choose(self, node: _Choice, places: set[int]) -> set[int]:
        found: set[int] = set()
        for sequence in node.sequences:
            reached = places
            for part in sequence:
                if not reached:
                    break
                reached = self.follow(part, reached)
            found |= reached
        return found

    def _repeat(self, node: _Repeat, places: set[int]) -> set[int]:
        for _ in range(node.least):
            places = self.follow(node.node, places)
        found, frontier, times = set(places), set(places), node.least
        while frontier and (node.most is None or times < node.most):
            frontier = self.follow(node.node, frontier) - found
            found |= frontier
            times += 1
        return found
