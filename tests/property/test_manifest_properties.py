"""Laws of the manifest: one legal encoding, and text merges that just work."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import natural_key, quote, unquote
from git_theta_ext.manifest.model import HEADS, VERSIONS, Entry, Manifest, is_manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from tests.scenarios.manifests import entry, manifest, manifests


@settings(deadline=None)
@given(manifests())
def test_what_is_written_reads_the_same(value: Manifest) -> None:
    text = manifest_bytes(value)
    assert is_manifest(text)
    assert parse_manifest(text) == value
    assert parse_manifest(text).version == value.version
    assert manifest_bytes(parse_manifest(text)) == text


@settings(deadline=None, max_examples=400)
@given(manifests(), st.data())
def test_a_mutated_line_is_refused_or_is_itself_canonical(
    value: Manifest, data: st.DataObject
) -> None:
    lines = manifest_bytes(value).split(b"\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[at])
    change = data.draw(st.sampled_from(["replace", "insert", "delete", "drop", "double", "swap"]))
    place = data.draw(st.integers(0, max(0, len(line) - 1)))
    byte = data.draw(st.one_of(st.sampled_from(b' 0aA"[],:=\r\n-'), st.integers(0, 255)))
    if change == "insert":
        line.insert(place, byte)
    elif change in ("replace", "delete") and line:
        line[place : place + 1] = bytes([byte]) if change == "replace" else b""
    lines[at : at + 1] = {"drop": [], "double": [line, line]}.get(change, [line])
    if change == "swap" and at + 1 < len(lines):
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    text = b"\n".join(bytes(each) for each in lines)
    try:
        parsed = parse_manifest(text)
    except ManifestError as error:
        message = error.message
    else:
        message = "line "
        assert manifest_bytes(parsed) == text
    assert message.startswith("line ")


@given(st.sampled_from(VERSIONS), st.binary(max_size=300))
def test_arbitrary_bytes_never_crash_the_reader(version: int, tail: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(HEADS[version] + b"format x\nskeleton\n" + tail)


@given(st.text(st.characters(codec="utf-8")))
def test_a_quoted_name_is_one_printable_line_and_comes_back(name: str) -> None:
    text = quote(name)
    assert unquote(text) == name
    assert text.isascii()
    assert text.isprintable()


@given(st.lists(st.text("a.019", max_size=5), min_size=3, max_size=3, unique=True))
def test_the_natural_order_is_total(names: list[str]) -> None:
    low, middle, high = sorted(names, key=natural_key)
    assert natural_key(low) < natural_key(middle) < natural_key(high)
    assert not natural_key(high) < natural_key(low)


def _merge_file(folder: Path, ours: bytes, base: bytes, theirs: bytes) -> tuple[int, bytes]:
    for name, text in (("ours", ours), ("base", base), ("theirs", theirs)):
        (folder / name).write_bytes(text)
    command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return done.returncode, done.stdout


def _changed(old: Entry, rng: random.Random) -> Entry:
    """New values and, now and then, a new shape; or an update on top of the old chain."""
    name, label = old.tensor.name, rng.random()
    kind = rng.randrange(4)
    if kind == 0:
        return entry(name, label, shape=(rng.choice([1, 31, 9_000_000]),))
    new = entry(name, label, shape=old.tensor.shape)
    if kind == 1 or old.blocks[0].inline is not None:
        return new
    pairs = zip(old.blocks, new.blocks, strict=True)
    kept = (
        b if b.inline is not None else type(b)(b.nbytes, b.sha256, a.chain + b.chain)
        for a, b in pairs
    )
    return Entry(new.tensor, tuple(kept))


def _branches(rng: random.Random, contents: int) -> list[bytes]:
    """Ours (which also adds and removes), base, theirs, and the merge they must give.

    `contents` is how many different contents all tensors share; 0 makes each its own.
    """

    def label() -> float:
        return rng.randrange(contents) if contents else rng.random()

    names = [f"layer.{i}.{part}" for i in range(6) for part in ("bias", "weight")]
    sizes = {name: rng.choice([(), (30,), (30,), (31,), (17_000_000,)]) for name in names}
    base = {name: entry(name, label(), shape=sizes[name]) for name in names}
    ours, theirs, right = dict(base), dict(base), dict(base)
    for name in names:
        act = rng.choice(["keep", "ours", "theirs", "remove", "add"])
        if act in ("ours", "theirs"):
            right[name] = _changed(base[name], rng)
            (ours if act == "ours" else theirs)[name] = right[name]
        elif act == "remove":
            del ours[name], right[name]
        elif act == "add":
            ours[name + ".a"] = right[name + ".a"] = entry(name + ".a", label())
    return [manifest_bytes(manifest(*side.values())) for side in (ours, base, theirs, right)]


def test_git_merges_changes_to_different_tensors_as_text(tmp_path: Path) -> None:
    """Whichever neighbours change, and next to tensors that one side adds and removes."""
    for seed in range(300):
        ours, base, theirs, right = _branches(random.Random(seed), contents=0)
        left, other = (ours, theirs) if seed % 2 else (theirs, ours)
        status, merged = _merge_file(tmp_path, left, base, other)
        assert status == 0, seed
        assert merged == right, seed


def test_tensors_of_equal_content_never_merge_wrongly(tmp_path: Path) -> None:
    """Repeated lines can make the diff choose an odd alignment: a rare conflict, never an error."""
    conflicts = 0
    for seed in range(200):
        ours, base, theirs, right = _branches(random.Random(seed), contents=3)
        status, merged = _merge_file(tmp_path, ours, base, theirs)
        conflicts += status != 0
        assert merged == right if status == 0 else b"<<<<<<<" in merged, seed
    assert conflicts < 20
