"""How blocks are stored, as far as users choose: settings of git config, asked when needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository

Merges = Literal["recipe", "values"]
PACK_BELOW = 256 << 10
"""Parameter files below this length share objects; `benchmarks/growth.py tensors` measures it."""

_SIZE = re.compile(r"([0-9]{1,9})([kKmM]?)")
_UNITS = {"": 0, "k": 10, "m": 20}


@dataclass(frozen=True, slots=True)
class Storing:
    """What was chosen.

    `merges` says whether a merged block may be stored as its recipe, `pack_below` below which
    length, in bytes, parameter files share objects (0: none do), and `compress` whether a block
    that is no update is compressed.
    """

    merges: Merges = "recipe"
    pack_below: int = PACK_BELOW
    compress: bool = True


DEFAULT = Storing()


class Chosen:
    """What was chosen, found out when it is asked for first: to read takes no settings."""

    def __init__(self, ask: Callable[[], Storing] = lambda: DEFAULT) -> None:
        """`ask` gives it."""
        self._ask = ask

    @cached_property
    def storing(self) -> Storing:
        """What was chosen.

        Raises:
            UsageError: a setting has no meaning; see `chosen`.
        """
        return self._ask()


def chosen(repository: Repository) -> Storing:
    """What the settings of a repository say.

    Raises:
        UsageError: `theta.mergeStorage` is neither recipe nor values, `theta.packBelow` no size, or
            `theta.compress` neither true nor false.
    """
    merges = repository.setting("theta.mergeStorage", "recipe")
    if merges not in ("recipe", "values"):
        raise UsageError(
            f"theta.mergeStorage is {merges!r}: it is recipe or values",
            hint="git config theta.mergeStorage recipe",
        )
    below = repository.setting("theta.packBelow", str(PACK_BELOW)) or ""
    match = _SIZE.fullmatch(below)
    if match is None:
        raise UsageError(
            f"theta.packBelow is {below!r}: it is a size, such as 256k, or 0",
            hint="git config --unset theta.packBelow",
        )
    size = int(match[1]) << _UNITS[match[2].lower()]
    compress = repository.flag("theta.compress", True)
    return Storing("recipe" if merges == "recipe" else "values", size, compress)
