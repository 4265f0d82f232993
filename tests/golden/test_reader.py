"""`docs/reader/read_manifest.py` rebuilds checkpoints without this package and without its code."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import NAME, Tensors, awkward, safetensors
from tests.scenarios.golden import unpacked
from tests.scenarios.repositories import Repo

READER = Path(__file__).parents[2] / "docs/reader/read_manifest.py"
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


def read(manifest: bytes, objects: Path, out: Path) -> tuple[int, str, str]:
    """Exit status, stdout without its last line, stderr; fails if it had any help."""
    out.parent.mkdir(exist_ok=True)
    file = out.with_suffix(".manifest")
    file.write_bytes(manifest)
    command = [sys.executable, "-I", "-c", ALONE, READER, file, objects, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out.parent)
    said, _, modules = done.stdout.strip().rpartition("\n")
    # (What every Python imports that has such a file, Debian's among them; it helps with nothing.)
    at_start = {"sitecustomize", "usercustomize", "warm_client"}
    helpers = set(json.loads(modules.replace("'", '"'))) - {"__main__", "zstandard", *at_start}
    assert not {name for name in helpers if not name.startswith("_")}, helpers
    return done.returncode, said, done.stderr


def tensors_of(out: Path) -> dict[str, tuple[str, list[int], bytes]]:
    table = json.loads((out / "tensors.json").read_text())
    return {
        row["name"]: (row["dtype"], row["shape"], (out / row["file"]).read_bytes()) for row in table
    }


@pytest.mark.parametrize(("name", "file", "version"), [
    ("updates", NAME, 1), ("more", "a.safetensors", 1), ("more", "e.bin", 1), ("packs", NAME, 2),
])  # fmt: skip
def test_what_earlier_versions_wrote(
    name: str, file: str, version: int, tmp_path: Path, sealed: Path
) -> None:
    bare, hashes = unpacked(name, tmp_path)
    text = Repo(bare).blob(f"v0:{file}")
    assert text.startswith(b"git-theta manifest v%d\n" % version)
    code, said, errors = read(text, bare / "theta/objects", tmp_path / "out")
    assert (code, errors) == (0, "")
    assert said.endswith("and the file itself")
    found = (tmp_path / "out/checkpoint").read_bytes()
    assert hashlib.sha256(found).hexdigest() == hashes[0][file]


def test_what_it_does_not_know_is_named(tmp_path: Path, sealed: Path) -> None:
    bare, _ = unpacked("recipes", tmp_path)
    text = Repo(bare).blob(f"v3:{NAME}")
    code, said, errors = read(text, bare / "theta/objects", tmp_path / "out")
    assert (code, said) == (1, "0 of 18 tensors")
    assert "not rebuilt: ties.half: `merge ties` is beyond this reader\n" in errors


def made(seed: int) -> Tensors:
    """Every coder of `dense`, inline, in packs and in objects of their own, and blocks."""
    random = np.random.default_rng(seed)
    return {
        **awkward(),
        "größe\n": random.normal(0, 1, (40, 50)).astype(np.float32),
        "codes": random.integers(0, 3, 9000).astype(np.int8),
        "wide": random.normal(0, 0.02, (400, 401)).astype(np.float32),
        "half": random.normal(0, 0.02, (700, 300)).astype(ml_dtypes.bfloat16),
        "double": random.normal(0, 1, 70_001),
        "blocks": np.tile(random.integers(0, 99, (1, 5000)).astype(np.int8), (1700, 1)),
    }


def test_a_repository_of_version_2(new_repo: Callable[..., Repo], tmp_path: Path) -> None:
    repo = new_repo()
    tensors = made(0)
    first = safetensors(tensors, {"step": "1"})
    repo.write(NAME, first)
    repo.commit("first")
    objects = repo.path / ".git/theta/objects"
    text = repo.blob(f"HEAD:{NAME}")
    for part in (b"git-theta manifest v2\n", b"\n  block ", b"]\n", b" inline:"):
        assert part in text
    code, said, errors = read(text, objects, tmp_path / "one")
    assert (code, errors) == (0, "")
    assert said == f"{len(tensors)} of {len(tensors)} tensors, and the file itself"
    assert (tmp_path / "one/checkpoint").read_bytes() == first
    assert {name: data for name, (_, _, data) in tensors_of(tmp_path / "one").items()} == {
        name: value.tobytes() for name, value in tensors.items()
    }

    # One tensor becomes an update, the structure a patch, which the reader knows.
    changed = dict(tensors)
    changed["wide"] = (tensors["wide"] * np.float32(1.0001)).astype(np.float32)
    repo.write(NAME, safetensors(changed, {"step": "2"}))
    repo.commit("second")
    assert b"\n  patch " in repo.blob(f"HEAD:{NAME}")
    code, said, errors = read(repo.blob(f"HEAD:{NAME}"), objects, tmp_path / "two")
    assert (code, said) == (1, f"{len(tensors) - 1} of {len(tensors)} tensors")
    assert errors.startswith("not rebuilt: wide: `")
    assert errors.count("not rebuilt") == 1
    assert not (tmp_path / "two/checkpoint").exists()

    # A flipped bit, an object that is gone, a version that is not known.
    (ref,) = parse_manifest(text).by_name()["wide"].blocks[0].objects()
    victim = objects / ref.oid[:2] / ref.oid[2:4] / ref.oid
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(data)
    code, _, errors = read(text, objects, tmp_path / "three")
    assert code == 1
    assert errors.startswith("not rebuilt: wide: ")
    victim.unlink()
    code, _, errors = read(text, objects, tmp_path / "four")
    assert f"object {victim.name} is not here" in errors
    code, _, errors = read(text.replace(b" v2\n", b" v3\n", 1), objects, tmp_path / "five")
    assert code == 1
    assert "is not how a manifest of version 1 or 2 begins" in errors
