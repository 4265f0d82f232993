"""Tensors on their way out: names, drops, and casts that are rounded once."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.checkpoints.exporting.outgoing import casts, dtype_named, outgoing, rounded
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.core.values import to_floats

F32, BF16 = DTYPES["F32"], DTYPES["BF16"]
ROUNDED = {"BF16": (np.uint16, 7, -126), "F16": (np.uint16, 10, -14), "F32": (np.uint32, 23, -126)}


def info(name: str, dtype: str = "F32") -> TensorInfo:
    return TensorInfo(name, DTYPES[dtype], (2,))


def nearest(number: float, mantissa: int, least: int) -> Fraction:
    """The nearest number of a float type, ties to even, by whole numbers alone."""
    exact = Fraction(number)
    exponent = max(least, int(np.frexp(number)[1]) - 1)
    step = Fraction(2) ** (exponent - mantissa)
    return round(exact / step) * step


@pytest.mark.parametrize("new", ROUNDED)
@pytest.mark.parametrize("old", ["F64", "F32", "F16", "BF16"])
def test_values_are_rounded_once(old: str, new: str) -> None:
    draw = np.random.default_rng(7)
    wide = draw.normal(size=400) * 2.0 ** draw.integers(-30, 15, 400)
    # Just beside the middle of two numbers: rounded by way of float32 they would be in it.
    ties = (1 + (2 * np.arange(64) + 1) * 2.0 ** -(ROUNDED[new][1] + 1)) * (1 + 2.0**-40)
    numbers = np.concatenate([wide, ties, [0.0, -0.0, 2.0**-20, -(2.0**-25)]])
    kinds = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
    given = numbers.astype(kinds[old])
    bits = given.view(f"u{given.itemsize}")
    found = to_floats(DTYPES[new], rounded(bits, DTYPES[old], DTYPES[new]))
    _, mantissa, least = ROUNDED[new]
    for before, after in zip(given.astype(np.float64), found, strict=True):
        assert Fraction(after) == nearest(float(before), mantissa, least), (before, after)
        assert np.signbit(before) == np.signbit(after)


def test_nan_and_infinity_stay_what_they_are() -> None:
    numbers = np.array([np.nan, -np.nan, np.inf, -np.inf, 1e308], np.float64)
    for new in ("BF16", "F16", "F32"):
        found = to_floats(DTYPES[new], rounded(numbers.view(np.uint64), DTYPES["F64"], DTYPES[new]))
        assert np.isnan(found).tolist() == [True, True, False, False, False]
        assert found[2:].tolist() == [np.inf, -np.inf, np.inf]


def test_what_is_cast_and_what_is_not() -> None:
    infos = [info("w"), info("h", "F16"), info("i", "I64"), info("norm.weight"),
             TensorInfo("q.weight", DTYPES["F8_E4M3"], (2, 2)), info("q.weight_scale_inv"),
             TensorInfo("b.weight", DTYPES["U8"], (8, 1)), info("b.weight.absmax")]  # fmt: skip
    found = outgoing(infos, dtype=BF16)
    kinds = {name: one.becomes.dtype.name for name, one in found.items()}
    assert kinds == {
        "w": "BF16", "h": "BF16", "i": "I64", "norm.weight": "BF16", "q.weight": "F8_E4M3",
        "q.weight_scale_inv": "F32", "b.weight": "U8", "b.weight.absmax": "F32",
    }  # fmt: skip
    assert not any(casts(DTYPES[name]) for name in ("BOOL", "U8", "C64", "F8_E5M2", "F4", "QI8"))
    assert dtype_named("torch.bfloat16") == dtype_named("bf16") == BF16
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        dtype_named("int8")


def test_names_lose_their_prefix_and_nothing_is_silent() -> None:
    infos = [info("model.a"), info("model.b"), info("lm_head"), info("optimizer.a")]
    found = outgoing(infos, drop=["optimizer.*"], strip_prefix="model.")
    assert {name: one.source.name for name, one in found.items()} == {
        "a": "model.a", "b": "model.b", "lm_head": "lm_head",
    }  # fmt: skip
    for match, options in {
        "--drop 'optimiser.*' matches no tensor": {"drop": ["optimiser.*"]},
        "leaves no tensor": {"drop": ["*"]},
        "no tensor begins so": {"strip_prefix": "module."},
        "leaves nothing of": {"strip_prefix": "lm_head"},
    }.items():
        with pytest.raises(UsageError, match=match.replace("*", r"\*")):
            outgoing(infos, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'model.a' and 'a' would both be 'a'"):
        outgoing([info("model.a"), info("a")], strip_prefix="model.")
