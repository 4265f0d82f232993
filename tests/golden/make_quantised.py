"""Make `tests/golden/quantised`: weights as the libraries that quantise write them.

Beside each file stands what the library itself makes of the codes again, in `expected-*.npz`:
float32, by the name of the weight. Each part is for an environment of its own:

    python -m tests.golden.make_quantised gguf      # gguf 0.19
    python -m tests.golden.make_quantised mlx       # mlx 0.32 (mlx[cpu])
    python -m tests.golden.make_quantised torch     # torch 2.13 with bitsandbytes, torchao, hqq,
                                                    # optimum-quanto, compressed-tensors 0.20,
                                                    # and files of auto-gptq 0.7 and autoawq 0.2
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "quantised"
SIMPLE = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
OTHERS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ1_0", "TQ2_0")


def _saved(name: str, expected: dict[str, Any]) -> None:
    np.savez_compressed(FOLDER / f"expected-{name}.npz", **expected)


def make_gguf() -> None:
    """Floats, what gguf-py quantises them to, and blocks of types that it only reads."""
    import gguf

    types, random = gguf.GGMLQuantizationType, np.random.default_rng(1)

    def write(name: str, tensors: dict[str, tuple[Any, Any]]) -> None:
        writer = gguf.GGUFWriter(FOLDER / name, "llama")
        for key, (data, kind) in tensors.items():
            writer.add_tensor(key, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    floats, codes, expected = {}, {}, {}
    for number, name in enumerate(SIMPLE):
        wide = (random.standard_normal((4, 128)) * 0.02).astype(np.float32)
        wide[0, :32] = 0
        start = (types.F16, types.F16, types.F16, types.BF16, types.F32)[number]
        narrow = gguf.quants.quantize(wide, start)
        exact = gguf.quants.dequantize(narrow, start)
        made = gguf.quants.quantize(exact, types[name])
        floats[f"{name}.weight"] = (narrow, start)
        codes[f"{name}.weight"] = (made, types[name])
        expected[f"{name}.weight"] = gguf.quants.dequantize(made, types[name])
    write("floats.gguf", floats)
    write("codes.gguf", codes)
    blocks = {}
    for name in OTHERS:
        elements, size = gguf.constants.GGML_QUANT_SIZES[types[name]]
        while True:
            data = random.integers(0, 256, (2, 256 // elements * size), dtype=np.uint8)
            with np.errstate(all="ignore"):
                found = gguf.quants.dequantize(data, types[name])
            if np.isfinite(found).all():
                break
        blocks[f"{name}.weight"] = (data, types[name])
        expected[f"{name}.weight"] = found
    write("others.gguf", blocks)
    _saved("gguf", expected)


def make_mlx() -> None:
    """Affine quantisation of several widths, and the microscaling modes."""
    import mlx.core as mx

    tensors, expected, layers = {}, {}, {}
    mx.random.seed(1)
    for bits, group in ((2, 64), (3, 64), (4, 32), (4, 64), (5, 32), (6, 64), (8, 128)):
        name = f"layers.{bits}.{group}"
        weight = mx.random.normal((3, 128)).astype(mx.float16)
        codes, scales, biases = mx.quantize(weight, group_size=group, bits=bits)
        tensors |= {f"{name}.weight": codes, f"{name}.scales": scales, f"{name}.biases": biases}
        wide = scales.astype(mx.float32), biases.astype(mx.float32)
        expected[f"{name}.weight"] = np.array(mx.dequantize(codes, *wide, group, bits))
        layers[name] = {"group_size": group, "bits": bits}
    for mode, group, bits in (("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)):
        name = f"layers.{mode}"
        weight = mx.random.normal((3, 128)).astype(mx.float32)
        codes, scales = mx.quantize(weight, group_size=group, bits=bits, mode=mode)[:2]
        tensors |= {f"{name}.weight": codes, f"{name}.scales": scales}
        found = mx.dequantize(codes, scales, group_size=group, bits=bits, mode=mode)
        expected[f"{name}.weight"] = np.array(found.astype(mx.float32))
        layers[name] = {"group_size": group, "bits": bits, "mode": mode}
    mx.save_safetensors(str(FOLDER / "mlx.safetensors"), tensors, {"format": "mlx"})
    config = {"quantization": {"group_size": 64, "bits": 4, **layers}}
    (FOLDER / "mlx.json").write_text(json.dumps(config))
    _saved("mlx", expected)


def make_torch() -> None:
    """What the libraries on top of PyTorch save."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    expected: dict[str, Any] = {}

    def kept(name: str, value: Any) -> None:
        expected[name] = value.detach().to(torch.float32).numpy()

    def save(name: str, tensors: dict[str, Any], metadata: Any = None) -> None:
        whole = {key: value.detach().contiguous() for key, value in tensors.items()}
        save_file(whole, FOLDER / name, metadata)

    _bitsandbytes(torch, save, kept)
    _torchao(torch, save, kept)
    _quanto(torch, save, kept)
    _hqq(torch, kept)
    _compressed(torch, save, kept)
    _gptq_and_awq(torch, save, kept)
    _saved("torch", expected)


def _bitsandbytes(torch: Any, save: Any, kept: Any) -> None:
    import bitsandbytes as bnb

    tensors = {}
    for name, kind, nested in (
        ("nf4", "nf4", False),
        ("nested", "nf4", True),
        ("fp4", "fp4", False),
    ):
        layer = bnb.nn.Linear4bit(128, 8, bias=False, quant_type=kind, compress_statistics=nested)
        layer.weight.data = torch.randn(8, 128)
        layer = layer.to("cpu")
        layer(torch.randn(1, 128))
        tensors |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
        state = layer.weight.quant_state
        kept(f"{name}.weight", bnb.functional.dequantize_4bit(layer.weight.data, state))
    wide = torch.randn(6, 64)
    codes, scales, _ = bnb.functional.int8_vectorwise_quant(wide.half())
    tensors |= {"int8.weight": codes, "int8.SCB": scales}
    tensors["int8.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    kept("int8.weight", bnb.functional.int8_vectorwise_dequant(codes, scales))
    save("bitsandbytes.safetensors", tensors)


def _torchao(torch: Any, save: Any, kept: Any) -> None:
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerGroup

    whole = {}
    for name, config in (
        ("int8", Int8WeightOnlyConfig()),
        ("int4", IntxWeightOnlyConfig(torch.int4, PerGroup(32))),
        ("fp8", Float8WeightOnlyConfig()),
    ):
        layer = torch.nn.Sequential(torch.nn.Linear(64, 6, bias=False)).to(torch.bfloat16)
        quantize_(layer, config)
        weight = layer[0].weight
        whole[f"{name}.weight"] = weight
        kept(f"torchao.{name}.weight", weight.dequantize())
    tensors, metadata = flatten_tensor_state_dict(whole)
    save("torchao.safetensors", tensors, metadata)


def _quanto(torch: Any, save: Any, kept: Any) -> None:
    from optimum.quanto import freeze, qfloat8, qint2, qint4, qint8, quantize

    tensors = {}
    for name, kind in (("qint8", qint8), ("qint4", qint4), ("qint2", qint2), ("qfloat8", qfloat8)):
        layer = torch.nn.Sequential(torch.nn.Linear(256, 4, bias=False))
        quantize(layer, weights=kind)
        freeze(layer)
        tensors |= {f"{name}{key[1:]}": value for key, value in layer.state_dict().items()}
        kept(f"quanto.{name}.weight", layer[0].weight.dequantize())
    save("quanto.safetensors", tensors)


def _hqq(torch: Any, kept: Any) -> None:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    tensors = {}
    for bits, group, axis in ((8, 64, 1), (4, 64, 1), (3, 32, 1), (4, 16, 0)):
        name = f"q{bits}.{group}.{axis}"
        config = BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
        layer = HQQLinear(
            torch.nn.Linear(64, 8, bias=False), config, compute_dtype=torch.float32, device="cpu"
        )
        tensors |= {f"{name}.{key}": value.data for key, value in layer.state_dict().items()}
        kept(f"hqq.{name}.weight", layer.dequantize())
    torch.save(tensors, FOLDER / "hqq.pt")


def _compressed(torch: Any, save: Any, kept: Any) -> None:
    """Packed integers, floats of 8 bits, and both formats of 4-bit floats."""
    from compressed_tensors.compressors import (
        MXFP4PackedCompressor,
        NVFP4PackedCompressor,
        PackedQuantizationCompressor,
    )
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def packed(compressor: Any, name: str, state: dict[str, Any], args: Any) -> dict[str, Any]:
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        made = compressor.compress(dict(state), scheme)
        kept(f"compressed.{name}.weight", compressor.decompress(dict(made), scheme)["weight"])
        return {f"{name}.{key}": value for key, value in made.items()}

    tensors = {}
    wide = torch.randn(16, 128)
    for name, bits, group, symmetric in (
        ("w4", 4, 32, True), ("w4a", 4, 32, False), ("w8", 8, None, True), ("w3", 3, 64, True)
    ):  # fmt: skip
        strategy = "group" if group else "channel"
        args = QuantizationArgs(
            num_bits=bits, type="int", group_size=group, strategy=strategy, symmetric=symmetric
        )
        rows = wide.reshape(16, -1, group or 128)
        if symmetric:
            scale = rows.abs().amax(-1) / (2 ** (bits - 1) - 0.5)
            zero = torch.zeros_like(scale, dtype=torch.int8)
        else:
            scale = (rows.amax(-1) - rows.amin(-1)) / (2**bits - 1)
            zero = (-(2 ** (bits - 1)) - rows.amin(-1) / scale).round().clamp(-8, 7).to(torch.int8)
        state = {"weight": wide, "weight_scale": scale, "weight_zero_point": zero}
        if symmetric:
            del state["weight_zero_point"]
        tensors |= packed(PackedQuantizationCompressor, name, state, args)
    for name, compressor, args in (
        ("nvfp4", NVFP4PackedCompressor,
         {"group_size": 16, "strategy": "tensor_group", "scale_dtype": torch.float8_e4m3fn}),
        ("mxfp4", MXFP4PackedCompressor,
         {"group_size": 32, "strategy": "group", "scale_dtype": torch.uint8}),
    ):  # fmt: skip
        found = QuantizationArgs(num_bits=4, type="float", symmetric=True, **args)
        top = wide.reshape(16, -1, args["group_size"]).abs().amax(-1)
        if name == "nvfp4":
            overall = (448 * 6 / wide.abs().max()).reshape(1).float()
            state = {
                "weight": wide, "weight_global_scale": overall,
                "weight_scale": (top / 6 * overall).to(torch.float8_e4m3fn).float(),
            }  # fmt: skip
        else:
            state = {"weight": wide, "weight_scale": 2.0 ** torch.floor(torch.log2(top) - 2)}
        tensors |= packed(compressor, name, state, found)
    save("compressed.safetensors", tensors)


def _gptq_and_awq(torch: Any, save: Any, kept: Any) -> None:
    """What AutoGPTQ packs, and words that AutoAWQ unpacks: both by their modules alone."""
    import importlib.util
    import sysconfig
    import types

    stub: Any = types.ModuleType("transformers")
    stub.pytorch_utils = types.SimpleNamespace(Conv1D=type("Conv1D", (), {}))
    sys.modules["transformers"] = stub

    def module(path: str) -> Any:
        place = Path(sysconfig.get_path("purelib"), path)
        spec = importlib.util.spec_from_file_location(place.stem, place)
        found: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(found)  # type: ignore[union-attr]
        return found

    gptq = module("auto_gptq/nn_modules/qlinear/qlinear_cuda.py")
    awq = module("awq/utils/packing_utils.py")
    tensors = {}
    for name, bits, group, ordered in (
        ("g2", 2, 32, False), ("g3", 3, 32, False), ("g4", 4, 32, False), ("g8", 8, 64, False),
        ("ordered", 4, 32, True),
    ):  # fmt: skip
        linear = torch.nn.Linear(64, 32, bias=False)
        places = torch.arange(64, dtype=torch.int32) // group
        if ordered:
            places = places[torch.randperm(64)]
        shape = (32, 64 // group)
        scales, zeros = 0.02 + 0.01 * torch.rand(shape), torch.randint(1, 2**bits, shape).float()
        layer = gptq.QuantLinear(bits, group, 64, 32, False, weight_dtype=torch.float32)
        at = (scales.t()[places.long()], zeros.t()[places.long()])
        codes = torch.randint(0, 2**bits, (64, 32))
        linear.weight.data = ((codes - at[1]) * at[0]).t().contiguous()
        layer.pack(linear, scales, zeros.clone(), places)
        parts = {key: value for key, value in layer.state_dict().items() if key != "bias"}
        tensors |= {f"{name}.{key}": value for key, value in parts.items()}
        kept(f"gptq.{name}.weight", layer(torch.eye(64)).t())
    words = torch.randint(-(2**31), 2**31 - 1, (66, 3), dtype=torch.int32)
    codes, zeros, scales = words[:64], words[64:], torch.rand(2, 24).half()
    tensors |= {"awq.qweight": codes, "awq.qzeros": zeros, "awq.scales": scales}
    kept("gptq.awq.weight", awq.dequantize_gemm(codes, zeros, scales.float(), 4, 32).t())
    save("gptq.safetensors", tensors)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for part in sys.argv[1:]:
        {"gguf": make_gguf, "mlx": make_mlx, "torch": make_torch}[part]()
