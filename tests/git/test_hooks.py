"""The hooks: chained with others, taken away without a trace, and what they do on a push."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.objects import damage
from tests.scenarios.remotes import are_at, bare, history, objects_of
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server

NewRepo = Callable[..., Repo]

FOREIGN = b"#!/bin/sh\necho foreign: $1 >>log\ncat >>log\n"


def add_hook(repo: Repo, name: str, content: bytes = FOREIGN, mode: int = 0o750) -> Path:
    """Write a hook that somebody else made."""
    path = repo.path / ".git/hooks" / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def ensure(repo: Repo, python: str = sys.executable) -> list[str]:
    """`hooks.ensure` as the filter calls it."""
    return hooks.ensure(Repository.discover(repo.path), python)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The content and mode of every file of a folder."""
    return {p.name: (p.read_bytes(), stat.S_IMODE(p.stat().st_mode)) for p in folder.iterdir()}


@pytest.fixture
def plain(new_repo: NewRepo) -> Repo:
    """A repository in which nothing is installed."""
    return new_repo("plain", install=False)


@pytest.fixture
def server() -> Iterator[LfsServer]:
    """An LFS server that runs."""
    with lfs_server() as state:
        yield state


# Putting them in place


def test_ensure_is_idempotent_and_remove_leaves_nothing(plain: Repo) -> None:
    folder = plain.path / ".git/hooks"
    before = snapshot(folder)
    assert len(ensure(plain)) == len(hooks.HOOKS)
    installed = snapshot(folder)
    assert ensure(plain) == []
    assert snapshot(folder) == installed
    assert all(os.access(folder / name, os.X_OK) for name in hooks.HOOKS)
    hooks.remove(Repository.discover(plain.path))
    assert snapshot(folder) == before


def test_foreign_hooks_come_back_byte_for_byte(plain: Repo) -> None:
    add_hook(plain, "pre-push", FOREIGN + b"\xff\0", 0o755)
    add_hook(plain, "post-merge", b"#!/bin/sh\n", 0o700)
    add_hook(plain, "shared")
    (plain.path / ".git/hooks/post-checkout").symlink_to("shared")
    before = snapshot(plain.path / ".git/hooks")
    ensure(plain)
    assert ensure(plain) == []
    hooks.remove(Repository.discover(plain.path))
    assert snapshot(plain.path / ".git/hooks") == before
    assert (plain.path / ".git/hooks/post-checkout").is_symlink()


def test_another_python_updates_the_hooks(plain: Repo) -> None:
    ensure(plain, "/some/python")
    assert len(ensure(plain)) == len(hooks.HOOKS)
    assert "/some/python" not in (plain.path / ".git/hooks/pre-push").read_text()


def test_a_hook_that_replaced_ours_is_chained_and_nothing_is_lost(plain: Repo) -> None:
    add_hook(plain, "pre-push", b"#!/bin/sh\n# first\n")
    ensure(plain)
    add_hook(plain, "pre-push", b"#!/bin/sh\n# second\n")
    changes = ensure(plain)
    folder = plain.path / ".git/hooks"
    assert (folder / "pre-push.theta-chained").read_bytes() == b"#!/bin/sh\n# second\n"
    (kept,) = folder.glob("pre-push.theta-replaced-*")
    assert kept.read_bytes() == b"#!/bin/sh\n# first\n"
    assert any(str(kept) in line for line in changes)


def test_a_hook_kept_by_the_pre_commit_tool_is_not_chained_twice(plain: Repo) -> None:
    ensure(plain)
    folder = plain.path / ".git/hooks"
    (folder / "pre-push").rename(folder / "pre-push.legacy")
    tool = add_hook(plain, "pre-push", b"#!/bin/sh\n. $0.legacy\n")
    assert ensure(plain) == []
    assert tool.read_bytes() == b"#!/bin/sh\n. $0.legacy\n"
    hooks.remove(Repository.discover(plain.path))
    assert not (folder / "pre-push.legacy").exists()


def test_a_circle_of_hooks_ends(repo: Repo) -> None:
    bare(repo)
    folder = repo.path / ".git/hooks"
    shutil.copy(folder / "pre-push", folder / "pre-push.other")
    add_hook(repo, "pre-push.theta-chained", b'#!/bin/sh\nexec "${0%.theta-chained}.other" "$@"\n')
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("push", "-q", "origin", "main")
    assert are_at(repo.path.parent / "remote.git", objects_of(repo, f"HEAD:{NAME}"))


@pytest.mark.parametrize("where", ["outside", "in the work tree"])
def test_a_foreign_hooks_folder_is_not_touched(plain: Repo, tmp_path: Path, where: str) -> None:
    folder = tmp_path / "global" if where == "outside" else plain.path / ".husky"
    folder.mkdir()
    plain.git("config", "core.hooksPath", str(folder) if where == "outside" else ".husky")
    said = ensure(plain)
    assert "core.hooksPath" in said[0]
    assert any("git_theta_ext.drivers.pre_push" in line for line in said)
    assert list(folder.iterdir()) == []
    assert hooks.remove(Repository.discover(plain.path)) == []
    for name in hooks.HOOKS:
        line = next(line for line in said if f"{name}: " in line).split(": ", 1)[1]
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
    assert ensure(plain) == []


def test_a_hooks_path_in_the_git_directory_is_ours(plain: Repo) -> None:
    plain.git("config", "core.hooksPath", str(plain.path / ".git/my hooks"))
    ensure(plain)
    assert (plain.path / ".git/my hooks/pre-push").exists()


def test_worktrees_share_the_hooks(plain: Repo, tmp_path: Path) -> None:
    plain.git("commit", "-q", "--allow-empty", "-m", "one")
    plain.git("worktree", "add", "-q", str(tmp_path / "tree"))
    hooks.ensure(Repository.discover(tmp_path / "tree"), sys.executable)
    assert (plain.path / ".git/hooks/pre-push").exists()


def test_a_folder_that_cannot_be_written_is_told(plain: Repo) -> None:
    shutil.rmtree(plain.path / ".git/hooks")
    (plain.path / ".git/hooks").write_text("a file")
    said = ensure(plain)
    assert len(said) == len(hooks.HOOKS)
    assert all("cannot write the hook" in line for line in said)


# What they do


def test_a_foreign_pre_push_gets_arguments_and_stdin_first(repo: Repo) -> None:
    remote = bare(repo)
    repo.theta("uninstall", "--local")
    add_hook(repo, "pre-push")
    repo.theta("install", "--local")
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("push", "-q", "origin", "main")
    log = (repo.path / "log").read_text()
    head = repo.git("rev-parse", "HEAD").strip()
    assert log == f"foreign: origin\nrefs/heads/main {head} refs/heads/main {'0' * 40}\n"
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))


def test_a_foreign_pre_push_that_refuses_stops_everything(repo: Repo) -> None:
    remote = bare(repo)
    add_hook(repo, "pre-push.theta-chained", b"#!/bin/sh\nexit 3\n")
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("push", "-q", "origin", "main", ok=(1,))
    # From config Git runs ours before the hook's file, so that objects are there already.
    if not hooks.runs_from_config(Repository.discover(repo.path), "pre-push"):
        assert not (remote / "lfs").exists()
    assert repo.git("ls-remote", str(remote)) == ""


def test_git_lfs_and_its_hooks_go_on_working(repo: Repo) -> None:
    remote = bare(repo)
    repo.git("lfs", "install", "--local", "--force")
    ensure(repo)
    repo.git("lfs", "install", "--local", "--force")
    changes = ensure(repo)
    assert changes
    assert not list((repo.path / ".git/hooks").glob("*.theta-replaced-*"))
    assert both_kinds_arrive(repo, remote)


def test_git_lfs_runs_even_where_it_found_our_hook_first(repo: Repo) -> None:
    remote = bare(repo)
    repo.git("config", "filter.lfs.process", "git-lfs filter-process")
    repo.git("config", "filter.lfs.required", "true")
    assert both_kinds_arrive(repo, remote)


def both_kinds_arrive(repo: Repo, remote: Path) -> bool:
    """Push a checkpoint and a file of git-lfs; whether both are at the remote."""
    repo.git("lfs", "track", "*.png")
    image = repo.write("image.png", os.urandom(5000))
    repo.write(NAME, safetensors(model()))
    repo.commit()
    assert repo.blob("HEAD:image.png").startswith(b"version https://git-lfs")
    # git-lfs takes no bare path for a URL of its own.
    repo.git("remote", "set-url", "origin", remote.as_uri())
    repo.git("push", "-q", "origin", "main")
    held = {path.read_bytes() for path in (remote / "lfs/objects").glob("??/??/*")}
    return image.read_bytes() in held and are_at(remote, objects_of(repo, f"HEAD:{NAME}"))


def test_odd_paths(new_repo: NewRepo, tmp_path: Path) -> None:
    repo = new_repo('it\'s a "quoted" $HOME repo')
    remote = bare(repo, "re mote's.git")
    python = tmp_path / 'py\'s "dir" $x' / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    repo.write(NAME, safetensors(model()))
    repo.commit()
    ensure(repo, str(python))
    repo.git("push", "-q", "origin", "main")
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))


def test_a_python_that_is_gone_stops_a_push_and_warns_elsewhere(repo: Repo) -> None:
    remote = bare(repo)
    repo.write(NAME, safetensors(model()))
    repo.commit()
    ensure(repo, "/gone/python")
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert "/gone/python is gone" in said
    assert "git theta install" in said
    assert "git theta uninstall" in said
    assert repo.git("ls-remote", str(remote)) == ""
    warned = repo.run("git", "checkout", "-b", "other").stderr.decode()
    assert "warning" in warned
    repo.git("checkout", "-q", "main")
    install = only(said, "git theta install")
    assert install in warned
    do(repo, install)
    repo.git("push", "-q", "origin", "main")
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    assert "warning" not in repo.run("git", "checkout", "-b", "third").stderr.decode()


def test_no_code_of_the_work_tree_runs(repo: Repo) -> None:
    bare(repo)
    for name in ("git_theta_ext", "json", "argparse"):
        repo.write(f"{name}.py", b"open('ran', 'w').close()\n")
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("push", "-q", "origin", "main")
    repo.git("checkout", "-q", "-b", "other")
    assert not (repo.path / "ran").exists()


def test_every_version_is_pushed_and_cloned(repo: Repo, tmp_path: Path) -> None:
    remote = bare(repo)
    contents = history(repo)
    repo.git("push", "-q", "origin", "main")
    repo.git(
        "clone", "-q", str(remote), str(tmp_path / "clone"), env={"GIT_THETA_SKIP_SMUDGE": "1"}
    )
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    for back, content in enumerate(reversed(contents)):
        clone.git("checkout", "-q", "-f", f"origin/main~{back}")
        clone.theta("pull")
        assert (clone.path / NAME).read_bytes() == content
        assert clone.status() == ""


def test_kinds_of_refs(repo: Repo) -> None:
    remote = bare(repo)
    history(repo)
    repo.git("tag", "-a", "-m", "tag", "v1", "HEAD~1")
    repo.git("push", "-q", "origin", "v1")
    assert are_at(remote, objects_of(repo, f"HEAD~1:{NAME}"))
    assert not are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    blob = repo.git("rev-parse", f"HEAD:{NAME}").strip()
    repo.git("push", "-q", "origin", f"{blob}:refs/tags/blob")
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    repo.git("push", "-q", "origin", "HEAD~2:refs/heads/old", "main", ":refs/tags/v1")
    repo.git("push", "-q", "origin", "--delete", "old")
    refs = repo.git("ls-remote", str(remote))
    assert "refs/heads/main" in refs
    assert "refs/tags/v1" not in refs


def test_force_pushes_and_remote_ids_unknown_here(repo: Repo, tmp_path: Path) -> None:
    remote = bare(repo)
    history(repo, 1)
    repo.git("push", "-q", "origin", "main")
    repo.git("clone", "-q", "--no-checkout", str(remote), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.git("commit", "-q", "--allow-empty", "-m", "elsewhere")
    clone.git("push", "-q", "--no-verify", "origin", "HEAD:main")
    history(repo, 2, start=1)
    repo.git("commit", "-q", "--amend", "-m", "rewritten")
    repo.git("push", "-q", "--force", "origin", "main")
    for revision in ("HEAD", "HEAD~1"):
        assert are_at(remote, objects_of(repo, f"{revision}:{NAME}"))


def test_a_remote_made_anew_gets_everything(repo: Repo) -> None:
    remote = bare(repo)
    history(repo)
    repo.git("push", "-q", "origin", "main")
    shutil.rmtree(remote)
    repo.git("init", "-q", "--bare", str(remote))
    repo.git("push", "-q", "origin", "main")
    for back in range(3):
        assert are_at(remote, objects_of(repo, f"HEAD~{back}:{NAME}"))


def test_a_fresh_clone_pushes_only_what_is_new(repo: Repo, tmp_path: Path) -> None:
    remote = bare(repo)
    history(repo)
    repo.git("push", "-q", "origin", "main")
    repo.git("clone", "-q", "--no-checkout", str(remote), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    before = len(list((clone.path / ".git/theta/objects").glob("??/??/*")))
    clone.git("commit", "-q", "--allow-empty", "-m", "mine")
    clone.git("push", "-q", "origin", "HEAD:refs/heads/topic")
    assert len(list((clone.path / ".git/theta/objects").glob("??/??/*"))) == before


def test_a_missing_object_stops_the_push(repo: Repo) -> None:
    remote = bare(repo)
    history(repo, 1)
    refs = objects_of(repo, f"HEAD:{NAME}")
    store = store_of(Repository.discover(repo.path))
    store.path(refs[0].oid).unlink()
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert refs[0].oid in said
    assert "no ref has moved" in said
    assert repo.git("ls-remote", str(remote)) == ""


def test_a_damaged_object_stops_the_push(repo: Repo) -> None:
    remote = bare(repo)
    history(repo, 1)
    refs = objects_of(repo, f"HEAD:{NAME}")
    damage(store_of(Repository.discover(repo.path)).path(refs[-1].oid))
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert "is damaged" in said
    assert repo.git("ls-remote", str(remote)) == ""


def test_without_the_hook_objects_stay_behind(repo: Repo) -> None:
    """The negative control: it is the hook that sends them."""
    remote = bare(repo)
    history(repo, 1)
    repo.git("push", "-q", "--no-verify", "origin", "main")
    assert not (remote / "lfs").exists()


def test_a_push_over_http_and_a_second_one(repo: Repo, server: LfsServer) -> None:
    bare(repo)
    repo.git("config", "lfs.url", server.url)
    history(repo, 2)
    repo.git("push", "-q", "origin", "main")
    wanted = {ref.oid for back in (0, 1) for ref in objects_of(repo, f"HEAD~{back}:{NAME}")}
    assert set(server.objects) == wanted
    asked = len(server.requests)
    repo.git("push", "-q", "origin", "main:again")
    repo.git("push", "-q", "origin", "main")
    assert len(server.requests) == asked


def test_a_server_that_refuses_stops_the_push(repo: Repo, server: LfsServer) -> None:
    remote = bare(repo)
    repo.git("config", "lfs.url", server.url)
    repo.git("config", "lfs.transfer.maxretries", "1")
    server.refuse_uploads = 403
    history(repo, 1)
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert "git lfs push to origin failed" in said
    assert repo.git("ls-remote", str(remote)) == ""


def test_raw_checkpoints_are_told(repo: Repo) -> None:
    bare(repo)
    data = safetensors(model())
    blob = repo.run("git", "hash-object", "-w", "--no-filters", "--stdin", stdin=data)
    oid = blob.stdout.decode().strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{NAME}")
    repo.git("commit", "-q", "-m", "raw")
    said = repo.run("git", "push", "origin", "main").stderr.decode()
    assert "1 tracked file committed as a plain blob" in said


def test_a_blob_that_only_looks_like_a_manifest_does_not_stop_a_push(repo: Repo) -> None:
    bare(repo)
    repo.write("notes.txt", b"git-theta manifest v1\nand then something else\n")
    repo.commit()
    said = repo.run("git", "push", "origin", "main").stderr.decode()
    assert "warning: blob" in said


def test_an_octopus_merge_leaves_checkpoints(repo: Repo) -> None:
    repo.write("readme", b"x")
    repo.commit("base")
    contents = {}
    for number in range(3):
        repo.git("checkout", "-q", "-b", f"side{number}", "main")
        rng = np.random.default_rng(number)
        contents[f"{number}.safetensors"] = safetensors({"w": rng.normal(size=(64, 64))})
        repo.write(f"{number}.safetensors", contents[f"{number}.safetensors"])
        repo.commit(f"side {number}")
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "-m", "octopus", "side0", "side1", "side2")
    for name, content in contents.items():
        assert (repo.path / name).read_bytes() == content
    assert repo.status() == ""


def test_manifests_that_a_hook_could_not_replace(repo: Repo) -> None:
    contents = history(repo, 1)
    (repo.path / NAME).unlink()
    repo.git("checkout", "--", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    objects = repo.path / ".git/theta/objects"
    objects.rename(repo.path / ".git/theta/elsewhere")
    said = repo.run("git", "checkout", "-b", "other", ok=(0, 1)).stderr.decode()
    assert "Manifests were left" in said
    shutil.rmtree(objects, ignore_errors=True)
    (repo.path / ".git/theta/elsewhere").rename(objects)
    do(repo, only(said, "git theta pull"))
    assert (repo.path / NAME).read_bytes() == contents[-1]
    assert repo.status() == ""


@pytest.mark.parametrize("how", ["environment", "setting"])
def test_skip_smudge_holds_in_the_hooks(repo: Repo, how: str) -> None:
    history(repo, 1)
    if how == "setting":
        repo.git("config", "theta.skipSmudge", "true")
    env = {"GIT_THETA_SKIP_SMUDGE": "1"} if how == "environment" else {}
    (repo.path / NAME).unlink()
    repo.git("checkout", "--", NAME, env=env)
    repo.git("checkout", "-q", "-b", "other", env=env)
    assert (repo.path / NAME).read_bytes().startswith(b"git-theta manifest v2\n")
    repo.git("config", "theta.skipSmudge", "false")
    repo.git("checkout", "-q", "main")
    assert not (repo.path / NAME).read_bytes().startswith(b"git-theta")
    assert repo.status() == ""


# git theta fetch, push, pull


def test_the_commands(repo: Repo, tmp_path: Path) -> None:
    remote = bare(repo)
    contents = history(repo)
    assert "Would send" in repo.theta("push", "--dry-run")
    assert not (remote / "lfs").exists()
    assert "Sent" in repo.theta("push", "origin", "HEAD~1")
    assert not are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    assert '"sent"' in repo.theta("push", "--all", "--json")
    assert "has all" in repo.theta("push", "--no-cache")
    repo.git("push", "-q", "--no-verify", "origin", "main")

    repo.git("clone", "-q", "--no-checkout", str(remote), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main", env={"GIT_THETA_SKIP_SMUDGE": "1"})
    store = store_of(Repository.discover(clone.path))
    assert list(store.oids()) == []
    clone.theta("fetch")
    assert all(store.has(ref.oid) for ref in objects_of(repo, f"HEAD:{NAME}"))
    clone.theta("fetch", "origin", "HEAD~2")
    assert all(store.has(ref.oid) for ref in objects_of(repo, f"HEAD~2:{NAME}"))
    clone.theta("fetch", "--all", "--json")
    assert all(store.has(ref.oid) for ref in objects_of(repo, f"HEAD~1:{NAME}"))
    assert "are here" in clone.theta("fetch", "--all")
    assert f"Wrote {NAME}" in clone.theta("pull", "origin", NAME)
    assert (clone.path / NAME).read_bytes() == contents[-1]
    assert clone.status() == ""
    assert "in the work tree" in clone.theta("pull")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["fetch", "nothing"], "neither a remote nor a revision"),
        (["push", "nothing"], "neither a remote nor a revision"),
        (["push"], "no remote"),
        (["fetch", "--all", "HEAD"], "leave out REV"),
        (["pull", "readme"], "no tracked checkpoint"),
    ],
)
def test_wrong_usage(repo: Repo, command: list[str], complaint: str) -> None:
    done = repo.run(sys.executable, "-m", "git_theta_ext.cli.main", *command, ok=(2,))
    assert complaint in done.stderr.decode()
