"""Containers: each module turns a file into a layout that tiles it; none of them writes.

The registry tries the known containers in a fixed order, by content, never by name. Whatever is
damaged, hostile, compressed or unknown is opaque: its bytes are kept all the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import cast

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError, UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats.base import Crc32, Format, Layout, Literal, SerializationId, Source, Span
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.settle import settle

_FORMATS = {
    "safetensors": "git_theta_ext.formats.safetensors",
    "npz": "git_theta_ext.formats.npz",
    "keras": "git_theta_ext.formats.keras",
    "torch-zip": "git_theta_ext.formats.torch.zipped",
    "pt2": "git_theta_ext.formats.torch.exported",
    "npy": "git_theta_ext.formats.npy",
    "gguf": "git_theta_ext.formats.gguf",
    "hdf5": "git_theta_ext.formats.hdf5.container",
    "tflite": "git_theta_ext.formats.tensorflow.tflite",
    "onnx": "git_theta_ext.formats.onnx",
    "distcp": "git_theta_ext.formats.distcp",
    "torch-legacy": "git_theta_ext.formats.torch.legacy",
    "distcp-metadata": "git_theta_ext.formats.torch.distributed",
    "pickle": "git_theta_ext.formats.pickle",
    "msgpack": "git_theta_ext.formats.msgpack",
    "coreml-weights": "git_theta_ext.formats.coreml",
    "fasttext": "git_theta_ext.formats.fasttext",
    "ocdbt": "git_theta_ext.formats.arrays.orbax",
    "mindspore": "git_theta_ext.formats.mindspore",
    "caffe": "git_theta_ext.formats.caffe",
    "tar": "git_theta_ext.formats.archives.tar",
    "zip": "git_theta_ext.formats.archives.stored",
}
_ARCHIVES = ("tar", "zip")
"""Containers of files that are containers themselves."""
_GROUP = "git_theta_ext.formats"
_HEAD_BYTES = 512

BUILDERS = {
    "safetensors": "git_theta_ext.formats.safetensors",
    "pt": "git_theta_ext.formats.torch.build",
    "npz": "git_theta_ext.formats.npz",
    "gguf": "git_theta_ext.formats.gguf",
}
"""The containers that can be made from tensors, by the names of `git theta export --to`."""

_TORCH = ("torch-zip", "torch-legacy")
_EXTENSIONS = {
    ".safetensors": ("safetensors",), ".gguf": ("gguf",), ".npy": ("npy",), ".npz": ("npz",),
    ".onnx": ("onnx",), ".tflite": ("tflite",), ".keras": ("keras",), ".msgpack": ("msgpack",),
    ".h5": ("hdf5",), ".hdf5": ("hdf5",), ".pt": _TORCH, ".pth": _TORCH, ".jit": _TORCH,
}  # fmt: skip
"""What an extension promises; others, such as .bin and .ckpt, are used for several containers."""


def names() -> list[str]:
    """The containers that are split by tensor, in the order in which they are tried."""
    return list(_FORMATS)


@cache
def get(name: str) -> Format:
    """The container of a name.

    Raises:
        UsageError: there is none of that name.
    """
    if name in _FORMATS:
        return cast(Format, import_module(_FORMATS[name]))
    if name in plug_ins():
        return plug_ins()[name]
    raise UsageError(
        f"unknown format {name!r}; known: {', '.join([*_FORMATS, *plug_ins()])}",
        hint=f"install the package that offers {name!r} under the entry points {_GROUP}",
    )


def build(
    container: str,
    tensors: Mapping[str, TensorInfo],
    model: Layout | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Layout:
    """A layout for these tensors, in this order, in a container of `BUILDERS`.

    Args:
        container: `safetensors`, `pt`, `npz` or `gguf`.
        tensors: what they are, by name; `order` is kept where the container can.
        model: a layout of the same container whose structure is taken over as far as it fits.
        metadata: texts to store with them, where the container has a place for them.

    Raises:
        UsageError: it is none of those.
        FormatError: it cannot hold one of the tensors.
    """
    if container not in BUILDERS:
        raise UsageError(f"unknown container {container!r}; known: {', '.join(BUILDERS)}")
    module = import_module(BUILDERS[container])
    return cast(Layout, module.build(tensors, model, metadata))


@cache
def plug_ins() -> dict[str, Format]:
    """The containers of other packages by name, sorted; those of this package's names are left out.

    They are looked up when no built-in container recognises a file, not before: that takes time.

    Raises:
        UsageError: one is installed but cannot be imported.
    """
    from importlib.metadata import entry_points

    found: dict[str, Format] = {}
    for point in sorted(entry_points(group=_GROUP), key=lambda point: (point.name, point.value)):
        if point.name in _FORMATS or point.name in found or point.name == opaque.NAME:
            continue
        try:
            found[point.name] = cast(Format, point.load())
        except Exception as error:
            raise UsageError(
                f"the format plug-in {point.name!r} ({point.value}) cannot be loaded: {error!r}",
                hint="reinstall or uninstall its package, then run the command again",
            ) from error
    return found


def expected_format(path: str, found: str) -> str | None:
    """The container that a file's extension promises, if it is not the one that was found."""
    promised = _EXTENSIONS.get(os.path.splitext(path)[1].lower(), ())
    return None if not promised or found in promised else promised[0]


def promises(path: str) -> bool:
    """Whether a file's extension says that it is a checkpoint of a known container."""
    return os.path.splitext(path)[1].lower() in _EXTENSIONS


def broken_promise(path: str, source: Source) -> str | None:
    """Why a file is not what its extension promises; None where it promises nothing, or keeps it.

    Such a file was most likely cut short or damaged; it is kept as the bytes that it is.
    """
    ending = os.path.splitext(path)[1].lower()
    reasons = []
    for name in _EXTENSIONS.get(ending, ()):
        form = get(name)
        try:
            if not form.sniff(source.read(0, min(_HEAD_BYTES, source.size)), source):
                reasons.append(f"it does not begin as {name} does")
                continue
            check(form.layout(source), source.size)
        except (FormatError, RecursionError, MemoryError) as error:
            reasons.append(str(error) or f"{name}: its structure cannot be read")
        else:
            return None
    return "; ".join(reasons) or None


def sniff(source: Source) -> str:
    """The container that a file begins like: quick, and not yet read any further."""
    head = source.read(0, min(_HEAD_BYTES, source.size))
    return next((name for name in _FORMATS if get(name).sniff(head, source)), opaque.NAME)


def read_layout(source: Source, *, archives: bool = True) -> Layout:
    """How a file is made up: by the container that recognises it, else opaque.

    Args:
        source: the file.
        archives: whether it may be an archive of others; not where it is a member of one.

    Raises:
        ChangedWhileReadError: the file became shorter while it was read.
    """
    head = source.read(0, min(_HEAD_BYTES, source.size))
    remarks: list[str] = []
    for name in _FORMATS:
        if name in _ARCHIVES and not archives:
            continue
        found = _try(name, get(name), head, source, remarks)
        if found is not None:
            return found
    for name, form in plug_ins().items():
        found = _try(name, form, head, source, remarks)
        if found is not None:
            return found
    return replace(opaque.layout(source), remark="; ".join(remarks))


def _try(name: str, form: Format, head: bytes, source: Source, remarks: list[str]) -> Layout | None:
    """The layout that a container finds, checked; None if it does not recognise the file.

    Where that is because of a limit, `remarks` gets a sentence.
    """
    try:
        if form.sniff(head, source):
            found = replace(form.layout(source), format=name)
            check(found, source.size)
            return settle(found, source)
    except BoundError as error:
        if error.message not in remarks:
            remarks.append(error.message)
    except MemoryError:
        remarks.append(f"{name}: there is not enough memory for its structure")
    except (FormatError, RecursionError):
        pass
    return None


def check(layout: Layout, size: int) -> None:
    """Check that a layout tiles a file of `size` bytes and that its names and ranges are sound.

    Raises:
        FormatError: it does not; the mistake is the format's or the file's.
    """
    from git_theta_ext.formats.layout.derived import dependency_problem
    from git_theta_ext.formats.layout.places import segment_length

    if len(layout.segments) > limits.SEGMENTS:
        raise BoundError(f"{len(layout.segments)} segments; at most {limits.SEGMENTS} are kept")
    total = literal = 0
    seen: set[str] = set()
    for number, segment in enumerate(layout.segments):
        total += segment_length(segment)
        if isinstance(segment, Literal):
            literal += len(segment.data)
        elif isinstance(segment, Span):
            if segment.tensor.name in seen:
                raise FormatError(f"two tensors are named {segment.tensor.name!r}")
            seen.add(segment.tensor.name)
        else:
            _check_ranges(segment, number, len(layout.segments))
    if total != size:
        raise FormatError(f"the layout covers {total} bytes of a file of {size}")
    if problem := dependency_problem(layout.segments):
        raise FormatError(problem)
    if literal > limits.STRUCTURE_BYTES:
        raise BoundError(f"{literal} bytes of structure; at most {limits.STRUCTURE_BYTES} are kept")


def _check_ranges(segment: Crc32 | SerializationId, number: int, count: int) -> None:
    ranges = [(segment.first, segment.stop)] if isinstance(segment, Crc32) else segment.crcs
    for item in ranges:
        if isinstance(item, tuple):
            first, stop = item
            if not 0 <= first < stop <= count or first <= number < stop:
                raise FormatError(f"segment {number} depends on segments {first} to {stop}")
