"""`theta_base.json`: what is written is read, and what is not that is refused."""

from __future__ import annotations

import json

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.base_file import BaseRecord, base_text, parse_base

RECORD = BaseRecord(
    "https://host/org/base", "v1.0", "a" * 40, "model.safetensors", "1" * 64,
    {"model.safetensors": "b" * 40}, {"a": "2" * 64, "b\n\N{SNOWMAN}": "3" * 64},
)  # fmt: skip


def test_what_is_written_is_read() -> None:
    assert base_text(RECORD).isascii()
    assert parse_base(base_text(RECORD)) == RECORD
    assert RECORD.label == "https://host/org/base@v1.0"
    bare = BaseRecord(None, None, None, None, "1" * 64)
    assert parse_base(base_text(bare)) == bare


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"git_theta_base": 2}, "does not begin with git_theta_base = 1"),
        ({"identity": "x"}, "identity is no SHA-256"),
        ({"url": 3}, "url is no text"),
        ({"commit": "main"}, "commit is no id"),
        ({"tensors": {"a": 1}}, "tensors has no hash for each name"),
        ({"manifests": []}, "manifests has no hash for each name"),
    ],
)
def test_what_is_none_is_refused(change: dict[str, object], said: str) -> None:
    rows = json.loads(base_text(RECORD)) | change
    with pytest.raises(UsageError, match=said):
        parse_base(json.dumps(rows).encode())


def test_no_json_is_refused() -> None:
    with pytest.raises(UsageError, match="is no JSON"):
        parse_base(b"[" * 100_000)
