"""The `config.json` beside a checkpoint, which may say how its weights were quantised."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from git_theta_ext.core import files, limits
from git_theta_ext.git.repository import Repository

CONFIG = "config.json"


def in_file(path: Path) -> Mapping[str, Any]:
    """What the configuration in the folder of a file says; empty where there is none."""
    try:
        with files.plain(path.parent / CONFIG, follow=True) as file:
            return _settings(file.read(limits.SETTINGS_BYTES + 1))
    except OSError:
        return {}


def in_revision(repository: Repository, revision: str | None, path: str) -> Mapping[str, Any]:
    """The same of a path in a revision.

    Args:
        repository: where it is.
        revision: empty for the index, None for the work tree.
        path: of the checkpoint, or the pattern of its shards, from the top of the work tree.
    """
    beside = posixpath.join(posixpath.dirname(path), CONFIG)
    if revision is None:
        return in_file(repository.top / path)
    oid = repository.resolve(f"{revision}:{beside}")
    if oid is None or repository.blob_sizes([oid]).get(oid, 1 << 62) > limits.SETTINGS_BYTES:
        return {}
    return _settings(repository.blob(oid))


def _settings(data: bytes) -> Mapping[str, Any]:
    if len(data) > limits.SETTINGS_BYTES:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
