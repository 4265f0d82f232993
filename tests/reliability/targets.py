"""What is fuzzed: one target for every parser of what others wrote.

A target takes any bytes. It may refuse them with the error that its parser promises; every other
exception is a defect, and so is a result that breaks the parser's law (a container comes back byte
for byte, a manifest that is read is written the same, ...).
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import pickle
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
from numpy.typing import NDArray

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.adapters import peft, sparse
from git_theta_ext.checkpoints.adapters.base import Adapter
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.types import bind as types
from git_theta_ext.comparison.facts import facts
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import (
    CorruptObjectError,
    FormatError,
    ManifestError,
    ProtocolError,
    UnknownUpdateError,
    UsageError,
)
from git_theta_ext.core.names import quote, unquote
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.drivers import filter_commands
from git_theta_ext.drivers.filter import serve
from git_theta_ext.formats import companions
from git_theta_ext.formats.archives.contents import contents as archive_contents
from git_theta_ext.formats.base import Layout, Span
from git_theta_ext.formats.distcp import contents as distcp_contents
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.pickles.contents import contents, leaves_of
from git_theta_ext.formats.torch import names as torch_names
from git_theta_ext.formats.torch.distributed import contents as said
from git_theta_ext.git import attributes
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.merge.strategies.policy import parse_choice, parse_file
from git_theta_ext.updates import get, kinds
from git_theta_ext.updates.base import Encoded, Update
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.choose import Predecessor, encode_bytes
from git_theta_ext.updates.delta import Delta
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.low_rank.factors import exact_factors
from git_theta_ext.updates.low_rank.scaled import Multipliers, ScaledLowRank
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.quantisers import QUANTISERS, quantise
from git_theta_ext.updates.structured.hadamard import HadamardLaw
from git_theta_ext.updates.structured.kronecker import KroneckerLaw
from git_theta_ext.updates.structured.law import Law, encoded
from git_theta_ext.updates.structured.orthogonal import Blocks, OrthogonalLaw, Reflections
from git_theta_ext.updates.structured.sides import Side
from tests.reliability import (
    array_targets,
    evaluation_targets,
    optimizer_targets,
    quantised_targets,
)
from tests.scenarios import manifests
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.containers import gguf, hdf5, keras, npy, npz, onnx, tensorflow, tflite
from tests.scenarios.examples import distcp, fasttext, rebuilt, stack, tarred, zipped
from tests.scenarios.torch_files import torch_files
from tests.scenarios.torchzip import Storage, legacy, save, state_dict, tensor

CORPUS = Path(__file__).parent / "corpus"

Run = Callable[[bytes], None]
Seeds = Callable[[], list[bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: what to give it, what it must do with it, words that its input is made of."""

    name: str
    seeds: Seeds
    run: Run
    words: tuple[bytes, ...] = ()


class BrokenLawError(AssertionError):
    """What came out is not what must come out."""


def require(holds: bool, law: str) -> None:
    """Raise BrokenLawError unless the law holds."""
    if not holds:
        raise BrokenLawError(law)


# -- containers ------------------------------------------------------------------------------------

_VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)
_RAW = bytes(range(96))


def _torch_value() -> object:
    first, second = Storage("0", "FloatStorage", 24), Storage("1", "BFloat16Storage", 12)
    return state_dict({"w": tensor(first, (4, 6)), "t": tensor(second, (3, 4), (1, 3))})


def _flax() -> bytes:
    packed = msgpack.packb(((4, 6), "float32", _RAW))
    return bytes(msgpack.packb({"step": 3, "params": {"w": msgpack.ExtType(1, packed)}}))


def _thinc() -> bytes:
    shape = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": (4, 6), b"data": _RAW}
    nodes = [{"index": 0, "name": "softmax", "dims": {}, "refs": {}}]
    return bytes(msgpack.packb({"nodes": nodes, "params": [{"W": shape}]}))


def _coreml() -> bytes:
    out = struct.pack("<2I", 2, 2) + bytes(56)
    for code, data in ((1, bytes(range(40))), (2, bytes(range(60)))):
        out += struct.pack("<2I2Q", 0xDEADBEEF, code, len(data), len(out) + 64) + bytes(40) + data
        out += bytes(-len(out) % 64)
    return out


_CONTAINERS: Mapping[str, Seeds] = {
    "safetensors": lambda: [
        safetensors({"w": _VALUES, "b": np.zeros(3, ml_dtypes.bfloat16)}, {"format": "pt"}),
        safetensors({}),
        safetensors({"empty": np.zeros((0, 4), np.float32), "é\n": np.array(7, np.int64)}),
    ],
    "npz": lambda: [
        npz({"w": _VALUES, "t": np.eye(3).T}),
        npz({"w": _VALUES}, compressed=True),
    ],
    "keras": lambda: [keras({"layers/dense/vars/0": _VALUES})],
    "torch-zip": lambda: [save(_torch_value(), {"0": _RAW, "1": bytes(range(24))})],
    "npy": lambda: [npy(_VALUES), npy(np.asfortranarray(_VALUES)), npy(np.array(3))],
    "gguf": lambda: [
        gguf(
            {"w": (0, (4, 6), _RAW), "q": (2, (1, 32), bytes(18))},
            [("a", 8, struct.pack("<Q", 1) + b"x"), ("l", 9, struct.pack("<IQ", 4, 2) + bytes(8))],
        )
    ],
    "hdf5": lambda: [
        hdf5({"dense/kernel": _VALUES, "bias": np.ones(3)}),
        hdf5({"dense/kernel": _VALUES}, libver="latest"),
        hdf5({"w": _VALUES}, chunks=(2, 6)),
    ],
    "tflite": lambda: [tflite({"w": (0, (4, 6), _RAW, False), "q": (9, (4,), b"1234", True)})],
    "onnx": lambda: [
        onnx({"w": (1, (4, 6), _RAW)}),
        onnx({"w": (1, (4, 6), _RAW)}, packed=True),
    ],
    "distcp": lambda: [distcp()[:3000], save(tensor(Storage("0"), (4, 6)), {"0": _RAW}) * 2],
    "pt2": lambda: [torch_files()["exported/one.pt2"], torch_files()["exported/old.pt2"]],
    "ocdbt": lambda: [b"".join(array_targets.nodes()[:2])],
    "distcp-metadata": lambda: [torch_files()["single/.metadata"]],
    "torch-legacy": lambda: [
        legacy(_torch_value(), {"0": (24, _RAW), "1": (12, bytes(range(24)))})
    ],
    "pickle": lambda: [
        *(pickle.dumps({"a": _VALUES, "b": [np.ones(3)]}, protocol) for protocol in (2, 4)),
        pickle.dumps({"nodes": np.zeros(3, [("left", "<i8"), ("threshold", "<f8")])}, 4),
    ],
    "msgpack": lambda: [_flax(), _thinc()],
    "coreml-weights": lambda: [_coreml()],
    "fasttext": lambda: [fasttext(["a", "bc"]), fasttext([], bucket=0)],
    "mindspore": lambda: [stack("mindspore-first.ckpt"), stack("mindspore-second.ckpt")],
    "caffe": lambda: [stack("caffe-first.caffemodel"), stack("caffe-old.caffemodel")],
    "tar": lambda: [
        *(tarred({"./w.npy": npy(_VALUES), "n" * 120 + "/t": b"text"}, kind=n) for n in range(3)),
        stack("nemo-first.nemo"),
    ],
    "zip": lambda: [
        zipped({"a.txt": b"text", "w.npy": npy(_VALUES)}),
        stack("torchserve-first.mar"),
    ],
}


def _container(name: str, data: bytes) -> None:
    """One container's reader: refuses, or the layout rebuilds the file; then all who read it."""
    source = BytesSource(data)
    try:
        found = formats._try(name, formats.get(name), data[:512], source, [])
    except UsageError as error:
        raise BrokenLawError(str(error)) from error
    if found is not None:
        require(rebuilt(data, found) == data, "the layout is not the file")
        _read_structure(found)


def _read_structure(layout: Layout) -> None:
    """What diffs and merges read of a container, besides its tensors."""
    spans = [segment.tensor for segment in layout.segments if isinstance(segment, Span)]
    found = skeleton.decode(skeleton.encode(layout))
    entries = tuple(Entry(one, ()) for one in spans)
    try:
        facts(Manifest(layout.format, Block(0, ""), entries), found)
        read = {"torch-zip": contents, "distcp": distcp_contents, "distcp-metadata": said}
        read |= {name: functools.partial(archive_contents, name) for name in ("tar", "zip")}
        if layout.format in read:
            read[layout.format](found, {one.name: one.nbytes for one in spans})
    except FormatError:
        pass


def _beside(path: str, wanted: str, data: bytes) -> None:
    """A data file that the file beside it describes: two bytes of length, that file, the data."""
    length = int.from_bytes(data[:2], "little")
    other, own = data[2 : 2 + length], data[2 + length :]

    def opened(name: str) -> BytesSource | None:
        return BytesSource(other) if name == wanted else None

    found = companions.read_layout(BytesSource(own), path, opened)
    if found is not None:
        require(rebuilt(own, found) == own, "the layout is not the file")


def _tensorflow_seeds() -> list[bytes]:
    data, index = tensorflow({"w": _VALUES, "b": np.arange(3)}, b"text")
    return [len(index).to_bytes(2, "little") + index + data]


_ZERO = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"


def _zero_seeds() -> list[bytes]:
    states, shard = (
        torch_files()[f"zero/{name}"] for name in ("mp_rank_00_model_states.pt", _ZERO)
    )
    return [len(states).to_bytes(2, "little") + states + shard]


def _openvino_seeds() -> list[bytes]:
    xml, data = stack("openvino-first.xml"), stack("openvino-first.bin")
    return [len(xml).to_bytes(2, "little") + xml + data]


def _distcp_seeds() -> list[bytes]:
    files = torch_files()
    pairs = [
        (files["single/.metadata"], files["single/__0_0.distcp"]),
        (files["fsdp/base/.metadata"], files["fsdp/base/__0_0.distcp"]),
    ]
    return [len(text).to_bytes(2, "little") + text + data for text, data in pairs]


def _onnx_external_seeds() -> list[bytes]:
    from tests.scenarios.containers import onnx_tensor, tagged

    def pair(key: str, value: str) -> bytes:
        return tagged(13, tagged(1, key.encode()) + tagged(2, value.encode()))

    outside = onnx_tensor("w", 1, (4, 6), b"")[: -len(tagged(9, b""))]
    outside += pair("location", "m.onnx.data") + pair("offset", "0") + pair("length", "96")
    graph = tagged(5, outside + tagged(14, 1))
    text = tagged(1, 8) + tagged(7, graph + tagged(2, b"graph")) + tagged(8, tagged(2, 17))
    return [len(text).to_bytes(2, "little") + text + _RAW]


# -- manifests and what they name ------------------------------------------------------------------


def _manifest(data: bytes) -> None:
    try:
        found = parse_manifest(data)
    except ManifestError as error:
        require(len(error.message) < 2000, "a message longer than a screen")
        return
    require(manifest_bytes(found) == data, "a manifest has one legal encoding")


def _manifest_seeds() -> list[bytes]:
    plain = manifests.manifest(
        manifests.entry("a.1"), manifests.entry("a.2", 1, "BF16", (4, 5)), manifests.entry("é", 2)
    )
    opaque = TensorInfo("content", DTYPES["U8"], (100,))
    chunks = (manifests.block(60, 1), manifests.block(40, 2))
    turned = TensorInfo("t", DTYPES["F32"], (4, 5), (1, 0))
    blocks = tuple(manifests.block(spec.nbytes, 3) for spec in cut(turned))
    other = Manifest(
        "opaque", manifests.block(3, 1), (Entry(opaque, chunks, True), Entry(turned, blocks))
    )
    return [manifest_bytes(plain), manifest_bytes(other)]


def _skeleton(data: bytes) -> None:
    try:
        found = skeleton.decode(data)
    except ManifestError:
        return
    require(skeleton.decode(skeleton.encode(found)) == found, "a skeleton reads the same again")


def _skeleton_seeds() -> list[bytes]:
    found = [safetensors({"w": _VALUES}), save(_torch_value(), {"0": _RAW, "1": bytes(24)})]
    return [skeleton.encode(formats.read_layout(BytesSource(data))) for data in found]


# -- parameter files -------------------------------------------------------------------------------

_SPEC = BlockSpec(DTYPES["F32"], (16, 24))
_COUNT = 16 * 24
_SPEC_32, _SPEC_CODES = BlockSpec(DTYPES["F32"], (12, 32)), BlockSpec(DTYPES["U8"], (12, 1, 24))


@functools.cache
def _pairs() -> dict[str, tuple[BlockSpec, Values, BlockSpec, Values]]:
    """For each kind of update: the spec and values before, and those after."""
    random = np.random.default_rng(5)
    floats = random.standard_normal((16, 24)).astype(np.float32)
    old = floats.ravel().view(np.uint32)
    few, decayed = old.copy(), old - np.where(old & 0x400000, np.uint32(5), np.uint32(3))
    few[::40] += np.uint32(3)
    left, right = random.standard_normal((16, 1)), random.standard_normal((1, 24))
    merged = (floats + 0.01 * left @ right).astype(np.float32).ravel().view(np.uint32)
    scaled = (floats * np.float32(1.37)).ravel().view(np.uint32)
    half = floats.astype(ml_dtypes.bfloat16).ravel().view(np.uint16)
    longer = BlockSpec(_SPEC.dtype, (18, 24))
    # Rows long enough to be known again: 12 of 32 values, two of them swapped blocks.
    rows = BlockSpec(DTYPES["F32"], (12, 32))
    moved = np.concatenate([old[128:256], old[:128], old[256:]])
    codes = quantise(QUANTISERS["Q5_1"], floats.reshape(-1, 32), fused=False).ravel()
    plain = BlockSpec(DTYPES["U8"], (200,))
    text = np.frombuffer(b"some header " * 20, np.uint8)[:200].copy()
    other = np.concatenate([text[:90], text[:9], text[100:]])
    found = {
        "dense": (_SPEC, old, _SPEC, old),
        "delta": (_SPEC, old, _SPEC, old + np.arange(_COUNT, dtype=np.uint32) % 7),
        "sparse": (_SPEC, old, _SPEC, few),
        "step": (_SPEC, old, _SPEC, decayed),
        "scale": (_SPEC, old, _SPEC, scaled),
        "low-rank": (_SPEC, old, _SPEC, merged),
        "scaled-low-rank": (_SPEC, old, _SPEC, merged),
        **dict.fromkeys(_laws(), (_SPEC, old, _SPEC, few)),
        "cast": (_SPEC, old, BlockSpec(DTYPES["BF16"], (16, 24)), half),
        "quantise": (_SPEC_32, old, _SPEC_CODES, codes),
        "permute": (rows, old, rows, moved),
        "resize": (_SPEC, old, longer, np.concatenate([old, old[:48]])),
        "patch": (plain, text, BlockSpec(DTYPES["U8"], (len(other),)), other),
    }
    return {kind: (a, np.asarray(b), c, np.asarray(d)) for kind, (a, b, c, d) in found.items()}


def _encoded(kind: str) -> bytes:
    """A parameter file of a kind, made by the encoder; where that finds nothing to do, by hand."""
    before, old, after, new = _pairs()[kind]
    update: Update = get(kind)
    made: Encoded | None = None
    if kind in ("cast", "resize", "quantise"):
        made = update.encode_from(after, new, before, old)  # type: ignore[attr-defined]
    elif kind != "patch":
        made = update.encode(after, new, old if update.needs_base else None)
    if made is not None:
        return b"".join(made.pieces)
    if kind in ("low-rank", "scaled-low-rank"):
        random = np.random.default_rng(6)
        sides = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 1), (1, 24)))
        factors = exact_factors(*(side.round(2) for side in sides), "sum", 0.01)
        if factors is not None and kind == "scaled-low-rank":
            norms = Multipliers(random.normal(1, 0.1, 24).astype(np.float32), 1)
            scaled = ScaledLowRank().encode_factors(after, new, old, factors, norms)
            return b"".join(scaled.pieces if scaled else ())
        if factors is not None:
            return b"".join(LowRank().encode_factors(after, new, old, factors).pieces)
    if kind == "patch":
        chain = (UpdateRef("dense", "0" * 64, 10_000),)
        predecessor = Predecessor(chain, before, lambda _: old, lambda: None)
        chosen = encode_bytes(new.tobytes(), predecessor)
        return b"".join(chosen.encoded.pieces if chosen.encoded else ())
    return b"".join(build(kind, {"coder": "raw"}, {"data": new.tobytes()}))


@functools.cache
def _laws() -> dict[str, list[Law]]:
    """Laws of each of the kinds that are supplied, for blocks of 16 × 24."""
    random = np.random.default_rng(9)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.3, shape).astype(np.float32)

    cored = Side(normal(16, 2), normal(3, 8), normal(2, 3, 3))
    return {
        "kronecker": [
            KroneckerLaw(Side(normal(4, 3)), Side(normal(5, 1), normal(1, 8)), 1.5, 3, 16)
        ],
        "hadamard": [HadamardLaw(cored, Side(normal(16, 2), normal(2, 24)), 1.5)],
        "orthogonal": [
            OrthogonalLaw(Blocks(normal(2, 6, 6), 4, 24), 1 + normal(16)),
            OrthogonalLaw(Blocks(normal(1, 1, 6), 4, 24, 3, True)),
            OrthogonalLaw(Reflections(normal(2, 24), True)),
        ],
    }


@functools.cache
def _dense(kind: str) -> bytes:
    spec, old, _, _ = _pairs()[kind]
    return b"".join(Dense().encode(spec, old).pieces)


def _parameter_seeds(kind: str) -> list[bytes]:
    if kind == "delta":  # also without low bits, behind a predecessor that has none: zeros
        _, old, spec, new = _pairs()[kind]
        high = Delta().encode(spec, new & np.uint32(0xFFFFE000), np.zeros_like(old))
        return [_encoded(kind), b"".join(high.pieces if high else ())]
    if kind in _laws():
        _, old, spec, new = _pairs()[kind]
        files = [encoded(spec, new, old, law) for law in _laws()[kind]]
        return [b"".join(file.pieces) for file in files]
    if kind != "dense":
        return [_encoded(kind)]
    # Values that compress, so that every coder has its turn.
    close = np.random.default_rng(7).integers(0, 3, _COUNT).astype(np.uint32) << 12
    close[::50] += np.uint32(77)
    return [_encoded(kind), b"".join(Dense().encode(_SPEC, close).pieces)]


def _parameters(kind: str, data: bytes) -> None:
    """A parameter file behind a good dense one, or alone if it is such itself."""
    spec = _pairs()[kind][2]
    try:
        file = parse(data)
        base = [parse(_dense(kind))] if get(file.kind).needs_base else []
        found = decode_chain(spec, [*base, file])
    except (CorruptObjectError, UnknownUpdateError):
        return
    require(found.nbytes == spec.nbytes, "a block of another length")


# -- pickles, packets, settings --------------------------------------------------------------------


def _pickle(data: bytes) -> None:
    """The stack machine alone, and those who walk what it builds."""
    try:
        value = machine.load(data)
        torch_names.find_views(value)
        list(leaves_of(value))
    except FormatError:
        return


def _pickle_seeds() -> list[bytes]:
    from tests.scenarios.torchzip import dumps

    value = {"a": [1, 2.5, None, True, -3, 2**70], "b": (b"x", "é"), "c": {1, 2}, "d": _VALUES}
    return [dumps(_torch_value()), *(pickle.dumps(value, protocol) for protocol in range(6))]


class _NoCommands:
    """Answers nothing: what is fuzzed is the framing and the handshake."""

    def __init__(self, reader: object, writer: object) -> None:
        self.reader = reader

    def close(self) -> None:
        """Nothing is open."""

    def answer(self, request: Mapping[str, bytes], found: object) -> None:
        """Read what a request carries."""
        require(all(isinstance(key, str) for key in request), "keys of a request are text")
        for _ in self.reader.content():  # type: ignore[attr-defined]
            pass


def _packets(data: bytes) -> None:
    kept = filter_commands.Commands
    filter_commands.Commands = _NoCommands  # type: ignore[assignment, misc]
    try:
        serve(io.BytesIO(data), io.BytesIO())
    except (ProtocolError, EOFError):
        pass
    finally:
        filter_commands.Commands = kept  # type: ignore[misc]


def _packet_seeds() -> list[bytes]:
    def packets(*lines: bytes) -> bytes:
        return b"".join(b"%04x" % (len(one) + 4) + one for one in lines) + b"0000"

    hello = packets(b"git-filter-client\n", b"version=2\n")
    able = packets(b"capability=clean\n", b"capability=smudge\n", b"capability=delay\n")
    ask = packets(b"command=clean\n", b"pathname=a.pt\n") + packets(b"content", b"more")
    return [hello + able + ask, hello + able]


def _refusing(parser: Callable[[bytes], object]) -> Run:
    """A parser whose only error is a UsageError of a bearable length."""

    def run(data: bytes) -> None:
        try:
            parser(data)
        except UsageError as error:
            require(len(str(error)) < 20_000, "a message that floods the terminal")

    return run


def _shard_index(data: bytes) -> None:
    for name in shards._listed("folder/model.safetensors.index.json", data):
        require(isinstance(name, str), "names are text")


def _choice(data: bytes) -> None:
    parse_choice(data.decode("utf-8", "replace"), "GIT_THETA_MERGE")


def _attributes(data: bytes) -> None:
    before = attributes.tracked(data)
    added = attributes.add(data, "*.pt")
    require("*.pt" in attributes.tracked(added), "what was added is tracked")
    if "*.pt" not in before:
        removed = attributes.tracked(attributes.remove(added, "*.pt"))
        require(removed == before, "adding and removing leaves the others")


def _patterns(data: bytes) -> None:
    patterns.select(["encoder.layer.0.weight", "b"], [data.decode("utf-8", "replace")])


def _names(data: bytes) -> None:
    """A name on a line of a manifest."""
    try:
        text = data.decode("utf-8")
        name = unquote(text)
    except ValueError:
        return
    require(quote(name) == text, "a name is written in one way")


# -- adapters --------------------------------------------------------------------------------------


@functools.cache
def _scratch() -> Path:
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="theta-fuzz-", dir=folder))


_BASE = {
    "net.q.weight": TensorInfo("net.q.weight", DTYPES["F32"], (6, 4)),
    "net.q.bias": TensorInfo("net.q.bias", DTYPES["F32"], (6,)),
    "net.v.weight": TensorInfo("net.v.weight", DTYPES["BF16"], (4, 6), (1, 0)),
    "net.emb.weight": TensorInfo("net.emb.weight", DTYPES["F16"], (5, 4)),
    "ids": TensorInfo("ids", DTYPES["I64"], (3,)),
}


_TYPES = ("adalora", "boft-butterfly", "coft", "dora", "experts", "fourierft", "hra-orthogonal",
          "loha", "oft-exact", "vera")  # fmt: skip
"""Of `tests/golden/peft_dtypes`; one for each module that reads such parts."""
_GOLDEN = Path(__file__).parents[1] / "golden" / "peft_dtypes"


@functools.cache
def _golden_base() -> dict[str, TensorInfo]:
    with TensorFile(_GOLDEN / "base.safetensors") as file:
        return {name: file.info(name) for name in file}


def _type_seeds() -> list[bytes]:
    """As `_adapter` reads them."""
    found = []
    for name in _TYPES:
        text = (_GOLDEN / name / peft.CONFIG).read_bytes()
        model = (_GOLDEN / name / "adapter_model.safetensors").read_bytes()
        found.append(len(text).to_bytes(2, "little") + text + model)
    return found


def _adapter(kind: str, data: bytes) -> None:
    """Two bytes of length, the adapter's configuration, its tensors: bound, applied, encoded."""
    length = int.from_bytes(data[:2], "little")
    config, model = _scratch() / peft.CONFIG, _scratch() / "adapter_model.safetensors"
    config.write_bytes(data[2 : 2 + length])
    model.write_bytes(data[2 + length :])
    try:
        with TensorFile(model) as file:
            tensors = _BASE
            if kind == "sparse":
                found = sparse.bind(file, _BASE)
            elif kind == "golden":
                tensors = _golden_base()
                stated = types.looks_like(file)
                settings = peft.read_config(config)
                if stated is None:
                    found = peft.bind(file, settings, "lora", tensors)
                else:
                    found = types.bind(file, settings, stated, tensors)
            else:
                found = peft.bind(file, peft.read_config(config), kind, _BASE)
            _apply(found, tensors)
    except UsageError as error:
        require(len(str(error)) < 20_000, "a message that floods the terminal")


def _apply(adapter: Adapter, tensors: Mapping[str, TensorInfo]) -> None:
    for name, change in adapter.changes.items():
        (spec,) = cut(tensors[name])
        old: Values = np.arange(spec.count, dtype=values_dtype(spec.dtype))
        new = change.apply(spec, 0, old)
        require(new.nbytes == spec.nbytes, "a block of another length")
        made = change.encode(spec, 0, new, old)
        if made is not None:
            chain = [parse(b"".join(Dense().encode(spec, old).pieces))]
            chain.append(parse(b"".join(made.pieces)))
            found = decode_chain(spec, chain)
            require(found.tobytes() == new.tobytes(), "an update that is not exact")


def _adapter_seeds(kind: str) -> list[bytes]:
    random = np.random.default_rng(1)

    def some(*shape: int) -> np.ndarray:
        return random.normal(0, 0.1, shape).astype(np.float32)

    stem = "base_model.model.net"
    tensors: dict[str, np.ndarray] = {}
    settings: dict[str, object] = {"peft_type": kind.upper(), "r": 2, "lora_alpha": 4}
    if kind == "lora":
        settings |= {"alpha_pattern": {"q": 7}, "use_rslora": True}
        tensors = {
            f"{stem}.q.lora_A.weight": some(2, 4), f"{stem}.q.lora_B.weight": some(6, 2),
            f"{stem}.q.lora_B.bias": some(6), f"{stem}.v.lora_A.weight": some(2, 6),
            f"{stem}.v.lora_B.weight": some(4, 2), f"{stem}.emb.lora_embedding_A": some(2, 5),
            f"{stem}.emb.lora_embedding_B": some(4, 2),
        }  # fmt: skip
    elif kind == "ia3":
        tensors = {f"{stem}.q.ia3_l": some(6, 1), f"{stem}.v.ia3_l": some(1, 6)}
    else:
        tensors = {
            "net.q.weight.indices": np.array([[0, 1], [5, 3]], np.int64),
            "net.q.weight.values": some(2),
            "ids.indices": np.array([1], np.int64), "ids.values": np.array([9], np.int64),
        }  # fmt: skip
    text = json.dumps(settings).encode()
    return [len(text).to_bytes(2, "little") + text + safetensors(tensors)]


# -- all of them -----------------------------------------------------------------------------------

_TOML = b"""[merge]
strategy = "average"
evaluate = "python score.py"
[[merge.tensor]]
pattern = ["encoder.*", "head"]
path = "*.pt"
strategy = "ties"
density = 0.2
[rebase]
strategy = "reapply"
"""
_INDEX = b'{"metadata":{"total_size":9},"weight_map":{"a":"m-1-of-2.x","b":"../m-2-of-2.x"}}'
_ATTRIBUTES = b'*.pt filter=theta diff=theta merge=theta -text\n"a b" filter=lfs\r\n[attr]x -text\n'
_JSON = (b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"', b"[", b"]", b"{}")
_WORDS: Mapping[str, tuple[bytes, ...]] = {
    "safetensors": (*_JSON, b'"BF16"', b'"F4"', b"18446744073709551615"),
    "npz": (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x07", b"\x93NUMPY", b"<f4"),
    "torch-zip": (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"_rebuild_tensor_v2", b"data.pkl"),
    "gguf": (b"GGUF", b"general.alignment"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", b"TREE", b"SNOD", b"HEAP", b"OHDR", b"OCHK", b"FRHP", b"BTHD"),
    "npy": (b"\x93NUMPY", b"'descr'", b"'fortran_order'", b"'shape'", b"True", b"<f4", b"|b1"),
    "manifest": (b"tensor ", b"opaque ", b"sha256:", b"inline:", b"  block ", b" order=", b"end\n"),
    "skeleton": (b"literal ", b'tensor "', b"crc32 ", b"serialization-id "),
    "theta-toml": (b"[merge]", b"[[merge.tensor]]", b"strategy", b"pattern", b"density", b"path"),
    "adapter-lora": (*_JSON, b'"alpha_pattern"', b'"use_rslora"', b"lora_A", b"lora_B", b".*"),
    "adapter-ia3": (*_JSON, b'"fan_in_fan_out"', b"ia3_l", b"modules_to_save"),
    "adapter-sparse": (*_JSON, b".indices", b".values", b'"mode"', b'"add"', b'"I64"'),
    "tensor-patterns": (b"{", b"}", b"..", b"*", b"{0..9}", b"{a,b}"),
}


def _build() -> dict[str, Target]:
    found: list[Target] = []

    def add(name: str, seeds: Seeds, run: Run) -> None:
        found.append(Target(name, seeds, run, _WORDS.get(name, ())))

    for name, seeds in _CONTAINERS.items():
        add(name, seeds, functools.partial(_container, name))
    path = "m.data-00000-of-00001"
    add("tensorflow", _tensorflow_seeds, functools.partial(_beside, path, "m.index"))
    external = functools.partial(_beside, "m.onnx.data", "m.onnx")
    add("onnx-external", _onnx_external_seeds, external)
    zero = functools.partial(_beside, _ZERO, "mp_rank_00_model_states.pt")
    add("zero-beside", _zero_seeds, zero)
    graph = functools.partial(_beside, "m.bin", "m.xml")
    add("openvino-beside", _openvino_seeds, graph)
    add("distcp-beside", _distcp_seeds, functools.partial(_beside, "__0_0.distcp", ".metadata"))
    for name, (path, wanted) in array_targets.BESIDE.items():
        seeds = functools.partial(array_targets.beside_seeds, name)
        add(name, seeds, functools.partial(_beside, path, wanted))
    add("ocdbt-tree", array_targets.tree_seeds, array_targets.tree)
    add("manifest", _manifest_seeds, _manifest)
    add("skeleton", _skeleton_seeds, _skeleton)
    for kind in kinds():
        seeds = functools.partial(_parameter_seeds, kind)
        add(f"parameters-{kind}", seeds, functools.partial(_parameters, kind))
    add("pickle-machine", _pickle_seeds, _pickle)
    add("pkt-line", _packet_seeds, _packets)
    add("theta-toml", lambda: [_TOML], _refusing(parse_file))
    add("merge-choice", lambda: [b"ties,density=0.2,x=1:2"], _refusing(_choice))
    add("shard-index", lambda: [_INDEX], _refusing(_shard_index))
    add("gitattributes", lambda: [_ATTRIBUTES], _attributes)
    add("tensor-patterns", lambda: [b"encoder.{0..3}.{a,b}*"], _refusing(_patterns))
    add("tensor-names", lambda: [b'"caf\\u00e9"', b"a.b"], _names)
    for kind in ("lora", "ia3", "sparse"):
        seeds = functools.partial(_adapter_seeds, kind)
        add(f"adapter-{kind}", seeds, functools.partial(_adapter, kind))
    add("adapter-types", _type_seeds, functools.partial(_adapter, "golden"))
    for name, seeds, run in optimizer_targets.targets(_scratch):
        add(name, seeds, run)
    for name, seeds, run in quantised_targets.targets(_scratch):
        add(name, seeds, run)
    for name, seeds, run in evaluation_targets.targets():
        add(name, seeds, run)
    return {target.name: target for target in found}


TARGETS = _build()


def corpus(target: Target) -> list[bytes]:
    """The seeds of a target, and what fuzzing found worth keeping."""
    path = CORPUS / f"{target.name}.txt"
    kept = path.read_text("ascii").splitlines() if path.exists() else []
    lines = (line for line in kept if line and not line.startswith("#"))
    return [*target.seeds(), *map(base64.b64decode, lines)]
