"""`theta_base.json`: on which base an adapter was made, by what that base is.

It lies beside `adapter_config.json` in an adapter that was released, so that whoever puts the two
together can tell whether they belong together, from wherever the base is had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import to_json

FILE = "theta_base.json"
VERSION = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """The base of an adapter.

    Attributes:
        url, version: where it was published and under which tag; None where that is not known.
        commit: its id there.
        path: of the checkpoint in that repository; all shards of a model under their pattern.
        manifests: Git's ids of its manifests, by path.
        identity: which model it is (`packages.identity.identity_of`).
        tensors: the identity of each of its tensors by name (`packages.identity.tensors_of`).
    """

    url: str | None
    version: str | None
    commit: str | None
    path: str | None
    identity: str
    manifests: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What people call it."""
        version = self.version or (self.commit or "")[:10]
        return "@".join(word for word in (self.url, version) if word) or self.identity[:10]


def base_text(record: BaseRecord) -> bytes:
    """The file that says so, as JSON with its keys in a fixed order."""
    rows = {
        "git_theta_base": VERSION,
        "url": record.url,
        "version": record.version,
        "commit": record.commit,
        "path": record.path,
        "manifests": dict(sorted(record.manifests.items())),
        "identity": record.identity,
        "tensors": dict(sorted(record.tensors.items())),
    }
    return (to_json(rows) + "\n").encode("ascii")


def parse_base(data: bytes, where: str = FILE) -> BaseRecord:
    """The base that such a file names; keys that are not known are passed over.

    Args:
        data: its bytes.
        where: what messages call it.

    Raises:
        UsageError: it is too large, no such file, or of a later version.
    """
    if len(data) > limits.BASE_BYTES:
        raise UsageError(f"{where} is larger than {limits.BASE_BYTES} bytes")
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON: {error}") from error
    if not isinstance(rows, dict) or rows.get("git_theta_base") != VERSION:
        raise UsageError(f"{where} does not begin with git_theta_base = {VERSION}")
    texts = {key: _text(rows, key, where) for key in ("url", "version", "commit", "path")}
    if texts["commit"] is not None and not _COMMIT.fullmatch(texts["commit"]):
        raise UsageError(f"{where}: commit is no id of a commit")
    identity = rows.get("identity")
    if not isinstance(identity, str) or not _SHA256.fullmatch(identity):
        raise UsageError(f"{where}: identity is no SHA-256")
    return BaseRecord(
        texts["url"], texts["version"], texts["commit"], texts["path"], identity,
        _hashes(rows, "manifests", _COMMIT, where), _hashes(rows, "tensors", _SHA256, where),
    )  # fmt: skip


def _text(rows: Mapping[str, Any], key: str, where: str) -> str | None:
    value = rows.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: {key} is no text")
    return value


def _hashes(
    rows: Mapping[str, Any], key: str, pattern: re.Pattern[str], where: str
) -> Mapping[str, str]:
    found = rows.get(key, {})
    if not isinstance(found, dict) or not all(
        isinstance(one, str) and pattern.fullmatch(one) for one in found.values()
    ):
        raise UsageError(f"{where}: {key} has no hash for each name")
    return found
