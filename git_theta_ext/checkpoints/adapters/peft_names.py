"""What the names of a PEFT adapter's tensors say: factors, whole parameters, trained tokens.

A file may hold several tensors for one parameter: PEFT writes `X.base_layer.weight` beside the
factors of an embedding, and of a head that is trained in full (`modules_to_save`) the trained copy
under one or two names and the frozen original under `original_module`. What each is for is found
here; nothing is dropped unless another tensor says the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.adapters.base import refuse
from git_theta_ext.checkpoints.adapters.files import TensorFile

_PREFIXES = ("base_model.model.", "base_model.")
_PART = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|ia3_l"
                   r"|lora_magnitude_vector)"
                   r"(?:\.((?!weight$|bias$)[^.]+))?(?:\.(weight|bias))?")  # fmt: skip
_TOKENS = re.compile(r"(.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.([^.]+))?")
_WRAPPED = re.compile(r"\.(?:base_layer|token_adapter)(?=\.)")
_SAVED = ".modules_to_save."
_ORIGINAL = ".original_module."
_SETS = {
    "lora": (
        {"lora_A", "lora_B"},
        {"lora_A", "lora_B", "lora_B.bias"},
        {"lora_embedding_A", "lora_embedding_B"},
        {"lora_A", "lora_B", "lora_magnitude_vector"},
        {"lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"},
    ),
    "ia3": ({"ia3_l"},),
    "trainable_tokens": (),
}  # fmt: skip
"""Tensors that make up the update of one module."""


@dataclass(slots=True)
class Parts:
    """Names in the file: of a module's parts by their kind, of whole parameters, of tokens' rows.

    Modules and parameters are called as in the model, without the prefix that PEFT adds.
    """

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)


def looks_like(names: Mapping[str, Any] | TensorFile) -> str | None:
    """`lora`, `ia3` or `trainable_tokens` if some tensor's name says so, else None."""
    tokens = None
    for name in names:
        if (match := _PART.fullmatch(name)) is not None:
            return "ia3" if match[2] == "ia3_l" else "lora"
        if _TOKENS.fullmatch(name) is not None:
            tokens = "trainable_tokens"
    return tokens


def module_of(name: str) -> str | None:
    """The module, as the model calls it, of which a tensor is a part; None where it is none."""
    prefix = next((one for one in _PREFIXES if name.startswith(one)), "")
    match = _PART.fullmatch(name.removeprefix(prefix))
    return None if match is None else _module(match)


def _module(part: re.Match[str]) -> str:
    return _WRAPPED.sub("", f"{part[1]}.").removesuffix(".")


def sort(file: TensorFile, kind: str, there: Collection[str], taken: Collection[str] = ()) -> Parts:
    """Every tensor of the file in its place.

    Args:
        file: the adapter's tensors.
        kind: `lora`, `ia3` or `trainable_tokens`.
        there: names of the checkpoint's tensors.
        taken: tensors of the file that have a place already.

    Raises:
        UsageError: two tensors say different things of one parameter, or the file holds several
            adapters, or parts that do not belong together.
    """
    found, originals, adapters = Parts(), {}, dict[str, str]()
    for stored in file:
        if stored in taken:
            continue
        prefix = next((one for one in _PREFIXES if stored.startswith(one)), "")
        name = stored.removeprefix(prefix)
        if (match := _PART.fullmatch(name)) is not None:
            part = f"{match[2]}.bias" if match[4] == "bias" else match[2]
            _put(file, found.modules.setdefault(_module(match), {}), part, stored)
            adapters.setdefault(match[3] or "", stored)
        elif (match := _TOKENS.fullmatch(name)) is not None:
            _put(file, found.tokens, match[1], stored)
            adapters.setdefault(match[2] or "", stored)
        elif _ORIGINAL in name:
            originals[_WRAPPED.sub("", name.replace(_ORIGINAL, "."))] = stored
        else:
            _put_whole(file, found.whole, _WRAPPED.sub("", _trained_name(name, there)), stored)
    _check(file, kind, found, originals, adapters)
    return found


def _put(file: TensorFile, known: dict[str, str], key: str, stored: str) -> None:
    if key in known:
        raise refuse(file.path, f"holds several adapters: {known[key]!r} and {stored!r}")
    known[key] = stored


def _put_whole(file: TensorFile, known: dict[str, str], name: str, stored: str) -> None:
    """Two names of one trained parameter must have the same values."""
    other = known.setdefault(name, stored)
    if other != stored and not same_values(file, other, stored):
        raise refuse(
            file.path,
            f"holds two versions of {name!r}: {other!r} and {stored!r} differ",
            "save the adapter anew, with one adapter alone",
        )


def same_values(file: TensorFile, one: str, other: str) -> bool:
    """Whether two tensors of a file have the same dtype, shape and bytes."""
    first, second = file.info(one), file.info(other)
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    left, right = (np.ascontiguousarray(file.read(name)) for name in (one, other))
    return left.tobytes() == right.tobytes()


def _trained_name(name: str, there: Collection[str]) -> str:
    """The parameter that a trained copy is of.

    PEFT takes its adapter's name out of `head.modules_to_save.default.weight`, but not out of
    `head.modules_to_save.default.0.weight`: the part behind may be either, and the checkpoint says.
    """
    module, found, rest = name.partition(_SAVED)
    if not found:
        return name
    short = rest.partition(".")[2]
    plain = f"{module}.{rest}"
    return plain if not short or _is_there(plain, there) else f"{module}.{short}"


def _is_there(name: str, there: Collection[str]) -> bool:
    """Whether the checkpoint has a tensor of that name, with a prefix more or less."""
    return name in there or any(
        one.endswith(f".{name}") or name.endswith(f".{one}") for one in there
    )


def _check(
    file: TensorFile,
    kind: str,
    found: Parts,
    originals: Mapping[str, str],
    adapters: Mapping[str, str],
) -> None:
    """Refuse a file that is not one whole adapter of its kind, with the name of what is wrong."""
    if len(adapters) > 1:
        first, second = list(adapters.values())[:2]
        raise refuse(
            file.path,
            f"holds several adapters: {first!r} and {second!r}",
            "save one of them alone: save_pretrained(..., selected_adapters=[NAME])",
        )
    for module, parts in found.modules.items():
        if set(parts) in _SETS[kind]:
            continue
        strange = sorted(set(parts) - set().union(*_SETS[kind]))
        if strange:
            raise refuse(
                file.path,
                f"module {module!r} has {strange[0]}, which is not of an adapter of type {kind}",
            )
        wanted = next((one for one in _SETS[kind] if set(parts) < one), set())
        lacking = sorted(wanted - set(parts))
        raise refuse(
            file.path,
            f"module {module!r} has no {lacking[0]}"
            if lacking
            else f"module {module!r} has factors of two kinds: {', '.join(sorted(parts))}",
        )
    for name, stored in originals.items():
        module = name.rpartition(".")[0]
        if name not in found.whole and module not in found.modules:
            raise refuse(
                file.path,
                f"has {stored!r}, the untrained original of a module, and no trained copy of it",
                "save the adapter anew with its modules_to_save",
            )
    both = sorted(set(found.tokens) & set(found.modules))
    if both:
        raise refuse(file.path, f"module {both[0]!r} has both factors and trained tokens")
