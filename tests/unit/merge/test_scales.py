"""What an adapter's configuration says of its scale, read within a limit."""

from __future__ import annotations

from typing import Any, cast

from git_theta_ext.core import limits
from git_theta_ext.merge.combine.statistics import _scales


class Blobs:
    """A repository in which a revision is the text of its adapter_config.json."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def blob_at(self, revision: str, path: str) -> str:
        assert path == "a/adapter_config.json"
        return revision

    def blob_size(self, oid: str) -> int:
        return len(oid)

    def blob(self, oid: str) -> bytes:
        self.read.append(oid)
        return oid.encode()


def scales(*texts: str) -> tuple[set[Any], list[str]]:
    repository = Blobs()
    found = _scales(cast(Any, repository), "a/adapter_model.safetensors", texts)
    assert found is not None
    return {one.item() for one in found}, repository.read


def test_a_file_beyond_the_limit_is_not_read() -> None:
    small = '{"r": 8, "lora_alpha": 16}'
    large = small + " " * limits.ADAPTER_CONFIG_BYTES
    found, read = scales(small, large)
    assert len(found) == 2
    assert read == [small]
    assert len(scales(large, large)[0]) == 1


def test_only_what_scales_counts() -> None:
    assert len(scales('{"r": 8, "task_type": "X"}', '{"task_type": "Y", "r": 8}')[0]) == 1
    assert len(scales('{"r": 8}', '{"r": 8, "use_rslora": true}')[0]) == 2
