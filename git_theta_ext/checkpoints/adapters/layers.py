"""Which layer a tensor is the weight of: PEFT lays out factors by the kind of the layer.

A checkpoint has names and shapes, and no classes. A convolution shows by its axes; the `Conv1D` of
GPT-2 (its weight is inputs × outputs) by the length of its bias, or by the model type that
`config.json` names; an embedding by its name. The user may say so for any tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from git_theta_ext.core import patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo

Layer = Literal["linear", "conv1d", "embedding", "convolution"]
"""`conv1d` is the `Conv1D` of Transformers; the convolutions of PyTorch are one kind."""

_EMBEDDING = re.compile(
    r"(?:embed|embeddings?|embed_(?:tokens|positions|in)|\w+_embeddings?|\w+_embed|wte|wpe|shared"
    r"|tok_embeddings|relative_attention_bias|token_embd|position_embd)"
)
"""The last part of the name of an embedding module, in the models of Transformers and llama.cpp."""
_HEADS = {"embed_out", "lm_head", "output_embedding"}
_CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
_CONV1D = {"c_attn", "c_proj", "c_fc", "q_attn"}
"""Names of the `Conv1D` layers of these models."""


@dataclass(frozen=True, slots=True)
class Told:
    """Names of tensors of which the user said what layer they belong to."""

    conv1d: frozenset[str] = frozenset()
    embedding: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Collection[str], options: Mapping[str, Sequence[str]]) -> Told:
        """The tensors that patterns mean.

        Args:
            names: of the checkpoint.
            options: patterns by `conv1d`, `embedding` and `linear`; of tensors or their modules.

        Raises:
            UsageError: a pattern matches nothing.
        """
        found: dict[str, frozenset[str]] = {}
        modules = {name.removesuffix(".weight"): name for name in names}
        for kind, wanted in options.items():
            matched: set[str] = set()
            for pattern in wanted:
                these = {*patterns.select(names, [pattern])}
                these |= {modules[one] for one in patterns.select(modules, [pattern])}
                if not these:
                    raise UsageError(f"--{kind} {pattern}: no tensor has such a name")
                matched |= these
            found[kind] = frozenset(matched)
        return cls(**found)


def layer_of(
    name: str, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], told: Told
) -> Layer | None:
    """The layer that a tensor is the weight of; None where it is of none that has factors.

    Args:
        name: of the tensor.
        tensors: all of the checkpoint.
        config: its `config.json`.
        told: what the user said.
    """
    tensor = tensors[name]
    module, dot, last = name.rpartition(".")
    if not dot or last != "weight" or tensor.dtype.kind != "float" or len(tensor.shape) < 2:
        return None
    if len(tensor.shape) > 2:
        # One input for each filter: most likely as many groups, whose factors have another shape.
        depthwise = tensor.shape[1] == 1 and tensor.shape[0] > 1
        return None if depthwise or len(tensor.shape) > 5 else "convolution"
    for kind in ("conv1d", "embedding", "linear"):
        if name in getattr(told, kind):
            return kind
    end = _last(module)
    if _EMBEDDING.fullmatch(end) and end not in _HEADS:
        return "embedding"
    return "conv1d" if _is_conv1d(module, end, tensors, config) else "linear"


def _is_conv1d(
    module: str, end: str, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> bool:
    shape = tensors[f"{module}.weight"].shape
    bias = tensors.get(f"{module}.bias")
    if bias is not None and shape[0] != shape[1] and len(bias.shape) == 1:
        return bias.shape[0] == shape[1]
    if end not in _CONV1D:
        return False
    if config.get("model_type") in _CONV1D_MODELS:
        return True
    return bool(square_is_conv1d(module, tensors))


def square_is_conv1d(module: str, tensors: Mapping[str, TensorInfo]) -> bool | None:
    """Whether a module with a square weight is a `Conv1D`, by what the others of such names are.

    None where the model has none of such a name whose shapes tell.
    """
    there = any(
        name.endswith(".weight")
        and _last(name.removesuffix(".weight")) in _CONV1D
        and len(info.shape) == 2
        and info.shape[0] != info.shape[1]
        and _is_conv1d(name.removesuffix(".weight"), "", tensors, {})
        for name, info in tensors.items()
    )
    return _last(module) in _CONV1D if there else None


def _last(module: str) -> str:
    return module.rpartition(".")[2]
