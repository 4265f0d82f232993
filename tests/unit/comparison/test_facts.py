"""What each container says besides its tensors, and that a change of it is told."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping

import msgpack
import numpy as np
import pytest

from git_theta_ext.comparison.facts import cut, facts
from git_theta_ext.comparison.skeletons import MAX_NOTES, Note, compare_structures
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.manifest.model import Block, Entry, Manifest
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.containers import gguf, npy, onnx, tagged
from tests.scenarios.examples import fasttext
from tests.scenarios.torchzip import Record, Storage, legacy, save, state_dict, tensor

VALUES = np.arange(64, dtype=np.float32)


def opened(data: bytes) -> tuple[Manifest, bytes]:
    """A manifest that has all that a reader of facts looks at, and the skeleton."""
    layout = read_layout(BytesSource(data))
    entries = [
        Entry(segment.tensor, (Block(segment.tensor.nbytes, "0" * 64),), segment.opaque)
        for segment in layout.segments
        if isinstance(segment, Span)
    ]
    return Manifest(layout.format, Block(0, "0" * 64), tuple(entries)), skeleton.encode(layout)


def told(data: bytes, form: str) -> Mapping[str, str]:
    manifest, structure = opened(data)
    assert manifest.format == form
    return facts(manifest, skeleton.decode(structure))


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def model(step: int, name: str = "llama", tokens: int = 9) -> bytes:
    items = b"".join(text(f"t{number}") for number in range(tokens))
    pairs = [
        ("general.name", 8, text(name)),
        ("general.step", 4, struct.pack("<I", step)),
        ("rope.freq", 6, struct.pack("<f", 0.1)),
        ("tied", 7, b"\x01"),
        ("tokens", 9, struct.pack("<IQ", 8, tokens) + items),
        ("nested", 9, struct.pack("<IQIQ2b", 9, 1, 1, 2, -1, 5)),
    ]
    return gguf({"w": (0, [64], VALUES.tobytes())}, pairs)


def test_gguf() -> None:
    found = dict(told(model(7), "gguf"))
    tokens = found.pop("tokens")
    assert found == {
        "gguf version": "3", "general.name": "'llama'", "general.step": "7", "rope.freq": "0.1",
        "tied": "True", "nested": "[[-1, 5]]",
    }  # fmt: skip
    assert tokens.startswith("['t0', 't1', 't2', 't3', …] (9 values, sha256 ")
    notes = compare_structures(opened(model(7)), opened(model(8, "l\u202em", 10)))
    assert [note.name for note in notes] == ["general.name", "general.step", "tokens"]
    assert notes[1] == Note("general.step", "7", "8")


def test_onnx() -> None:
    nodes = [tagged(4, b"MatMul"), tagged(4, b"MatMul"), tagged(4, b"Relu")]
    data = onnx({"w": (1, [64], VALUES.tobytes())}, nodes)
    data += tagged(14, tagged(1, b"epoch") + tagged(2, b"3")) + tagged(5, 12)
    assert told(data, "onnx") == {
        "ir_version": "8", "producer_name": "'test'", "graph.name": "'graph'",
        "nodes.MatMul": "2", "nodes.Relu": "1", "opset.": "17", "metadata.epoch": "3",
        "model_version": "12",
    }  # fmt: skip


def test_msgpack() -> None:
    array = msgpack.ExtType(1, msgpack.packb(((64,), "float32", VALUES.tobytes())))
    value = {
        "params": {"w": array}, "step": 70_000, "lr": 0.5, "name": "x" * 40, "done": True,
        "none": None, "low": -3, "lower": -300, "list": [1, "a"], "raw": b"123",
    }  # fmt: skip
    assert told(bytes(msgpack.packb(value)), "msgpack") == {
        "step": "70000", "lr": "0.5", "name": repr("x" * 40), "done": "True", "none": "None",
        "low": "-3", "lower": "-300", "list.0": "1", "list.1": "'a'",
    }  # fmt: skip


def test_fasttext() -> None:
    found = told(fasttext(["the", "of"]), "fasttext")
    assert (found["dim"], found["epoch"], found["wordNgrams"], found["t"]) == (
        "4",
        "5",
        "2",
        "0.0001",
    )
    assert (found["words"], found["labels"], found["tokens"]) == ("2", "1", "90")


def checkpoint(step: int) -> dict[str, object]:
    weights = state_dict({"w": tensor(Storage("0", count=64), (64,))})
    return {"state_dict": weights, "step": step, "hyper_parameters": {"lr": 0.1, "betas": [1, 2]}}


def test_torch() -> None:
    extra = [Record("code/x.py", b"a = 1\n" * 20)]
    found = told(save(checkpoint(3), {"0": VALUES.tobytes()}, extra=extra), "torch-zip")
    assert found["step"] == "3"
    assert found["hyper_parameters.betas.1"] == "2"
    assert found["file byteorder"] == "little"
    assert found["file version"] == "3"
    assert found["file code/x.py"].startswith("120 bytes, sha256 ")
    assert not [name for name in found if "serialization_id" in name or "storage" in name]


def test_torch_before_1_6() -> None:
    def data(step: int) -> bytes:
        return legacy(checkpoint(step), {"0": (64, VALUES.tobytes())})

    assert told(data(3), "torch-legacy")["step"] == "3"
    assert compare_structures(opened(data(3)), opened(data(5))) == (Note("step", "3", "5"),)


def test_pickle() -> None:
    def data(step: int) -> bytes:
        return pickle.dumps({"coef": VALUES, "n_iter": step, "name": "forest"}, 4)

    assert told(data(3), "pickle") == {"n_iter": "3", "name": "'forest'"}
    assert compare_structures(opened(data(3)), opened(data(5))) == (Note("n_iter", "3", "5"),)


def test_npy_and_safetensors() -> None:
    assert told(npy(VALUES), "npy") == {"npy version": "1.0"}
    found = told(safetensors({"w": VALUES}, {"format": "pt", "step": "12"}), "safetensors")
    assert found == {"metadata.format": "pt", "metadata.step": "12"}


def test_the_order_of_tensors() -> None:
    one, other = {"a": VALUES, "b": VALUES, "c": VALUES}, {"a": VALUES, "c": VALUES, "b": VALUES}
    notes = compare_structures(opened(safetensors(one)), opened(safetensors(other)))
    assert notes == (Note("order of the tensors", None, "changed, from c on"),)


def test_long_values_differ_by_their_digest() -> None:
    one, other = cut("x" * 999 + "a"), cut("x" * 999 + "b")
    assert one != other
    assert len(one) < 260


def test_many_differences_are_counted() -> None:
    versions = [
        opened(safetensors({"w": VALUES}, {f"k{n}": f"{n + at}" for n in range(MAX_NOTES + 5)}))
        for at in range(2)
    ]
    notes = compare_structures(*versions)
    assert len(notes) == MAX_NOTES + 1
    assert notes[-1] == Note("and more", None, "5 further differences")


@pytest.mark.parametrize("form", ["fasttext", "gguf", "onnx", "msgpack", "npy", "pickle",
                                  "torch-legacy", "torch-zip"])  # fmt: skip
def test_a_structure_that_lies_is_a_note(form: str) -> None:
    lie = b"git-theta skeleton v1\nliteral 6\n\n\xde\xff\xff\xff\xff\xff"
    broken = Manifest(form, Block(0, "0" * 64), ())
    (note,) = compare_structures((broken, lie), (broken, lie))
    assert note.name == "structure"
    assert note.new is not None
    assert note.new.startswith("cannot be read")


def test_deep_nesting_is_refused() -> None:
    data = b"\x81\xa1a" * 100 + b"\x01"
    lie = b"git-theta skeleton v1\nliteral %d\n\n" % len(data) + data
    with pytest.raises(FormatError, match="deeper"):
        facts(Manifest("msgpack", Block(0, "0" * 64), ()), skeleton.decode(lie))
