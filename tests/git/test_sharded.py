"""A sharded model is one model to whoever looks at it, and shards are free to change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import git_theta_ext as theta
from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.write import describe
from git_theta_ext.core.errors import UsageError
from git_theta_ext.manifest.model import Block, Entry, Manifest
from tests.scenarios.checkpoints import changed, safetensors
from tests.scenarios.containers import gguf
from tests.scenarios.repositories import Repo
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

INDEX = "llm/model.safetensors.index.json"
PATTERN = "llm/model-*-of-*.safetensors"
Arrays = Mapping[str, NDArray[Any]]


def arrays() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    return {
        f"layers.{n}.{kind}": random.normal(size=(40, 50)).astype(np.float32)
        for n in range(12)
        for kind in ("q", "k")
    }


def write(repo: Repo, tensors: Arrays, count: int, metadata: Mapping[str, str] = {}) -> None:
    """Write a model as this many shards, with its index, in place of those that are there."""
    for old in (repo.path / "llm").glob("model-*.safetensors"):
        old.unlink()
    names = list(tensors)
    where = {}
    for number in range(count):
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = names[number * len(names) // count : (number + 1) * len(names) // count]
        repo.write(f"llm/{file}", safetensors({name: tensors[name] for name in part}, metadata))
        where |= dict.fromkeys(part, file)
    repo.write(INDEX, json.dumps({"metadata": {}, "weight_map": where}).encode())


@pytest.fixture
def versions(repo: Repo) -> Repo:
    """Six shards; one tensor changes; four shards of the same tensors."""

    def make() -> None:
        write(repo, arrays(), 6, {"format": "pt"})
        repo.commit("first")
        repo.git("tag", "v1")
        trained = {**arrays(), "layers.3.q": changed(arrays()["layers.3.q"])}
        write(repo, trained, 6, {"format": "pt"})
        repo.commit("trained")
        repo.git("tag", "v2")
        write(repo, trained, 4, {"format": "pt"})
        repo.commit("sharded anew")
        repo.git("tag", "v3")

    repo.once(make)
    return repo


@pytest.mark.parametrize("path", [INDEX, PATTERN])
def test_any_version_is_one_checkpoint(versions: Repo, path: str) -> None:
    for revision, count in (("v1", 6), ("v3", 4)):
        with theta.open(f"{revision}:{path}", repository=versions.path) as model:
            assert len(model) == 24
            assert model.metadata == {"format": "pt"}
            assert model.format == f"safetensors, {count} shards"
            assert np.array_equal(model["layers.7.k"], arrays()["layers.7.k"])
    assert len(theta.open(f":{path}", repository=versions.path)) == 24


def test_moved_tensors_have_not_changed(versions: Repo) -> None:
    before = theta.diff("v1", "v2", INDEX, repository=versions.path)
    assert [change.name for change in before.changes] == ["layers.3.q"]
    assert before.tensors == 24
    after = theta.diff("v2", "v3", INDEX, repository=versions.path)
    assert after.changes == ()
    assert (after.old_format, after.new_format) == (
        "safetensors, 6 shards",
        "safetensors, 4 shards",
    )


def test_diff_shows_one_model(versions: Repo) -> None:
    found = json.loads(versions.theta("diff", "v1", "v3", "--format", "json"))["files"]
    assert [(file["path"], file["tensors"]) for file in found] == [(PATTERN, 24)]
    assert [change["name"] for change in found[0]["changes"]] == ["layers.3.q"]
    by_index = versions.theta("diff", "--name-only", "v1", "v2", INDEX)
    assert by_index == f"{PATTERN}: layers.3.q\n"
    text = versions.theta("diff", "v2", "v3")
    assert "safetensors, 6 shards → safetensors, 4 shards" in text
    one = versions.theta("diff", "v1", "v2", "llm/model-00002-of-00006.safetensors")
    assert one.startswith("llm/model-00002-of-00006.safetensors")


def test_the_work_tree_is_joined_with_what_did_not_change(versions: Repo) -> None:
    write(versions, {**arrays(), "layers.3.q": arrays()["layers.3.q"] * 2}, 4, {"format": "pt"})
    for arguments in ((), ("HEAD",)):
        found = json.loads(versions.theta("diff", *arguments, "--format", "json"))["files"]
        assert [(file["path"], file["tensors"]) for file in found] == [(PATTERN, 24)]
        assert [change["name"] for change in found[0]["changes"]] == ["layers.3.q"]
    versions.git("add", "-A")
    found = json.loads(versions.theta("diff", "--cached", "--format", "json"))["files"]
    assert [change["name"] for change in found[0]["changes"]] == ["layers.3.q"]


@pytest.mark.parametrize("path", [INDEX, PATTERN])
def test_log_and_blame_are_of_the_model(versions: Repo, path: str) -> None:
    log = json.loads(versions.theta("log", path, "layers.3.*", "--json"))["commits"]
    assert [(row["subject"], row["changed"]) for row in log] == [("trained", 1), ("first", 24)]
    rows = json.loads(versions.theta("blame", path, "--json"))["tensors"]
    assert len(rows) == 24
    assert {row["name"]: row["subject"] for row in rows}["layers.3.q"] == "trained"
    assert {row["name"]: row["subject"] for row in rows}["layers.4.q"] == "first"


def test_du_show_and_export_are_of_the_model(versions: Repo) -> None:
    rows = json.loads(versions.theta("du", "--json"))["versions"]
    assert [(row["path"], row["subject"]) for row in rows] == [
        (PATTERN, "first"),
        (PATTERN, "trained"),
        (PATTERN, "sharded anew"),
    ]
    assert len(json.loads(versions.theta("du", f"v3:{INDEX}", "--json"))["tensors"]) == 24
    shown = json.loads(versions.theta("show", f"v3:{INDEX}", "--json"))
    assert (shown["format"], len(shown["tensors"])) == ("safetensors, 4 shards", 24)
    versions.theta("export", f"v1:{PATTERN}", "-o", "whole.safetensors")
    assert (versions.path / "whole.safetensors").read_bytes() == safetensors(
        {name: arrays()[name] for name in sorted(arrays(), key=_number)}, {"format": "pt"}
    )


def _number(name: str) -> tuple[int, str]:
    return int(name.split(".")[1]), name


def test_sharding_anew_stores_headers_only(versions: Repo) -> None:
    rows = json.loads(versions.theta("du", "--json"))["versions"]
    raw = sum(array.nbytes for array in arrays().values())
    assert rows[2]["stored"] < 0.02 * raw


def test_torch_and_gguf_shards(repo: Repo) -> None:
    repo.theta("track", "*.gguf")
    for number in (1, 2):
        made = save(
            state_dict({f"w{number}": tensor(Storage("0", "FloatStorage", 600), (20, 30))}),
            {"0": bytes([number]) * 2400},
        )
        repo.write(f"pytorch_model-0000{number}-of-00002.bin", made)
        repo.write(
            f"q-0000{number}-of-00002.gguf", gguf({f"blk.{number}": (0, (20, 30), bytes(2400))})
        )
    where = {"weight_map": {f"w{n}": f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)}}
    repo.write("pytorch_model.bin.index.json", json.dumps(where).encode())
    repo.commit()
    torch = theta.open("pytorch_model.bin.index.json", repository=repo.path)
    assert list(torch) == ["w1", "w2"]
    assert torch["w2"].tobytes() == bytes([2]) * 2400
    assert list(theta.open("q-*-of-*.gguf", repository=repo.path)) == ["blk.1", "blk.2"]


def test_two_ways_of_sharding_at_once_are_told_apart(versions: Repo) -> None:
    versions.write("llm/model-00001-of-00006.safetensors", safetensors({"left": np.ones((9, 9))}))
    versions.commit("left over")
    with pytest.raises(UsageError, match="several models"):
        theta.open(PATTERN, repository=versions.path)
    assert len(theta.open("llm/model-*-of-00004.safetensors", repository=versions.path)) == 24
    assert len(theta.open(INDEX, repository=versions.path)) == 24
    text = versions.theta("diff", "v3", "HEAD", "--name-only")
    assert text == "llm/model-00001-of-00006.safetensors: left\n"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{}", "is not an index of shards"),
        (b'{"weight_map": 3}', "is not an index of shards"),
        (b'{"weight_map": {"a": 3}}', "is not an index of shards"),
        (b"[" * 100_000, "is not an index of shards"),
        (b'{"weight_map": {"a": "../../gone.safetensors"}}', "which is not in"),
        (b'{"weight_map": {}}', "matches no shards"),
    ],
)
def test_an_index_that_lies_is_refused(repo: Repo, index: bytes, message: str) -> None:
    repo.write("model.safetensors.index.json", index)
    repo.commit()
    with pytest.raises(UsageError, match=message):
        theta.open("model.safetensors.index.json", repository=repo.path)


def test_what_is_not_there_is_said(versions: Repo) -> None:
    with pytest.raises(UsageError, match="matches no shards"):
        theta.open("v1:other-*.safetensors", repository=versions.path)
    with pytest.raises(UsageError, match="no revision 'v9'"):
        theta.open(f"v9:{PATTERN}", repository=versions.path)


def test_names_that_several_shards_have() -> None:
    def manifest(**tensors: NDArray[Any]) -> Manifest:
        entries = [
            Entry(describe(name, array), (Block(array.nbytes, str(array[0, 0])),))
            for name, array in tensors.items()
        ]
        return Manifest("safetensors", Block(9, "skeleton"), tuple(entries))

    ones, zeros = np.ones((9, 9)), np.zeros((9, 9))
    found = shards.join(
        [
            ("m-1-of-2.safetensors", manifest(tied=ones, other=ones)),
            ("m-2-of-2.safetensors", manifest(tied=ones, other=zeros)),
        ]
    )
    assert [entry.tensor.name for entry in found.entries] == [
        "other",
        "other@m-2-of-2.safetensors",
        "tied",
    ]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("a/model-00001-of-00030.safetensors", "a/model-*-of-*.safetensors"),
        ("model-00001-of-00001.safetensors", None),
        ("x.data-00000-of-00002", "x.data-*-of-*"),
        ("model.safetensors", None),
        ("step-10-of-20.pt", "step-*-of-*.pt"),
    ],
)
def test_which_files_are_shards(path: str, model: str | None) -> None:
    assert shards.model_of(path) == model
