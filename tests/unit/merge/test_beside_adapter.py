"""Which configuration counts for each version of an adapter, and what Git will make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from git_theta_ext.core import limits
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.repository import IndexEntry
from git_theta_ext.merge.decide.beside_adapter import Grown, scalings_ahead, scalings_under_way
from git_theta_ext.merge.decide.scaling import Scale, Unknown

FILE, BESIDE = "a/adapter_model.safetensors", "a/adapter_config.json"


class Blobs:
    """A repository in which an object's id is its text, and a revision has at most one file."""

    def __init__(self, cwd: Path, **revisions: str) -> None:
        self.cwd, self._revisions = cwd, revisions
        self.read: list[str] = []
        self.merge = "unspecified"
        self.stages: dict[int, str] = {}

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self._revisions else None

    def blob_at(self, revision: str, path: str) -> str | None:
        assert path == BESIDE
        return self._revisions.get(revision)

    def blob_size(self, oid: str) -> int:
        return len(oid)

    def blob(self, oid: str) -> bytes:
        self.read.append(oid)
        return oid.encode()

    def attribute(self, name: str, path: str) -> str:
        assert (name, path) == ("merge", BESIDE)
        return self.merge

    def setting(self, name: str) -> str | None:
        assert name == "merge.default"
        return None

    def index(self, pathspec: str) -> list[IndexEntry]:
        assert pathspec.endswith(BESIDE)
        return [IndexEntry("100644", oid, stage, BESIDE) for stage, oid in self.stages.items()]


def text(rank: int, alpha: int, more: str = "") -> str:
    return f'{{\n"lora_alpha": {alpha},\n"a": 0,\n"b": 0,\n"c": "{more}",\n"r": {rank}\n}}\n'


HEADS = Heads("base", "ours", "theirs")


def weighed(blobs: Blobs, heads: Heads | None, *ranks: int) -> Scale | Unknown:
    return scalings_ahead(cast(Any, blobs), FILE, lambda: heads).weigh("q", ranks)


def test_what_each_side_changed_comes_together(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, base=text(4, 4), ours=text(4, 8), theirs=text(8, 4))
    assert weighed(blobs, HEADS, 4, 8, 4) == Scale(8, (2.0, 0.5, 1.0))
    blobs.merge = "union"
    found = weighed(blobs, HEADS, 4, 8, 4)
    assert isinstance(found, Unknown)
    assert "both sides changed adapter_config.json" in found.why


def test_what_both_changed_is_known_only_where_it_is_alike(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, base=text(4, 4), ours=text(4, 4, "x"), theirs=text(4, 4, "y"))
    assert weighed(blobs, HEADS, 4, 4, 4) == Scale(4, (1.0, 1.0, 1.0))
    blobs = Blobs(tmp_path, base=text(4, 4), ours=text(4, 8), theirs=text(4, 16))
    assert isinstance(weighed(blobs, HEADS, 4, 4, 4), Unknown)


def test_where_git_does_not_tell_what_is_merged(tmp_path: Path) -> None:
    found = weighed(Blobs(tmp_path, HEAD=text(4, 4)), None, 4, 4, 4)
    assert isinstance(found, Unknown)
    assert "Git does not say which commits are merged" in found.why
    assert weighed(Blobs(tmp_path), None, 4, 4, 4) == Scale(4, (1.0, 1.0, 1.0))


def test_ancestors_that_differ_are_not_one_base(tmp_path: Path) -> None:
    texts = {"base": text(4, 4), "ours": text(4, 8), "theirs": text(4, 8), "other": text(4, 2)}
    heads = Heads("base", "ours", "theirs", ("other",))
    found = weighed(Blobs(tmp_path, **texts), heads, 4, 4, 4)
    assert isinstance(found, Unknown)
    assert "several common ancestors" in found.why
    same = {**texts, "other": texts["base"]}
    assert weighed(Blobs(tmp_path, **same), heads, 4, 4, 4) == Scale(4, (1.0, 1.0, 0.5))


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    large = text(4, 4) + " " * limits.ADAPTER_CONFIG_BYTES
    blobs = Blobs(tmp_path, base=text(4, 4), ours=text(4, 4), theirs=large)
    found = weighed(blobs, HEADS, 4, 4, 4)
    assert isinstance(found, Unknown)
    assert "is larger than" in found.why
    assert large not in blobs.read


@pytest.mark.parametrize(
    ("stages", "grown", "expected"),
    [
        ({0: text(8, 4)}, None, Scale(8, (4.0, 1.0, 2.0))),
        ({0: text(9, 9)}, Grown(text(8, 4).encode(), text(9, 9).encode()), Scale(8, (4, 1, 2))),
        ({2: text(4, 8), 3: text(8, 4)}, None, "is in conflict"),
        ({}, None, "the merge has no adapter_config.json"),
    ],
)
def test_the_index_has_the_result(
    tmp_path: Path, stages: dict[int, str], grown: Grown | None, expected: Scale | str
) -> None:
    blobs = Blobs(tmp_path, base=text(4, 4), ours=text(4, 8), theirs=text(8, 4))
    blobs.stages = stages
    found = scalings_under_way(cast(Any, blobs), FILE, lambda: HEADS, grown).weigh("q", (4, 8, 4))
    if isinstance(expected, Scale):
        assert found == expected
    else:
        assert isinstance(found, Unknown)
        assert expected in found.why
