"""Other tools, other settings, other kinds of repositories: everything comes back bit for bit."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.model import is_manifest
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"
ATTRIBUTES = "filter=theta diff=theta merge=theta -text"


def version(seed: int) -> bytes:
    """A model; another seed moves one tensor."""
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=seed)})


def two(repo: Repo, name: str = NAME) -> tuple[bytes, bytes]:
    """Commit two versions; the bytes of both."""
    for seed in (1, 2):
        repo.write(name, version(seed))
        repo.commit(f"version {seed}")
    return version(1), version(2)


def back_and_forth(repo: Repo, name: str = NAME) -> None:
    """Check out the older version, then the newer one; both are right, and Git sees no change."""
    branch = repo.git("branch", "--show-current").strip()
    for revision, seed in (("HEAD~1", 1), (branch, 2)):
        repo.git("checkout", "-q", revision)
        assert (repo.path / name).read_bytes() == version(seed)
        assert repo.status() == ""
    assert is_manifest(repo.blob(f"HEAD:{name}"))


def initialised(path: Path, *options: str, env: dict[str, str] | None = None) -> Repo:
    """A repository of some kind in which the extension is installed."""
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "-q", *options, env=env)
    repo.theta("install", "--local")
    repo.theta("track", "*.safetensors")
    repo.commit("Track")
    return repo


# -- other tools -----------------------------------------------------------------------------------


def test_files_of_git_lfs_beside_ours(repo: Repo, tmp_path: Path) -> None:
    """Both are pushed by one push, and a clone has both."""
    repo.git("lfs", "install", "--local", "--force")
    repo.theta("install", "--local")
    repo.git("lfs", "track", "*.mp4")
    video = np.random.default_rng(0).bytes(5000)
    repo.write("talk.mp4", video)
    two(repo)
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", f"file://{tmp_path / 'remote.git'}")
    repo.git("push", "-q", "origin", "main")
    assert repo.blob("HEAD:talk.mp4").startswith(b"version https://git-lfs")
    clone = Repo(tmp_path / "clone")
    repo.git("clone", "-q", "--no-checkout", f"file://{tmp_path / 'remote.git'}", str(clone.path))
    clone.git("lfs", "install", "--local")
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    assert (clone.path / "talk.mp4").read_bytes() == video
    assert (clone.path / NAME).read_bytes() == version(2)
    assert clone.status() == ""


HOOK = b'#!/bin/sh\necho ran >> "$(git rev-parse --git-common-dir)/hook-ran"\n%s\n'


@pytest.mark.parametrize("tool", ["pre-commit", "husky", "lefthook", "core.hooksPath"])
def test_tools_that_own_the_hooks(repo: Repo, tmp_path: Path, tool: str) -> None:
    """Each puts its hooks where it does; they run, and ours do, whoever came first.

    A folder that is shared or committed is not ours to change: there the lines are added by hand
    that `install` prints.
    """
    own = repo.path / ".git/hooks"
    folder = {"husky": repo.path / ".husky/_", "core.hooksPath": tmp_path / "shared hooks"}.get(
        tool, own
    )
    folder.mkdir(parents=True, exist_ok=True)
    if tool in ("husky", "core.hooksPath"):
        path = ".husky/_" if tool == "husky" else str(folder)
        repo.git("config", "core.hooksPath", path)
    for name in ("pre-commit", "pre-push", "post-checkout", "post-merge"):
        hook = folder / name
        # pre-commit's own hook hands over to what was there as NAME.legacy; others overwrite.
        if hook.exists() and tool == "pre-commit":
            hook.rename(folder / f"{name}.legacy")
        hook.write_bytes(HOOK % b'test -x "$0.legacy" && exec "$0.legacy" "$@"; exit 0')
        hook.chmod(0o755)
    for line in repo.theta("install", "--local").splitlines():
        path, _, command = line.strip().partition(": ")
        if folder != own and Path(path).parent == folder:
            Path(path).write_bytes(HOOK % command.encode())
            Path(path).chmod(0o755)
    two(repo)
    assert (repo.path / ".git/hook-ran").exists()
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    repo.git("push", "-q", "origin", "main")
    clone = Repo(tmp_path / "clone")
    repo.git("clone", "-q", "--no-checkout", str(tmp_path / "remote.git"), str(clone.path))
    shutil.move(repo.path / ".git/theta", tmp_path / "away")
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    assert (clone.path / NAME).read_bytes() == version(2)


def test_a_hook_that_stages_what_it_formatted(repo: Repo) -> None:
    """As lint-staged does: stash what is not staged, change files, add, restore."""
    two(repo)
    hook = repo.path / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes(b"#!/bin/sh\nset -e\ngit stash push -q --keep-index\necho x >> notes.txt\n"
                     b"git add notes.txt\ngit stash pop -q\n")  # fmt: skip
    hook.chmod(0o755)
    repo.write(NAME, version(3))
    repo.git("add", NAME)
    repo.write("other.txt", b"not tracked\n")
    repo.git("commit", "-q", "-m", "third")
    assert (repo.path / NAME).read_bytes() == version(3)
    assert b"x" in repo.blob("HEAD:notes.txt")
    repo.git("checkout", "-q", "-f", "HEAD~1", "--", NAME)
    assert (repo.path / NAME).read_bytes() == version(2)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"core.autocrlf": "true", "merge.renormalize": "true"},
        {"core.autocrlf": "input", "core.ignoreCase": "true", "core.precomposeUnicode": "true"},
        {"core.eol": "crlf", "core.fileMode": "false", "core.symlinks": "false"},
        {"index.version": "4", "core.splitIndex": "true", "core.bigFileThreshold": "1k"},
        {"feature.manyFiles": "true", "core.checkStat": "minimal", "core.trustctime": "false"},
        {"checkout.workers": "4", "checkout.thresholdForParallelism": "1", "diff.external": ""},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_change_no_byte(repo: Repo, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        repo.git("config", name, value)
    data = b"\r\n".join([b"line"] * 300) + b"\n\r\n"
    repo.write("text.bin", data)
    two(repo)
    back_and_forth(repo)
    (repo.path / "text.bin").unlink()
    repo.git("checkout", "--", "text.bin")
    assert (repo.path / "text.bin").read_bytes() == data


def test_text_attributes_for_all_files(repo: Repo) -> None:
    """A line above ours that calls every file text does not count for ours."""
    lines = (repo.path / ".gitattributes").read_bytes()
    repo.write(".gitattributes", b"* text=auto eol=crlf\n" + lines)
    repo.write("text.bin", b"a\nb\r\n")
    two(repo)
    back_and_forth(repo)
    (repo.path / "text.bin").unlink()
    repo.git("checkout", "--", "text.bin")
    assert (repo.path / "text.bin").read_bytes() == b"a\nb\r\n"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_umask_of_077_and_a_shared_repository(tmp_path: Path, sealed: Path) -> None:
    old = os.umask(0o077)
    try:
        private = initialised(tmp_path / "private")
        two(private)
        back_and_forth(private)
        shared = initialised(tmp_path / "shared", "--shared=group")
        two(shared)
        back_and_forth(shared)
    finally:
        os.umask(old)
    files = [path for path in (private.path / ".git/theta").rglob("*") if path.is_file()]
    assert files
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs another owner")
def test_a_repository_of_another_owner_needs_safe_directory(repo: Repo) -> None:
    """What Git refuses we refuse, in its words; what it was told to trust works."""
    two(repo)
    for path in [repo.path, *repo.path.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    done = repo.run(
        sys.executable, "-m", "git_theta_ext.cli.main", "ls-files", ok=tuple(range(1, 20))
    )
    assert b"safe.directory" in done.stderr or b"dubious" in done.stderr
    repo.git("config", "--global", "--add", "safe.directory", str(repo.path))
    back_and_forth(repo)


# -- parts of a repository -------------------------------------------------------------------------


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
def test_sparse_checkout(repo: Repo, cone: str) -> None:
    repo.write("small/a.safetensors", version(3))
    repo.write("large/b.safetensors", version(4))
    two(repo)
    repo.git("sparse-checkout", "set", cone, "small")
    assert not (repo.path / "large").exists()
    assert (repo.path / "small/a.safetensors").read_bytes() == version(3)
    assert repo.status() == ""
    repo.write("small/a.safetensors", version(5))
    repo.commit("in part")
    assert is_manifest(repo.blob("HEAD:large/b.safetensors"))
    repo.git("sparse-checkout", "disable")
    assert (repo.path / "large/b.safetensors").read_bytes() == version(4)
    assert (repo.path / "small/a.safetensors").read_bytes() == version(5)
    assert repo.status() == ""


@pytest.mark.parametrize("kind", ["--filter=blob:none", "--filter=tree:0", "--depth=1"])
def test_partial_and_shallow_clones(repo: Repo, tmp_path: Path, kind: str) -> None:
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("-C", str(tmp_path / "remote.git"), "config", "uploadpack.allowFilter", "true")
    repo.git("remote", "add", "origin", f"file://{tmp_path / 'remote.git'}")
    two(repo)
    repo.git("push", "-q", "origin", "main")
    clone = Repo(tmp_path / "clone")
    url = f"file://{tmp_path / 'remote.git'}"
    repo.git("clone", "-q", kind, "--no-checkout", url, str(clone.path))
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    assert (clone.path / NAME).read_bytes() == version(2)
    clone.write(NAME, version(3))
    clone.commit("third")
    kinds = {ref.kind for ref in parse_manifest(clone.blob(f"HEAD:{NAME}")).objects()}
    assert kinds - {"dense"}, "an update of what was fetched"
    clone.git("push", "-q", "origin", "main")
    repo.git("pull", "-q", "origin", "main")
    assert (repo.path / NAME).read_bytes() == version(3)


def test_submodules(new_repo: Callable[..., Repo], tmp_path: Path) -> None:
    inner, outer = new_repo("inner"), new_repo("outer")
    two(inner)
    two(outer)
    outer.theta("install")
    outer.git("submodule", "add", "-q", str(inner.path), "weights")
    outer.git("commit", "-q", "-m", "submodule")
    assert (outer.path / "weights" / NAME).read_bytes() == version(2)
    within = Repo(outer.path / "weights")
    back_and_forth(within)
    within.write(NAME, version(3))
    within.commit("third")
    assert (outer.path / ".git/modules/weights/theta/objects").is_dir()
    assert outer.status().strip() == "M weights"
    outer.git("commit", "-q", "-a", "-m", "newer")
    outer.git("submodule", "foreach", "-q", "git checkout -q HEAD~2")
    outer.git("submodule", "update", "-q")
    assert (within.path / NAME).read_bytes() == version(3)


def test_a_separate_git_folder_and_a_worktree_of_it(tmp_path: Path, sealed: Path) -> None:
    repo = initialised(tmp_path / "tree", f"--separate-git-dir={tmp_path / 'meta data'}")
    two(repo)
    back_and_forth(repo)
    assert (tmp_path / "meta data/theta/objects").is_dir()
    repo.git("worktree", "add", "-q", str(tmp_path / "second"), "HEAD~1")
    assert (tmp_path / "second" / NAME).read_bytes() == version(1)


# -- kinds of repositories -------------------------------------------------------------------------


def test_sha_256(tmp_path: Path, sealed: Path) -> None:
    repo = initialised(tmp_path / "repo", "--object-format=sha256")
    two(repo)
    back_and_forth(repo)
    assert len(repo.git("rev-parse", "HEAD").strip()) == 64
    repo.theta("fsck")
    repo.git("checkout", "-q", "-b", "side", "HEAD~1")
    tensors = model()
    bias = "encoder.layer.0.attention.query.bias"
    first = {**tensors, WEIGHT: changed(tensors[WEIGHT], seed=1)}
    repo.write(NAME, safetensors({**first, bias: changed(tensors[bias])}))
    repo.commit("side")
    repo.git("merge", "-q", "-m", "both", "main")
    merged = {**tensors, WEIGHT: changed(tensors[WEIGHT], seed=2), bias: changed(tensors[bias])}
    assert (repo.path / NAME).read_bytes() == safetensors(merged)
    remote, clone = tmp_path / "remote.git", Repo(tmp_path / "clone")
    repo.git("init", "-q", "--bare", "--object-format=sha256", str(remote))
    repo.git("push", "-q", str(remote), "side")
    repo.git("clone", "-q", "--no-checkout", "-b", "side", str(remote), str(clone.path))
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "side")
    assert (clone.path / NAME).read_bytes() == safetensors(merged)
    clone.theta("fsck")


def _has_reftable(folder: Path) -> bool:
    done = subprocess.run(
        ["git", "init", "-q", "--ref-format=reftable", str(folder)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_reftable_where_git_has_it(tmp_path: Path, sealed: Path) -> None:
    """Git 2.45 and later has it; where it does not, the option is refused and nothing is made."""
    if _has_reftable(tmp_path / "probe"):
        repo = initialised(tmp_path / "repo", "--ref-format=reftable")
        two(repo)
        back_and_forth(repo)
        repo.theta("fsck")
    else:
        assert not (tmp_path / "probe/.git/HEAD").exists()


STRANGE = {
    "spaces and quotes": b"with 'spaces\" $HOME `id`",
    "newline": b"new\nline",
    "not UTF-8": b"-caf\xe9 \xff",
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_repository_in_a_strange_path(tmp_path: Path, sealed: Path, name: str) -> None:
    repo = initialised(tmp_path / os.fsdecode(STRANGE[name]))
    two(repo)
    back_and_forth(repo)
    remote = tmp_path / os.fsdecode(STRANGE[name] + b" remote")
    repo.git("init", "-q", "--bare", str(remote))
    repo.git("remote", "add", "origin", str(remote))
    repo.git("push", "-q", "origin", "main")
    repo.git("clone", "-q", "--no-checkout", str(remote), str(tmp_path / "clone"))
    shutil.move(repo.path / ".git/theta", tmp_path / "away")
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "-f", "HEAD", "--", ".")
    assert (clone.path / NAME).read_bytes() == version(2)


def test_names_that_differ_in_case_only(repo: Repo) -> None:
    """On a file system that tells them apart both are right; on another, Git keeps one."""
    first, second = version(1), version(2)
    repo.write("Model.safetensors", first)
    repo.commit("upper")
    oid = repo.run("git", "hash-object", "-w", "--stdin", "--path", NAME, stdin=second)
    blob = oid.stdout.decode().strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{NAME}")
    repo.git("commit", "-q", "-m", "lower")
    repo.git("checkout", "-q", "-f", "HEAD", "--", ".")
    names = {path.name for path in repo.path.glob("*odel.safetensors")}
    for name, data in (("Model.safetensors", first), (NAME, second)):
        if len(names) == 2:
            assert (repo.path / name).read_bytes() == data
        blob = repo.blob(f"HEAD:{name}")
        repo.run("git", "cat-file", "--filters", f"HEAD:{name}")
        assert is_manifest(blob)
        assert repo.run("git", "cat-file", "--filters", f"HEAD:{name}").stdout == data
