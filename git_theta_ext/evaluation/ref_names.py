"""The refs that keep results: the pre-push hook asks for them, and reads no result."""

from __future__ import annotations

REF = "refs/theta/evaluations"
REMOTES = "refs/theta/remotes/"
