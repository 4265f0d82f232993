"""`recipe.toml` and its lock: what is read, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.assemble import locked
from git_theta_ext.packages.assemble.locked import Lock, LockedPart, LockedTensor, merged
from git_theta_ext.packages.assemble.recipe_file import parse

MODEL = '[model]\npath = "m.safetensors"\n'
PART = '[[part]]\nfrom = "v1:m.safetensors"\n'


def test_a_recipe_with_all_there_is() -> None:
    found = parse(
        b"""[model]
path = "chat/model.safetensors"
metadata = { format = "pt" }
dtype = "bfloat16"
[[part]]
from = "https://host/org/base.git@v2.0:model.safetensors"
tensors = ["a.*", "b"]
without = "a.{0..3}"
layers = ["0..2", 2, "1"]
to = 3
[[part]]
from = "git@host:team/vision@model@v1.2.0"
experts = { from = "dense", to = "qwen", numbers = "0..7", shared = true }
rename = { "x.*" = "*.y", "z" = "w" }
overrule = true
[[part]]
from = "../base@main"
[[part]]
from = "HEAD~1:deep/head.safetensors"
"""
    )
    assert [part.name for part in found.parts] == ["base", "vision", "base-2", "head"]
    assert found.dtype == "BF16"
    assert found.metadata == (("format", "pt"),)
    assert found.parts[0].layers == (0, 1, 2, 2, 1)
    assert found.parts[0].to == 3
    assert found.parts[1].rename == (("x.*", "*.y"), ("z", "w"))
    assert found.parts[1].overrule
    assert found.parts[1].experts is not None
    assert found.parts[1].experts.numbers[-1] == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PART, "no path"),
        (MODEL, r"no \[\[part\]\]"),
        (MODEL + "[[part]]\n", "no from"),
        (MODEL + '[part]\nfrom = "x"', "two brackets"),
        (MODEL + PART + 'renames = { a = "b" }', "line 5: .*unknown key 'renames'"),
        (MODEL + PART + "[gate]", "unknown table 'gate'"),
        (MODEL + PART + "overrule = 1", "true or false"),
        (MODEL + PART + "tensors = []", "empty"),
        (MODEL + PART + f"tensors = {['*'] * 1001}", "1001 patterns and renames"),
        (MODEL + PART + 'name = "a b"', "no name"),
        (MODEL + (PART + 'name = "a"\n') * 2, "'a' already"),
        (MODEL + PART + 'dtype = "int8"', "unknown dtype"),
        (MODEL + PART + 'layers = "3..1"', "ends before"),
        (MODEL + PART + 'layers = "0..999999"', f"more than {limits.RECIPE_LAYERS}"),
        (MODEL + PART + 'layers = "0..99999999999"', "such as"),
        (MODEL + PART + "to = 3", "needs layers"),
        (MODEL + PART + 'layers = 1\nlayer = "h."', "stands in it once"),
        (MODEL + PART + 'rename = { "a.?" = "b" }', "no other wildcards"),
        (MODEL + PART + 'rename = { "a.*" = "*.*" }', "no more"),
        (MODEL + PART + 'experts = { from = "dense", to = "qwen" }', "numbers"),
        (MODEL + PART + 'experts = { from = "qwen", to = "dense" }', "do not become"),
        (MODEL + PART + 'experts = { from = "qwen", to = "gpt" }', "known: dense"),
        (MODEL + PART + 'experts = { from = "dense", to = "stacked", numbers = "1..2" }', "from 0"),
        ('[model]\npath = "../m.safetensors"\n' + PART, "path"),
        ('[model]\npath = "/etc/m"\n' + PART, "path"),
        ('[model]\npath = ".git/config"\n' + PART, "leads into .git"),
        ('[model]\npath = "recipe.lock"\n' + PART, "no name of a checkpoint"),
        ('[model]\npath = "m.gguf"\nformat = "gguf"\n' + PART, "format"),
        (MODEL + PART + "<<<<<<< ours\n", "line 5: a conflict marker"),
        (MODEL + PART + ".".join("a" * 300) + " = 1", "more than"),
        ("\x00", "not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(text.encode())


TENSOR = LockedTensor("0123456789abcdef", ("old",))
ODD = {"new": TENSOR, 'odd "name"\n\x7f é\ud800': replace(TENSOR, sources=("x", "\t"))}
PARTS = (
    LockedPart("base", "https://h/b@v1:m", "https://h/b", "v1", "refs/tags/v1", "a" * 40, "m",
               "b" * 40, ODD),
    LockedPart("own", "HEAD:m", "", None, None, "c" * 64, "m-*-of-*.safetensors"),
)  # fmt: skip


def test_a_lock_reads_as_it_was_written() -> None:
    lock = Lock("m.safetensors", PARTS)
    text = locked.lock_bytes(lock)
    assert locked.parse(text, "recipe.lock") == lock
    assert text.startswith(locked.MAGIC)
    assert locked.lock_bytes(lock) == text
    assert lock.giver("new") == (PARTS[0], TENSOR)
    assert lock.giver("other") is None
    twice = Lock("m", (PARTS[0], replace(PARTS[1], tensors={"new": TENSOR})))
    assert twice.giver("new") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lock v1", "lock v9"), ("a" * 40, "main"), ('"0123456789abcdef"', '"short"'),
        ("tensors = [\n]", "tensors = 5"), ('commit = "', 'commit = 1 # "'), ("[[part]]", "[part]"),
        ('  ["new"', '  [["new"]'),
    ],
)  # fmt: skip
def test_a_damaged_lock_is_refused(old: str, new: str) -> None:
    text = locked.lock_bytes(Lock("m.safetensors", PARTS)).decode()
    assert old in text
    with pytest.raises(UsageError, match=r"recipe\.lock"):
        locked.parse(text.replace(old, new, 1).encode(), "recipe.lock")


def lock(**commits: str) -> Lock:
    return Lock("m", tuple(replace(PARTS[0], name=name, source=f"{name}@main", commit=commit * 40)
                           for name, commit in commits.items()))  # fmt: skip


def test_locks_of_two_branches_are_merged_part_by_part() -> None:
    sources = {name: f"{name}@main" for name in ("a", "b", "c")}
    found = merged(lock(a="0", b="0"), lock(a="1", b="0"), lock(a="0", b="2", c="3"), sources)
    assert {name: one.commit[0] for name, one in found.items()} == {"a": "1", "b": "2", "c": "3"}
    with pytest.raises(UsageError, match="locked a to different commits"):
        merged(lock(a="0"), lock(a="1"), lock(a="2"), sources)
    assert merged(None, lock(a="1"), None, {"a": "a@v2"}) == {}
