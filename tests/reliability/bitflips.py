"""One bit at a time is flipped in what a repository keeps: is every one noticed, or harmless?

    python -m tests.reliability --only bitflips

Victims are the objects of the store, the blobs that hold manifests in Git's own object store, and
the memory of answers (`theta/memo`). After a flip in one of the first two, a version that needs the
file is checked out into an empty folder; after one in the memory, Git asks for the manifests of
all files again. A flip is *noticed* if the command fails and every file that is there is right; it
is *harmless* if the command succeeds and all is right. `git theta fsck` has to find each flip in an
object. Whatever is neither is a defect, and stops the run.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np

from git_theta_ext.manifest.text import parse_manifest
from tests.reliability.rows import Row
from tests.reliability.sealed import Repository
from tests.scenarios.checkpoints import awkward, changed, model, safetensors
from tests.scenarios.containers import gguf, npz
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

Kind = Literal["object", "manifest", "memory"]
KINDS: tuple[Kind, ...] = ("object", "manifest", "memory")
FLIPS = 1000
"""Of all kinds together, in the full run; half of them in objects."""
SEED = 7
_MEMORY_BYTES = 32


class Unnoticed(AssertionError):
    """A flipped bit gave wrong bytes without an error."""


def versions() -> list[dict[str, bytes]]:
    """Three versions of four files, with every common kind of update between them."""
    random_ = np.random.default_rng(0)
    weights = {
        **model(layers=2),
        "wide": random_.normal(0, 0.02, (256, 192)).astype(np.float32),
        "rows": random_.normal(0, 0.02, (128, 64)).astype(np.float32),
    }
    wide = weights["wide"]
    left, right = (random_.normal(0, 0.05, shape) for shape in ((256, 2), (2, 192)))
    second = {
        **weights,
        "wide": (wide + left @ right).astype(np.float32),
        "rows": changed(weights["rows"]),
        "head.weight": changed(weights["head.weight"]),
    }
    scattered = np.array(second["rows"])
    scattered.reshape(-1)[::97] += np.float32(0.5)
    third = {
        **second,
        "rows": np.concatenate([scattered, scattered[:3]]),
        "wide": (second["wide"] * np.float32(1.01)).astype(np.float32),
        "head.weight": second["head.weight"].astype(np.float32).astype(ml_dtypes.bfloat16),
    }
    found = []
    for number, tensors in enumerate((weights, second, third)):
        rows = np.ascontiguousarray(tensors["rows"])
        value = state_dict({"rows": tensor(Storage("0", "FloatStorage", rows.size), rows.shape)})
        found.append({
            "model.safetensors": safetensors({**tensors, **awkward()}, {"step": str(number)}),
            "optimizer.pt": save(value, {"0": rows.tobytes()}),
            "arrays.npz": npz({"rows": rows, "ids": np.arange(140_000 + number)}),
            "blob.bin": random_.bytes(3000) + bytes(range(256)) * (4200 + number),
            "small.gguf": gguf({"rows": (0, rows.shape, rows.tobytes())}),
        })  # fmt: skip
    return found


class Scene:
    """A repository of three versions and a fourth that is not committed, and what is true of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.repository = Repository(folder, "*.safetensors", "*.pt", "*.npz", "*.bin", "*.gguf")
        self.truth = versions()
        for number, files in enumerate(self.truth):
            for name, data in files.items():
                self.repository.write(name, data)
            self.repository.commit(f"version {number}")
            self.repository.git("tag", f"v{number}")
        self.names = sorted(self.truth[0])
        data = bytearray(self.truth[-1]["model.safetensors"])
        data[-40_000::5] = bytes(8000)
        self.repository.write("model.safetensors", bytes(data))
        for name in self.names:
            # Only what is older than the clock's tick is remembered.
            os.utime(self.repository.path / name, (1_600_000_000, 1_600_000_000.5))
        # Of the memory only what is asked for from now on is worth a flip.
        shutil.rmtree(self.repository.path / ".git/theta/memo")
        self.answers = self.ask()
        self.needed = self._needed()

    def _needed(self) -> dict[Path, list[int]]:
        """Each object and each manifest's blob, with the versions that need it."""
        found: dict[Path, list[int]] = {}
        for version in range(len(self.truth)):
            for name in self.names:
                oid = self.repository.git("rev-parse", f"v{version}:{name}").strip()
                text = self.repository.run("git", "cat-file", "blob", oid).stdout
                paths = [self.repository.path / ".git/objects" / oid[:2] / oid[2:]]
                paths += [
                    self.repository.object_path(r.oid) for r in parse_manifest(text).objects()
                ]
                for path in paths:
                    if version not in found.setdefault(path, []):
                        found[path].append(version)
        return found

    def victims(self, kind: Kind) -> list[Path]:
        """The files of a kind, in a fixed order."""
        if kind == "memory":
            return sorted((self.repository.path / ".git/theta/memo").iterdir())
        inside = "theta" if kind == "object" else "objects"
        return sorted(
            p for p in self.needed if p.is_relative_to(self.repository.path / ".git" / inside)
        )

    def ask(self) -> str:
        """The blobs that Git would stage for the files of the work tree now."""
        return self.repository.git("hash-object", "--", *self.names)

    def flip(self, kind: Kind) -> str:
        """Flip a bit somewhere, try, put it back: `noticed` or `harmless`.

        Raises:
            Unnoticed: neither; names the file and the bit.
        """
        victim = self.random.choice(self.victims(kind))
        whole = victim.read_bytes()
        bit = self.random.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        mode = victim.stat().st_mode
        victim.chmod(0o644)
        victim.write_bytes(damaged)
        where = f"bit {bit} of {victim.relative_to(self.repository.path)}"
        try:
            if kind == "memory":
                return self._remember(victim, whole, where)
            return self._check_out(self.random.choice(self.needed[victim]), kind, where)
        finally:
            victim.write_bytes(whole)
            victim.chmod(mode)

    def _check_out(self, version: int, kind: Kind, where: str) -> str:
        out = self.folder / "out"
        out.mkdir()
        done = self.repository.run(
            "git", "--work-tree", str(out), "checkout", "-f", f"v{version}", "--", ".",
            ok=None, env={"GIT_INDEX_FILE": str(self.folder / "index")},
        )  # fmt: skip
        for name, data in self.truth[version].items():
            path = out / name
            if path.exists() and path.read_bytes() != data:
                raise Unnoticed(f"{where}: {name} is wrong (exit status {done.returncode})")
            if done.returncode == 0 and not path.exists():
                raise Unnoticed(f"{where}: {name} is missing, and nothing was said")
        shutil.rmtree(out)
        (self.folder / "index").unlink(missing_ok=True)
        if kind == "object" and self.repository.theta("fsck", ok=None) == 0:
            raise Unnoticed(f"{where}: fsck found nothing")
        return "noticed" if done.returncode else "harmless"

    def _remember(self, victim: Path, whole: bytes, where: str) -> str:
        aside: list[Path] = []
        if not whole[_MEMORY_BYTES:].startswith(b"git-theta manifest"):
            # What is remembered of blocks is asked for only where a whole file is not remembered.
            aside = [p for p in self.victims("memory") if p != victim and _is_file(p)]
        kept = {path: path.read_bytes() for path in aside}
        for path in aside:
            path.unlink()
        try:
            answers = self.ask()
        finally:
            for path, data in kept.items():
                path.write_bytes(data)
        if answers != self.answers:
            raise Unnoticed(f"{where}: Git would stage other manifests")
        return "harmless"


def _is_file(path: Path) -> bool:
    return path.read_bytes()[_MEMORY_BYTES:].startswith(b"git-theta manifest")


def run(folder: Path, flips: int, seed: int = SEED) -> Counter[tuple[Kind, str]]:
    """That many flips, half of them in objects: how many of each kind were what.

    Raises:
        Unnoticed: one was neither noticed nor harmless; the message says where.
    """
    scene = Scene(folder, seed)
    found: Counter[tuple[Kind, str]] = Counter()
    for number in range(flips):
        kind: Kind = ("object", "manifest", "object", "memory")[number % 4]
        try:
            found[kind, scene.flip(kind)] += 1
        except Unnoticed as error:
            raise Unnoticed(f"seed {seed}, flip {number}: {error}") from error
    return found


def measure(scale: float) -> list[Row]:
    """A share of the thousand flips."""
    flips = max(8, round(FLIPS * scale))
    with tempfile.TemporaryDirectory(prefix="theta-bitflips-") as name:
        found = run(Path(name), flips)
    counts = {kind: sum(n for (k, _), n in found.items() if k == kind) for kind in KINDS}
    noticed = sum(count for (_, what), count in found.items() if what == "noticed")
    return [
        Row(
            "single-bit flips in objects, manifests, the memory of answers",
            f"{flips:,} flips (seed {SEED}): {counts['object']} in objects, {counts['manifest']} "
            f"in blobs of manifests, {counts['memory']} in the memory; then checkout and "
            "`git theta fsck`, or the question what `git add` would stage",
            f"0 unnoticed: {noticed} refused with an error, {flips - noticed} without effect; fsck "
            "found every one in an object",
        )
    ]
