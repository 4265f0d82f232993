"""Names of tensors that are called otherwise in another model: `old.*=new.*`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable

_STARS = 4
"""More would take long to match, and nobody needs them."""


@dataclass(frozen=True, slots=True)
class Renames:
    """Patterns in order: the first one that matches a name says what it is called here."""

    rules: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = ()

    def of(self, name: str) -> str:
        """What a tensor of the patch is called here."""
        for pattern, parts in self.rules:
            found = pattern.fullmatch(name)
            if found is not None:
                filled = [*found.groups(), ""]
                return "".join(a + b for a, b in zip(parts, filled, strict=True))
        return name


def parse_renames(items: Sequence[str]) -> Renames:
    """The values of `--map`.

    Raises:
        UsageError: one is not OLD=NEW with as many `*` on both sides.
    """
    rules = []
    for item in items:
        old, equals, new = item.partition("=")
        stars = old.count("*")
        if not equals or not old or not new or stars != new.count("*") or stars > _STARS:
            raise UsageError(
                f"--map takes OLD=NEW with as many * on both sides, at most {_STARS}, not "
                f"{printable(item)!r}"
            )
        if len(item) > limits.GLOB_CHARS:
            raise UsageError(f"--map: a pattern of {len(item):,} characters")
        pattern = "(.*)".join(re.escape(part) for part in old.split("*"))
        rules.append((re.compile(pattern, re.DOTALL), tuple(new.split("*"))))
    return Renames(tuple(rules))


def require_distinct(renames: Renames, names: Iterable[str]) -> None:
    """Refuse a map that gives two tensors one name.

    Raises:
        UsageError: it does.
    """
    seen: dict[str, str] = {}
    for name in names:
        new = renames.of(name)
        if new in seen:
            raise UsageError(
                f"--map calls {printable(seen[new])} and {printable(name)} both {printable(new)}"
            )
        seen[new] = name
