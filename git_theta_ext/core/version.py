"""The version of this package, for what is below its top."""

from __future__ import annotations

VERSION = "0.1.0"
