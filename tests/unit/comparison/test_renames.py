"""Which checkpoint became which: by the tensors that they have."""

from __future__ import annotations

from git_theta_ext.comparison.renames import renamed
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.manifest.model import Block, Entry, Manifest


def manifest(*names: str, version: str = "a", opaque: bool = False) -> Manifest:
    entries = [
        Entry(TensorInfo(name, DTYPES["F32"], (4,)), (Block(16, f"{name}{version}"),), opaque)
        for name in names
    ]
    return Manifest("safetensors", Block(1, "s"), tuple(entries))


def test_the_same_tensors_with_other_values() -> None:
    gone = {"a/model": manifest("x", "y"), "a/optimizer": manifest("m", "v")}
    came = {
        "b/model": manifest("x", "y", version="b"),
        "b/optimizer": manifest("m", "v", version="b"),
    }
    assert renamed(gone, came) == {"b/model": "a/model", "b/optimizer": "a/optimizer"}


def test_half_of_the_tensors_are_enough_and_fewer_are_not() -> None:
    came = {"new": manifest("a", "b", "c", "d")}
    assert renamed({"old": manifest("a", "b")}, came) == {"new": "old"}
    assert renamed({"old": manifest("a")}, came) == {}
    assert renamed({"old": manifest()}, {"new": manifest()}) == {}


def test_each_old_file_is_taken_once_and_the_best_first() -> None:
    gone = {"old": manifest("a", "b")}
    came = {"x": manifest("a", "b", "c"), "y": manifest("a", "b")}
    assert renamed(gone, came) == {"y": "old"}


def test_of_equals_the_name_then_the_bytes_then_the_last_number() -> None:
    one, other = manifest("a"), manifest("a", version="b")
    gone = {"run-9/model": other, "run-10/model": other, "run-11/other": other}
    assert renamed(gone, {"run-20/model": one}) == {"run-20/model": "run-10/model"}
    gone["run-9/model"] = one
    assert renamed(gone, {"run-20/model": one}) == {"run-20/model": "run-9/model"}


def test_bytes_without_tensors_by_their_chunks() -> None:
    old = manifest("", opaque=True)
    assert renamed({"old": old}, {"new": old}) == {"new": "old"}
    assert renamed({"old": old}, {"new": manifest("", version="b", opaque=True)}) == {}
