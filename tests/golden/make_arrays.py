"""Make `tests/golden/arrays.tar.xz`: what Orbax 0.12, TensorStore 0.1 and zarr 3.1 write.

It needs orbax-checkpoint, tensorstore, zarr and jax, and nothing of this package:

    python tests/golden/make_arrays.py

`orbax/{base,ours,theirs}` are three versions of a checkpoint, not compressed, as the documentation
advises: ours has another `emb`, theirs another `dense.kernel`. `packed/{base,ours}` are two of them
with Orbax' defaults. `store2` and `store3` are groups of Zarr 2 and 3, `lone` is an array without a
group, `database` an OCDBT database with many keys, `blocks.n5` has N5's blocks.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec

TARGET = Path(__file__).with_name("arrays.tar.xz")
MATRIX = np.arange(10 * 6, dtype="<f4").reshape(10, 6)


def tree(version: str) -> dict[str, Any]:
    """The state of a model; a version changes one of its arrays."""
    rng = np.random.default_rng(0)
    emb, kernel = rng.standard_normal((60, 16)), rng.standard_normal((40, 12))
    emb += 0.01 * (version == "ours")
    kernel += 0.01 * (version == "theirs")
    return {
        "emb": jnp.asarray(emb, jnp.float32),
        "dense": {"kernel": jnp.asarray(kernel, jnp.float32)},
        "head": jnp.asarray(rng.standard_normal((30, 30)), jnp.bfloat16),
        "step": jnp.asarray(3, jnp.int32),
    }


def orbax(folder: Path) -> None:
    """Checkpoints."""
    for name, version, packed in (
        ("orbax/base", "base", False),
        ("orbax/ours", "ours", False),
        ("orbax/theirs", "theirs", False),
        ("packed/base", "base", True),
        ("packed/ours", "ours", True),
    ):
        handler = ocp.PyTreeCheckpointHandler(use_compression=packed)
        ocp.Checkpointer(handler).save(folder / name, tree(version))


def zarr_2(folder: Path) -> None:
    """A group of arrays that are cut and named in all ways of Zarr 2."""
    root = zarr.open_group(folder / "store2", mode="w", zarr_format=2)
    plain: dict[str, Any] = {"compressors": None, "filters": None}
    inner = root.create_group("model")
    inner.create_array("rows", data=MATRIX, chunks=(4, 6), **plain)
    inner.create_array("tiles", data=MATRIX, chunks=(4, 4), **plain)
    inner.create_array("fortran", data=MATRIX, chunks=(10, 3), order="F", **plain)
    inner.create_array("big", data=MATRIX.astype(">f4"), chunks=(10, 6), **plain)
    inner.create_array("packed", data=MATRIX, chunks=(10, 6))
    number = inner.create_array("number", shape=(), dtype="i8", **plain)
    number[...] = 7
    root.create_array(
        "nested", data=MATRIX, chunks=(5, 6), chunk_key_encoding={"name": "v2", "separator": "/"},
        **plain,
    )  # fmt: skip


def zarr_3(folder: Path) -> None:
    """A group of arrays that are cut and written in the ways of Zarr 3."""
    root = zarr.open_group(folder / "store3", mode="w", zarr_format=3)
    plain: dict[str, Any] = {"compressors": None, "filters": None}
    root.create_array("rows", data=MATRIX, chunks=(4, 6), **plain)
    root.create_array("shards", data=MATRIX, chunks=(2, 6), shards=(6, 6), **plain)
    root.create_array("packed", data=MATRIX, chunks=(5, 6), shards=(10, 6))
    root.create_array("checked", data=MATRIX, chunks=(10, 6), compressors=[Crc32cCodec()])
    root.create_array(
        "turned", data=MATRIX, chunks=(10, 6), filters=[TransposeCodec(order=(1, 0))],
        serializer=BytesCodec(endian="little"), compressors=None,
    )  # fmt: skip
    zarr.create_array(folder / "lone", data=MATRIX, chunks=(10, 6), zarr_format=3, **plain)


def tensorstore(folder: Path) -> None:
    """N5, and a database whose tree has several levels."""
    metadata = {"compression": {"type": "raw"}, "dataType": "float32", "blockSize": [4, 6]}
    block = ts.open(
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": f"{folder}/blocks.n5/matrix"},
            "metadata": {**metadata, "dimensions": [10, 6]},
        },
        create=True,
    ).result()
    block.write(MATRIX).result()
    (folder / "blocks.n5/attributes.json").write_text('{"n5":"4.0.0"}')
    store = {
        "driver": "ocdbt",
        "base": f"file://{folder}/database/",
        "config": {"max_inline_value_bytes": 8, "max_decoded_node_bytes": 300},
    }
    transaction = ts.Transaction()
    for number in range(6):
        array = ts.open(
            {
                "driver": "zarr3",
                "kvstore": {**store, "path": f"layers/{number}/kernel/"},
                "metadata": {
                    "shape": [10, 6],
                    "data_type": "float32",
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": [5, 6]},
                    },
                    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                },
            },
            create=True,
            transaction=transaction,
        ).result()
        array.write(MATRIX + number).result()
    transaction.commit_async().result()


def main() -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        orbax(folder)
        zarr_2(folder)
        zarr_3(folder)
        tensorstore(folder)
        with tarfile.open(TARGET, "w:xz") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.add(path, str(path.relative_to(folder)))


if __name__ == "__main__":
    main()
