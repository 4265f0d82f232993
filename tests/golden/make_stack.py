"""Writes the files below `tests/golden/stack`, with the libraries that own their formats.

    python -m venv V && V/bin/pip install openvino paddlepaddle torch-model-archiver torch protobuf
    V/bin/python tests/golden/make_stack.py openvino paddle torchserve nemo tch
    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python \\
        V/bin/python tests/golden/make_stack.py mindspore=MODULE caffe=MODULE

They were written with openvino 2026.4.1, paddlepaddle 3.3.1, torch-model-archiver 0.12.0 and torch
2.13.0. MindSpore's wheel has 800 MB: its own `checkpoint_pb2.py` (2.10.0) wrote the messages as its
`_write_parameter_data` does. Caffe's were written by the `caffe_pb2.py` that protoc made of its
`caffe.proto` (as caffe-onnx 0.1.2 ships it). NeMo packs with Python's tarfile, as here. `tch` needs
a C++ compiler: tch-rs saves through the `OutputArchive` of PyTorch's C++ library.
`first` and `second` are two versions of one model.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "stack"
VERSIONS = ("first", "second")


def values(version: str) -> Iterator[np.ndarray]:
    """Arrays for one model; the second version has another first one."""
    random = np.random.default_rng(0)
    first = random.normal(size=(6, 8)).astype(np.float32)
    yield first + np.float32(0.001 if version == "second" else 0)
    yield random.normal(size=6).astype(np.float32)


def openvino() -> None:
    """A graph of constants of several types, with `compress_to_fp16` off."""
    import openvino as ov
    from openvino import opset13 as ops

    for version in VERSIONS:
        weight, bias = values(version)
        random = np.random.default_rng(1)
        half = ops.constant(random.normal(size=(6, 6)).astype(np.float16), name="half.weight")
        codes = ops.constant(random.integers(-9, 9, (6, 6)).astype(np.int8), name="codes")
        entry = ops.parameter([1, 8], np.float32, name="x")
        dense = ops.matmul(entry, ops.constant(weight, name="dense.weight"), False, True)
        found = ops.add(dense, ops.constant(bias, name="dense.bias"))
        for one in (half, codes):
            found = ops.matmul(found, ops.convert(one, "f32"), False, False)
        model = ov.Model([found], [entry], "golden")
        ov.save_model(model, FOLDER / f"openvino-{version}.xml", compress_to_fp16=False)


def paddle() -> None:
    """A layer, and its optimizer after a step."""
    import paddle

    paddle.seed(0)
    layer = paddle.nn.Linear(8, 6)
    adam = paddle.optimizer.Adam(parameters=layer.parameters())
    for version in VERSIONS:
        layer(paddle.ones([2, 8])).sum().backward()
        adam.step()
        adam.clear_grad()
        paddle.save(layer.state_dict(), str(FOLDER / f"paddle-{version}.pdparams"))
    paddle.save(adam.state_dict(), str(FOLDER / "paddle.pdopt"))


def weights(version: str) -> bytes:
    """What torch.save writes for the model."""
    import torch

    stream = io.BytesIO()
    names = ("dense.weight", "dense.bias")
    state = {n: torch.from_numpy(v) for n, v in zip(names, values(version), strict=True)}
    torch.save(state, stream)
    return stream.getvalue()


def torchserve() -> None:
    """Archives of TorchServe: stored, and deflated, which is the default."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "handler.py").write_text("# nothing\n")
        for version, how in (("first", "zip-store"), ("second", "zip-store"), ("first", "default")):
            (folder / "model.pt").write_bytes(weights(version))
            subprocess.run(
                [
                    Path(sys.executable).with_name("torch-model-archiver"),
                    "--model-name", "golden", "--version", "1.0", "--serialized-file", "model.pt",
                    "--handler", "handler.py",
                    "--archive-format", how, "--force",
                ],
                cwd=folder,
                check=True,
            )  # fmt: skip
            label = version if how != "default" else "deflated"
            (folder / "golden.mar").replace(FOLDER / f"torchserve-{label}.mar")


def nemo() -> None:
    """A `.nemo` file, and a compressed one, as older versions of NeMo wrote."""
    for version in VERSIONS:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "model_config.yaml").write_text("sample_rate: 16000\n")
            (Path(name) / "model_weights.ckpt").write_bytes(weights(version))
            for mode, end in (("w:", "nemo"), ("w:gz", "gz.nemo")):
                if mode == "w:" or version == "first":
                    with tarfile.open(FOLDER / f"nemo-{version}.{end}", mode) as archive:
                        archive.add(name, arcname=".")


def tch() -> None:
    """What `VarStore::save` of tch-rs calls: names with `|` for dots, and an OutputArchive."""
    import torch
    from torch.utils.cpp_extension import load_inline

    source = """
    void save(std::vector<std::string> names, std::vector<at::Tensor> tensors, std::string path) {
      torch::serialize::OutputArchive archive;
      for (size_t i = 0; i < names.size(); i++) archive.write(names[i], tensors[i], false);
      archive.save_to(path);
    }"""
    module = load_inline("tch", source, functions=["save"])
    found = [torch.from_numpy(value) for value in values("first")]
    module.save(["dense|weight", "dense|bias"], found, str(FOLDER / "tch.ot"))


def mindspore(module: Any) -> None:
    """Two parameters, one of which was written in slices; and with a sum at the end."""
    import zlib

    for version in VERSIONS:
        weight, bias = values(version)
        scale = np.array(2.0, np.float16)
        rows = [("dense.weight", weight.shape, "Float32", part) for part in np.split(weight, 2)]
        rows += [("dense.bias", bias.shape, "Float32", bias), ("scale", (), "Float16", scale)]
        rows.append(("note", (0,), "str", np.array("text")))
        data = b""
        for tag, dims, kind, part in rows:
            message = module.Checkpoint()
            value = message.value.add()
            value.tag = tag
            value.tensor.dims.extend(dims)
            value.tensor.tensor_type = kind
            value.tensor.tensor_content = part.tobytes()
            data += message.SerializeToString()
        if version == "second":
            data += b"crc_num" + zlib.crc32(data).to_bytes(10, "big")
        (FOLDER / f"mindspore-{version}.ckpt").write_bytes(data)


def caffe(module: Any) -> None:
    """A net of one layer, as new as `LayerParameter`, and one as old as `V1LayerParameter`."""
    for version in VERSIONS:
        net = module.NetParameter(name="golden")
        layer = net.layer.add(name="fc1", type="InnerProduct")
        for value in values(version):
            blob = layer.blobs.add()
            blob.shape.dim.extend(value.shape)
            blob.data.extend(value.reshape(-1).tolist())
        (FOLDER / f"caffe-{version}.caffemodel").write_bytes(net.SerializeToString())
    net = module.NetParameter()
    layer = net.layers.add(name="conv1")
    blob = layer.blobs.add(num=2, channels=3, height=1, width=4)
    blob.data.extend(range(24))
    blob.diff.extend([0.5] * 24)
    (FOLDER / "caffe-old.caffemodel").write_bytes(net.SerializeToString())


def _module(path: str) -> Any:
    """A module that protoc made, from its file."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for argument in sys.argv[1:]:
        name, _, where = argument.partition("=")
        globals()[name](*([_module(where)] if where else []))
