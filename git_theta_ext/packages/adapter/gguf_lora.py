"""`--to gguf-lora`: a commit as the LoRA file that llama.cpp loads (`--lora FILE`).

Facts: `convert_lora_to_gguf.py` and `src/llama-adapter.cpp` of llama.cpp. A GGUF file with
`general.type` adapter, `adapter.type` lora, `adapter.lora.alpha` and the base's architecture; for a
weight NAME, `NAME.lora_a` (rank × inputs) and `NAME.lora_b` (outputs × rank), of the token
embedding `lora_a` tokens × rank. The scaling is alpha / rank, or 1 where alpha is 0. llama.cpp
leaves norms out and knows no biases, so these are refused.

A GGUF checkpoint has llama.cpp's names. Those of Transformers are mapped for the models of
`_MODELS`, whose converter changes no matrix but the rows of queries and keys, for its rotary
embedding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import FormatError, UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import printable
from git_theta_ext.formats import build, gguf
from git_theta_ext.formats.base import Literal
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.packages.adapter import files, peft, plan
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.adapter.plan import Module, Plan, Wanted

_MODELS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
           "gemma": "gemma", "gemma2": "gemma2", "phi3": "phi3"}  # fmt: skip
"""`model_type` of Transformers -> architecture of llama.cpp."""
_TURNED = {"llama", "mistral"}
"""Models whose queries and keys llama.cpp has in another order of rows."""
_HEADLESS = {"gemma", "gemma2"}
"""Models whose output is their token embedding, in every file of llama.cpp."""
_OUTER = {"model.embed_tokens": "token_embd", "lm_head": "output"}
_INNER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}  # fmt: skip
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the plan, and the length of the file."""

    plan: Plan
    architecture: str
    nbytes: int


def export(
    ends: Ends,
    path: Path,
    text: str,
    wanted: Wanted,
    *,
    work_tree: Path | None,
    advance: Callable[[int], object],
) -> Written:
    """Write a commit as a LoRA for llama.cpp.

    Args:
        ends: the versions.
        path: the file, as the user named it.
        text: the range as the user typed it, for advice.
        wanted: rank and tolerance.
        work_tree: the top of the repository's.
        advance: called with bytes that are done.

    Raises:
        UsageError: a tensor has no place in it, or the model is not known here.
        StoreError: it cannot be written.
    """
    architecture = _architecture(ends)
    found = plan.make(ends, wanted, advance)
    found.refused |= dict.fromkeys(found.biases, "llama.cpp knows no biases in a LoRA")
    names: dict[str, str] = {}
    for one in found.modules:
        name = _name(ends, one)
        if name is None or one.layer not in ("linear", "embedding"):
            found.refused[one.tensor] = "its name in llama.cpp is not known here"
        else:
            names[one.name] = name
    plan.require_whole(found, text, wanted, "a LoRA of llama.cpp")
    alpha = _alpha(found)
    held: dict[str, NDArray[np.float32]] = {}
    for one in found.modules:
        stem = f"{names[one.name]}.weight"
        down, up = peft.peft_factors(one, ends)
        if not alpha:
            up = up * np.float32(one.factored.scaling)
        held[f"{stem}.lora_a"] = down.T if stem == "token_embd.weight" else down
        held[f"{stem}.lora_b"] = _reordered(ends, one, up)
    pairs: dict[str, str | float] = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }
    ordered = {name: files.of_array(held[name]) for name in sorted(held, key=natural_key)}
    infos = {name: one.info(name) for name, one in ordered.items()}
    layout = build(gguf.NAME, infos, gguf.key_values(pairs))
    return Written(found, architecture, files.write_layout(path, layout, ordered, work_tree))


def _architecture(ends: Ends) -> str:
    """What llama.cpp calls the model.

    Raises:
        UsageError: it is none of those that are known here.
    """
    if ends.is_gguf():
        first = skeleton.decode(ends.new.structure()).segments[0]
        try:
            head = first.data if isinstance(first, Literal) else b""
            found = gguf.text_of(head, "general.architecture")
        except FormatError as error:
            raise UsageError(f"{printable(ends.path)}: {error.message}") from error
        if found is not None:
            return found
    kind = str(ends.beside.get("model_type"))
    if kind not in _MODELS:
        raise UsageError(
            f"names of {printable(ends.path)} in llama.cpp are known where it is a GGUF file, or "
            f"config.json beside it names one of these models: {', '.join(_MODELS)}",
            hint="--to peft, and convert_lora_to_gguf.py of llama.cpp on that folder",
        )
    return _MODELS[kind]


def _name(ends: Ends, one: Module) -> str | None:
    """The module as llama.cpp calls it; None where that is not known."""
    if ends.is_gguf():
        return one.name
    if one.name == "lm_head" and ends.beside.get("model_type") in _HEADLESS:
        return None
    if one.name in _OUTER:
        return _OUTER[one.name]
    match = _LAYER.fullmatch(one.name)
    inner = _INNER.get(match[2]) if match else None
    return None if match is None or inner is None else f"blk.{match[1]}.{inner}"


def _alpha(found: Plan) -> float:
    """One alpha that is right for every module; 0 where there is none, and factors are scaled."""
    alphas = {peft.alpha_of(one.factored.scaling, one.factored.rank) for one in found.modules}
    alpha = float(alphas.pop()) if len(alphas) == 1 else 0.0
    return alpha if float(np.float32(alpha)) == alpha else 0.0


def _reordered(ends: Ends, one: Module, up: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of a query or a key as llama.cpp has them: halves of each head interleaved.

    Raises:
        UsageError: `config.json` does not say how many heads there are.
    """
    last = one.name.rpartition(".")[2]
    turned = not ends.is_gguf() and ends.beside.get("model_type") in _TURNED
    if not turned or last not in ("q_proj", "k_proj"):
        return up
    heads: Any = ends.beside.get("num_attention_heads")
    if last == "k_proj":
        heads = ends.beside.get("num_key_value_heads") or heads
    if type(heads) is not int or heads < 1 or len(up) % (2 * heads):
        raise UsageError(
            f"config.json beside {printable(ends.path)} does not say how many heads the "
            f"{len(up)} rows of {one.name!r} are of"
        )
    halves = up.reshape(heads, 2, len(up) // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(up.shape)
