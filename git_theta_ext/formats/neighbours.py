"""Which files may be described by another one, and by which: what their names say.

Git's filter asks this of each file, and reads most of them without any of the containers that it is
about. Hence a module of its own that imports none of them, and patterns that are compiled where a
name looks like theirs.
"""

from __future__ import annotations

import posixpath
import re

_N5_DIGITS = 18


def has_neighbour(path: str) -> bool:
    """Whether a file of this name may be described by another one."""
    if is_zarr_chunk(path) or is_n5_block(path) or orbax_data(path):
        return True
    known = (tensorflow_index, onnx_model, openvino_graph, distcp_metadata, zero_states)
    return any(find(path) is not None for find in known)


def tensorflow_data(path: str) -> re.Match[str] | None:
    """What a TensorFlow data file is called: what all begin with, its number, how many."""
    if ".data-" not in path:
        return None
    return re.fullmatch(r"(.+)\.data-(\d{5})-of-(\d{5})", path, re.DOTALL)


def tensorflow_index(path: str) -> str | None:
    """The index of a TensorFlow data file, by its path; None for the path of another file."""
    match = tensorflow_data(path)
    return f"{match[1]}.index" if match else None


def onnx_model(path: str) -> str | None:
    """The model whose external data a file is, by its path: `X.onnx` of `X.onnx.data`."""
    suffix = next((one for one in (".onnx.data", ".onnx_data") if path.endswith(one)), None)
    return None if suffix is None else path.removesuffix(suffix) + ".onnx"


def openvino_graph(path: str) -> str | None:
    """The `X.xml` of an `X.bin`; None for the path of another file."""
    return path.removesuffix(".bin") + ".xml" if path.endswith(".bin") else None


def distcp_metadata(path: str) -> str | None:
    """The `.metadata` of a `.distcp` file, by its path; None for the path of another file."""
    if not path.endswith(".distcp"):
        return None
    return posixpath.join(posixpath.dirname(path), ".metadata")


def zero_shard(path: str) -> re.Match[str] | None:
    """What a shard of DeepSpeed's optimizer is called: its rank, and that of the model."""
    if "zero_pp_rank_" not in path:
        return None
    pattern = r"(?:bf16_)?zero_pp_rank_(\d{1,6})_mp_rank_(\d{2,6})_optim_states\.pt"
    return re.fullmatch(pattern, posixpath.basename(path), re.ASCII)


def zero_states(path: str) -> str | None:
    """The file of model states beside a shard, by its path; None for the path of another file."""
    match = zero_shard(path)
    if match is None:
        return None
    return posixpath.join(posixpath.dirname(path), f"mp_rank_{match[2]}_model_states.pt")


def is_zarr_chunk(path: str) -> bool:
    """Whether a path is one that a chunk of an array of Zarr may have."""
    name = posixpath.basename(path)
    if name[:1] not in {*"c0123456789"}:
        return False
    return re.fullmatch(r"(c|\d{1,18})(\.\d{1,18}){0,63}", name, re.ASCII) is not None


def is_n5_block(path: str) -> bool:
    """Whether a path is one that a block of an array of N5 may have."""
    return is_n5_number(posixpath.basename(path))


def is_n5_number(name: str) -> bool:
    """Whether a part of a path is a number of a block of N5."""
    return len(name) <= _N5_DIGITS and name.isascii() and name.isdecimal()


def orbax_data(path: str) -> re.Match[str] | None:
    """What a data file of Orbax is called: the folder that its own one is in."""
    if "d/" not in path:
        return None
    return re.fullmatch(r"((?:.*/)?)d/[0-9a-f]{32}", path, re.DOTALL)
