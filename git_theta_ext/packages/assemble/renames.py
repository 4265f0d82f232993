"""Other names for tensors: `"vision.*" = "vision_tower.*"`, and layers by their numbers.

A `*` of a pattern stands for any text, and the `*` in the same place of what replaces it for the
text that it matched: the shortest that fits, but for the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError

_OTHER_WILDCARDS = "?[]{}"


def check_rename(pattern: str, replacement: str, where: str) -> None:
    """Refuse a rename that has no meaning.

    Args:
        pattern: what names are matched with.
        replacement: what takes their place.
        where: what messages call the place that they stand in.

    Raises:
        UsageError: says what is wrong with it.
    """
    wrong = None
    if not pattern or not replacement:
        wrong = "neither a pattern nor what replaces it is empty"
    elif any(char in pattern for char in _OTHER_WILDCARDS):
        wrong = "a pattern of rename has * and no other wildcards"
    elif replacement.count("*") > pattern.count("*"):
        wrong = "what replaces a pattern has no more * than the pattern"
    if wrong:
        raise UsageError(f"{where}: rename: {pattern[:100]!r} = {replacement[:100]!r}: {wrong}")


def matched(pattern: str, name: str) -> list[str] | None:
    """What each `*` of a pattern stands for in a name; None where it does not match.

    In time that grows with the name alone: the shortest text that fits is never a wrong turn,
    for the last `*` takes what is left.
    """
    first, *others = pattern.split("*")
    if not others:
        return [] if name == pattern else None
    if not name.startswith(first):
        return None
    found, at = [], len(first)
    for text in others[:-1]:
        place = name.find(text, at)
        if place < 0:
            return None
        found.append(name[at:place])
        at = place + len(text)
    end = len(name) - len(others[-1])
    if end < at or not name.endswith(others[-1]):
        return None
    found.append(name[at:end])
    return found


def replaced(replacement: str, texts: Sequence[str]) -> str:
    """A replacement with what the `*` of its pattern matched in the place of its own."""
    first, *others = replacement.split("*")
    return first + "".join(
        text + after for text, after in zip(texts[: len(others)], others, strict=True)
    )


class Renames:
    """Renames in order, of which the first that matches a name counts; they know if none does."""

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        """`rules`: patterns, and what replaces them."""
        self._rules = tuple(rules)
        self._used = [False] * len(self._rules)

    def new_name(self, name: str) -> str:
        """The name that a tensor gets; its own where no pattern matches it."""
        for number, (pattern, replacement) in enumerate(self._rules):
            texts = matched(pattern, name)
            if texts is not None:
                self._used[number] = True
                return replaced(replacement, texts)
        return name

    def unused(self) -> str | None:
        """A pattern that no name came to, if there is one."""
        return next(
            (rule[0] for rule, used in zip(self._rules, self._used, strict=True) if not used), None
        )


class Layers:
    """Layers that are moved or repeated, by what the names of their tensors begin with."""

    def __init__(self, layer: str, numbers: Sequence[int], to: int) -> None:
        """Of a part: how a layer's names begin, which layers come, and what the first becomes."""
        self._before, self._after = layer.split("{n}")
        self._to = to
        self._places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            self._places.setdefault(number, []).append(place + to)
        self._seen: set[int] = set()

    def number(self, name: str) -> int | None:
        """The number of the layer that a tensor is of; None where it is of none."""
        if not name.startswith(self._before):
            return None
        rest = name[len(self._before) :]
        digits = len(rest) - len(rest.lstrip("0123456789"))
        if not 1 <= digits <= 9 or not rest.startswith(self._after, digits):
            return None
        return int(rest[:digits])

    def new_names(self, name: str) -> list[str]:
        """The names that a tensor gets: none where its layer is not wanted, one for each copy."""
        number = self.number(name)
        if number is None:
            return [name]
        self._seen.add(number)
        rest = name[len(self._before) :]
        digits = len(rest) - len(rest.lstrip("0123456789"))
        return [f"{self._before}{place}{rest[digits:]}" for place in self._places.get(number, ())]

    def missing(self) -> int | None:
        """A layer that is wanted and that no name was of, if there is one."""
        return next((number for number in self._places if number not in self._seen), None)


def too_many(count: int) -> UsageError:
    """The error where a recipe stands for more tensors than a checkpoint has."""
    return UsageError(
        f"the recipe stands for more than {limits.RECIPE_TENSORS} tensors ({count} so far)",
        hint="repeat fewer layers, or take fewer experts",
    )
