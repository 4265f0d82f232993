"""What the demonstration versions: a network that it trains, or a checkpoint of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from git_theta_ext.checkpoints.write import ArraysSource
from git_theta_ext.cli.demo import network
from git_theta_ext.core import files
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import Layout, Literal, Span
from git_theta_ext.formats.layout.derived import Checksums
from git_theta_ext.formats.layout.places import placed, segment_length
from git_theta_ext.formats.layout.source import FileSource

_PIECE = 8 << 20
_RELATIVE_CHANGE = 1e-3
_BRANCHES = ("odd", "large")


class Subject(Protocol):
    """A checkpoint that goes through the stages of the demonstration."""

    file_name: str
    branches: tuple[str, str]

    def start(self, path: Path) -> str:
        """Write the first version; what was done, in a few words."""
        ...

    def fine_tune(self, path: Path) -> str:
        """Change every tensor a little."""
        ...

    def specialise(self, path: Path, branch: str) -> str:
        """Change the tensors that belong to a branch, and no others."""
        ...

    def score(self, path: Path) -> str | None:
        """How good the checkpoint is, or None where that is not known."""
        ...


class TrainedNetwork:
    """The network of `demo.network`, trained for real."""

    file_name = "digits.safetensors"
    branches = _BRANCHES

    @cached_property
    def _lessons(self) -> network.Images:
        return network.draw(10_000, seed=1)

    @cached_property
    def _exam(self) -> network.Images:
        return network.draw(2000, seed=2)

    def start(self, path: Path) -> str:
        self._train(path, network.new(), head="digit", epochs=4, rate=1e-3, seed=3)
        return "trained on 10,000 drawn digits, 4 epochs"

    def fine_tune(self, path: Path) -> str:
        tensors = self._load(path)
        self._train(path, tensors, head="digit", epochs=2, rate=2e-5, seed=4)
        return "2 more epochs at a fiftieth of the rate: encoder and digit head move"

    def specialise(self, path: Path, branch: str) -> str:
        only = (f"head.{branch}.weight", f"head.{branch}.bias")
        tensors = self._load(path)
        self._train(path, tensors, head=branch, only=only, epochs=6, rate=1e-3, seed=5)
        return f"head.{branch} trained, the rest frozen"

    def score(self, path: Path) -> str | None:
        shares = network.accuracy(self._load(path), self._exam)
        return "  ".join(f"{head} {share:.1%}" for head, share in shares.items())

    def _train(
        self,
        path: Path,
        tensors: network.Tensors,
        *,
        head: str,
        only: Sequence[str] | None = None,
        epochs: int,
        rate: float,
        seed: int,
    ) -> None:
        """Go on training from these tensors, and write the result to `path`."""
        trained = network.train(
            tensors, self._lessons, head=head, only=only, epochs=epochs, rate=rate, seed=seed
        )
        with files.replacing(path) as file:
            ArraysSource(dict(sorted(trained.items())), {}).write(file)

    @staticmethod
    def _load(path: Path) -> network.Tensors:
        from safetensors.numpy import load_file

        return load_file(str(path))


class GivenCheckpoint:
    """The user's own checkpoint; small random changes of its floats stand in for training."""

    branches = ("first-half", "second-half")

    def __init__(self, original: Path) -> None:
        """`original` is read, never written.

        Raises:
            UsageError: there is no such file, or it holds no tensors of floats that can be changed.
        """
        if not original.is_file():
            raise UsageError(f"{original} is not a file")
        self._original = original
        self.file_name = original.name
        with FileSource(original) as source:
            layout = read_layout(source)
        names = [tensor.name for _, tensor in _float_tensors(layout)]
        if len(names) < 2:
            raise UsageError(
                f"{original} was read as {layout.format} with {len(names)} tensor(s) of floats; "
                "the demonstration changes two or more"
            )
        middle = len(names) // 2
        self._names = {"": names, "first-half": names[:middle], "second-half": names[middle:]}

    def start(self, path: Path) -> str:
        files.copy_file(self._original, path)
        return "your file"

    def fine_tune(self, path: Path) -> str:
        return self._nudge(path, "")

    def specialise(self, path: Path, branch: str) -> str:
        return self._nudge(path, branch)

    def score(self, path: Path) -> str | None:
        return None

    def _nudge(self, path: Path, part: str) -> str:
        names = set(self._names[part])
        nudge(path, names, seed=len(part))
        what = f"{len(names)} tensors of floats"
        return f"every value of {what} moved by about {_RELATIVE_CHANGE:.1%}, in place of training"


def nudge(path: Path, names: set[str], seed: int) -> None:
    """Move the values of some float tensors of a checkpoint by about 0.1 %, in place.

    Checksums that the container keeps of them are brought up to date, so that the file stays valid.
    """
    with FileSource(path) as source:
        layout = read_layout(source)
    random = np.random.default_rng(seed)
    with files.editing(path) as file:
        for offset, tensor in _float_tensors(layout):
            if tensor.name not in names:
                continue
            dtype = _numpy_dtype(tensor)
            for start in range(0, tensor.nbytes, _PIECE):
                file.seek(offset + start)
                values = np.frombuffer(file.read(min(_PIECE, tensor.nbytes - start)), dtype)
                noise = random.standard_normal(values.shape, np.float32) * _RELATIVE_CHANGE
                with np.errstate(
                    all="ignore"
                ):  # infinities and NaNs of the file stay what they are
                    moved = (values.astype(np.float64) * (1 + noise)).astype(dtype)
                file.seek(offset + start)
                file.write(moved.tobytes())
        _update_checksums(file, layout)


def _update_checksums(file: IO[bytes], layout: Layout) -> None:
    """Write the layout's derived fields anew, from the bytes that the file has now."""
    places = [(offset, segment_length(segment)) for offset, segment in placed(layout)]
    checksums = Checksums(layout.segments, [length for _, length in places])
    for number, (offset, length) in enumerate(places):
        if checksums.covered(number):
            for start in range(0, length, _PIECE):
                file.seek(offset + start)
                piece = file.read(min(_PIECE, length - start))
                checksums.feed(number, memoryview(piece))
    for number, segment in enumerate(layout.segments):
        if not isinstance(segment, Literal | Span):
            file.seek(places[number][0])
            file.write(checksums.value(number))


def _float_tensors(layout: Layout) -> list[tuple[int, TensorInfo]]:
    """Offset and tensor of every span of floats that NumPy can calculate with."""
    found = []
    for offset, segment in placed(layout):
        if isinstance(segment, Span) and not segment.opaque:
            tensor = segment.tensor
            if tensor.dtype.name in ("F16", "BF16", "F32", "F64") and tensor.count:
                found.append((offset, tensor))
    return found


def _numpy_dtype(tensor: TensorInfo) -> np.dtype[Any]:
    if tensor.dtype.name == "BF16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(f"<f{tensor.dtype.itemsize}")
