"""What tensors that belong together are called: by libraries that quantise, train and adapt.

Structure comes first (see `groups`); these names tell parts of one module from its neighbours, and
find what structure cannot: parts under another module's name, states of training, factors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_SEPARATOR = re.compile(r"[./]")
_AFFIX = re.compile(
    r"(?P<stem>.+?)_(?:packed|quantized|quantised|quant|blocks?|codes?|data|qdata|q|qint8|int8|int4"
    r"|uint8|fp8|fp4|nf4|shape|sparse|meta|indices|perm|lut|codebook"
    r"|q?scales?(?:_inv|_2|_and_zero)?|scaling(?:_factor)?|amax|absmax|quant_map|quant_state"
    r"|q?zeros?|zero_points?|zps?|zero|bias(?:es)?|min|max|mins?|g_idx|global_scale|scb|format)",
    re.IGNORECASE,
)
QUANT_WORDS = frozenset(
    {
        "qweight", "qzeros", "qscales", "scales", "scale", "zeros", "zero", "g_idx", "scb",
        "biases", "absmax", "quant_map", "nested_absmax", "nested_quant_map", "code", "codebook",
        "lut", "zero_point", "zero_points", "weight_format", "w_q", "qdata", "q_data", "perm",
        "tensor_data", "invperm", "channel_scale", "group_size", "axis", "nbits", "packing",
        "offset", "offsets", "amax", "step_size", "channel_idx", "outliers", "outlier_idx",
        "indices", "res_indices", "outlier_indices", "meta",
    }
)  # fmt: skip
"""Last parts of names, in lower case, that only quantised modules have, and no stem."""

CODE_WORDS = frozenset({"qweight", "weight_packed", "w_q", "qdata", "_data", "_qdata", "qidxs"})
WEIGHTS = frozenset({"weight", "kernel", "embedding", "embeddings"})
"""Last parts of the names of what a layer computes with."""

_OF_Q = re.compile(r"q_(?=(?:weight|scale|scale_max|groups?|group_map|perm|invperm)$)")
_SCALE = re.compile(
    r"(^|[._/])(q?scales?(_inv|_2)?|scaling_factor|q?zeros?|zero_points?|scb|g_idx|absmax|amax"
    r"|quant_map|quant_state|codebook|lut|biases|global_scale)(:0)?$|(^|[._/])scale_(weight|input)$"
    r"|(^|[._/])(input|output|[kvq])_scale$",
    re.IGNORECASE,
)
_NOT_SCALES = re.compile(r"(^|[._/])(logit|layer|residual|attn|norm)_scale$", re.IGNORECASE)
_PLAIN = re.compile(
    r"(^|[._/])(bias|.*_bias|running_mean|running_var|num_batches_tracked|gamma|beta"
    r"|lora_.*|class_embedding|cls_token|mask_token|logit_scale)(:0)?$",
    re.IGNORECASE,
)
_BELOW = ("meta", "quant_state", "qparams", "quant", "state", "nested", "centroids",
          "res_centroids", "outlier_centroids", "codebook", "codebooks")  # fmt: skip
_SPARSE_WORDS = {
    "idx": "indices",
    "index": "indices",
    "coords": "indices",
    "val": "values",
    "vals": "values",
    "rows": "row",
    "cols": "col",
}
"""What parts of sparse tensors are called, too."""

_SPARSE_PART = re.compile(
    r"(?P<stem>.*?)_?(?P<part>(?:compressed_|plain_|crow_|col_|ccol_|row_)?indices|values|idx|vals?)"
)
_SPARSE = (
    {"indices", "values"}, {"compressed_indices", "plain_indices", "values"},
    {"crow_indices", "col_indices", "values"}, {"ccol_indices", "row_indices", "values"},
    {"indices", "indptr", "data"}, {"indices", "indptr", "values"}, {"row", "col", "data"},
    {"row", "col", "values"}, {"buffer", "sizes", "strides", "offsets"}, {"values", "offsets"},
    {"values", "lengths"},
)  # fmt: skip
_TRAINING = re.compile(
    r"(^|[./])(?:[a-z0-9_]*optimi[sz]er[a-z0-9_]*|opt_state[a-z0-9_]*|optim|(?:lr_?)?schedulers?"
    r"|lr_schedules?|(?:[a-z]+_)?(?:rng|random)_states?(?:_[a-z0-9]+)?|(?:grad_)?scaler)(?=[./]|$)",
    re.IGNORECASE,
)
_MOMENTS = (
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "acc_delta",
    "grad_avg", "exp_avg_sq_row", "exp_avg_sq_col", "exp_inf", "exp_avg_diff", "state1", "state2",
)  # fmt: skip
_SLOT = re.compile(
    r"(?:^|.*/)(?:(?:Adam|AdamW|LazyAdam|LAMB|Nadam|Adamax|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)"
    r"(?:_\d+)?|adam_[mv]|lamb_[mv]|(?:.*_)?beta[12]_power(?:_\d+)?)(?::0)?"
    r"|.*_(?:(?:inf_norm|moment|moment[12](?:_max)?|velocity|mean_square|momentum"
    r"|mean_grad|beta[12]_pow_acc|beta[12]_pow)_\d+)"
)
"""Slots of optimizers in TensorFlow 1 and Paddle, which stand beside the weights."""

_PAIRS = (("m", "v"), ("mu", "nu"))
"""Both moments below the name of a weight."""

_STEPS = (*_MOMENTS, "step", "prev", "sum", "step_size")
_OPT = re.compile(
    r"^(?P<top>(?:.*?[./])?opt)[./](?:m|v|mu|nu|t|step|count)(?:[./]|$)", re.IGNORECASE
)
"""Moments and their count below `opt`, which is also how a model is called."""

_STATE = re.compile(r"^(?P<before>.*?(?:^|[./]))state[./]\d+[./]")
_FACTOR = re.compile(
    r"^(?P<module>.*?)(?:(?<=[./])|^)"
    r"(?:lora_(?:embedding_)?[ABEab]|lora_magnitude_vector|lora_(?:up|down)|lora_mid|lora_[AB]_bias"
    r"|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|vera_lambda_[bd]|dora_scale"
    r"|randlora_(?:lambda|gamma)|alpha)"
    r"(?P<adapter>[./][^./]+)??(?:[./](?:weight|bias|default))*$"
)
_UP_AND_DOWN = re.compile(
    r"^(?P<module>(?:.*[./])?[^./]*lora[a-z_]*)[./](?:down|up)(?:[./](?:weight|bias))?$"
)
"""Factors of LoRA as early versions of diffusers call them."""

_ALPHA = re.compile(r"(^|[./])alpha$")


def module_of(name: str) -> str:
    """What stands before the last part of a name; empty for a name of one part."""
    return name[: len(name) - len(_SEPARATOR.split(name)[-1])].rstrip("./")


def last_of(name: str) -> str:
    """The last part of a name, in lower case."""
    return _SEPARATOR.split(name)[-1].lower()


def joined(module: str, last: str) -> str:
    """A name below a module."""
    return f"{module}.{last}" if module else last


def key_of(name: str, *, root: bool = False) -> str:
    """What the tensors of one quantised value in a module have in common.

    Empty for the module's own weight; at the top of a checkpoint, which is no module, the stem
    itself.
    """
    last = _OF_Q.sub("", last_of(name).removesuffix(":0"))
    if last in QUANT_WORDS:
        return ""
    for word in ("scale_", "scales_"):
        if last.startswith(word):
            last = last.removeprefix(word)
    match = _AFFIX.fullmatch(last)
    for _ in range(3):
        if match is None:
            break
        last = match["stem"]
        match = _AFFIX.fullmatch(last)
    last = last.strip("_")
    return "" if not root and last in ("weight", "w", "kernel", "") else last


def is_scale(name: str) -> bool:
    """Whether a name is one of scales, zero points or the like."""
    return _SCALE.search(name) is not None and _NOT_SCALES.search(name) is None


def is_plain(name: str) -> bool:
    """Whether a name is one of tensors that stand beside codes and mean something by themselves."""
    return _PLAIN.search(name) is not None and last_of(name) != "weight_bias"


def owners_of(name: str) -> Iterator[str]:
    """What a tensor may be a part of: the tensors, and modules, whose names its own begins with.

    Modules only where libraries keep parameters of codes in a place below them: `l.meta.scale`.
    """
    ends = [match.start() for match in _SEPARATOR.finditer(name)]
    for start, end in zip([-1, *ends], ends, strict=False):
        yield name[:end]
        if name[start + 1 : end] in _BELOW:
            yield f"{name[: max(start, 0)]}."


def training_state(names: Iterable[str], *, pickled: bool) -> set[str]:
    """The tensors of optimizers, schedulers, scalers and generators of random numbers.

    In a pickle, what is numbered below `state` is an optimizer's, whatever it is called there.
    """
    names = list(names)
    found = {name for name in names if _TRAINING.search(name)}
    found |= {name for name in names if _is_moment(name)}
    numbered = [(name, match["before"]) for name in names if (match := _STATE.match(name))]
    known = {top for name, top in numbered if pickled or last_of(name) in _STEPS}
    found |= {name for name, top in numbered if top in known}
    tops = {match["top"] for name in names if (match := _OPT.match(name))}
    below = tuple(f"{top}{dot}" for top in tops for dot in "./")
    found |= {name for name in names if name.startswith(below)}
    found |= _slots(names)
    # What stands beside a moment (its step, a row's norm) belongs to it.
    owners = {module_of(name) for name in found if _is_moment(name)}
    return found | {name for name in names if module_of(name) in owners}


def _slots(names: Sequence[str]) -> set[str]:
    """Moments that stand beside or below weights, told by both of them, and the step at the top.

    One name alone may be a layer's.
    """
    found = {name for name in names if _SLOT.fullmatch(name)}
    known = set(names)
    for name in names:
        owner, last = module_of(name), last_of(name)
        for first, second in _PAIRS:
            other = f"{name[: len(name) - len(first)]}{second}"
            if owner and last == first and other in known:
                found |= {name, other}
    top = {"step", "learning_rate", "count", "iterations", "global_step"} if found else set[str]()
    return found | {name for name in names if name in top}


def has_optimizer(names: Iterable[str]) -> bool:
    """Whether some tensor of a state of training is an optimizer's."""
    return any(_is_moment(name) or "opt" in name.lower() or _STATE.match(name) for name in names)


def _is_moment(name: str) -> bool:
    return "." in name and last_of(name) in _MOMENTS


def sparse_parts(names: Iterable[str]) -> Iterator[tuple[str, set[str]]]:
    """Indices with their values, and the parts of nested tensors, by the name that they share."""
    parents: dict[str, dict[str, set[str]]] = {}
    for name in names:
        module, last = module_of(name), last_of(name)
        parents.setdefault(module, {}).setdefault(_SPARSE_WORDS.get(last, last), set()).add(name)
        match = _SPARSE_PART.fullmatch(last)
        if match is not None and match["stem"]:
            part = _SPARSE_WORDS.get(match["part"], match["part"])
            stem = joined(module, match["stem"])
            parents.setdefault(stem, {}).setdefault(part, set()).add(name)
    for parent, parts in parents.items():
        for wanted in _SPARSE:
            if wanted <= set(parts):
                kept = (parts[last] for last in parts if last in wanted or last == "shape")
                yield parent, set().union(*kept)


def factor_sets(names: Iterable[str]) -> Iterator[tuple[str, set[str]]]:
    """The factors of one product, by its module: those of LoRA, LoHa, LoKr and VeRA."""
    found: dict[tuple[str, str], set[str]] = {}
    lengths: dict[str, str] = {}
    for name in names:
        match, other = _FACTOR.match(name), _UP_AND_DOWN.match(name)
        if match is not None:
            module = match["module"].rstrip("./")
            found.setdefault((module, (match["adapter"] or "").strip("./")), set()).add(name)
        elif other is not None:
            found.setdefault((other["module"], ""), set()).add(name)
        elif last_of(name) == "m":
            lengths[module_of(name)] = name
    for (module, _), members in found.items():
        # What DoRA learns of a weight's length, as MLX calls it.
        if module in lengths and not all(_ALPHA.search(name) for name in members):
            members.add(lengths[module])
    for (module, _), members in found.items():
        if not all(_ALPHA.search(name) for name in members):
            yield module, members
