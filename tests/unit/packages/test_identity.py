"""The identity of a model: what it depends on, and what not."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Entry
from git_theta_ext.packages.identity import identity_of, line_of, tensors_of
from tests.scenarios.manifests import entry, manifest


def test_a_line_is_as_documented() -> None:
    one = entry("a\tb\nc", shape=(3, 10))
    assert line_of(one) == f'"a\\tb\\nc"\tF32\t3x10\t{one.blocks[0].sha256}\n'
    scalar = entry("step", shape=())
    assert line_of(scalar) == f"step\tF32\t\t{scalar.blocks[0].sha256}\n"
    assert identity_of([manifest(scalar, one)]) == (
        hashlib.sha256((line_of(one) + line_of(scalar)).encode()).hexdigest()
    )


def test_a_model_is_its_tensors_however_they_are_cut_into_files() -> None:
    a, b, tied = entry("a", 1), entry("b", 2), entry("tied", 3)
    whole = identity_of([manifest(a, b, tied)])
    assert identity_of([manifest(b, tied, skeleton="x"), manifest(a, tied)]) == whole
    assert identity_of([manifest(a, b)]) != whole
    assert tensors_of([manifest(a, b)]).keys() == {"a", "b"}


def test_name_type_shape_order_and_values_all_count() -> None:
    one = entry("w", 1, shape=(5, 6))
    info = one.tensor
    others = [
        replace(one, tensor=replace(info, name="v")),
        replace(one, tensor=TensorInfo("w", info.dtype, (6, 5))),
        replace(one, tensor=TensorInfo("w", info.dtype, (5, 6), (1, 0))),
        entry("w", 1, dtype="I32", shape=(5, 6)),
        entry("w", 2, shape=(5, 6)),
    ]
    assert len({identity_of([manifest(each)]) for each in [one, *others]}) == 6


def test_how_it_is_stored_does_not_count() -> None:
    one = entry("w", 1)
    bare = Entry(one.tensor, tuple(replace(block, chain=()) for block in one.blocks))
    assert tensors_of([manifest(one)]) == tensors_of([manifest(bare)])
