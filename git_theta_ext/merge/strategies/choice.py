"""A strategy chosen with its settings, as text and as a value: `ties,density=0.2`."""

from __future__ import annotations

from dataclasses import dataclass

Setting = float | str | tuple[float, ...]
"""The value of a parameter: a number, a word, or a list of numbers."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The name of a strategy and the settings that differ from its defaults, sorted by name."""

    strategy: str
    settings: tuple[tuple[str, Setting], ...] = ()

    def __str__(self) -> str:
        return ",".join([self.strategy, *(f"{key}={_text(value)}" for key, value in self.settings)])


def _text(value: Setting) -> str:
    if isinstance(value, tuple):
        return ":".join(_text(item) for item in value)
    return value if isinstance(value, str) else f"{value:.15g}"


CONFLICT = Choice("conflict")
"""Leave what collides open; the default."""
