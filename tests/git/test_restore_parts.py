"""`git theta restore`: some tensors from another version, the rest of the file as it is."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from git_theta_ext.core.errors import ChangedWhileReadError
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.branches.restore import Restoring
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios import torchzip
from tests.scenarios.advised import do, take
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.containers import gguf
from tests.scenarios.repositories import Repo
from tests.scenarios.sharded import INDEX, PATTERN, arrays, trained
from tests.scenarios.sharded import write as write_shards
from tests.scenarios.warm import PREFIX

NAME = "model.safetensors"
LOW = "encoder.layer.0.attention.query.weight"
HIGH = "encoder.layer.2.attention.value.weight"
RULES = b'[[module]]\nname = "low"\npattern = "encoder.layer.0.*"\n'


def put(repo: Repo, metadata: dict[str, str] | None = None, **tensors: Any) -> bytes:
    """Write a checkpoint; what it is."""
    data = safetensors({**model(), **tensors}, metadata)
    repo.write(NAME, data)
    return data


def said(repo: Repo, *words: str, code: int = 2) -> str:
    return repo.run("git", "theta", *words, ok=(code,)).stderr.decode()


def test_a_module_is_restored_and_all_else_is_kept(repo: Repo) -> None:
    old, new = changed(model()[LOW], seed=2), changed(model()[HIGH], seed=3)
    repo.write(".theta.toml", RULES)
    put(repo)
    repo.commit("v1")
    repo.git("tag", "v1.0")
    put(repo, **{LOW: old})
    repo.commit("v2")
    bias = np.zeros_like(model()["encoder.layer.0.attention.query.bias"])
    put(repo, {"step": "7"}, **{LOW: old, HIGH: new, "encoder.layer.0.attention.query.bias": bias})
    os_mode = (repo.path / NAME).stat().st_mode
    before, index = (repo.path / NAME).read_bytes(), repo.git("ls-files", "-s")

    words = ("restore", "--module", "low", "--source", "v1.0")
    assert "4 tensors would be taken from v1.0; 2 changed" in repo.theta(*words, "-n")
    assert (repo.path / NAME).read_bytes() == before
    (row,) = json.loads(repo.theta(*words, NAME, "--json"))["files"]
    assert sorted(row["changed"]) == ["encoder.layer.0.attention.query.bias", LOW]
    assert (row["place"], row["selected"], row["files"]) == ("work tree", 4, [NAME])
    # What was not committed of other tensors, and of the header, is there as it was.
    assert (repo.path / NAME).read_bytes() == safetensors({**model(), HIGH: new}, {"step": "7"})
    assert (repo.path / NAME).stat().st_mode == os_mode
    assert repo.git("ls-files", "-s") == index
    assert repo.theta(*words) == f"{NAME}: 4 tensors as in v1.0 already\n"
    # Adding it stores nothing for the tensors that came from v1.0.
    repo.commit("v3")
    chain = repo.blob(f"HEAD:{NAME}").partition(LOW.encode())[2].partition(b"\n\n")[0]
    assert chain == repo.blob(f"v1.0:{NAME}").partition(LOW.encode())[2].partition(b"\n\n")[0]
    # Without a source it is the index that counts; other names of tensors, and no words.
    put(repo, {"step": "7"}, **{LOW: old, HIGH: new})
    assert repo.theta("restore", "--tensors", "*.0.*.{query,value}.weight", "-q") == ""
    assert repo.status() == ""

    # The index alone, then both; from HEAD where no source is named.
    repo.theta("restore", "--module", "low", "-s", "HEAD~1", "--staged")
    assert repo.status() == f"MM {NAME}\n"
    assert json.loads(repo.theta("diff", "--cached", "--format", "json"))["files"][0]["changes"][0][
        "name"
    ] == LOW  # fmt: skip
    repo.theta("restore", "--module", "low", "--staged")
    assert repo.status() == ""
    text = repo.theta("restore", "--module", "low", "-s", "HEAD~1", "-S", "-W", NAME)
    assert "(in the index)" in text
    assert "(in the work tree)" in text
    assert repo.status() == f"M  {NAME}\n"


def test_a_file_that_changes_meanwhile_is_left_alone(repo: Repo) -> None:
    put(repo)
    repo.commit("v1")
    put(repo, **{LOW: changed(model()[LOW])})
    here = Repository.discover(repo.path)
    head = repo.git("rev-parse", "HEAD").strip()
    restoring = Restoring(here, head, "HEAD", lambda _, names: [*names], Blocks.open(here))
    made = restoring.of_work_tree(NAME)
    assert made[0].changed == (LOW,)
    newer = put(repo, **{HIGH: changed(model()[HIGH])})
    with pytest.raises(ChangedWhileReadError):
        restoring.write([made])
    assert (repo.path / NAME).read_bytes() == newer
    restoring.write([restoring.of_work_tree(NAME)])
    assert (repo.path / NAME).read_bytes() == safetensors(model())


def test_other_tensors_and_shapes_get_a_header_of_their_own(repo: Repo) -> None:
    head = np.ones((4, 64), np.float32)
    put(repo, {"by": "me"}, **{"low.a": head, "low.b": head})
    repo.commit("v1")
    both = safetensors({**model(), "high.w": head, "low.a": head[:2], "low.c": head}, {"by": "you"})
    repo.write(NAME, both)
    repo.commit("v2")
    text = repo.theta("restore", "--tensors", "low.*", "-s", "HEAD~1")
    assert "2 tensors taken from HEAD~1; 1 changed, 1 added, 1 removed" in text
    found = load_file(repo.path / NAME)
    assert set(found) == {*model(), "high.w", "low.a", "low.b"}
    assert all((found[name] == head).all() for name in ("low.a", "low.b", "high.w"))
    header = (repo.path / NAME).read_bytes()[8:200]
    assert b'"by":"you"' in header  # what is no tensor stays, too
    # Two tensors that were one value, and no longer are.
    assert "low.b was the same as high.w" not in text
    repo.write(NAME, safetensors({**model(), "low.a": head * 2, "high.w": head * 2}))
    done = repo.run("git", "theta", "restore", "-q", "--tensors", "low.a", "-s", "HEAD~1")
    assert b"low.a was the same as high.w, and no longer is" in done.stderr
    assert done.stdout == b""


def test_what_cannot_be_done_changes_nothing(repo: Repo) -> None:
    codes = np.arange(64, dtype=np.int8).reshape(8, 8)
    parts = {"q.weight": codes, "q.weight_scale": np.ones(8, np.float32)}
    put(repo, **parts)
    repo.git("tag", "v1") if repo.commit("v1") else None
    two = {"q.weight": codes[::-1], "q.weight_scale": np.full(8, 2, np.float32)}
    before = put(repo, **two)
    repo.commit("v2")

    text = said(repo, "restore", "--tensors", "q.weight", "--source", "v1")
    assert "q.weight: it means something only together with q.weight_scale" in text
    hint = text.partition("from there: ")[2].strip()
    assert (repo.path / NAME).read_bytes() == before
    assert hint == f"git restore --source v1 -- {NAME}"
    repo.git(*hint.split()[1:])
    assert repo.status() == f" M {NAME}\n"
    repo.git("checkout", NAME)
    repo.theta("restore", "--tensors", "q.*", "--source", "v1")
    assert (repo.path / NAME).read_bytes() == safetensors({**model(), **parts})
    repo.git("checkout", NAME)

    assert "give --module NAME or --tensors" in said(repo, "restore", NAME)
    assert "there is no revision 'v0'" in said(repo, "restore", "--tensors", "q.*", "-s", "v0")
    assert "no checkpoint has such a tensor in v1" in said(
        repo, "restore", "--tensors", "x.*", "-s", "v1"
    )
    assert f"'{NAME}' has no such tensor in v1" in said(
        repo, "restore", "--tensors", "x.*", "-s", "v1", NAME
    )
    repo.write("README", b"")
    text = said(repo, "restore", "--tensors", "q.*", "README")
    assert NAME in repo.theta(*text.partition("hint: git theta ")[2].split("   ")[0].split())
    (repo.path / NAME).unlink()
    assert f"'{NAME}' is not in the work tree" in said(
        repo, "restore", "--tensors", "q.*", "-s", "v1"
    )
    repo.git("checkout", NAME)
    # In a merge the versions are three; the conflict is settled first.
    repo.git("checkout", "-q", "-b", "side", "v1")
    put(repo, **{**parts, HIGH: changed(model()[HIGH], seed=5)})
    repo.commit("side")
    repo.git("checkout", "-q", "main")
    put(repo, **{**two, HIGH: changed(model()[HIGH], seed=6)})
    repo.commit("main")
    repo.git("merge", "side", ok=(1,))
    text = said(repo, "restore", "--tensors", "q.*", "-s", "v1")
    assert "is in conflict" in text
    assert "open" in repo.theta(*text.partition("hint: git theta ")[2].split(), ok=(1,))
    repo.git("merge", "--abort")
    # Where the work tree holds the manifest, it holds one afterwards.
    repo.run("git", "checkout", "-q", "v1", env={"GIT_THETA_SKIP_SMUDGE": "1"})
    repo.theta("restore", "--tensors", "q.*", "-s", "main")
    assert (repo.path / NAME).read_bytes().startswith(b"git-theta manifest")
    assert repo.status() == f" M {NAME}\n"


def test_tensors_of_a_sharded_model(repo: Repo) -> None:
    repo.write(".theta.toml", b"[[module]]\nname = 'mid'\npattern = 'layers.{4..7}.w'\n")
    write_shards(repo, arrays(), 0, 6)
    repo.commit("v1")
    now = {**arrays(), **trained("layers.3.w", "layers.4.w", "layers.7.w", "layers.9.w")}
    write_shards(repo, {name: now[name] for name in now if name != "layers.5.w"}, 0, 6)
    repo.git("add", "-A")
    # A shard by itself gets no tensor that the index and another shard would not know of.
    some = ("--tensors", "layers.5.w", "-s", "HEAD")
    shard = "llm/model-00001-of-00002.safetensors"
    whole = take(repo, *PREFIX, "restore", *some, shard, has="restore")
    assert "layers.5.w" in do(repo, whole, OPTIONS=f"--dry-run {' '.join(some)}")
    text = repo.theta("restore", "--module", "mid", "-s", "HEAD", "-S", "-W", INDEX)
    assert repo.blob(f":{INDEX}") == (repo.path / INDEX).read_bytes()
    assert not any(line[1] != " " for line in repo.status().splitlines())
    assert "4 tensors taken from HEAD (in the work tree); 2 changed, 1 added" in text
    found, where = {}, json.loads((repo.path / INDEX).read_text())
    for path in sorted((repo.path / "llm").glob("*.safetensors")):
        held = load_file(path)
        assert not set(held) & set(found)
        assert {name for name, file in where["weight_map"].items() if file == path.name} == {*held}
        found |= held
    expected = {**arrays(), **trained("layers.3.w", "layers.9.w")}
    assert set(found) == set(expected)
    assert all((found[name] == expected[name]).all() for name in expected)
    assert where["metadata"]["total_size"] == sum(one.nbytes for one in expected.values())
    # The same in the index; the shard that has none of them stays as it is.
    repo.commit("v2")
    first = repo.git("rev-parse", "HEAD:llm/model-00001-of-00002.safetensors")
    (row,) = json.loads(
        repo.theta("restore", "--tensors", "layers.9.w", "-s", "HEAD~1", "-S", "--json")
    )["files"]
    assert (row["path"], row["files"]) == (PATTERN, ["llm/model-00002-of-00002.safetensors"])
    assert repo.git("rev-parse", ":llm/model-00001-of-00002.safetensors") == first
    repo.commit("v3", INDEX)
    back = json.loads(repo.theta("diff", "HEAD~2", "HEAD", "--format", "json"))["files"]
    assert [one["name"] for file in back for one in file["changes"]] == ["layers.3.w"]


def torch(head: int, seed: int, step: int = 1) -> bytes:
    """What `torch.save` writes for a body, a head of some rows, and a step counter."""
    random = np.random.default_rng(seed)
    body = random.normal(size=(8, 8)).astype(np.float32)
    rows = random.normal(size=(head, 8)).astype(np.float32)
    tensors = {
        "body": torchzip.tensor(torchzip.Storage("0", count=body.size), body.shape),
        "head": torchzip.tensor(torchzip.Storage("1", count=rows.size), rows.shape),
    }
    value = {"model": torchzip.state_dict(tensors), "step": step}
    return torchzip.save(value, {"0": body.tobytes(), "1": rows.tobytes()})


def test_other_containers_and_types_that_stand_in_their_structure(repo: Repo) -> None:
    """A pickle, or a GGUF header, is kept as it is; what does not fit into it is refused."""
    q4_0, iq4_nl = 2, 20  # blocks of 18 bytes, both
    repo.theta("track", "*.gguf")

    def quantised(a: int, b: int, fills: bytes, note: bytes) -> bytes:
        tensors = {
            "a": (a, (2, 256), fills[:1] * 288), "b": (b, (2, 256), fills[1:2] * 288),
            "n": (0, (4,), fills[2:] * 16),
        }  # fmt: skip
        return gguf(tensors, [("note", 8, struct.pack("<Q", len(note)) + note)])

    repo.write("m.pt", torch(4, 1))
    repo.write("m.gguf", quantised(q4_0, q4_0, b"123", b"old"))
    repo.commit("v1")
    repo.write("m.pt", torch(4, 2, step=9))
    repo.theta("restore", "--tensors", "*head", "-s", "HEAD", "m.pt")
    rows = json.loads(repo.theta("diff", "--format", "json", "m.pt"))["files"]
    assert [one["name"] for one in rows[0]["changes"]] == ["model.body"]
    assert [one["new"] for one in rows[0]["outside"]] == ["9"]
    repo.write("m.gguf", quantised(q4_0, iq4_nl, b"456", b"new"))
    assert "1 changed" in repo.theta("restore", "--tensors", "a", "-s", "HEAD", "m.gguf")
    assert (repo.path / "m.gguf").read_bytes() == quantised(q4_0, iq4_nl, b"156", b"new")

    before = torch(5, 3)
    repo.write("m.pt", before)
    text = said(repo, "restore", "--tensors", "*head", "-s", "HEAD", "m.pt")
    assert "model.head: F32 [5, 8] now, F32 [4, 8] in the source, and a torch-zip file" in text
    assert (repo.path / "m.pt").read_bytes() == before
    # The bytes would fit, and mean something else under the type that the header says.
    text = said(repo, "restore", "--tensors", "b", "-s", "HEAD", "m.gguf")
    assert "b: IQ4_NL now, Q4_0 in the source" in text
