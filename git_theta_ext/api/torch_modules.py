"""The tensors of a torch module by name, without what wrappers add; torch is not imported here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.pytorch import is_sharded, unusual

_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine")
"""Classes that hold the module itself as `module`."""
_INFIXES = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What wrappers inside a module add to names."""


def targets_of(module: Any, names: Collection[str]) -> tuple[Any, dict[str, tuple[str, Any]]]:
    """The module without its wrappers, and its tensors: by the name that the checkpoint may have.

    A checkpoint that was saved with a wrapper's names fits the wrapper as it is.
    """
    if not hasattr(module, "state_dict"):
        raise UsageError(f"{type(module).__name__} is no torch module: it has no state_dict()")
    _refuse_flat(module)
    own = module.state_dict(keep_vars=True)
    if not all(name in names for name in own):
        module = _unwrapped(module)
        own = module.state_dict(keep_vars=True)
        if not all(name in names for name in own):
            _refuse_peft(module)
    found: dict[str, tuple[str, Any]] = {}
    for name, target in own.items():
        plain = name
        for infix in _INFIXES:
            plain = plain.replace(infix, "")
        found[plain if plain in names and name not in names else name] = (name, target)
    return module, found


def _unwrapped(module: Any) -> Any:
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and type(module).__name__ in _WRAPPERS:
            inner = module.module
        if inner is None:
            return module
        module = inner


def _refuse_flat(module: Any) -> None:
    for one in module.modules():
        if type(one).__name__ == "FullyShardedDataParallel":
            raise UsageError(
                "the module is wrapped by FullyShardedDataParallel (FSDP1), whose parameters are "
                "flat parts of several tensors",
                hint="load into the module before it is wrapped, or use fully_shard (FSDP2)",
            )
        if any(hasattr(parameter, "ds_id") for parameter in one.parameters(recurse=False)):
            raise UsageError(
                "the module's parameters are partitioned by DeepSpeed (ZeRO stage 3)",
                hint="load into the module before deepspeed.initialize()",
            )


def _refuse_peft(module: Any) -> None:
    for one in module.modules():
        if type(one).__module__.partition(".")[0] == "peft":
            raise UsageError(
                f"the module is wrapped by PEFT ({type(one).__name__}): its weights lie in "
                "base_layer and its adapters beside them",
                hint="load into the base model: before get_peft_model(), or after unload() or "
                "merge_and_unload()",
            )


def tied_groups(targets: dict[str, tuple[str, Any]]) -> list[list[str]]:
    """Names of one and the same tensor, together: tied weights."""
    found: dict[object, list[str]] = {}
    for name, (_, target) in targets.items():
        found.setdefault(_identity(target), []).append(name)
    return list(found.values())


def _identity(target: Any) -> object:
    """What two tensors have in common that are one: the object, or the very same memory."""
    if not hasattr(target, "data_ptr") or is_sharded(target) or unusual(target) is not None:
        return id(target)
    if target.is_meta or not target.numel():
        return id(target)
    place = (str(target.device), target.data_ptr(), str(target.dtype))
    return (*place, tuple(target.shape), tuple(target.stride()))
