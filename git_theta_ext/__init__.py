"""Git for machine-learning models: checkpoints versioned tensor by tensor, byte for byte."""

from __future__ import annotations

import sys
from typing import Any

from git_theta_ext.core import errors
from git_theta_ext.core.version import VERSION

__version__ = VERSION
__all__ = [
    "CommitCallback", "KerasCallback", "LightningCallback", "Run", "collect", "commit", "diff",
    "get", "load_into", "open", "safe_open", "sync",
]  # fmt: skip

# The errors are a part of the interface, by a name that does not say where they stand.
sys.modules[f"{__name__}.errors"] = errors


def __getattr__(name: str) -> Any:
    """The functions of `git_theta_ext.api.functions`, imported when they are first asked for."""
    if name == "CommitCallback":
        from git_theta_ext.api.integrations import CommitCallback

        return CommitCallback
    if name == "Run":
        from git_theta_ext.api.runs.run import Run

        return Run
    if name == "LightningCallback":
        from git_theta_ext.api.lightning import lightning_callback

        return lightning_callback
    if name == "KerasCallback":
        from git_theta_ext.api.keras import keras_callback

        return keras_callback
    if name == "collect":
        from git_theta_ext.api.collecting import collect

        return collect
    if name in __all__:
        from git_theta_ext.api import functions

        return getattr(functions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
