"""Hostile files.

Checkpoints, indices of shards, settings and manifests that somebody sent, or that a program put
into the work tree. Nothing of them is executed, no name in them becomes a path, and reading them
costs little.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core.errors import StoreError
from git_theta_ext.git import outputs
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.containers import npy
from tests.scenarios.repositories import Repo
from tests.scenarios.traps import run_all

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and such names need POSIX")

NAME = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00001.safetensors"
THETA = (sys.executable, "-I", "-m", "git_theta_ext.cli.main")
ANY = tuple(range(124))
A = np.arange(1000, dtype=np.float32)


def versions(repo: Repo, name: str = NAME) -> None:
    for seed in (1, 2):
        repo.write(name, safetensors(model(seed)))
        repo.commit(f"version {seed}")


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize(
    "place", [NAME, INDEX, ".theta.toml", ".lfsconfig", "model.gram.safetensors"]
)
def test_no_file(repo: Repo, kind: str, place: str) -> None:
    """Pipes, sockets, devices and folders in the place of checkpoints, indices and settings"""
    versions(repo)
    path = repo.path / place
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        before = Path.cwd()
        os.chdir(repo.path)
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(place)
        os.chdir(before)
    start = time.monotonic()
    run_all(repo, [
        ["status"], ["ls-files"], ["diff"], ["diff", "HEAD~1"], ["du"], ["fsck"], ["pull"],
        ["fetch"], ["merge", "HEAD~1", "--plan"], ["show", NAME], ["track", "--filename", NAME],
        ["export", NAME, "-o", "../out.npz"], ["allow"], ["diff", "--no-index", place, place],
        ["add", NAME, "--update", place], ["add", place, "--update", place], ["cat", place, "w"],
        ["stats", place, "--with", place],
    ])  # fmt: skip
    repo.run("timeout", "60", "git", "add", "-A", ok=(0, 1, 128))
    assert time.monotonic() - start < 120


TARGETS = (
    "../outside",
    "/tmp/outside",
    ".git/config",
    "sub/../../outside",
    "a\0b",
    "C:\\x",
    "",
    ".",
)


def test_shards_elsewhere(repo: Repo) -> None:
    """An index of shards that names files outside, in .git, or nothing that is a path"""
    secret = safetensors({"secret-of-somebody": A})
    (repo.path.parent / "outside").write_bytes(secret)
    config = (repo.path / ".git/config").read_bytes()
    said = b""
    for target in TARGETS:
        repo.write(SHARD, safetensors({"a": A}))
        repo.write(INDEX, json.dumps({"weight_map": {"a": target, "b": SHARD}}).encode())
        repo.commit("one")
        repo.write(SHARD, safetensors({"a": A + 1}))
        repo.commit("two")
        said += run_all(repo, [
            ["show", INDEX], ["diff", "HEAD~1", "HEAD"], ["export", INDEX, "-o", "../o.npz"],
            ["log", INDEX], ["blame", INDEX], ["cat", INDEX, "a"], ["merge", "HEAD~1", "--plan"],
        ])  # fmt: skip
    assert b"secret-of-somebody" not in said
    assert (repo.path.parent / "outside").read_bytes() == secret
    assert (repo.path / ".git/config").read_bytes() == config


BOMBS = {
    "depth": b"[" * 4_000_000,
    "objects": b'{"weight_map":' * 500_000,
    "integer": b'{"weight_map": {"a": ' + b"9" * 4_000_000 + b"}}",
    "twice": b'{"weight_map": {' + b",".join(b'"a": "%d"' % n for n in range(300_000)) + b"}}",
    "escapes": b'{"weight_map": {"' + b"\\u0000" * 500_000 + b'": "x"}}',
    "infinite": b'{"weight_map": {"a": Infinity, "b": NaN, "c": -1e999}}',
    "utf-16": '{"weight_map": {}}'.encode("utf-16"),
}


def test_json(repo: Repo) -> None:
    """Bombs of JSON as index of shards, header, settings and adapter's configuration"""
    versions(repo, SHARD)
    start = time.monotonic()
    for bomb in BOMBS.values():
        repo.write(INDEX, bomb)
        repo.write("adapter_config.json", bomb)
        repo.write(".theta.toml", bomb)
        head = bomb + b" " * (-len(bomb) % 8)
        repo.write("head.safetensors", len(head).to_bytes(8, "little") + head)
        repo.commit("bomb")
        run_all(repo, [
            ["show", INDEX], ["diff", "HEAD~1", "HEAD"], ["merge", "HEAD~1", "--plan"], ["allow"],
            ["add", SHARD, "--update", "head.safetensors"],
        ])  # fmt: skip
    assert time.monotonic() - start < 200


def test_pickles(repo: Repo, tmp_path: Path) -> None:
    """Pickles that call functions when they are loaded, in every container that holds one"""
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> object:
            return os.system, (f"touch '{mark}'",)

    for protocol in (0, 1, 2, 3, 4, 5):
        data = pickle.dumps({"w": Evil(), "v": [Evil()]}, protocol=protocol)
        repo.write(f"bare{protocol}.pt", data)
        for member in ("archive/data.pkl", "data.pkl"):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(member, data)
                archive.writestr("archive/version", "3")
                archive.writestr("archive/data/0", bytes(4000))
            repo.write(f"{member.replace('/', '-')}{protocol}.pt", file.getvalue())
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        text = header + b" " * (117 - len(header)) + b"\n"
        array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
        repo.write(f"object{protocol}.bin", array)
    repo.commit("one")
    for path in repo.path.glob("*.pt"):
        path.write_bytes(path.read_bytes() + b"\0")
    repo.commit("two")
    names = [path.name for path in (*repo.path.glob("*.pt"), *repo.path.glob("*.bin"))]
    run_all(repo, [
        ["diff", "HEAD~1", "HEAD"], ["status"], ["fsck"], ["merge", "HEAD~1", "--plan"],
        *(["show", name] for name in names), *(["export", n, "-o", "../o.npz"] for n in names[:6]),
    ])  # fmt: skip
    assert not mark.exists()


EVIL_NAMES = (
    "../escape", "/tmp/escape", "a/../../escape", "..\\escape", "C:escape", "\x1b[31m", "a\nb",
    ".git/config", "", ".", "..", "nul", "a\0b", "x" * 5000,
)  # fmt: skip


def test_names_of_tensors(repo: Repo) -> None:
    """Tensors named ../x, /x or .git/config, exported to containers whose members are files"""
    for name in EVIL_NAMES:
        repo.write(NAME, safetensors({name: A, "w": A}))
        repo.commit(f"of {len(name)}")
        said = run_all(repo, [
            ["export", NAME, "-o", "../out.npz"], ["show", NAME], ["ls-files"],
            ["export", NAME, "-o", "../out.pt"],
        ])  # fmt: skip
        assert b"\x1b" not in said
        out = repo.path.parent / "out.npz"
        if out.exists():
            with zipfile.ZipFile(out) as archive:
                for member in archive.namelist():
                    parts = member.replace("\\", "/").split("/")
                    assert ".." not in parts, member
                    assert not member.startswith("/")
            out.unlink()


def test_members_of_archives(repo: Repo) -> None:
    """An .npz whose members are ../x, links, compressed bombs or claim more than they hold"""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../escape.npy", npy(A))
        archive.writestr("/tmp/escape.npy", npy(A))
        link = zipfile.ZipInfo("link.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../../.git/config")
        bomb = npy(np.zeros(1))[:-8] + bytes(50 << 20)
        archive.writestr("bomb.npy", bomb, zipfile.ZIP_DEFLATED)
        lie = npy(A).replace(b"(1000,)", b"(1<<40)").replace(b"(1000", b"(9999")
        archive.writestr("lie.npy", lie)
    repo.theta("track", "*.npz")
    repo.write("model.npz", file.getvalue())
    start = time.monotonic()
    repo.run("timeout", "100", "git", "add", ".")
    repo.git("commit", "-q", "-m", "one")
    run_all(repo, [["show", "model.npz"], ["export", "model.npz", "-o", "../out.pt"], ["fsck"]])
    assert time.monotonic() - start < 100
    (repo.path / "model.npz").unlink()
    repo.git("checkout", "-q", "--", "model.npz")
    assert (repo.path / "model.npz").read_bytes() == file.getvalue()
    assert not list(repo.path.parent.parent.glob("escape*"))


def test_script_in_a_report(repo: Repo) -> None:
    """Names that end the script, an attribute or a comment of an HTML report"""
    evil = '"></script><script>alert(1)</script><!--\' onload=alert(1) x="</style><img src=//e>'
    for seed in (1, 2):
        repo.write(NAME, safetensors({evil: A + seed, "w": A}, {evil: f"{evil}{seed}"}))
        repo.commit(evil)
    repo.theta("diff", "--format", "html", "-o", "../out.html", "HEAD~1", "HEAD")
    text = (repo.path.parent / "out.html").read_text("utf-8")
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "<!--'" not in text
    assert "default-src 'none'" in text


def test_manifests(repo: Repo) -> None:
    """Manifests with sizes, ranks and names that no checkpoint has, committed as they are"""
    versions(repo)
    good = repo.blob(f"HEAD:{NAME}")
    lines = good.split(b"\n")
    bad = [
        good.replace(b" 64", b" 99999999999999999999"), good.replace(b" 64", b" -64"),
        good.replace(b"sha256:", b"sha256:../../"), b"\n".join(lines[:1] + lines[1:] * 400),
        good[: len(good) // 2], good + b"\0" * 100000, good.replace(b"dense", b"../dense"),
        good.replace(b"F32", b"F" + b"9" * 5000), good.replace(b"encoder", b"\x1b[31m"),
    ]  # fmt: skip
    start = time.monotonic()
    for data in bad:
        oid = repo.run("git", "hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()
        repo.git("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
        repo.git("commit", "-q", "-m", "bad")
        said = run_all(repo, [["show", NAME], ["diff", "HEAD~1", "HEAD"], ["fsck"], ["status"]])
        assert b"\x1b" not in said
        (repo.path / NAME).unlink(missing_ok=True)
        done = repo.run(
            "timeout", "60", "git", "checkout", "-f", "HEAD", "--", NAME, ok=(0, 1, 128)
        )
        assert done.returncode != 0 or (repo.path / NAME).read_bytes()
    assert time.monotonic() - start < 200


@pytest.mark.sample(2)
@pytest.mark.parametrize("out", ["pipe", "link/x", ".git/x", "data/.GIT/x", "sub/link/x"])
def test_output(repo: Repo, out: str) -> None:
    """A place for a report that the work tree has laid a trap with; no refusal exits with 0"""
    outside = repo.path.parent / "outside"
    outside.mkdir()
    (repo.path / "sub").mkdir()
    (repo.path / "data/.GIT").mkdir(parents=True)
    for name in ("link", "sub/link"):
        (repo.path / name).symlink_to(outside)
    (repo.path / "pipe").symlink_to(outside / "made")
    versions(repo)
    for words in (
        ["export", NAME, "--to", "safetensors", "-o", out],
        ["diff", "--format", "html", "-o", out, "HEAD~1"],
    ):
        done = repo.run(*THETA, *words, ok=ANY)
        assert (done.returncode == 0) == (out == "pipe")
        assert not list(outside.iterdir())
    if out != "pipe":
        with pytest.raises(StoreError):
            outputs.write(repo.path / out, b"")
