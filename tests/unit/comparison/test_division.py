"""Which modules an update changes, and what is in none or in several: from manifests alone."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from git_theta_ext.checkpoints.modules import parse
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison.division import Division, divided
from git_theta_ext.comparison.files import Pair
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.manifests import entry, manifest

NOTHING = cast(Blocks, None)
"""Whoever reads a value stumbles over it."""

TOML = """
[[module]]
name = "a"
pattern = "a.*"
[[module]]
name = "b"
pattern = ["b.*", "both.*"]
[[module]]
name = "c"
pattern = ["c.*", "both.*"]
path = "models/*"
"""


def side(**tensors: object) -> StoredSide:
    """A version whose tensors have these contents; `__` in a name is a dot."""
    named = {name.replace("__", "."): label for name, label in tensors.items()}
    return StoredSide(manifest(*(entry(name, label) for name, label in named.items())), NOTHING)


def division(
    old: StoredSide | None, new: StoredSide | None, path: str = "models/m", was: str | None = None
) -> Division | None:
    found = Pair(path, old, new, was).compare(measured=False)
    return divided(found, parse(TOML.encode()), path)


def told(found: Division | None) -> dict[str, tuple[list[str], int]]:
    assert found is not None
    return {one.module.name: (one.names, one.tensors) for one in found.parts}


def test_a_tensor_counts_where_it_was_and_where_it_is() -> None:
    old = side(a__x=1, a__y=2, a__gone=3, b__x=4, c__x=5)
    new = side(a__x=9, a__y=2, b__y=4, c__x=5, c__new=6)
    found = told(division(old, new))
    assert found == {
        "a": (["a.gone", "a.x"], 3),
        "b": (["b.y"], 1),  # (renamed: one tensor)
        "c": (["c.new"], 2),
    }
    # From one module to another, both lost or won one.
    found = told(division(side(a__x=1), side(b__x=1)))
    assert found == {"a": (["b.x"], 1), "b": (["b.x"], 1)}


def test_only_what_changed_has_to_belong_to_one() -> None:
    old = side(a__x=1, stray=2, both__x=3, gone=4, other=5)
    new = side(a__x=1, stray=2, both__x=3, both__y=9, other=6)
    found = division(old, new)
    assert found is not None
    assert found.outside == ("other",)
    assert [(name, [one.name for one in those]) for name, those in found.several] == [
        ("both.y", ["b", "c"])
    ]
    assert sorted(found.left) == ["both.x", "stray"]


def test_a_file_that_leaves_a_module_changes_it() -> None:
    same = {"a__x": 1, "c__x": 2}
    found = told(division(side(**same), side(**same), "old/m", "models/m"))
    assert found == {"a": ([], 1), "c": (["c.x"], 1)}


def test_opaque_bytes_are_nobodys() -> None:
    def rest(label: object) -> StoredSide:
        bytes_ = replace(entry("a.rest", label, "U8"), opaque=True)
        return StoredSide(manifest(entry("a.x", 1), bytes_), NOTHING)

    assert told(division(rest(1), rest(2))) == {"a": ([], 1)}


def test_what_modules_are_not_about() -> None:
    # An adapter in a repository of modules without paths is none of theirs …
    assert division(None, side(lora=1), "adapters/x") is None
    assert division(side(lora=1), None, "adapters/x") is None
    # … but a file that one names is.
    found = division(None, side(lora=1))
    assert found is not None
    assert found.outside == ("lora",)
