"""Keras' Adam in a `.keras`, a `.weights.h5` or an `.h5`: its variables by number, or by name.

`Optimizer.variables` has the counter of steps, the learning rate unless it is a schedule, then the
momentum and the velocity of each trained variable, one after the other. Sources: keras 3.15,
src/optimizers/base_optimizer.py, adam.py, nadam.py; src/saving/saving_lib.py for the order of
layers; src/legacy/saving/legacy_h5_format.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

from git_theta_ext.checkpoints.optimizers.file import Shape, floats_of
from git_theta_ext.checkpoints.optimizers.moments import Moment, Moments
from git_theta_ext.checkpoints.optimizers.stored import Whole
from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.text import printable
from git_theta_ext.formats import keras
from git_theta_ext.formats.hdf5 import container
from git_theta_ext.formats.tensors_file import TensorsFile
from git_theta_ext.formats.zips.archive import STORED, read_entries

INSIDE = "optimizer"
"""What the names of an optimizer's tensors begin with."""
_INSIDE = f"{INSIDE}/vars/"
_VARIABLE = re.compile(r"optimizer/vars/(\d{1,7})")
_NAMED = re.compile(r"(optimizer_weights/[^/]+/)(.+)_velocity")
_MODEL = re.compile(r"model_weights/[^/]+/(.+)")
_ADAMS = ("Adam", "AdamW", "Nadam")
_PLAIN = re.compile(r"((?:layers/[^/]+/)+(?:[^/]+/)?)vars/(\d+)")
_LAYER = re.compile(r"(?:layers/[^/]+/)+")
_NORMALIZES = re.compile(r"layers/(?:batch_normalization|sync_batch_normalization)(?:_\d+)?/$")
_STATISTICS = re.compile(r"layers/normalization(?:_\d+)?/$")


def looks_like(file: TensorsFile) -> bool:
    """Whether a file has an optimizer of Keras."""
    if file.format not in (keras.NAME, container.NAME):
        return False
    return any(_VARIABLE.fullmatch(name) or _NAMED.fullmatch(name) for name in file)


def moments_of(file: TensorsFile, beta2: float | None) -> Moments:
    """The second moments of the optimizer in a file that Keras saved.

    Raises:
        UsageError: it is no Adam, or does not say what is needed.
    """
    if any(_NAMED.fullmatch(name) for name in file):
        return _named(file, beta2)
    settings = _settings(file)
    thirds = False
    if settings is not None:
        kind, config = settings.get("class_name"), settings.get("config")
        if kind not in _ADAMS or not isinstance(config, dict):
            raise file.refused(f"has the optimizer {printable(str(kind))}, which is no Adam")
        for one in ("use_ema", "gradient_accumulation_steps"):
            if config.get(one):
                raise file.refused(f"has further variables in its optimizer ({one})")
        thirds = bool(config.get("amsgrad"))
        stated = config.get("beta_2")
        beta2 = stated if isinstance(stated, float) else beta2
    beta2 = _checked(file, beta2)
    numbers = sorted(int(match[1]) for name in file if (match := _VARIABLE.fullmatch(name)))
    if numbers != list(range(len(numbers))):
        raise file.refused("lacks variables of its optimizer")
    step = _step(file, f"{_INSIDE}0")
    rest = numbers[1:]
    if rest and not _info_shape(file, rest[0]):
        rest = rest[1:]  # the learning rate
    if len(rest) % 2 and not thirds and not _info_shape(file, rest[-1]):
        rest = rest[:-1]  # a product of Nadam
    pairs = rest[: len(rest) * 2 // 3] if thirds else rest
    shapes = [_info_shape(file, one) for one in pairs]
    if len(pairs) % 2 or shapes[::2] != shapes[1::2]:
        raise file.refused("has variables of its optimizer that are no momentum and velocity each")
    found = [
        Moment(None, 0, shape, Whole(file, f"{_INSIDE}{one}"), step, beta2)
        for one, shape in zip(pairs[1::2], shapes[1::2], strict=True)
    ]
    if not found:
        raise file.refused("has an optimizer without second moments: it made no step")
    return Moments(file.path, INSIDE, tuple(found), ())


def _checked(file: TensorsFile, beta2: float | None) -> float:
    if beta2 is None:
        raise file.refused(
            "does not say whether its optimizer is Adam, nor its second beta",
            "add --beta2 0.999 if it is, or what it was; the whole model as .keras says it",
        )
    if not 0 <= beta2 < 1:
        raise file.refused("does not say Adam's second beta")
    return beta2


def _info_shape(file: TensorsFile, one: int) -> Shape:
    return file.info(f"{_INSIDE}{one}").shape


def _step(file: TensorsFile, name: str) -> float:
    info = file.find(name)
    if info is None or info.count != 1 or info.dtype.kind not in ("int", "uint"):
        raise file.refused("does not say after how many steps it was saved (iteration)")
    step = float(file.read(name).reshape(-1)[0])
    if not step >= 1:
        raise file.refused("was saved before the first step")
    return step


def _named(file: TensorsFile, beta2: float | None) -> Moments:
    """Of an `.h5`, with names: `sequential_dense_kernel_velocity` of `sequential/dense/kernel`."""
    beta2 = _checked(file, beta2)
    models: dict[str, list[str]] = {}
    for name in file:
        if match := _MODEL.fullmatch(name):
            models.setdefault(match[1].replace("/", "_"), []).append(name)
    found, starts = [], set()
    for name in file:
        match = _NAMED.fullmatch(name)
        if match is None:
            continue
        starts.add(match[1])
        names = models.get(match[2], [])
        if len(names) != 1:
            raise file.refused(f"has {printable(name)!r}: not certain of which tensor that is")
        step = _step(file, f"{match[1]}iteration")
        found.append(Moment(names[0], 0, file.info(name).shape, Whole(file, name), step, beta2))
    if len(starts) > 1:
        raise file.refused("has several optimizers")
    return Moments(file.path, INSIDE, tuple(found), ())


def _settings(file: TensorsFile) -> dict[str, Any] | None:
    """What a `.keras` says of its optimizer; None of a file of weights alone.

    Raises:
        UsageError: it cannot be read.
    """
    if file.format != keras.NAME:
        return None
    try:
        for entry in read_entries(file.source):
            if entry.name != "config.json":
                continue
            if entry.method != STORED or entry.size > limits.STRUCTURE_BYTES:
                break
            config = json.loads(file.source.read(entry.data_offset, entry.size))
            compiled = config.get("compile_config") if isinstance(config, dict) else None
            found = compiled.get("optimizer") if isinstance(compiled, dict) else None
            if isinstance(found, dict):
                return found
    except (FormatError, ValueError, RecursionError) as error:
        raise file.refused(f"cannot be read: config.json: {error}") from error
    return None


def in_order(file: TensorsFile) -> list[tuple[str, Shape]]:
    """The variables that can be trained, as the model lists them; none where that is not certain.

    A model that is a list of layers is saved in its order, and so are the variables of a layer. The
    parts of a layer, or the attributes of a model that is a class, are saved by their names.
    """
    tensors = [one for one in floats_of(file) if not one[0].startswith(INSIDE)]
    groups: dict[str, list[tuple[int, str, Shape]]] = {}
    for name, shape in tensors:
        match = _PLAIN.fullmatch(name)
        if match is None:
            return []
        groups.setdefault(match[1], []).append((int(match[2]), name, shape))
    layers = [match[0] for one in groups if (match := _LAYER.match(one))]
    if len(set(layers)) != len(groups):
        return []  # a layer with parts
    found: list[tuple[str, Shape]] = []
    for group, variables in groups.items():
        kept = sorted(variables)
        if _NORMALIZES.search(group):
            kept = kept[:-2]  # the moving mean and variance
        elif _STATISTICS.search(group):
            kept = []
        found += [(name, shape) for _, name, shape in kept]
    return found
