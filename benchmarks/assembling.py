#!/usr/bin/env python3
"""What `git theta assemble` takes, beside hashing and copying the objects of the parts.

    python benchmarks/assembling.py [--megabytes N]

Three repositories have a part each; a fourth assembles them. The figures are CPU seconds of the
whole tree of processes (user and system), which the load of the machine changes little, and the
clock's, of the run in the middle of three. POSIX only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

THETA = [sys.executable, "-m", "git_theta_ext.cli.main"]
SHARES = {"base": 0.75, "vision": 0.2, "head": 0.05}
RECIPE = """
[model]
path = "model.safetensors"
[[part]]
from = "../base@v1:model.safetensors"
[[part]]
from = "../vision@v1:model.safetensors"
rename = {{ "vision.*" = "{0}.*" }}
[[part]]
from = "../head@v1:model.safetensors"
"""
RUNS = 3
_ROWS, _COLUMNS = 2048, 4096
"""A tensor of 16 MB, in bfloat16."""


class Place:
    """A folder of repositories, and the environment in which their commands run."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.env = {
            **{name: text for name, text in os.environ.items() if not name.startswith("GIT_")},
            "HOME": str(top), "GIT_CONFIG_NOSYSTEM": "1", "GIT_THETA_CACHE": str(top / "cache"),
            "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@b",
        }  # fmt: skip

    def run(self, folder: str, *words: str, env: Mapping[str, str] | None = None) -> list[float]:
        """Run a command; its CPU seconds and the clock's."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            words, cwd=self.top / folder, env={**self.env, **(env or {})}, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return [cpu, time.perf_counter() - start]

    def repository(self, name: str) -> None:
        """A repository in which the extension is installed."""
        (self.top / name).mkdir()
        self.run(name, "git", "init", "-q")
        self.run(name, *THETA, "install", "--local")
        self.run(name, *THETA, "track", "*.safetensors")

    def stored(self, name: str) -> int:
        """Bytes of the objects of a repository."""
        top = self.top / name / ".git" / "theta" / "objects"
        return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def write_part(path: Path, name: str, megabytes: float) -> None:
    """A checkpoint of bfloat16 matrices that are distributed as trained ones are."""
    count = max(1, round(megabytes / 16))
    rng = np.random.default_rng(len(name))
    header, offset = {}, 0
    size = 2 * _ROWS * _COLUMNS
    for number in range(count):
        header[f"{name}.{number}.weight"] = {
            "dtype": "BF16", "shape": [_ROWS, _COLUMNS], "data_offsets": [offset, offset + size],
        }  # fmt: skip
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            values = rng.standard_normal(_ROWS * _COLUMNS, np.float32) * np.float32(0.02)
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).data)


COPY = """
import hashlib, os, sys
for name in sys.argv[2:]:
    digest = hashlib.sha256()
    place = os.path.join(sys.argv[1], os.path.basename(name))
    with open(name, "rb") as source, open(place, "wb") as target:
        while piece := source.read(1 << 20):
            digest.update(piece)
            target.write(piece)
        os.fsync(target.fileno())
    assert digest.hexdigest() == os.path.basename(name)
"""


def main() -> None:
    """Make the parts, assemble them, and print what each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=1024)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for name, share in SHARES.items():
            place.repository(name)
            write_part(place.top / name / "model.safetensors", name, share * args.megabytes)
            place.run(name, "git", "add", ".")
            place.run(name, "git", "commit", "-q", "-m", "Train")
            place.run(name, "git", "tag", "v1")
        rows = measured(place)
    for label, (cpu, clock) in rows.items():
        print(f"{label:58} {cpu:7.2f} s CPU {clock:7.2f} s")


def median(found: list[list[float]]) -> list[float]:
    """The run whose time on the clock is in the middle."""
    return sorted(found, key=lambda one: one[1])[len(found) // 2]


def copied(place: Place, objects: list[str]) -> list[float]:
    """Hash and copy objects, one after the other, as a program without a library would."""
    target = place.top / "copy"
    target.mkdir()
    found = place.run("", sys.executable, "-I", "-c", COPY, str(target), *objects)
    shutil.rmtree(target)
    return found


def assembled(place: Place, env: Mapping[str, str]) -> list[float]:
    """Assemble in a repository that has nothing yet."""
    shutil.rmtree(place.top / "product", ignore_errors=True)
    place.repository("product")
    (place.top / "product" / "recipe.toml").write_text(RECIPE.format("vision_tower"))
    return place.run("product", *THETA, "assemble", "recipe.toml", env=env)


def measured(place: Place) -> dict[str, list[float]]:
    """The steps: hash and copy, assemble with the cache empty and full, and with other names."""
    objects = [
        str(path)
        for name in SHARES
        for path in (place.top / name / ".git/theta/objects").rglob("*")
        if path.is_file()
    ]
    print(f"{len(objects)} objects, {sum(map(os.path.getsize, objects)) / 1e6:.0f} MB")
    rows = {"hash and copy the objects": median([copied(place, objects) for _ in range(RUNS)])}
    skip = {"GIT_THETA_SKIP_SMUDGE": "1"}
    for label, env in (
        ("assemble, nothing in the cache, no checkout", skip),
        ("assemble, parts in the cache, no checkout", skip),
        ("assemble, parts in the cache", {}),
    ):
        found = []
        for _ in range(RUNS):
            if "nothing" in label:
                shutil.rmtree(place.top / "cache", ignore_errors=True)
            found.append(assembled(place, env))
        rows[label] = median(found)
    name = "product"
    place.run(name, "git", "commit", "-q", "-m", "Assemble")
    (place.top / name / "model.safetensors").unlink()
    rows["git checkout of the assembled checkpoint"] = place.run(name, "git", "checkout", "--", ".")
    before = place.stored(name)
    (place.top / name / "recipe.toml").write_text(RECIPE.format("tower"))
    rows["assemble with other names, no checkout"] = place.run(
        name, *THETA, "assemble", "recipe.toml", "--force", env=skip
    )
    print(f"stored for other names: {(place.stored(name) - before) / 1e3:.1f} kB")
    hashed = hashlib.sha256((place.top / name / "model.safetensors").read_bytes()).hexdigest()
    print(f"the manifest of the last: sha256:{hashed[:16]}")
    return rows


if __name__ == "__main__":
    main()
