"""The settings of a PEFT adapter: which can be applied as factors, and which are refused by name.

An option that is not known is refused unless it is off, for it may change the result. The lists
are those of PEFT 0.21 (`LoraConfig`, `IA3Config`, `TrainableTokensConfig`) and what earlier
releases wrote.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.adapters import module_pattern
from git_theta_ext.checkpoints.adapters.base import refuse
from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable

CONFIG = "adapter_config.json"
KINDS = ("lora", "ia3", "trainable_tokens")
OTHERS = ("adalora", "loha", "lokr", "vera", "oft", "boft", "hra", "fourierft", "ln_tuning")
"""Types that are applied by `types`."""
MERGE = "merge it with PEFT (merge_and_unload), save the model, then: git add FILE"
_KEEP = "it cannot be merged into the weights: track its own folder beside the model, with git add"

_NAMES = {
    "ADAMSS": "AdaMSS", "BEFT": "BEFT", "C3A": "C3A",
    "DEFT": "DEFT", "DELORA": "DeLoRA", "FROD": "FRoD",
    "GLORA": "GLoRA", "GRALORA": "GraLoRA", "HIRA": "HiRA", "LILY": "Lily",
    "MISS": "MiSS", "OSF": "OSF", "PEANUT": "PEANuT", "PSOFT": "PSOFT", "PVERA": "PVeRA",
    "RANDLORA": "RandLora", "ROAD": "RoAd", "SHADOW": "Shadow", "SHIRA": "SHiRA",
    "SUPERTUNING": "SuperTuning", "TINYLORA": "TinyLoRA", "UNILORA": "UniLoRA", "VBLORA": "VB-LoRA",
    "WAVEFT": "WaveFT", "BONE": "Bone",
}  # fmt: skip
"""Types whose updates lie in the weights, but are no plain factors."""
_UNMERGEABLE = {
    "PROMPT_TUNING": "prompt tuning", "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
    "P_TUNING": "P-tuning", "PREFIX_TUNING": "prefix tuning", "CPT": "CPT",
    "ADAPTION_PROMPT": "Llama-Adapter", "CARTRIDGE": "Cartridge", "POLY": "Poly",
    "XLORA": "X-LoRA",
}  # fmt: skip
"""Types that act on the input, or choose by it."""

_HARMLESS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "target_modules", "exclude_modules", "modules_to_save",
}  # fmt: skip
_KNOWN = {
    "lora": {
        "r", "lora_alpha", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "use_rslora",
        "lora_bias", "use_dora", "trainable_token_indices", "bias", "init_lora_weights",
        "target_parameters",
        # of training alone:
        "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core", "loftq_config",
        "eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size",
        "runtime_config", "ensure_weight_tying",
        # of earlier releases:
        "merge_weights", "enable_lora",
    },
    "ia3": {"feedforward_modules", "fan_in_fan_out", "init_ia3_weights"},
    "trainable_tokens": {"token_indices", "init_weights"},
}  # fmt: skip
_REFUSED = {
    "use_qalora": "QALoRA changes the inputs, not the weights",
    "use_bdlora": "BD-LoRA splits its factors into blocks",
    "alora_invocation_tokens": "an activated LoRA (aLoRA) depends on the input",
    "arrow_config": "Arrow chooses among adapters by the input",
    "monteclora_config": "MonteCLoRA's factors are random",
    "kasa_config": "KaSA has further factors",
    "layer_replication": "it repeats layers of the base model",
    "megatron_config": "Megatron's layers are split over processes",
    "enable_lora": "its factors are those of several merged layers",
}
_PRECOMPUTED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin a LoRA that also change the base model's weights when they begin."""
_BEGINNINGS = ("true", "false", "gaussian", "eva", "orthogonal", "none", "")
"""Those that do not."""
_BIASES = ("none", "all", "lora_only")


def read_config(path: Path) -> Mapping[str, Any]:
    """The settings of an adapter.

    Raises:
        UsageError: the file is missing or is no JSON object.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(limits.ADAPTER_CONFIG_BYTES))
    except OSError as error:
        raise refuse(
            path,
            f"cannot be read: {error.strerror or error}",
            "an adapter's scaling is in its adapter_config.json; give it with --config FILE",
        ) from error
    except (ValueError, RecursionError) as error:
        raise refuse(path, f"is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise refuse(path, "is no JSON object")
    return data


def stated_type(config: Mapping[str, Any]) -> str | None:
    """The `peft_type` of an adapter, in capitals as PEFT writes it; None where there is none."""
    stated = config.get("peft_type")
    return None if stated is None else str(stated).upper()


def check_type(path: Path, config: Mapping[str, Any], kind: str | None = None) -> None:
    """Refuse an adapter of a type that cannot be applied, by the name that PEFT gives it.

    Args:
        path: of the adapter, for messages.
        config: its settings.
        kind: what it is taken for: one of `KINDS`, or None where that is not known yet.

    Raises:
        UsageError: it states another type.
    """
    stated = stated_type(config)
    applied = (*KINDS, *OTHERS)
    if stated is None or stated.lower() == kind or (kind is None and stated.lower() in applied):
        return
    if stated.lower() in applied:
        raise refuse(path, f"is an adapter of type {stated.lower()}, not {kind}")
    known = _UNMERGEABLE.get(stated)
    if known is not None:
        raise refuse(
            path,
            f"is an adapter of type {stated.lower()} ({known}), which acts on the input, not on "
            "the weights",
            _KEEP,
        )
    name = _NAMES.get(stated, printable(stated[:80]))
    raise refuse(
        path,
        f"is an adapter of type {printable(stated[:80]).lower()} ({name}), which cannot be added "
        "as factors",
        MERGE,
    )


def check_options(
    path: Path, config: Mapping[str, Any], kind: str, known: Collection[str] | None = None
) -> None:
    """Refuse settings that make another result than plain factors do, and unknown ones.

    Args:
        path: of the adapter, for messages.
        config: its settings.
        kind: its type.
        known: options of that type; for `KINDS` they are known here.

    Raises:
        UsageError: there is one.
    """
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise refuse(path, f"cannot be added as factors: {key} is set; {reason}", MERGE)
    begun = str(config.get("init_lora_weights", "")).lower()
    if begun.startswith(_PRECOMPUTED):
        raise refuse(
            path,
            f"cannot be added as factors: init_lora_weights={begun!r} also changed the base model",
            "convert it: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    if begun not in _BEGINNINGS:
        raise _unknown(path, "init_lora_weights", begun)
    if kind in ("lora", "adalora", "vera") and str(config.get("bias") or "none") not in _BIASES:
        raise _unknown(path, "bias", config["bias"])
    known = _KNOWN[kind] if known is None else known
    for key, value in config.items():
        off = value is None or value is False or value in ("", [], {})
        if not off and key not in _HARMLESS and key not in known:
            raise _unknown(path, key, value)


def _unknown(path: Path, key: str, value: Any) -> UsageError:
    return refuse(
        path,
        f"its adapter_config.json sets {printable(key[:80])} to {printable(repr(value)[:80])}, "
        "which is not known here and may change the result",
        f"{MERGE}; or, if it changes nothing, give a copy without it: --config FILE",
    )


@dataclass(frozen=True, slots=True)
class Scaling:
    """Rank and alpha of every module of a LoRA, as its settings give them."""

    path: Path
    config: Mapping[str, Any]
    _read: dict[str, module_pattern.Patterns] = field(default_factory=dict)

    def of(self, module: str, rank: int) -> float:
        """What the product of a module's factors is multiplied by.

        Raises:
            UsageError: alpha is no number, or the rank is another than the settings say.
        """
        stated = self.rank(module)
        if stated is not None and stated != rank:
            raise refuse(
                self.path,
                f"module {module!r} has factors of rank {rank}, and adapter_config.json says rank "
                f"{stated!r}: they are not of one adapter",
                "give the right settings with --config FILE",
            )
        alpha = self.alpha(module)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
            raise refuse(
                self.path,
                f"module {module!r}: lora_alpha is {alpha!r}, which is no number",
                f"it is in {CONFIG}; give that file with --config FILE",
            )
        if not math.isfinite(alpha):
            raise refuse(self.path, f"module {module!r}: lora_alpha is {alpha!r}")
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def rank(self, module: str) -> Any:
        """The rank that the settings give a module, as it stands there; None where they give none.

        Raises:
            UsageError: a pattern is not accepted.
        """
        return self._by_pattern("rank_pattern", module, self.config.get("r"))

    def alpha(self, module: str) -> Any:
        """As `rank`, of alpha."""
        return self._by_pattern("alpha_pattern", module, self.config.get("lora_alpha"))

    def _by_pattern(self, key: str, module: str, default: Any) -> Any:
        """As PEFT matches: regular expressions for the end of a module's name, at a dot."""
        table = self.config.get(key) or {}
        if not isinstance(table, dict):
            raise refuse(self.path, f"its {key} is no table")
        try:
            if key not in self._read:
                self._read[key] = module_pattern.Patterns([str(name) for name in table])
            found = self._read[key].first(module)
        except UsageError as error:
            raise refuse(
                self.path, f"a pattern of {key} is not accepted: {error.message}"
            ) from error
        return default if found is None else list(table.values())[found]
