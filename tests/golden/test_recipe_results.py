"""What each recipe of a merge gives never changes: `recipes.json` holds the hashes of its results.

Run as a program, this writes the hashes of recipes that have none yet; it changes none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import Parent, Recipe
from git_theta_ext.updates.recipes import KNOWN, predict

FILE = Path(__file__).with_name("recipes.json")
TYPES = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2", "C64")
SEEDS = ",".join(sha256(str(number).encode()).hexdigest() for number in range(3))
SETTINGS = {
    "entries": [()],
    "average": [(), (("weights", "0.7,0.3,0.1"),)],
    "reapply": [(), (("lambda", "0.3"),)],
    "task-arithmetic": [(), (("lambda", "0.4"),), (("weights", "0.7,0.3,2.0"), ("lambda", "0.9"))],
    "ties": [(), (("floors", "0.01,0.5,inf"), ("lambda", "0.4"))],
    "dare-linear": [(("density", "0.4"), ("seeds", SEEDS))],
    "dare-ties": [(("density", "0.6"), ("seeds", SEEDS), ("start", "70000"), ("lambda", "0.4"))],
    "breadcrumbs": [(("floors", "0.01,0.02,0.0"), ("ceilings", "1.0,inf,3.0"))],
}
COUNT = 20_000


def versions(name: str, count: int) -> list[Values]:
    """A base and sides: every bit pattern's worth of noise, small steps, equal runs, odd values."""
    dtype = DTYPES[name]
    random = np.random.Generator(np.random.Philox(key=[19, len(name)]))
    width = values_dtype(dtype)
    raw = random.integers(0, 256, COUNT * width.itemsize, np.uint8).view(width)
    found = [raw]
    for _ in range(count):
        side = raw.copy()
        moved = random.random(COUNT) < 0.6
        side[moved] ^= random.integers(0, 64, int(moved.sum()), np.uint8).astype(width)
        anew = random.random(COUNT) < 0.1
        side[anew] = random.integers(0, 256, int(anew.sum()), np.uint8).astype(width)
        found.append(side)
    return found


def results() -> Iterator[tuple[str, str]]:
    """Each recipe, with its settings, sides and type, and the hash of what it gives."""
    for strategy, number in sorted(KNOWN):
        for settings in SETTINGS[strategy]:
            for name in TYPES:
                for count in (2, 3):
                    base, *sides = versions(name, count)
                    words = tuple((key, _cut(value, count)) for key, value in settings)
                    parents = tuple(Parent(f"side-{at}", ()) for at in range(count))
                    recipe = Recipe(strategy, number, words, parents)
                    made = predict(recipe, DTYPES[name], base, sides)
                    text = " ".join(f"{key}={value}" for key, value in words)
                    label = f"{strategy} {number} of {count} {name} {text}".strip()
                    yield label, sha256(made.tobytes()).hexdigest()


def _cut(value: str, count: int) -> str:
    return ",".join(value.split(",")[:count])


def test_every_recipe_gives_what_it_always_gave() -> None:
    assert dict(results()) == json.loads(FILE.read_text("ascii"))


if __name__ == "__main__":
    known = json.loads(FILE.read_text("ascii")) if FILE.exists() else {}
    FILE.write_text(json.dumps({**dict(results()), **known}, indent=1) + "\n", "ascii")
