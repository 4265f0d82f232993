"""Commands that several messages advise; `tests/git/test_advice.py` runs them."""

from __future__ import annotations

import os

STORE_BY_TENSOR = (
    "git rm -q --cached FILE && git add FILE" if os.name == "nt" else "git add --renormalize ."
)
"""Stores by tensor what the index holds whole. The filter is asked the same by `git status`, which
must find such a file unchanged, so it looks which command asks: Windows does not tell that."""
TRACK_FIRST = f"git theta track PATTERN, then: {STORE_BY_TENSOR}"
