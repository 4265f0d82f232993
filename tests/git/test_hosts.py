"""Rules of hosts, made again, and clients that are not Git: what docs/hosts.md says of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pygit2
import pytest
from dulwich import porcelain

from git_theta_ext.git.launch import shell_word
from git_theta_ext.manifest.model import is_manifest
from git_theta_ext.objects.transfer.pointers import REF
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.remotes import bare, history, objects_of
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server

HUB = """\
# The rule of the Hugging Face Hub: no file above a size, and no binary file, in any ref.
import subprocess, sys
git = lambda *words: subprocess.run(["git", *words], stdout=subprocess.PIPE, check=True).stdout
new = [line.split()[1] for line in sys.stdin if set(line.split()[1]) != {"0"}]
refused = []
for line in git("rev-list", "--objects", *new, "--not", "--all").decode().splitlines():
    oid, _, path = line.partition(" ")
    if git("cat-file", "-t", oid) != b"blob\\n":
        continue
    data = git("cat-file", "blob", oid)
    if len(data) > LIMIT:
        refused.append(f"{path}: too large")
    elif b"\\0" in data[:8000]:
        refused.append(f"{path}: binary")
sys.exit("\\n".join(refused) or 0)
"""

AGENT = """\
# A transfer agent of git-lfs that keeps objects in a folder, as others keep them in a bucket.
import json, os, pathlib, shutil, sys, tempfile
bucket = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    asked = json.loads(line)
    if asked["event"] == "terminate":
        break
    answer = {}
    if asked["event"] == "upload":
        shutil.copyfile(asked["path"], bucket / asked["oid"])
        answer = {"event": "complete", "oid": asked["oid"]}
    elif asked["event"] == "download":
        descriptor, path = tempfile.mkstemp()
        os.close(descriptor)
        shutil.copyfile(bucket / asked["oid"], path)
        answer = {"event": "complete", "oid": asked["oid"], "path": path}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def server() -> Iterator[LfsServer]:
    """An LFS server that runs."""
    with lfs_server() as state:
        yield state


def committed(repo: Repo) -> bytes:
    """A checkpoint that Git committed; its bytes."""
    data = safetensors(model())
    repo.write(NAME, data)
    repo.commit("one")
    return data


# -- hosts -----------------------------------------------------------------------------------------


def test_a_host_that_refuses_large_and_binary_files(repo: Repo, server: LfsServer) -> None:
    """Manifests and pointer files are short and text, whatever they stand for."""
    remote = bare(repo)
    rule = remote / "hooks/rule.py"
    rule.write_text(HUB.replace("LIMIT", "50_000"))
    hook = remote / "hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\nexec {shell_word(sys.executable)} -I hooks/rule.py\n")
    hook.chmod(0o755)
    repo.git("config", "lfs.url", server.url)
    contents = history(repo, 1)
    assert len(contents[0]) > 50_000
    repo.git("push", "-q", "origin", "main")
    there = repo.git("ls-remote", str(remote))
    assert "refs/heads/main" in there
    assert REF in there
    repo.write("raw.dat", contents[0])
    repo.write("small.dat", b"\0" * 10)
    repo.commit("whole")
    said = repo.run("git", "push", "-q", "origin", "main", ok=(1,)).stderr.decode()
    assert "raw.dat: too large" in said
    assert "small.dat: binary" in said


def test_objects_go_through_a_transfer_agent(repo: Repo, tmp_path: Path) -> None:
    """Git's data go to the remote, the objects where the agent puts them, and back."""
    bucket, agent = tmp_path / "bucket", tmp_path / "agent.py"
    bucket.mkdir()
    agent.write_text(AGENT)
    settings = {
        "lfs.standalonetransferagent": "bucket",
        "lfs.customtransfer.bucket.path": sys.executable,
        "lfs.customtransfer.bucket.args": f"-I {shell_word(str(agent))} {shell_word(str(bucket))}",
    }
    remote = bare(repo)
    for name, value in settings.items():
        repo.git("config", name, value)
    data = committed(repo)
    repo.git("push", "-q", "origin", "main")
    assert {path.name for path in bucket.iterdir()} == {
        ref.oid for ref in objects_of(repo, f"HEAD:{NAME}")
    }
    assert not (remote / "lfs").exists()
    clone = Repo(tmp_path / "clone")
    repo.git("clone", "-q", "--no-checkout", str(remote), str(clone.path))
    for name, value in settings.items():
        clone.git("config", name, value)
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    assert (clone.path / NAME).read_bytes() == data


# -- clients ---------------------------------------------------------------------------------------


def test_dulwich_runs_the_filter_in_both_directions(repo: Repo) -> None:
    """It does not say which of two files it adds, so that only the content can tell."""
    repo.write("other.safetensors", safetensors(model(1)))
    data = committed(repo)
    changed = model()
    changed["encoder.layer.0.attention.query.weight"][0] += 1
    repo.write(NAME, safetensors(changed))
    repo.git("add", NAME)
    by_git = repo.blob(f":{NAME}")
    repo.git("reset", "-q", "--", NAME)
    porcelain.add(str(repo.path), paths=[str(repo.path / NAME)])
    assert repo.blob(f":{NAME}") == by_git
    repo.git("reset", "-q", "--hard")
    repo.git("rm", "-q", "--cached", NAME)
    porcelain.add(str(repo.path), paths=[str(repo.path / NAME)])
    assert is_manifest(repo.blob(f":{NAME}"))
    assert repo.run("git", "cat-file", "--filters", f":{NAME}").stdout == data
    (repo.path / NAME).unlink()
    porcelain.reset(str(repo.path), "hard")
    assert (repo.path / NAME).read_bytes() == data
    assert repo.status() == ""


def test_commands_for_one_file_are_as_the_process(repo: Repo) -> None:
    """What JGit starts: content in, content out, and an exit status that says whether it counts."""
    data = committed(repo)
    manifest = repo.blob(f"HEAD:{NAME}")
    clean, smudge = (
        repo.git("config", f"filter.theta.{one}").strip().replace("%f", shell_word(NAME))
        for one in ("clean", "smudge")
    )

    def run(command: str, content: bytes, *ok: int) -> bytes:
        return repo.run("sh", "-c", command, stdin=content, ok=ok or (0,)).stdout

    assert run(clean, data) == manifest
    assert run(smudge, manifest) == data
    assert run(clean, manifest) == manifest
    assert run(clean, b"") == run(smudge, b"") == b""
    assert run(smudge, data) == data  # committed whole: as it is
    assert run(clean, manifest + b"x", 1) == b""
    for path in (repo.path / ".git/theta/objects").glob("??/??/*"):
        path.unlink()
    run(smudge, manifest, 1)
    assert run(smudge.replace("smudge", "smear"), manifest, 2) == b""


def test_git_prefers_the_process_whatever_it_is(repo: Repo) -> None:
    """Empty means switched off: the commands for one file must not take its place."""
    for one in ("clean", "smudge"):
        repo.git("config", "--global", f"filter.theta.{one}", "false")
    committed(repo)
    assert is_manifest(repo.blob(f"HEAD:{NAME}"))
    data = safetensors(model(2))
    repo.write(NAME, data)
    off = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")
    repo.git(*off, "add", NAME)
    assert repo.blob(f":{NAME}") == data


def test_libgit2_runs_no_filter_and_what_it_did_is_named_and_mended(repo: Repo) -> None:
    data = committed(repo)
    other = pygit2.Repository(str(repo.path))
    (repo.path / NAME).unlink()
    other.checkout_head(strategy=pygit2.enums.CheckoutStrategy.FORCE)
    assert is_manifest((repo.path / NAME).read_bytes())
    assert "manifest in the work tree" in repo.theta("status")
    repo.theta("pull")
    assert (repo.path / NAME).read_bytes() == data
    repo.write(NAME, safetensors(model(), {"version": "2"}))
    other.index.read()
    other.index.add(NAME)
    other.index.write()
    assert not is_manifest(repo.blob(f":{NAME}"))
    said = repo.theta("status")
    assert "plain blob" in said
    assert "git add --renormalize :/" in said
    repo.git("add", "--renormalize", ":/")
    assert is_manifest(repo.blob(f":{NAME}"))
