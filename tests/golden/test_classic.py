"""Models of spaCy, fastText and scikit-learn, as the libraries wrote them (`make_classic.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_ext import formats
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.compressed import pickle_within
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.examples import rebuilt

FOLDER = Path(__file__).parent / "classic"


def _tensors(name: str) -> list[str]:
    data = (FOLDER / name).read_bytes()
    layout = formats.read_layout(BytesSource(data))
    assert rebuilt(data, layout) == data
    found = []
    for one in layout.segments:
        if isinstance(one, Span):
            info = one.tensor
            what = f"{info.name} {info.dtype.name} {list(info.shape)}"
            found.append(f"{what} opaque" if one.opaque else what)
    return found


@pytest.mark.parametrize("version", ["first", "second"])
def test_thinc(version: str) -> None:
    assert _tensors(f"thinc-{version}.model") == [
        "1.hashembed.E F32 [20, 8]", "2.maxout.W F32 [6, 2, 8]", "2.maxout.b F32 [6, 2]",
        "3.softmax.W F32 [3, 6]", "3.softmax.b F32 [3]",
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "words"), [("first", 13), ("second", 16)])
def test_fasttext(version: str, words: int) -> None:
    dictionary, *matrices = _tensors(f"fasttext-{version}.bin")
    assert dictionary.startswith("dictionary U8")
    assert matrices == [
        f"input_matrix.words F32 [{words}, 4]", "input_matrix.buckets F32 [30, 4]",
        "output_matrix F32 [2, 4]",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["forest-first.joblib", "forest.pkl"])
def test_trees_of_scikit_learn(name: str) -> None:
    found = _tensors(name)
    assert "estimators_.0.tree_.nodes U8 [704] opaque" in found
    assert "estimators_.1.tree_.values F64 [9, 1, 2]" in found
    assert not [one for one in found if one.startswith("bytes.")]


@pytest.mark.parametrize("name", ["fasttext.ftz", "xgboost.ubj", "forest.joblib.lz4"])
def test_the_rest_is_opaque(name: str) -> None:
    assert _tensors(name) == [f"content U8 [{(FOLDER / name).stat().st_size}] opaque"]


def test_compressed_pickles_are_told_from_other_bytes() -> None:
    found = {path.name: pickle_within(path.read_bytes()) for path in FOLDER.iterdir()}
    assert {name: how for name, how in found.items() if how} == {
        "forest.joblib.bz2": "bz2", "forest.joblib.gz": "gzip", "forest.joblib.lz4": "lz4",
        "forest.joblib.xz": "xz", "forest.joblib.zlib": "zlib",
    }  # fmt: skip
    damaged = (
        b"\x78\x9c" + bytes(9),
        b"\x1f\x8b\x08",
        b"BZh9x",
        b"\xfd7zXZ\0\xff" * 9,
        b"\x5d\0\0",
    )
    assert not any(map(pickle_within, (*damaged, b"", b"\x04\x22\x4d\x18", b"\x78")))
