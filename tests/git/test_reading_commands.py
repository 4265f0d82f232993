"""`show`, `du`, `cat` and `export` on a real repository."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load, load_file

from git_theta_ext import formats
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.source import FileSource
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.terminals import on_terminal

NAME = "model.safetensors"
THETA = (sys.executable, "-m", "git_theta_ext.cli.main")
QUERY = "encoder.layer.1.attention.query.weight"


@pytest.fixture
def versions(repo: Repo) -> Repo:
    repo.write(NAME, safetensors(model(), {"step": "1"}))
    repo.commit("first")
    repo.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}, {"step": "2"}))
    repo.commit("second")
    return repo


def test_show_lists_the_tensors(versions: Repo) -> None:
    text = versions.theta("show", f"HEAD~1:{NAME}")
    assert text.startswith(f"HEAD~1:{NAME}  safetensors  14 tensors, ")
    assert "step: 1" in text
    rows = json.loads(versions.theta("show", NAME, "--json"))["tensors"]
    assert {row["name"] for row in rows} == set(model())


def test_show_tells_of_one_tensor(versions: Repo) -> None:
    text = versions.theta("show", NAME, QUERY)
    assert "mean" in text
    assert "dense" in text
    (row,) = json.loads(versions.theta("show", NAME, QUERY, "--json"))["tensors"]
    values = changed(model()[QUERY]).astype(np.float64)
    assert row["values"]["mean"] == pytest.approx(values.mean())
    assert row["values"]["max"] == values.max()
    assert len(row["blocks"][0]["chain"]) == 2


def test_show_of_an_unknown_tensor_is_an_error(versions: Repo) -> None:
    done = versions.run(*THETA, "show", NAME, "nope", ok=(2,))
    assert b"has no tensor 'nope'" in done.stderr


def test_names_that_were_likely_meant(versions: Repo) -> None:
    (versions.path / "below").mkdir()
    for command, meant in (
        (("show", "modle.safetensors"), NAME),
        (("show", f"HEAD~1:{NAME[:-1]}"), NAME),
        (("cat", NAME, QUERY.replace("query", "qurey")), QUERY),
        (("log", NAME[1:]), NAME),
        (("diff", "HEAD~1", "modle.safetensors"), NAME),
        (("-C", "below", "blame", "../modle.safetensors"), f"../{NAME}"),
    ):
        folder = ("-C", "below") if command[0] == "-C" else ()
        words = command[2:] if folder else command
        said = versions.run("git", *folder, "theta", *words, ok=(2,)).stderr.decode()
        assert said.endswith(f"  hint: did you mean: {meant}\n"), said
    said = versions.run("git", "theta", "show", f"v9:{NAME}", ok=(2,)).stderr.decode()
    assert "there is no revision 'v9' here" in said


def test_du_counts_each_object_once(versions: Repo) -> None:
    versions.git("mv", NAME, "renamed.safetensors")
    versions.commit("rename")
    report = json.loads(versions.theta("du", "--json"))
    first, second, third = report["versions"]
    assert [row["subject"] for row in report["versions"]] == ["first", "second", "rename"]
    assert first["stored"] > second["stored"] > third["stored"]
    assert third["objects"] == 0
    folder = versions.path / ".git/theta/objects"
    on_disk = sum(path.stat().st_size for path in folder.glob("??/??/*"))
    assert report["stored"] == on_disk + 3 * 8  # and the counter, which is in the manifest
    assert len(json.loads(versions.theta("du", "HEAD~1..HEAD", "--json"))["versions"]) == 1


def test_du_of_a_version_lists_its_tensors(versions: Repo) -> None:
    report = json.loads(versions.theta("du", f"HEAD:{NAME}", "--json"))
    row = next(row for row in report["tensors"] if row["name"] == QUERY)
    assert row["raw"] == 64 * 64 * 4
    assert len(row["kinds"]) == 2


def test_cat_writes_what_numpy_reads(versions: Repo) -> None:
    done = versions.run(*THETA, "cat", f"HEAD~1:{NAME}", QUERY)
    assert np.array_equal(np.load(io.BytesIO(done.stdout)), model()[QUERY])
    raw = versions.run(*THETA, "cat", "--raw", NAME, "head.weight").stdout
    assert raw == model()["head.weight"].tobytes()
    bits = np.load(io.BytesIO(versions.run(*THETA, "cat", NAME, "head.weight").stdout))
    assert bits.dtype == np.uint16
    assert bits.tobytes() == raw


def test_export_to_safetensors(versions: Repo, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    versions.theta("export", f"HEAD~1:{NAME}", "--tensors", "*.{0..1}.*.bias", "-o", str(out))
    names = sorted(name for name in model() if name.endswith("bias") and ".2." not in name)
    assert out.read_bytes() == safetensors({name: model()[name] for name in names}, {"step": "1"})


def test_export_to_npz_says_how_to_read_what_numpy_lacks(versions: Repo, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    done = versions.run(*THETA, "export", NAME, "-o", str(out))
    assert b"array.view(ml_dtypes.bfloat16)" in done.stderr
    with np.load(out) as found:
        assert np.array_equal(found[QUERY], changed(model()[QUERY]))
        assert found["head.weight"].dtype == "V2"
        there = versions.run(*THETA, "cat", NAME, "head.weight").stdout
        assert found["head.weight"].tobytes() == np.load(io.BytesIO(there)).tobytes()


def test_export_to_shards_and_to_a_pipe(versions: Repo, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    cut = ("export", NAME, "--tensors", "encoder*", "--max-shard-size", "1KB", "-o", str(out))
    versions.theta(*cut)
    index = json.loads((tmp_path / "out.safetensors.index.json").read_text())
    found = {
        name: array
        for file in sorted(set(index["weight_map"].values()))
        for name, array in load_file(tmp_path / file).items()
    }
    part = ("export", NAME, "--tensors", "encoder*", "-o", "-")
    whole = load(versions.run(*THETA, *part).stdout)
    assert found.keys() == whole.keys() == index["weight_map"].keys()
    assert all(found[name].tobytes() == whole[name].tobytes() for name in whole)
    out.write_bytes(b"the model of before")
    assert b"loaders would take it" in versions.run(*THETA, *cut, ok=(2,)).stderr


def test_export_to_torch_and_gguf_without_torch(versions: Repo, tmp_path: Path) -> None:
    for suffix, name in ((".pt", "torch-zip"), (".gguf", "gguf")):
        out = tmp_path / f"out{suffix}"
        versions.theta("export", NAME, "--tensors", "encoder*", "-o", str(out))
        with FileSource(out) as source:
            layout = formats.read_layout(source)
        assert layout.format == name
        found = {s.tensor.name: s.tensor.shape for s in layout.segments if isinstance(s, Span)}
        assert found == {k: v.shape for k, v in model().items() if k.startswith("encoder")}
        assert changed(model()[QUERY]).tobytes() in out.read_bytes()
    with zipfile.ZipFile(tmp_path / "out.pt") as archive:
        assert archive.testzip() is None


def test_export_renames_drops_and_casts(versions: Repo, tmp_path: Path) -> None:
    """To a pipe too; what it says then goes to stderr. Nothing is left where it is refused."""
    out = tmp_path / "out.safetensors"
    options = ("--strip-prefix", "encoder.", "--drop", "*.bias", "--dtype", "bf16")
    said = versions.theta("export", NAME, *options, "-o", str(out))
    done = versions.run(*THETA, "export", NAME, *options, "--to", "safetensors", "-o", "-")
    assert done.stdout == out.read_bytes()
    assert done.stderr.decode().replace("-:", f"{out}:") == said
    before = {**model(), QUERY: changed(model()[QUERY])}
    kept = {
        name.removeprefix("encoder."): value for name, value in before.items() if "bias" not in name
    }
    bfloat16 = ml_dtypes.bfloat16
    cast = {k: v.astype(bfloat16) if v.dtype == np.float32 else v for k, v in kept.items()}
    assert out.read_bytes() == safetensors({name: cast[name] for name in kept}, {"step": "2"})

    out.unlink()
    said = versions.theta("export", NAME, *options, "--max-shard-size", "20kB", "-o", str(out))
    assert said.startswith(f"{out}: 8 tensors, ")
    index = json.loads((tmp_path / "out.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == [
        f"out-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    for name, value in cast.items():
        assert value.tobytes() in (tmp_path / index["weight_map"][name]).read_bytes()
    if sys.platform != "win32":
        said = on_terminal(versions.path, *THETA, "export", NAME, "--to", "pt", "-o", "-").decode()
        assert "not writing binary data to a terminal" in said
    shards = ("export", NAME, "--max-shard-size", "1MB", "-o")
    assert b"cuts safetensors files" in versions.run(*THETA, *shards, "x.pt", ok=(2,)).stderr

    before[QUERY] = before[QUERY].copy()
    before[QUERY][0, :2] = 70_000, np.inf
    versions.write(NAME, safetensors(before))
    versions.commit("too large for a half")
    half = ("export", NAME, "--dtype", "f16", "-o", str(tmp_path / "half.safetensors"))
    done = versions.run(*THETA, *half, ok=(2,))
    assert f"{QUERY!r} has 1 numbers that are too large for F16".encode() in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "half" in path.name] == []
    versions.theta(*half, "--allow-overflow")


def test_export_needs_to_know_the_container(versions: Repo, tmp_path: Path) -> None:
    done = versions.run(*THETA, "export", NAME, "-o", str(tmp_path / "out.bin"), ok=(2,))
    assert b"--to" in done.stderr


def test_ls_files_of_a_bare_repository_lists_head(versions: Repo, tmp_path: Path) -> None:
    bare = str(tmp_path / "bare.git")
    versions.git("init", "-q", "--bare", bare)
    # Before the first commit there is nothing to list.
    assert versions.run("git", "-C", bare, "theta", "ls-files").stdout == b""
    versions.git("push", "-q", bare, "HEAD:refs/heads/main")
    versions.git("-C", bare, "symbolic-ref", "HEAD", "refs/heads/main")
    done = versions.run("git", "-C", bare, "theta", "ls-files", "--json")
    (row,) = json.loads(done.stdout)["files"]
    assert (row["path"], row["tensors"]) == (NAME, 14)
