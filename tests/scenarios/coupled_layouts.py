"""Tensors that belong together, as libraries in use name them, and manifests of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.manifest.model import Block, Entry, Manifest

Types = Mapping[str, tuple[str, tuple[int, ...]]]


def version(
    types: Types, values: Mapping[str, int], container: str = "safetensors", skeleton: int = 0
) -> Manifest:
    """A manifest whose tensors' contents are told apart by a number each; 0 if not given."""

    def digest(*parts: object) -> str:
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    entries = []
    for name in sorted(types, key=natural_key):
        dtype, shape = types[name]
        info = TensorInfo(name, DTYPES[dtype], shape)
        blocks = [
            Block(spec.nbytes, digest(name, values.get(name, 0), place))
            for place, spec in enumerate(cut(info))
        ]
        entries.append(Entry(info, tuple(blocks)))
    return Manifest(container, Block(1, digest("skeleton", skeleton)), tuple(entries))


E = "l.mlp.experts.gate_up_proj"
F, H, I8, U8 = "F32", "F16", "I8", "U8"
LAYOUTS: dict[str, tuple[Types, str, str]] = {
    "compressed-tensors": (
        {"l.weight_packed": ("I32", (8, 8)), "l.weight_scale": (H, (8, 1)),
         "l.weight_zero_point": ("I32", (1, 1)), "l.weight_shape": ("I64", (2,))},
        "l.weight_packed", "l.weight_scale"),
    "compressed-tensors, zero points": (
        {"l.weight_packed": ("I32", (8, 8)), "l.weight_scale": (H, (8, 1)),
         "l.weight_zero_point": (I8, (8,))},
        "l.weight_packed", "l.weight_zero_point"),
    "MXFP4": ({f"{E}_blocks": (U8, (8, 8, 4)), f"{E}_scales": (U8, (8, 8)), f"{E}_bias": (F, (8,))},
              f"{E}_blocks", f"{E}_scales"),
    "quanto": ({"l.weight._data": (I8, (8, 8)), "l.weight._scale": (F, (8, 1))},
               "l.weight._data", "l.weight._scale"),
    "torchao": ({"l.weight_qdata": (I8, (8, 8)), "l.weight_scale": (F, (8, 1))},
                "l.weight_qdata", "l.weight_scale"),
    "torchao, a subclass": ({"l.weight.qdata": (I8, (8, 8)), "l.weight.scale": (F, (8, 1))},
                            "l.weight.qdata", "l.weight.scale"),
    "HQQ": ({"l.W_q": (U8, (8, 8)), "l.scale": (H, (64, 1)), "l.zero": (H, (64, 1))},
            "l.W_q", "l.zero"),
    "HQQ, its own file": ({"l.W_q": (U8, (8, 8)), "l.meta.scale": (H, (64, 1))},
                          "l.W_q", "l.meta.scale"),
    "EETQ": ({"l.weight": (I8, (8, 8)), "l.weight_scales": (H, (8,))},
             "l.weight", "l.weight_scales"),
    "ComfyUI": ({"l.weight": ("F8_E4M3", (8, 8)), "l.scale_weight": (F, ())},
                "l.weight", "l.scale_weight"),
    "DeepSeek": ({"l.weight": ("F8_E4M3", (8, 8)), "l.weight_scale_inv": (F, (1, 1))},
                 "l.weight", "l.weight_scale_inv"),
    "experts": ({E: ("F8_E4M3", (4, 8, 8)), f"{E}_scale_inv": (F, (4, 1, 1))},
                E, f"{E}_scale_inv"),
    "GPTQ": ({"l.qweight": ("I32", (8, 8)), "l.qzeros": ("I32", (1, 8)), "l.scales": (H, (1, 8)),
              "l.g_idx": ("I32", (64,))}, "l.qweight", "l.g_idx"),
    "AWQ": ({"l.qweight": ("I32", (8, 8)), "l.qzeros": ("I32", (1, 8)), "l.scales": (H, (1, 8))},
            "l.qzeros", "l.scales"),
    "bitsandbytes, 4 bits": (
        {"l.weight": (U8, (32, 1)), "l.weight.absmax": (U8, (1,)), "l.weight.quant_map": (F, (16,)),
         "l.weight.nested_absmax": (F, (1,)),
         "l.weight.quant_state.bitsandbytes__nf4": (U8, (80,))},
        "l.weight", "l.weight.nested_absmax"),
    "bitsandbytes, 8 bits": ({"l.weight": (I8, (8, 8)), "l.SCB": (F, (8,))}, "l.weight", "l.SCB"),
    "MLX": ({"l.weight": ("U32", (8, 8)), "l.scales": (H, (8, 4)), "l.biases": (H, (8, 4))},
            "l.weight", "l.biases"),
    "ONNX": ({"W_quantized": (I8, (8, 8)), "W_scale": (F, ()), "W_zero_point": (I8, ())},
             "W_quantized", "W_scale"),
    "nobody's": ({"l.stuff": (U8, (8, 8)), "l.steps": (F, (8,))}, "l.stuff", "l.steps"),
    "nobody's, at the top": ({"stuff": (U8, (8, 8)), "steps": (F, (8,))}, "stuff", "steps"),
    "nobody's, of one axis": ({"l.q": (U8, (128,)), "l.scale": (F, (4,))}, "l.q", "l.scale"),
    "nobody's, of one axis, at the top": ({"stuff": (I8, (128,)), "stuff.absmax": (F, (4,))},
                                          "stuff", "stuff.absmax"),
    "sparse": ({"w.indices": ("I64", (2, 9)), "w.values": (F, (9,))}, "w.indices", "w.values"),
    "SciPy": ({"indices": ("I32", (9,)), "indptr": ("I32", (4,)), "data": (F, (9,))},
              "indptr", "data"),
    "nested": ({"w.buffer": (F, (9,)), "w.sizes": ("I64", (2, 2)), "w.strides": ("I64", (2, 2)),
                "w.offsets": ("I64", (2,))}, "w.buffer", "w.offsets"),
    "LoRA": ({"l.lora_A.weight": (F, (4, 8)), "l.lora_B.weight": (F, (8, 4))},
             "l.lora_A.weight", "l.lora_B.weight"),
    "LoRA of an embedding": ({"l.lora_embedding_A": (F, (4, 8)), "l.lora_embedding_B": (F, (8, 4))},
                             "l.lora_embedding_A", "l.lora_embedding_B"),
    "DoRA": ({"l.lora_A.weight": (F, (4, 8)), "l.lora_magnitude_vector.weight": (F, (8,))},
             "l.lora_A.weight", "l.lora_magnitude_vector.weight"),
    "LoHa": ({"l.hada_w1_a": (F, (8, 4)), "l.hada_w2_b": (F, (4, 8))},
             "l.hada_w1_a", "l.hada_w2_b"),
    "LoKr": ({"l.lokr_w1": (F, (4, 4)), "l.lokr_w2_a": (F, (8, 4))}, "l.lokr_w1", "l.lokr_w2_a"),
    "VeRA": ({"l.vera_lambda_b": (F, (8,)), "l.vera_lambda_d": (F, (4,))},
             "l.vera_lambda_b", "l.vera_lambda_d"),
    "kohya": ({"l.lora_down.weight": (F, (4, 8)), "l.lora_up.weight": (F, (8, 4)),
               "l.alpha": (F, ())}, "l.lora_down.weight", "l.alpha"),
    "Adam": ({"state.0.exp_avg": (F, (8,)), "state.0.step": (F, ())},
             "state.0.exp_avg", "state.0.step"),
    "Adam, two parameters": ({"state.0.exp_avg": (F, (8,)), "state.1.exp_avg": (F, (9,))},
                             "state.0.exp_avg", "state.1.exp_avg"),
    "Adam, written by hand": ({"opt.m": (F, (8,)), "opt.v": (F, (8,)), "opt.t": ("I64", ())},
                              "opt.m", "opt.t"),
    "Adam, by names": ({"optimizer.m.weight.exp_avg": (F, (8,)), "rng_state": (U8, (5056,))},
                       "optimizer.m.weight.exp_avg", "rng_state"),
    "AQLM": ({"l.codes": ("I16", (8, 8, 1)), "l.codebooks": (H, (1, 64, 1, 8)),
              "l.scales": (H, (8, 1))}, "l.codebooks", "l.scales"),
    "QuIP#": ({"l.Qidxs": ("I64", (8, 8)), "l.SU": (H, (8,)), "l.SV": (H, (8,)),
               "l.Wscale": (F, ())}, "l.SU", "l.SV"),
    "VPTQ": ({"l.indices": ("I32", (1, 8, 8)), "l.centroids.weight": (H, (1, 64)),
              "l.weight_scale": (H, (8,)), "l.weight_bias": (H, (8,))},
             "l.centroids.weight", "l.weight_bias"),
    "ExLlamaV2": ({"l.q_weight": ("I32", (8, 8)), "l.q_scale": ("I32", (1, 8)),
                   "l.q_scale_max": (H, (1,)), "l.q_groups": ("I16", (2,))},
                  "l.q_weight", "l.q_groups"),
    "ExLlamaV3": ({"l.trellis": ("I16", (8, 8, 16)), "l.suh": (H, (8,)), "l.svh": (H, (8,))},
                  "l.trellis", "l.svh"),
    "SqueezeLLM": ({"l.qweight": ("I32", (8, 8)), "l.lookup_table": (H, (8, 16))},
                   "l.qweight", "l.lookup_table"),
    "HIGGS": ({"l.weight": ("I16", (8, 8)), "l.scales": (H, (8, 8)), "l.tables": (H, (16,))},
              "l.scales", "l.tables"),
    "QQQ": ({"l.B": ("I32", (8, 8)), "l.s_group": (H, (1, 8)), "l.s_channel": (F, (1, 8))},
            "l.s_group", "l.s_channel"),
    "sparse, 2:4": ({"l.weight_packed": ("I32", (8, 8)), "l.meta": ("I16", (8, 8)),
                     "l.scale_packed": (H, (1, 8))}, "l.meta", "l.weight_packed"),
    "sparse, half of the words": ({"w.idx": ("I64", (9,)), "w.val": (F, (9,))}, "w.idx", "w.val"),
    "sparse, one name": ({"w_indices": ("I64", (2, 9)), "w_values": (F, (9,))},
                         "w_indices", "w_values"),
    "sparse, rows": ({"l.rows": ("I32", (9,)), "l.cols": ("I32", (9,)), "l.vals": (H, (9,))},
                     "l.rows", "l.vals"),
    "diffusers": ({"l.to_q_lora.down.weight": (F, (4, 8)), "l.to_q_lora.up.weight": (F, (8, 4))},
                  "l.to_q_lora.down.weight", "l.to_q_lora.up.weight"),
    "DoRA of MLX": ({"l.lora_a": (F, (8, 4)), "l.lora_b": (F, (4, 8)), "l.m": (F, (8,))},
                    "l.lora_a", "l.m"),
    "Adam of TensorFlow 1": ({"d/kernel/Adam": (F, (8, 8)), "d/kernel/Adam_1": (F, (8, 8)),
                              "beta1_power": (F, ())}, "d/kernel/Adam_1", "beta1_power"),
    "Adam of Paddle": ({"l.w_0_moment1_0": (F, (8, 8)), "l.w_0_moment2_0": (F, (8, 8)),
                        "l.w_0_beta1_pow_acc_0": (F, (1,))},
                       "l.w_0_moment1_0", "l.w_0_beta1_pow_acc_0"),
    "Adam of MLX": ({"l.weight.m": (F, (8, 8)), "l.weight.v": (F, (8, 8))},
                    "l.weight.m", "l.weight.v"),
    "NumPy's generator": ({"r.key": ("U32", (624,)), "r.pos": ("I64", ())}, "r.key", "r.pos"),
}  # fmt: skip
