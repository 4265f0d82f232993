"""Gates for one module, and the rules that modules bring along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.checkpoints.modules import parse as parse_modules
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison.files import Pair, two_files
from git_theta_ext.core.errors import UsageError
from git_theta_ext.evaluation.config import parse
from git_theta_ext.evaluation.gates import ownership
from git_theta_ext.evaluation.gates.ownership import judge_modules, said_of_change, said_of_left
from git_theta_ext.evaluation.gates.properties import properties
from git_theta_ext.manifest.model import Block
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.manifests import entry, manifest

TOML = """
[[module]]
name = "vision"
pattern = "vision.*"
owners = ["@vision"]
frozen = true
[[module]]
name = "head"
pattern = "head.*"
"""
GATE = '[[gate]]\nmodule = "head"\n'


def stored(**tensors: object) -> StoredSide:
    entries = (entry(name.replace("__", "."), label) for name, label in tensors.items())
    return StoredSide(manifest(*entries), cast(Blocks, None))


def said(rules: str, pair: Pair) -> dict[str, tuple[str, float | None]]:
    config = parse((TOML + GATE + rules).encode())
    rows = properties(config.gates, pair, config.modules)
    return {row.name: (row.verdict, row.after) for row in rows}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (TOML + '[[gate]]\nmodule = "haed"\nfrozen = "*"\n',
         "line 11: [[gate]] number 1: there is no module 'haed'", "did you mean head?"),
        ('[[gate]]\nmodule = "head"\nfrozen = "*"\n', "there is no module 'head'",
         "declare one with [[module]]"),
        (TOML + '[[evaluation]]\nname = "e"\ncommand = "run {checkpoint}"\n'
         '[[gate]]\nevaluation = "e"\nmodule = "head"\nmin = 1\n',
         "scores are of the whole checkpoint", "max_stored, new_nan and frozen"),
        (TOML + GATE, "it has no rule", "frozen"),
    ],
)  # fmt: skip
def test_a_gate_names_a_module_that_there_is(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text.encode())
    assert message in error.value.message
    assert hint in (error.value.hint or "")


def test_a_gate_looks_at_its_module_alone() -> None:
    pair = Pair("m", stored(head__a=1, vision__a=1), stored(head__a=2, vision__a=2, head__b=2))
    # Two tensors of 120 bytes, whose objects take half of that; the same bytes are stored once.
    assert said("max_stored = 100\n", pair) == {"head: stored": ("accepted", 60.0)}
    assert said("max_stored = 50\n", pair) == {"head: stored": ("refused", 60.0)}
    assert said('frozen = "*"\n', pair) == {"head: frozen": ("refused", 2.0)}
    assert said('frozen = "*.b"\n', pair) == {"head: frozen": ("refused", 1.0)}
    # A checkpoint without the module is none of its business, whatever became of it.
    assert said('frozen = "*"\n', Pair("m", stored(vision__a=1), None)) == {}
    gone = said('frozen = "*"\n', Pair("m", stored(head__a=1), None))
    assert gone == {"head: checkpoint": ("unmeasured", None)}
    unread = said('frozen = "*"\n', Pair("m", None, None, compared=False))
    assert unread == {"head: checkpoint": ("unmeasured", None)}


def test_new_nan_is_read_of_the_module_alone(tmp_path: Path) -> None:
    versions = ([1.0, 1.0], [2.0, np.nan], [np.nan, 2.0])
    for at, (head, vision) in enumerate(versions):
        values = {"head.a": np.full(30, head, "f4"), "vision.a": np.full(30, vision, "f4")}
        (tmp_path / str(at)).write_bytes(safetensors(values))
    read: list[Block] = []

    def lacking(blocks: object) -> None:
        read.extend(cast(list[Block], blocks))

    for new, verdict, count in (("1", "accepted", 0.0), ("2", "refused", 30.0)):
        pair = two_files(tmp_path / "0", tmp_path / new, None)
        config = parse((TOML + GATE + "new_nan = false\n").encode())
        (row,) = properties(config.gates, pair, config.modules, lacking)
        assert (row.verdict, row.after) == (verdict, count)
        pair.close()
    assert len(read) == 4  # of each update the two versions of one tensor


def test_a_checkpoint_that_is_new_or_cannot_be_read() -> None:
    modules = parse_modules(TOML.encode())
    new = judge_modules(modules, Pair("m", None, stored(vision__a=1, head__a=1, other=1)))
    assert [(row.name, row.verdict) for row in new.rows] == [
        ("module vision: frozen", "accepted"),
        ("modules: one for each tensor", "refused"),
    ]
    assert [one.part.module.name for one in new.touched] == ["vision", "head"]
    unread = judge_modules(modules, Pair("m", None, None, compared=False))
    assert [row.verdict for row in unread.rows] == ["unmeasured"]
    named = Modules(tuple(replace(one, paths=("models/*",)) for one in modules))
    assert judge_modules(named, Pair("m", None, None, compared=False)).rows == ()


def test_its_own_modules_are_named_where_they_would_do() -> None:
    pair = Pair("m", stored(head__a=1), stored(head__a=1, new__a=1))
    base = parse_modules(TOML.encode())
    own = Modules((*base, Module("fresh", ("new.*",))))
    for mine, words in ((own, "its own modules have them (fresh): merge those first"), (base, "")):
        (*_, row) = judge_modules(base, pair, mine).rows
        assert row.reasons == ("these belong to no module: new.a", *([words] if words else []))


def test_what_loosens_is_said_first() -> None:
    old = parse_modules(TOML.encode())
    vision, head = old
    assert said_of_change(old, old) == ""
    other = replace(head, owners=("@me",), patterns=("*",))
    thawed, moved = replace(vision, frozen=False), replace(vision, patterns=("v.*",))
    for modules, words in (
        (
            (other, thawed),
            "vision is not frozen any more; head has other patterns and other owners",
        ),
        ((moved, head), "vision has other patterns"),
        ((head,), "vision is gone"),
        ((vision, replace(head, frozen=True)), "head has been frozen"),
        ((vision, head, Module("x", ("x",))), "x is new"),
    ):
        assert said_of_change(old, Modules(modules)).endswith(f"on the base: {words}")


def test_long_lists_are_counted() -> None:
    (line,) = said_of_left({f"m{at}": [f"t{n}" for n in range(9)] for at in range(20)} | {"n": ()})
    assert "t0, t1, t2, t3, t4 and 4 more tensors in m0; " in line
    assert line.endswith("; and 12 more")
    assert list(said_of_left({"m": ()})) == []
    assert ownership.asked(Module("x", ("x",))) == "no owner is named"
