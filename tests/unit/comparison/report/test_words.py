"""What a report says of a checkpoint whose element types changed."""

from __future__ import annotations

import pytest

from git_theta_ext.comparison.compare import Change
from git_theta_ext.comparison.report.words import conversion, quantised, relation
from git_theta_ext.core.tensors import DTYPES, TensorInfo


def tensor(dtype: str, *shape: int) -> TensorInfo:
    return TensorInfo("w", DTYPES[dtype], shape)


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (tensor("F16", 8, 512), tensor("U8", 8, 16, 34), "quantised F16 → Q8_0"),
        (tensor("BF16", 8, 512), tensor("U8", 8, 2, 144), "quantised BF16 → Q4_K"),
        (tensor("U8", 8, 16, 34), tensor("F32", 8, 512), "dequantised Q8_0 → F32"),
        (tensor("U8", 8, 16, 34), tensor("U8", 8, 2, 210), "re-quantised Q8_0 → Q6_K"),
        (tensor("F32", 3, 8, 512), tensor("U8", 3, 8, 16, 34), "quantised F32 → Q8_0"),
        # Two types have blocks of 32 elements in 18 bytes.
        (tensor("F16", 8, 512), tensor("U8", 8, 16, 18), "quantised F16 → Q4_0 or IQ4_NL"),
        # Another number of rows, of elements, no block of that size; or no quantisation at all.
        (tensor("F16", 9, 512), tensor("U8", 8, 16, 34), None),
        (tensor("F16", 8, 544), tensor("U8", 8, 16, 34), None),
        (tensor("F16", 8, 512), tensor("U8", 8, 16, 35), None),
        (tensor("F16", 8, 512), tensor("BF16", 8, 512), None),
        (tensor("U8", 8, 16, 34), tensor("U8", 8, 16, 34), None),
        (tensor("U8", 512), tensor("U8", 34), None),
        (tensor("I64"), tensor("F32"), None),
    ],
)
def test_quantisation_is_told_by_its_types(
    then: TensorInfo, now: TensorInfo, words: str | None
) -> None:
    assert quantised(then, now) == words
    if words is not None:
        assert relation(Change("changed", then, now)) == [words]


def test_one_sentence_for_the_whole_file() -> None:
    cast = Change("changed", tensor("F32", 4, 4), tensor("BF16", 4, 4))
    blocks = Change("changed", tensor("F16", 8, 512), tensor("U8", 8, 16, 34))
    other = Change("changed", tensor("F32", 4), tensor("F32", 4))
    assert conversion([cast] * 3) == "cast F32 → BF16: 3 tensors"
    assert conversion([blocks] * 3 + [cast]) == "quantised F16 → Q8_0: 3 tensors, 1 to other types"
    assert conversion([cast, cast, other]) == "cast F32 → BF16: 2 tensors"
    assert conversion([cast, other, other]) is None
    assert conversion([cast]) is None
    assert conversion([]) is None
