"""Reading and writing manifests: names, order, limits of what can be written, speed."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import natural_key, quote, unquote
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef, is_manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from tests.scenarios.manifests import block, entry, manifest


def test_natural_order_counts_digits_by_value() -> None:
    names = ["", "10", "a", "a.01", "a.1", "a.1.b", "a.2", "a.10", "a.10b", "a.b", "b", "é"]
    assert sorted(set(names), key=natural_key) == [
        "", "10", "a", "a.01", "a.1", "a.1.b", "a.2", "a.10", "a.10b", "a.b", "b", "é",
    ]  # fmt: skip


def test_natural_order_takes_digit_runs_of_any_length() -> None:
    assert natural_key("9" * 10_000) < natural_key("1" + "0" * 10_000)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("encoder.0.weight", "encoder.0.weight"),
        ("with space", "with space"),
        ('in"side', 'in"side'),
        ("", '""'),
        (" edge", '" edge"'),
        ("edge ", '"edge "'),
        ('"', '"\\""'),
        ("a\nb", '"a\\nb"'),
        ("\x7f", '"\\u007f"'),
        ("größe", '"gr\\u00f6\\u00dfe"'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_names_are_bare_or_quoted(name: str, text: str) -> None:
    assert quote(name) == text
    assert unquote(text) == name


@pytest.mark.parametrize("text", ["", '"bare"', '"\\u0061 "', '"é"', "é", " a", '"a', '"\\u00F6"'])
def test_names_have_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        unquote(text)


def test_a_surrogate_pair_is_not_a_name() -> None:
    with pytest.raises(ManifestError, match="not valid Unicode"):
        manifest_bytes(manifest(entry("\ud800\udc00")))


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"git-theta manifest v1\n", True),
        (b"git-theta manifest v2\nanything", True),
        (b"git-theta manifest v1\r\n", True),
        (b"git-theta manifest v1", False),
        (b" git-theta manifest v1\n", False),
        (b"PK\x03\x04", False),
        (b"", False),
    ],
)
def test_a_manifest_is_known_by_its_first_line(head: bytes, answer: bool) -> None:
    assert is_manifest(head) is answer


def test_identity_order_is_not_written() -> None:
    plain = entry("a", shape=(5, 6))
    ordered = Entry(replace(plain.tensor, order=(0, 1)), plain.blocks)
    assert manifest_bytes(manifest(ordered)) == manifest_bytes(manifest(plain))


_F32 = TensorInfo("a", DTYPES["F32"], (30,))
_DENSE = UpdateRef("dense", "0" * 64, 1)


@pytest.mark.parametrize(
    "bad",
    [
        Entry(_F32, ()),
        Entry(_F32, (block(119, 1),)),
        Entry(_F32, (block(120, 1), block(120, 1))),
        Entry(_F32, (Block(120, "0" * 64, (), None),)),
        Entry(_F32, (Block(120, "0" * 64, (), b"x" * 120),)),
        Entry(_F32, (Block(120, "A" * 64, (_DENSE,)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, kind="block"),)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, oid="sha256:0"),)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, size=-1),)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, size=2**63),)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, info=(("a", "b c"),)),)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, info=(("a", "b c=d"),)),)),)),
        Entry(_F32, (Block(120, "0" * 64, (replace(_DENSE, info=(("a", "1"), ("a", "2"))),)),)),
        Entry(_F32, (Block(120, "0" * 64, (_DENSE,) * 257),)),
        Entry(replace(_F32, shape=(1,)), (Block(4, "0" * 64, (), b"1234"),)),
        Entry(replace(_F32, shape=(1,) * 65), (block(4, 1),)),
        Entry(replace(_F32, shape=(5, 6), order=(1, 1)), (block(120, 1),)),
        Entry(replace(_F32, shape=(2**63, 0)), (block(0, 1),)),
        Entry(_F32, (block(120, 1),), opaque=True),
        Entry(TensorInfo("a", DTYPES["U8"], (3 << 20,)), (block(3 << 20, 1),), opaque=True),
    ],
)
def test_what_could_not_be_read_is_not_written(bad: Entry) -> None:
    with pytest.raises(ManifestError):
        manifest_bytes(manifest(bad))


def test_unsorted_or_repeated_entries_are_not_written() -> None:
    for names in (("b", "a"), ("a", "a")):
        with pytest.raises(ManifestError, match="natural order"):
            manifest_bytes(Manifest("x", block(9, 1), tuple(map(entry, names))))


def test_three_thousand_entries_are_read_quickly() -> None:
    """Takes about 50 ms; the bound only tells apart what is no longer linear or simple."""
    many = [entry(f"encoder.layer.{i // 16}.part.{i % 16}.weight", i) for i in range(3000)]
    text = manifest_bytes(manifest(*many))
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        assert len(parse_manifest(text).entries) == 3000
        best = min(best, time.perf_counter() - start)
    assert best < 1
