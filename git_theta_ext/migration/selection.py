"""Which files of a history are moved: by pattern, by size, or all that are checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass

from git_theta_ext import formats
from git_theta_ext.git import attributes
from git_theta_ext.migration.attribute_patterns import matches

ASKED = (".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".mar", ".nemo", ".model", ".mlmodel")
"""Endings that checkpoints have and other files, too: their beginning is asked."""

_OWN = (".gitattributes", ".lfsconfig", ".gitignore", ".gitmodules")


@dataclass(frozen=True, slots=True)
class Selection:
    """Patterns as those of `.gitattributes`, and the least size in bytes."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    above: int | None = None

    def names(self, path: str) -> bool:
        """Whether a file of this path may be meant; its content or size may say otherwise."""
        return self.could_name(path) and not self.leaves_out(path)

    def could_name(self, path: str) -> bool:
        """As `names`, had the user left out nothing."""
        if os.path.basename(path) in _OWN:
            return False
        if self.include:
            return any(matches(pattern, path) for pattern in self.include)
        return self.above is not None or formats.promises(path) or _asked(path)

    def leaves_out(self, path: str) -> bool:
        """Whether the user said that this path is not meant."""
        return any(matches(pattern, path) for pattern in self.exclude)

    def by_content(self, path: str) -> bool:
        """Whether the path alone does not say that it is a checkpoint, and nothing else does."""
        return not self.include and self.above is None and not formats.promises(path)

    def fits(self, size: int) -> bool:
        """Whether a file of this length is large enough."""
        return self.above is None or size > self.above

    def patterns(self, path: str) -> tuple[str, ...]:
        """What is written into `.gitattributes` for a file that was moved."""
        if self.include:
            return tuple(pattern for pattern in self.include if matches(pattern, path))
        ending = os.path.splitext(path)[1]
        if self.above is not None or self.by_content(path) or not ending.isascii():
            return (attributes.literal(path),)
        return (f"*{ending}",)


def _asked(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in ASKED


def split(values: list[str] | None) -> tuple[str, ...]:
    """The patterns of an option that may be given several times, each a list with commas."""
    return tuple(one.strip() for value in values or () for one in value.split(",") if one.strip())
