"""`git theta release` and `sign`: folders that load without this program, and signatures."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from git_theta_ext.core.errors import SignatureError
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.fetched import Package
from git_theta_ext.packages.files import files_of
from git_theta_ext.packages.release.signing import Trust
from git_theta_ext.packages.release.verify import verify_folder
from git_theta_ext.packages.release.versions import verify_package
from tests.scenarios.adapters import lora
from tests.scenarios.advised import do, take
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.containers import gguf
from tests.scenarios.repositories import Repo
from tests.scenarios.signatures import keys
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

CONFIG = {"model_type": "tiny", "torch_dtype": "float32", "text_config": {"dtype": "float32"}}
CARD = "---\nlicense: mit\n---\n\n# Tiny\n"
QUERY = "model.encoder.layer.1.attention.query.weight"
FOREIGN = 15


def training(seed: int = 0) -> dict[str, Any]:
    tensors = {f"model.{name}": value for name, value in model(seed).items()}
    return {**tensors, "optimizer.exp_avg": np.ones((4, 4), np.float32)}


def second() -> dict[str, Any]:
    tensors = training()
    return {**tensors, QUERY: changed(tensors[QUERY])}


def publish(repo: Repo) -> None:
    """Two versions in a folder, with what stands beside a checkpoint."""
    (repo.path / "weights").mkdir()
    repo.write("weights/model.safetensors", safetensors(training(), {"step": "1"}))
    repo.write("weights/config.json", json.dumps(CONFIG).encode())
    repo.write("weights/tokenizer.json", b"{}\n")
    repo.write("README.md", CARD.encode())
    repo.write("train.py", b"print()\n")
    repo.commit("first")
    repo.git("tag", "v1.0")
    repo.git("tag", "nightly")
    repo.write("weights/model.safetensors", safetensors(second(), {"step": "2"}))
    repo.commit("second")
    repo.git("tag", "-a", "-m", "x", "v1.1")


@pytest.fixture
def published(repo: Repo) -> Repo:
    repo.once(lambda: publish(repo))
    return repo


def read(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Metadata, and the bytes of every tensor, by the library that others use."""
    with safe_open(path, "np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_a_release_loads_without_us(published: Repo, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text('{"rte": {"acc": 0.75}}')
    published.theta("evaluate", "HEAD", "--evaluation", "glue", "--import", str(scores))
    out = tmp_path / "dist"
    options = ("--strip-prefix", "model.", "--drop", "optimizer.*", "--dtype", "bf16",
               "--max-shard-size", "20kB")  # fmt: skip
    told = json.loads(published.theta("release", "v1.1", "-o", str(out), *options, "--json"))
    names = sorted(path.name for path in out.iterdir())
    shards = [name for name in names if name.endswith(".safetensors")]
    assert shards == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    others = ["README.md", "SHA256SUMS", "config.json", "model.safetensors.index.json",
              "theta_tensors.json", "tokenizer.json"]  # fmt: skip
    assert names == sorted([*shards, *others]) == sorted(one["path"] for one in told["files"])
    sums = dict(line.split("  ") for line in (out / "SHA256SUMS").read_text().splitlines())
    hashes = {hashlib.sha256((out / name).read_bytes()).hexdigest(): name for name in names}
    assert sums == {key: name for key, name in hashes.items() if name != "SHA256SUMS"}
    if sys.platform == "linux":
        subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=out, check=True)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    found = {}
    for shard in shards:
        assert (out / shard).stat().st_size < 22_000
        metadata, tensors = read(out / shard)
        assert metadata == {"step": "2", "format": "pt"}
        assert {index["weight_map"][name] for name in tensors} == {shard}
        found.update(tensors)
    assert index["metadata"]["total_size"] == sum(map(len, found.values()))
    for name, then in second().items():
        if name.startswith("model."):
            now = then.astype(ml_dtypes.bfloat16) if then.dtype == np.float32 else then
            assert found.pop(name.removeprefix("model.")) == now.tobytes(), name
    assert found == {}
    config = json.loads((out / "config.json").read_text())
    assert config == {**CONFIG, "torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}
    card = (out / "README.md").read_text()
    assert card.startswith(CARD)
    for line in ("## Version <code>v1.1</code>", "- left out: <code>optimizer.&#42;</code>",
                 "| 0.75† |", "Measured before the cast to BF16.",
                 "- changed since <code>v1.0</code>: 1 of 15 tensors changed"):  # fmt: skip
        assert line in card
    assert told["version"] == "v1.1"


def test_a_folder_is_whole_or_as_it_was(published: Repo, tmp_path: Path) -> None:
    out = tmp_path / "dist"
    release = ("git", "theta", "release", "v1.0", "-o", str(out))
    published.theta(*release[2:])
    assert read(out / "model.safetensors")[1].keys() == training().keys()
    (out / "mine").write_text("x")
    assert b"is not empty" in published.run(*release, ok=(2,)).stderr
    too_large = {**training(), "model.w": np.full((2, 2), 1e30, np.float32)}
    published.write("weights/model.safetensors", safetensors(too_large))
    published.commit("too large for a half")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = {
        ("--dtype", "f16"): "'model.w' has 4 numbers that are too large for F16",
        ("--drop", "optimiser.*"): "--drop 'optimiser.*' matches no tensor",
        ("--strip-prefix", "module."): "no tensor begins so",
        ("--path", "nowhere"): "there is no 'nowhere' in HEAD",
        ("--private-key", str(out)): "a key is there to sign with",
    }
    for options, said in refused.items():
        command = ("git", "theta", "release", "HEAD", "-o", str(out), "--force", *options)
        assert said.encode() in published.run(*command, ok=(2,)).stderr, options
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [one.name for one in tmp_path.iterdir() if "dist" in one.name] == ["dist"]
    published.theta("release", "HEAD", "-o", str(out), "--force")
    assert not (out / "mine").exists()
    # The card that was released is committed, and its section is renewed in place.
    published.write("README.md", (out / "README.md").read_bytes() + b"\nMore.\n")
    published.commit("card")
    published.theta("release", "HEAD", "-o", str(out), "--force")
    card = (out / "README.md").read_text()
    assert card.count("git-theta release: begin") == 1
    assert card.endswith("end -->\n\nMore.\n")


def test_other_containers_and_tied_weights(repo: Repo, tmp_path: Path) -> None:
    repo.theta("track", "*.gguf")
    quantised = gguf({"w": (2, (4, 32), bytes(range(72)))})
    embedding = np.arange(12, dtype=np.float32).tobytes()
    one = tensor(Storage("0", count=12), (3, 4))
    other = tensor(Storage("0", count=12), (3, 4))
    part = tensor(Storage("0", count=12), (2, 4))
    names = {"lm_head.weight": one, "model.embed_tokens.weight": other}
    for folder in ("a", "b", "c"):
        (repo.path / folder).mkdir()
    repo.write("a/pytorch_model.bin", save(state_dict(names), {"0": embedding}))
    repo.write("a/config.json", b'{"tie_word_embeddings": false}')
    repo.write("b/pytorch_model.bin", save(state_dict(names), {"0": embedding}))
    repo.write("b/config.json", b'{"text_config": {"tie_word_embeddings": true}}')
    repo.write("b/model.Q4.gguf", quantised)
    repo.write("c/x.pt", save(state_dict({"w": one, "part": part}), {"0": embedding}))
    repo.commit("all")
    out = tmp_path / "dist"
    done = repo.run("git", "theta", "release", "HEAD", "-o", str(out), "--drop", "part")
    assert b"shares its values with" in done.stderr
    assert b"as the configuration says: it is written once" in done.stderr
    assert (out / "b/model.Q4.gguf").read_bytes() == quantised
    metadata, tensors = read(out / "a/model.safetensors")
    assert metadata == {"format": "pt"}
    assert tensors == dict.fromkeys(names, embedding)
    assert read(out / "b/model.safetensors")[1] == {"model.embed_tokens.weight": embedding}
    assert read(out / "c/x.safetensors")[1] == {"w": embedding}
    refused = repo.run("git", "theta", "release", "HEAD", "-o", str(tmp_path / "x"), ok=(2,))
    assert b"'part' in " in refused.stderr
    assert not (tmp_path / "x").exists()


def test_an_adapter_says_what_it_was_trained_on(published: Repo, tmp_path: Path) -> None:
    folder = published.path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    published.write("adapter/adapter_model.safetensors", safetensors(lora()))
    published.commit("adapter")
    out = tmp_path / "dist"
    published.theta("release", "HEAD", "--path", "adapter", "-o", str(out), "--adapter", "v1.0")
    assert read(out / "adapter_model.safetensors")[1].keys() == lora().keys()
    base = json.loads((out / "theta_base.json").read_text())
    assert base["commit"] == published.git("rev-parse", "v1.0").strip()
    assert (base["version"], base["path"]) == ("v1.0", "weights/model.safetensors")
    assert base["tensors"].keys() == training().keys()
    assert "- base: <code>v1.0</code>" in (out / "README.md").read_text()
    other = f"{published.path}@v1.1:weights/model.safetensors"
    published.theta("release", "HEAD", "--path", "adapter", "-o", str(out), "--force",
                    "--adapter", other)  # fmt: skip
    assert json.loads((out / "theta_base.json").read_text())["url"] == str(published.path)
    published.write("weights/other.safetensors", safetensors(lora()))
    published.commit("a second model")
    words = ("release", "v1.0", "-o", str(tmp_path / "x"), "--adapter", "HEAD:weights")
    said = published.run("git", "theta", *words, ok=(2,)).stderr
    assert b"say which one: --adapter HEAD:weights/model.safetensors" in said
    words = ("release", "v1.0", "-o", str(tmp_path / "x"), "--adapter", "v1.1")
    assert b"has no adapter alone" in published.run("git", "theta", *words, ok=(2,)).stderr


def test_a_release_is_signed_and_verified(published: Repo, tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    _, others = keys(tmp_path, "other")
    out = tmp_path / "dist"
    sign = ("release", "v1.1", "-o", str(out), "--sign", "--private-key", str(private))
    published.theta(*sign)
    verify = ("git", "theta", "release", "--verify", str(out), "--public-key")
    assert b"6 files, 15 tensors" in published.run(*verify, str(public)).stdout
    theirs = Path(sys.executable).parent / "model_signing"  # and the library's own program
    subprocess.run([theirs, "verify", "key", out, "--signature", out / "model.sig",
                    "--public_key", public], check=True, capture_output=True)  # fmt: skip
    done = published.run(*verify, str(others), ok=(FOREIGN,))
    assert b"is not a signature by the key" in done.stderr
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    changes: list[tuple[str, bytes | None, str]] = [
        ("model.safetensors", before["model.safetensors"][:-1] + b"x", "is not what was signed"),
        ("added", b"x", "added was not signed"),
        ("config.json", None, "config.json: signed, by"),
        ("theta_tensors.json", b"{}", "theta_tensors.json is not what was signed"),
        ("model.sig", b"{}", "is not a signature"),
        ("model.sig", None, "there is no signature"),
    ]
    for name, content, said in changes:
        _put(out / name, content)
        with pytest.raises(SignatureError, match=said):
            verify_folder(out, Trust(public))
        _put(out / name, before.get(name))
    if os.name != "nt":
        (out / "link").symlink_to("model.safetensors")
        with pytest.raises(SignatureError, match="link is a link"):
            verify_folder(out, Trust(public))


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def test_a_version_is_signed_and_so_are_its_tensors(
    published: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys(tmp_path)
    advice = take(published, "git", "theta", "sign", "v1.1", "--path", "weights",
                  "--private-key", str(private), has="git add")  # fmt: skip
    do(published, advice)
    verify = ("git", "theta", "sign", "--verify", "--path", "weights", "--public-key", str(public))
    assert b"4 files, 15 tensors" in published.run(*verify).stdout
    assert_partly = _partly(published, public)
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "part.safetensors"
    get = ("git", "theta", "get", f"{published.path}:weights/model.safetensors", "-o", str(out),
           "--tensors", "*.query.weight", "--public-key", str(public))  # fmt: skip
    published.run(*get)
    wanted = {name: value.tobytes() for name, value in second().items() if "query.weight" in name}
    assert read(out)[1] == wanted
    out.unlink()
    # One tensor is replaced by somebody who can push, but not sign.
    forged = {**second(), QUERY: second()[QUERY] + 1}
    published.write("weights/model.safetensors", safetensors(forged, {"step": "2"}))
    published.commit("forged")
    said = published.run(*verify, ok=(FOREIGN,)).stderr
    assert f"{QUERY} of model.safetensors: not what was signed".encode() in said
    assert_partly("*.value.weight")
    assert QUERY.encode() in published.run(*get, ok=(FOREIGN,)).stderr
    assert not out.exists()
    # The values as they were, and another header: it is nobody's tensor.
    published.write("weights/model.safetensors", safetensors(second(), {"step": "3"}))
    published.commit("another header")
    with pytest.raises(SignatureError, match=r"the structure of model.safetensors"):
        assert_partly("*.value.weight")
    published.git("rm", "-q", "weights/model.sig")
    published.commit("without a signature")
    assert b"there is no weights/model.sig" in published.run(*verify, ok=(FOREIGN,)).stderr
    with pytest.raises(SignatureError, match="is not signed"):
        assert_partly("*.value.weight")


def test_a_lock_names_the_base_of_an_adapter(
    published: Repo, new_repo: Callable[..., Repo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    app = new_repo("app")
    entry = (
        f'[[model]]\nname = "base"\nurl = "{published.path}"\nversion = "^1.0"\npath = "weights"\n'
    )
    app.write("models.toml", entry.encode())
    app.theta("sync")
    app.write("a/adapter_model.safetensors", safetensors(lora()))
    app.write("a/adapter_config.json", b"{}")
    app.commit("adapter")
    out = tmp_path / "dist"
    words = ("git", "theta", "release", "HEAD", "--path", "a", "-o", str(out))
    app.run(*words, "--adapter", "base@v1.1")
    base = json.loads((out / "theta_base.json").read_text())
    assert (base["url"], base["version"]) == (str(published.path), "v1.1")
    said = app.run(*words, "--force", "--adapter", "base@v1.0", ok=(2,)).stderr
    assert b"base is locked at v1.1" in said


def _partly(repo: Repo, public: Path) -> Any:
    """Verifies some tensors of the HEAD of a repository, as who gets them does."""

    def check(pattern: str) -> None:
        here = Repository.discover(repo.path)
        commit = repo.git("rev-parse", "HEAD").strip()
        package = Package(str(repo.path), "main", None, commit, here)
        files = files_of(package, "weights/model.safetensors")
        verify_package(package, files, Trust(public), tensors=[pattern])

    return check


def test_what_to_type_instead(published: Repo, tmp_path: Path) -> None:
    """Each message names a command, which then works."""
    private, public = keys(tmp_path)
    out = tmp_path / "dist"
    advice = take(published, "git", "theta", "release", has="-o DIR")
    do(published, advice, REV="v1.1", DIR=str(out))
    for verb in (("release", "v9", "-o", "x"), ("sign", "v9")):
        assert "v1.1" in do(published, take(published, "git", "theta", *verb, has="tag"))
    published.theta("release", "v1.1", "-o", str(out), "--force", "--sign", "--private-key",
                    str(private))  # fmt: skip
    for words in (("--public-key", str(public)), ("--verify", str(out), "v1.1")):
        advice = take(published, "git", "theta", "release", *words, has="--verify")
        assert "signed" in do(published, advice, DIR=str(out), KEY=str(public))
    published.write("weights/ema.safetensors", safetensors(model()))
    published.commit("two models")
    said = published.run("git", "theta", "release", "HEAD", "-o", str(out), ok=(2,)).stderr
    assert b"folder 'weights' has 2 models" in said
    option = said.decode().partition("which one: ")[2].split()
    assert option == ["--path", "weights/ema.safetensors"]
    published.theta("release", "HEAD", "-o", str(out), "--force", *option)
    assert read(out / "model.safetensors")[1].keys() == model().keys()
