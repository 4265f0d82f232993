"""What is found of a version before anything names it: whether it comes back as its original."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.places import blocks_of
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import Entry, Manifest, UpdateRef
from git_theta_ext.migration.verify import Verifier
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from tests.scenarios.checkpoints import safetensors

DATA = safetensors({"w": np.arange(3000, dtype=np.float32)})
SPEC = TensorInfo("w", DTYPES["F32"], (3000,))


def test_an_original_is_read_again_where_it_was_written_to(tmp_path: Path) -> None:
    """What was hashed before counts as long as nobody wrote to the file."""
    blocks, file = Blocks(Store(tmp_path / "theta")), tmp_path / "model"
    file.write_bytes(DATA)
    with FileSource(file) as source:
        layout = read_layout(source)
        (place,) = blocks_of(layout, source)
        values = np.frombuffer(source.read(place.offset, place.spec.nbytes), np.uint32)
        block = blocks.write(place.spec, values.astype(values_dtype(place.spec.dtype)))
        manifest = Manifest(
            layout.format, blocks.write_bytes(skeleton.encode(layout)), (Entry(SPEC, (block,)),)
        )
        blocks.store.flush()
        verifier, hashed = Verifier(blocks), {place.offset: block.sha256}
        promised = UpdateRef("lfs", hashlib.sha256(DATA).hexdigest(), len(DATA))
        for _ in range(2):
            verifier.require_same(manifest, "model", source, hashed, promised)
        with pytest.raises(CorruptObjectError, match="not object " + "0" * 64):
            verifier.require_same(
                manifest, "model", source, hashed, UpdateRef("lfs", "0" * 64, len(DATA))
            )
        with file.open("r+b") as other:
            other.seek(place.offset + 5000)
            other.write(b"another")
        with pytest.raises(CorruptObjectError, match="does not come back as it was"):
            verifier.require_same(manifest, "model", source, hashed, None)
