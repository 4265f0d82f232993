"""A line of the table in docs/reliability.md: each part of these tests measures its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """What was tried, how, and what came of it."""

    what: str
    how: str
    result: str
