"""Git for machine-learning models: checkpoints versioned tensor by tensor, byte for byte."""

from __future__ import annotations

__version__ = "0.1.0"
