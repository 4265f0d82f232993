"""Configurations beside weights that were cast: they name the element type that is loaded."""

from __future__ import annotations

import json
from typing import Any

from git_theta_ext.core.tensors import DType

MOST_BYTES = 1 << 20
"""A longer configuration is left as it is."""

_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_KEYS = ("torch_dtype", "dtype")
_APART = ("quantization_config", "compression_config")
"""Parts that speak of the arithmetic of codes, not of the weights."""


def with_dtype(text: bytes, dtype: DType) -> bytes:
    """A `config.json` that names another element type, wherever it names one.

    Args:
        text: the file; returned as it is where it names none.
        dtype: what the weights were cast to.

    Raises:
        ValueError: it is not JSON, or too long.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has {len(text):,} bytes")
    try:
        content = json.loads(text)
        if not _replace(content, _NAMES[dtype.name]):
            return text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    ending = "\n" if text.endswith(b"\n") else ""
    return (json.dumps(content, indent=2, ensure_ascii=False) + ending).encode("utf-8")


def _replace(content: Any, name: str) -> bool:
    """Put a name wherever one stands; whether one stood anywhere."""
    if not isinstance(content, dict):
        return False
    changed = False
    for key, value in content.items():
        if key in _KEYS and isinstance(value, str) and _plain(value) in _NAMES.values():
            content[key] = value.replace(_plain(value), name)
            changed = True
        elif key not in _APART:
            changed |= _replace(value, name)
    return changed


def _plain(value: str) -> str:
    return value.removeprefix("torch.")


def ties_its_head(text: bytes) -> bool:
    """Whether a `config.json` says that the output head is the input embedding."""
    try:
        content = json.loads(text) if len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        return False
    parts = [content] if isinstance(content, dict) else []
    parts += [one for one in (content or {}).values() if isinstance(one, dict)] if parts else []
    return any(part.get("tie_word_embeddings") is True for part in parts)
