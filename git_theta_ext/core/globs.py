"""Many patterns against many names, in bounded time: which is the first to match, or which do.

`*`, `?` and `[abc]` as `fnmatch.fnmatchcase` has them. All patterns are followed at once: bit n of
a state says that the n-th place in them can be reached by the characters read so far. States and
the ways between them are kept, as names are much alike; making new ones is what is bounded.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError

WILD = re.compile(r"[*?[]")
"""What tells a pattern from a plain name."""
_KEPT_BYTES = 32 << 20
"""States that are kept for the names to come."""
_KEPT_NUMBERS = 16
"""Of a state in which more patterns end, their numbers are not kept."""


def check(patterns: Sequence[str], where: str) -> None:
    """Refuse more, or longer, patterns than are matched in bounded time.

    Args:
        patterns: all that go together.
        where: what messages call the place that they stand in.

    Raises:
        UsageError: names the place, the number of the pattern, and the limit.
    """
    if len(patterns) > limits.GLOBS:
        raise UsageError(
            f"{where}: {len(patterns)} patterns; at most {limits.GLOBS} are matched",
            hint="let one pattern, such as 'encoder.*', stand for many names",
        )
    total = 0
    for number, pattern in enumerate(patterns, 1):
        if len(pattern) > limits.GLOB_CHARS:
            raise UsageError(
                f"{where}: pattern {number} ({pattern[:40]!r}…) has {len(pattern)} characters; "
                f"at most {limits.GLOB_CHARS} are matched"
            )
        total += len(pattern)
    if total > limits.GLOBS_CHARS:
        raise UsageError(
            f"{where}: {total} characters of patterns; at most {limits.GLOBS_CHARS} are matched",
            hint="let one pattern, such as 'encoder.*', stand for many names",
        )


@dataclass(frozen=True, slots=True)
class _Class:
    """What stands between brackets."""

    negated: bool
    singles: frozenset[str]
    ranges: tuple[tuple[str, str], ...]

    def accepts(self, char: str) -> bool:
        inside = char in self.singles or any(low <= char <= high for low, high in self.ranges)
        return inside != self.negated


@dataclass(slots=True, eq=False)
class _State:
    """Places that are reached; the ways on that were taken; the patterns that end here."""

    bits: int
    ways: dict[str, _State] = field(default_factory=dict)
    first: int | None = None
    ended: tuple[int, ...] | None = None
    """All of them, once they were asked for."""


class Globs:
    """Patterns, in order; compiled when the first name comes."""

    def __init__(self, patterns: Iterable[str], where: str = "patterns") -> None:
        """Check the bounds; `where` is what messages call the place that they stand in.

        Raises:
            UsageError: see `check`.
        """
        self._patterns = tuple(patterns)
        self._where = where
        check(self._patterns, where)
        self._plain: dict[str, list[int]] = {}
        wild = []
        for number, pattern in enumerate(self._patterns):
            if WILD.search(pattern):
                wild.append(number)
            else:
                self._plain.setdefault(pattern, []).append(number)
        self._wild = wild
        self._machine: _Machine | None = None

    def first(self, name: str) -> int | None:
        """The number, from 0, of the first pattern that matches a name; None if none does.

        Raises:
            UsageError: the names need more work than is allowed.
        """
        same = self._plain.get(name)
        plain = None if same is None else same[0]
        if not self._wild:
            return plain
        at = self._compiled().first(name)
        if at is None:
            return plain
        wild = self._wild[at]
        return wild if plain is None else min(plain, wild)

    def every(self, name: str) -> tuple[int, ...]:
        """The numbers, from 0, of all patterns that match a name, in order.

        Raises:
            UsageError: the names need more work than is allowed.
        """
        plain = self._plain.get(name, ())
        if not self._wild:
            return tuple(plain)
        wild = tuple(self._wild[at] for at in self._compiled().every(name))
        return tuple(sorted((*plain, *wild))) if plain else wild

    def _compiled(self) -> _Machine:
        if self._machine is None:
            self._machine = _Machine([self._patterns[n] for n in self._wild], self._where)
        return self._machine

    def matches(self, name: str) -> bool:
        """Whether one of the patterns matches a name."""
        return self.first(name) is not None


class _Machine:
    """All patterns with wildcards as one machine, whose states are made when they are needed."""

    def __init__(self, patterns: Sequence[str], where: str) -> None:
        """`where` tells in errors what the patterns were matched against."""
        self._where = where
        self._literals: dict[str, list[int]] = {}
        self._classes: dict[_Class, list[int]] = {}
        self._any: list[int] = []
        self._ends: list[int] = []
        starts, loops = [], []
        at = 0
        for pattern in patterns:
            starts.append(at)
            for token in _tokens(pattern):
                if token is None:
                    loops.append(at)
                    continue
                self._places(token).append(at)
                at += 1
            self._ends.append(at)
            at += 1
        self._width = at
        self._loop, self._final = self._bits(loops), self._bits(self._ends)
        self._start_bits, self._any_bits = self._bits(starts), self._bits(self._any)
        self._masks: dict[str, int] = {}
        self._states: dict[int, _State] = {}
        self._work = 0
        self._start = self._state(self._start_bits)

    def _places(self, token: str | _Class) -> list[int]:
        if isinstance(token, _Class):
            return self._classes.setdefault(token, [])
        return self._any if token == "" else self._literals.setdefault(token, [])

    def _bits(self, places: Iterable[int]) -> int:
        room = bytearray(self._width // 8 + 1)
        for place in places:
            room[place >> 3] |= 1 << (place & 7)
        return int.from_bytes(room, "little")

    def first(self, name: str) -> int | None:
        """The number of the first pattern that matches."""
        return self._reached(name).first

    def every(self, name: str) -> tuple[int, ...]:
        """The numbers of all patterns that match, in order."""
        state = self._reached(name)
        if state.ended is not None:
            return state.ended
        found = tuple(self._numbers(state.bits & self._final))
        if len(found) <= _KEPT_NUMBERS:
            state.ended = found
        return found

    def _numbers(self, ended: int) -> Iterable[int]:
        """The patterns whose ends are among some places."""
        while ended:
            self._spend(self._width)
            last = ended & -ended
            yield self._ended_at(last)
            ended ^= last

    def _ended_at(self, place: int) -> int:
        return bisect_right(self._ends, place.bit_length() - 1) - 1

    def _reached(self, name: str) -> _State:
        state = self._start
        for char in name:
            following = state.ways.get(char)
            state = self._step(state, char) if following is None else following
        return state

    def _step(self, state: _State, char: str) -> _State:
        self._spend(self._width)
        mask = self._masks.get(char)
        if mask is None:
            mask = self._mask(char)
        bits = ((state.bits & mask) << 1) | (state.bits & self._loop)
        following = self._states.get(bits)
        if following is None:
            if (len(self._states) + len(self._masks)) * self._width // 8 > _KEPT_BYTES:
                self._forget()
            following = self._state(bits)
        state.ways[char] = following
        return following

    def _mask(self, char: str) -> int:
        """The places that a character leads on from."""
        ranges = sum(1 + len(one.ranges) for one in self._classes)
        self._spend(self._width + limits.GLOB_CLASS_WORK * ranges)
        places = list(self._literals.get(char, ()))
        for one, where in self._classes.items():
            if one.accepts(char):
                places += where
        self._spend(limits.GLOB_PLACE_WORK * len(places))
        mask = self._masks[char] = self._bits(places) | self._any_bits
        return mask

    def _state(self, bits: int) -> _State:
        state = _State(bits)
        ended = bits & self._final
        if ended:
            state.first = self._ended_at(ended & -ended)
        self._states[bits] = state
        return state

    def _forget(self) -> None:
        """Let go of the states so far; those that a name is in the midst of stay its own."""
        for state in self._states.values():
            state.ways.clear()
        self._states.clear()
        self._masks.clear()
        self._start = self._state(self._start_bits)

    def _spend(self, work: int) -> None:
        self._work += work + limits.GLOB_STEP_WORK
        if self._work > limits.GLOB_WORK:
            raise UsageError(
                f"{self._where}: {len(self._ends)} patterns with wildcards take too long to match "
                "with these names",
                hint="let one pattern, such as 'encoder.*', stand for many names",
            )


def _tokens(pattern: str) -> Iterable[str | _Class | None]:
    """A character, the empty string for any, a class, or None for any number of any."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            yield None
        elif char == "?":
            yield ""
        elif char == "[":
            first = at + (pattern[at : at + 1] == "!")
            end = pattern.find("]", first + (pattern[first : first + 1] == "]"))
            if end < 0:
                yield char
            else:
                yield _class(pattern[at:end])
                at = end + 1
        else:
            yield char


def _class(text: str) -> _Class:
    negated = text.startswith("!")
    body = text[negated:]
    singles, ranges = set(), []
    at = 0
    while at < len(body):
        if at + 2 < len(body) and body[at + 1] == "-":
            ranges.append((body[at], body[at + 2]))
            at += 3
        else:
            singles.add(body[at])
            at += 1
    return _Class(negated, frozenset(singles), tuple(ranges))
