"""Manifests of tensors without Git, and the file that a merge of them makes."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.combine.apply import Merged
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.checkpoints import Tensors

TYPES = {
    np.dtype(np.float32): "F32", np.dtype(np.float64): "F64", np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16", np.dtype(np.int64): "I64", np.dtype(np.bool_): "BOOL",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3", np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
    np.dtype(np.int8): "I8", np.dtype(np.int32): "I32",
}  # fmt: skip


def manifest(blocks: Blocks, tensors: Tensors) -> Manifest:
    infos, entries = {}, []
    for name, value in tensors.items():
        info = TensorInfo(name, DTYPES[TYPES[value.dtype]], value.shape)
        data = np.ascontiguousarray(value).tobytes()
        found, start = [], 0
        for spec in cut(info):
            part = np.frombuffer(data[start : start + spec.nbytes], values_dtype(spec.dtype))
            found.append(blocks.write(spec, part))
            start += spec.nbytes
        infos[name] = info
        entries.append(Entry(info, tuple(found)))
    entries.sort(key=lambda entry: natural_key(entry.tensor.name))
    layout = safetensors.build(infos)
    return Manifest("safetensors", blocks.write_bytes(skeleton.encode(layout)), tuple(entries))


def content(blocks: Blocks, merged: Merged) -> bytes:
    """The checkpoint that results; making it also checks that structure and tensors agree."""
    found = bytearray()
    Smudger(merged.manifest, blocks).write(found.extend)
    return bytes(found)
