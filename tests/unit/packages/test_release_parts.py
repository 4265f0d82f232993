"""The pure parts of a release: shards, cards, checksums, configurations, hashes of tensors."""

from __future__ import annotations

import json
import sys

import pytest

from git_theta_ext.checkpoints.exporting import sharded
from git_theta_ext.core.errors import SignatureError, UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.packages.release import card, configuration, signing
from git_theta_ext.packages.release.signing import Signer, Trust
from git_theta_ext.packages.release.tensors_file import (
    FileHashes,
    TensorHash,
    from_bytes,
    to_bytes,
)


def test_sizes_are_those_that_people_write() -> None:
    named = {"5GB": 5 * 10**9, "500 mb": 5 * 10**8, "2GiB": 2 << 30, "1.5k": 1500, "7": 7}
    assert {text: sharded.size_named(text) for text in named} == named
    for text in ("", "GB", "-1", "0", "5 parsecs", "0.0001"):
        with pytest.raises(UsageError):
            sharded.size_named(text)


def test_shards_are_filled_in_order_and_a_large_tensor_stands_alone() -> None:
    sizes = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 1}
    infos = {name: TensorInfo(name, DTYPES["U8"], (size,)) for name, size in sizes.items()}
    assert sharded.shards_of(infos, 6) == [["a", "b"], ["c"], ["d", "e"]]
    assert sharded.shards_of(infos, None) == [[*sizes]]
    assert sharded.file_names("m", 1) == ["m.safetensors"]
    assert sharded.file_names("m", 2)[1] == "m-00002-of-00002.safetensors"
    index = json.loads(sharded.index_of(infos, [("x", ["a", "b"]), ("y", ["c", "d", "e"])]))
    assert index["metadata"] == {"total_size": 17}
    assert index["weight_map"] == {"a": "x", "b": "x", "c": "y", "d": "y", "e": "y"}


def facts(**fields: object) -> card.Facts:
    given: dict[str, object] = {
        "version": "v1", "commit": "c" * 40, "date": "2026-01-01", "base": None, "previous": None,
        "changes": (), "made": (), "scores": (), "notes": (), **fields,
    }  # fmt: skip
    return card.Facts(**given)  # type: ignore[arg-type]


def test_a_section_takes_its_own_place_and_no_other() -> None:
    one, two = card.section(facts()), card.section(facts(version="v2"))
    assert card.renewed("", one) == one
    assert card.renewed("# T\n\n\n", one) == f"# T\n\n{one}"
    assert card.renewed(card.renewed("# T\n", one) + "end\n", two) == f"# T\n\n{two}end\n"
    assert card.renewed(f"{card.END}\n{card.BEGIN}\n", one).endswith(one)


def test_names_in_a_section_are_no_markup() -> None:
    evil = f"<img src=x> @everyone [x](y) {card.END}\n## X"
    text = card.section(facts(version=evil, base=evil, made=(("left out", evil),),
                              scores=(card.ScoreLine(evil, "1*"),)))  # fmt: skip
    for bad in ("<img", "@everyone", "](y)", "\n## X"):
        assert bad not in text
    assert text.count(card.BEGIN) == text.count(card.END) == 1


def test_sums_are_those_of_coreutils() -> None:
    text = card.sums([("a" * 64, "z"), ("b" * 64, "a\\b"), ("c" * 64, "l\nf")])
    assert text.decode().splitlines() == [
        f"\\{'b' * 64}  a\\\\b", f"\\{'c' * 64}  l\\nf", f"{'a' * 64}  z",
    ]  # fmt: skip


def test_a_configuration_names_the_new_type_and_nothing_else_changes() -> None:
    before = {
        "dtype": "float32", "x": {"torch_dtype": "torch.float16", "dtype": 7},
        "quantization_config": {"dtype": "float32"}, "name": "bfloat16",
    }  # fmt: skip
    inner = {"torch_dtype": "torch.bfloat16", "dtype": 7}
    after = json.loads(configuration.with_dtype(json.dumps(before).encode(), DTYPES["BF16"]))
    assert after == {**before, "dtype": "bfloat16", "x": inner}
    plain = b'{ "a": 1}'
    assert configuration.with_dtype(plain, DTYPES["BF16"]) is plain
    for text in (b"{", b"[" * 100_000, b" " * (configuration.MOST_BYTES + 1)):
        with pytest.raises(ValueError, match=r"JSON|bytes"):
            configuration.with_dtype(text, DTYPES["BF16"])
        assert not configuration.ties_its_head(text)
    assert configuration.ties_its_head(b'{"text_config": {"tie_word_embeddings": true}}')
    assert not configuration.ties_its_head(b'{"tie_word_embeddings": 1}')


def test_hashes_of_tensors_come_back_and_nothing_else_is_believed() -> None:
    a, b = "a" * 64, "b" * 64
    two = TensorHash("U8", (), (a, b))
    table = {
        'x"\n': FileHashes({"é": TensorHash("F32", (2, 3), (a,)), "b": two}),
        "y": FileHashes({"c": TensorHash("F32", (2, 3), (b,), (1, 0))}, a),
    }
    assert from_bytes(to_bytes(table), "t") == table
    row = {"dtype": "F32", "shape": [1], "sha256": a}
    wrong: list[object] = [
        [], {}, {"version": 2, "files": {}}, {"version": 1, "files": []},
        *({"version": 1, "files": {"f": {"tensors": {"t": {**row, **change}}}}} for change in (
            {"sha256": a.upper()}, {"shape": [-1]}, {"shape": [True]}, {"shape": 1},
            {"blocks": "x"}, {"blocks": [1]}, {"order": 1},
        )),
        {"version": 1, "files": {"f": {"tensors": {}, "structure": "x"}}},
        {"version": 1, "files": {"f": {}}},
    ]  # fmt: skip
    for content in wrong:
        with pytest.raises(UsageError):
            from_bytes(json.dumps(content).encode(), "t")
    for text in (b"", b"[" * 100_000, b"\xff"):
        with pytest.raises(UsageError):
            from_bytes(text, "t")


def test_without_the_package_nothing_passes_for_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    trust = Trust(identity="a@b", issuer="https://c")
    for call in (lambda: signing.sign({"a": "0" * 64}, "n", Signer(), "s"),
                 lambda: signing.check(Signer()),
                 lambda: signing.signed(b"{}", trust, "s")):  # fmt: skip
        with pytest.raises(UsageError, match=r"model-signing(.|\n)*git-theta-ext\[sign\]"):
            call()


def test_whose_signature_it_is_has_to_be_said() -> None:
    for trust in (Trust(), Trust(identity="a"), Trust(issuer="b")):
        with pytest.raises(UsageError):
            signing.signed(b"{}", trust, "s")


def test_what_verifies_nothing_is_no_signature() -> None:
    with pytest.raises(SignatureError, match="verified nothing"):
        signing.Seen().hashes("s")
