#!/usr/bin/env python3
"""Reading versions of checkpoints from Python, beside git-lfs and the container's own reader.

    python benchmarks/reading.py [--megabytes 503] [--tensors 148] [--dtype F32|BF16]
                                 [--formats safetensors,pt,npz,gguf,h5] [--as-they-are]
                                 [--runs 3] [--folder DIR]

Two repositories hold the same file in two versions, the second fine-tuned from the first: one
tracks it with git-theta-ext, one with git-lfs. For both versions it measures:

- open: `theta.open` in a process that has its imports behind it, and once more;
- one tensor, opened anew: the middle one of the file;
- columns 3 to 5 of the largest matrix, opened anew;
- all tensors, as NumPy arrays, opened anew.

Beside them the same by the container's own reader (safetensors.safe_open, torch.load, np.load,
gguf.GGUFReader, h5py.File), of a file that git-lfs has checked out; the checkout is a line of its
own. With `--as-they-are` blocks are stored without compression (theta.compress). A container whose
reader is not installed is left out, and said so.

Every measurement is a process of its own. Printed are the smallest CPU seconds of `--runs` (user
and system, with all children), the wall seconds of that run, and the resident megabytes that were
added at the peak to what the imports took. The files are in the disk's cache.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}
READERS = {
    "safetensors": "safetensors",
    "pt": "torch",
    "npz": "numpy",
    "gguf": "gguf",
    "h5": "h5py",
}
"""The containers, and the package that reads each."""
Arrays = Iterator[tuple[str, np.ndarray]]
_COLUMNS = np.s_[:, 3:5]


# -- files -----------------------------------------------------------------------------------------


def shapes(megabytes: int, count: int, itemsize: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes like those of GPT-2: an embedding of a third, then matrices and biases."""
    entries = megabytes * 1_000_000 // itemsize
    layers = max(count // 4, 1)
    width = max(int((entries * 2 / 3 / layers / 8) ** 0.5), 8)
    found: dict[str, tuple[int, ...]] = {"wte.weight": (max(entries // 3 // width, 8), width)}
    for layer in range(layers):
        found[f"h.{layer}.mlp.c_fc.weight"] = (4 * width, width)
        found[f"h.{layer}.mlp.c_fc.bias"] = (4 * width,)
        found[f"h.{layer}.mlp.c_proj.weight"] = (width, 4 * width)
        found[f"h.{layer}.ln.weight"] = (width,)
    return found


def values(plan: dict[str, tuple[int, ...]], dtype: str, tuned: bool) -> Arrays:
    """Normally distributed weights; `tuned` moves each a little."""
    random, other = np.random.default_rng(0), np.random.default_rng(1)
    for name, shape in plan.items():
        array = random.standard_normal(shape, np.float32) * np.float32(0.02)
        if tuned:
            array += other.standard_normal(shape, np.float32) * np.float32(1e-5)
        yield name, array.astype(DTYPES[dtype])


def write(path: Path, kind: str, arrays: Arrays) -> None:
    """Write a file of a container with its own library."""
    if kind == "h5":
        import h5py  # type: ignore[import-untyped]

        with h5py.File(path, "w") as file:
            for name, array in arrays:
                file[name.replace(".", "/")] = array
    elif kind == "gguf":
        import gguf  # type: ignore[import-not-found, unused-ignore]

        writer = gguf.GGUFWriter(path, "gpt2")
        for name, array in arrays:
            raw = gguf.GGMLQuantizationType.BF16 if array.dtype.name == "bfloat16" else None
            writer.add_tensor(name, array if raw is None else array.view(np.uint8), raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    elif kind == "npz":
        np.savez(path, **dict(arrays))  # type: ignore[arg-type]
    elif kind == "pt":
        import torch  # type: ignore[import-not-found, unused-ignore]

        held = {}
        for name, array in arrays:
            bf16 = array.dtype.name == "bfloat16"
            tensor = torch.from_numpy(array.view(np.int16) if bf16 else array)
            held[name] = tensor.view(torch.bfloat16) if bf16 else tensor
        torch.save(held, path)
    else:
        from safetensors.numpy import save_file

        save_file(dict(arrays), path)


# -- what is measured, each in a process of its own ------------------------------------------------


def with_theta(path: str, what: str, names: tuple[str, str]) -> None:
    """One question to this package; `path` is `FOLDER//REV:FILE`."""
    import git_theta_ext as theta

    folder, _, name = path.partition("//")
    model = theta.open(name, repository=folder)
    if what == "one":
        model[names[0]]
    elif what == "columns":
        model[(names[1], *_COLUMNS)]
    elif what == "all":
        model.select()


def with_reader(path: str, what: str, names: tuple[str, str], kind: str) -> None:
    """The same question to the container's own reader, of a file."""
    opened, read = _open_own(path, kind)
    if what == "one":
        read(names[0])[...]
    elif what == "columns":
        np.array(read(names[1])[_COLUMNS])
    elif what == "all":
        held = [read(name)[...] for name in opened]
        del held


def _open_own(path: str, kind: str) -> tuple[list[str], Callable[[str], Any]]:
    """The names of a file's tensors, and what gives one of them, or a view of it."""
    if kind == "safetensors":
        from safetensors import safe_open

        file: Any = safe_open(path, "np")
        return list(file.keys()), file.get_slice
    if kind == "pt":
        import torch

        held = torch.load(path, weights_only=True)
        return list(held), held.__getitem__
    if kind == "npz":
        archive = np.load(path)
        return list(archive.files), archive.__getitem__
    if kind == "gguf":
        import gguf

        reader = gguf.GGUFReader(path)
        found = {tensor.name: tensor.data for tensor in reader.tensors}
        return list(found), lambda name: np.array(found[name])
    import h5py

    store = h5py.File(path)
    names: list[str] = []
    store.visititems(lambda name, one: names.append(name) if hasattr(one, "shape") else None)
    return names, lambda name: store[name.replace(".", "/")]


def child(what: str, path: str, kind: str, names: tuple[str, str]) -> None:
    """Import, measure one thing, print CPU seconds, wall seconds, and megabytes added."""
    own = not kind.startswith("theta")
    if own:
        importlib.import_module(READERS[kind])
        if kind == "safetensors":
            import safetensors.numpy  # noqa: F401
    else:
        from git_theta_ext.api import functions  # noqa: F401

    def ask(question: str) -> None:
        with_reader(path, question, names, kind) if own else with_theta(path, question, names)

    if what == "again":
        ask("open")
    _forget_peak()
    before, cpu, wall = _resident("VmRSS"), _cpu(), time.perf_counter()
    ask("open" if what == "again" else what)
    print(_cpu() - cpu, time.perf_counter() - wall, max(0.0, _resident("VmHWM") - before))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _forget_peak() -> None:
    with suppress(OSError):  # Linux alone
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> float:
    """Megabytes: VmRSS now, or VmHWM at the peak."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


# -- the whole -------------------------------------------------------------------------------------


def run(folder: Path, *command: str) -> str:
    """Run a command; raises CalledProcessError if it fails."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def prepare(
    top: Path, kind: str, plan: dict[str, tuple[int, ...]], dtype: str, *, compress: bool
) -> None:
    """Two repositories with two versions of a file."""
    name = f"model.{kind}"
    for which in ("theta", "lfs"):
        folder = top / which
        folder.mkdir(parents=True)
        run(folder, "git", "init", "-q")
        run(folder, "git", "config", "user.name", "benchmark")
        run(folder, "git", "config", "user.email", "benchmark@localhost")
        if which == "theta":
            run(folder, sys.executable, "-m", "git_theta_ext.cli.main", "install", "--local")
            run(folder, sys.executable, "-m", "git_theta_ext.cli.main", "track", name)
            run(folder, "git", "config", "theta.compress", "true" if compress else "false")
        else:
            run(folder, "git", "lfs", "install", "--local")
            run(folder, "git", "lfs", "track", name)
        for tag, tuned in (("v1", False), ("v2", True)):
            write(folder / name, kind, values(plan, dtype, tuned))
            run(folder, "git", "add", "-A")
            run(folder, "git", "commit", "-q", "-m", tag)
            run(folder, "git", "tag", tag)


def measure(runs: int, what: str, path: str, kind: str, names: tuple[str, str]) -> list[float]:
    """The run of the smallest CPU time: CPU seconds, wall seconds, megabytes."""
    command = [sys.executable, __file__, "--child", what, path, kind, json.dumps(names)]
    done = (subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(runs))
    return min([float(word) for word in line.split()] for line in done)


def checkout(folder: Path, tag: str, name: str) -> list[float]:
    """What `git checkout TAG -- FILE` takes, the file not being there."""
    (folder / name).unlink()
    before, wall = _cpu(), time.perf_counter()
    run(folder, "git", "checkout", "-q", tag, "--", name)
    return [_cpu() - before, time.perf_counter() - wall, 0.0]


def report(title: str, found: list[float]) -> None:
    """Print a line."""
    print(f"  {title:44} {found[0]:8.3f} {found[1]:8.3f} {found[2]:8.0f}", flush=True)


def compare(top: Path, kind: str, args: argparse.Namespace) -> None:
    """Both repositories of one container, both versions."""
    plan = shapes(args.megabytes, args.tensors, DTYPES[args.dtype].itemsize)
    folder = top / f"{kind}-{args.dtype}-{args.megabytes}-{args.tensors}"
    if args.as_they_are:
        folder = folder.with_name(f"{folder.name}-as-they-are")
    name = f"model.{kind}"
    if not (folder / "lfs" / ".git/refs/tags/v2").exists():
        prepare(folder, kind, plan, args.dtype, compress=not args.as_they_are)
    middle = [key for key in plan if key.endswith("c_fc.weight")]
    names = asked = (middle[len(middle) // 2], "wte.weight")
    if kind == "h5":  # datasets go by their paths
        asked = (names[0].replace(".", "/"), "wte/weight")
    for tag, label in (("v1", "stored dense"), ("v2", "stored as an update")):
        print(f"{name} {tag}, {label}: {len(plan)} tensors, {args.megabytes} MB {args.dtype}")
        report("git lfs: git checkout", checkout(folder / "lfs", tag, name))
        for what, said in (
            ("open", "open"), ("again", "open, once more"), ("one", "one tensor"),
            ("columns", "two columns of the largest"), ("all", "all tensors"),
        ):  # fmt: skip
            own = str(folder / "lfs" / name)
            report(f"{said}: {READERS[kind]}", measure(args.runs, what, own, kind, names))
            ours = f"{folder / 'theta'}//{tag}:{name}"
            report(f"{said}: theta", measure(args.runs, what, ours, "theta", asked))


def main() -> None:
    """Make the repositories, measure, print."""
    if sys.argv[1:2] == ["--child"]:
        what, path, kind, names = sys.argv[2:]
        child(what, path, kind, tuple(json.loads(names)))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=503)
    parser.add_argument("--tensors", type=int, default=148)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", choices=list(DTYPES), default="F32")
    parser.add_argument("--formats", default=",".join(READERS))
    parser.add_argument("--as-they-are", action="store_true", help="theta.compress is false")
    parser.add_argument("--folder", type=Path, help="where to work; kept, and used again")
    args = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as temporary:
        print(f"{'':46} {'CPU s':>8} {'wall s':>8} {'+ MB':>8}")
        for kind in args.formats.split(","):
            if importlib.util.find_spec(READERS[kind]) is None:
                print(f"{kind}: left out, {READERS[kind]} is not installed")
                continue
            compare(args.folder or Path(temporary), kind, args)


if __name__ == "__main__":
    main()
