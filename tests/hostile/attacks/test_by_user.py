"""Another user of the machine.

What another user can do here is what the system lets them do: write to a store that is shared
(`theta.storage`), to folders that were made too open, to `/tmp`. Files that are "another user's"
belong to nobody where the tests run as root; elsewhere they have a second name, which shows it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.fsck import Progress
from git_theta_ext.core.errors import StoreError
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.branches.consent import Allowed, Consent
from git_theta_ext.objects.store.locks import Lock
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.merges import branches, st
from tests.scenarios.repositories import Repo
from tests.servers.lfs import lfs_server

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files have no owner in that sense")

NAME = "model.safetensors"
THETA = (sys.executable, "-m", "git_theta_ext.cli.main")
NOBODY = 65534
# As long as files are whose answers are remembered.
FILLER = np.zeros(1 << 18, np.float32)
DATA = safetensors({**model(1), "filler": FILLER})
EVIL = safetensors({**model(2), "filler": FILLER})


def by_another(path: Path) -> None:
    """Make a file another user's, or one that shows that it is."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        os.link(path, path.with_name(f"{path.name}.theirs"))


@pytest.fixture
def shared(repo: Repo) -> Iterator[Path]:
    """A store that everybody may write to."""
    folder = repo.path.parent / "shared"
    before = os.umask(0)
    folder.mkdir()
    repo.git("config", "theta.storage", str(folder))
    yield folder
    os.umask(before)


def add_again(repo: Repo, moment: int = 1_700_000_000) -> bytes:
    """Have the file cleaned once more; the manifest that is then staged."""
    os.utime(repo.path / NAME, (moment, moment))
    repo.git("add", "--renormalize", NAME)
    return repo.blob(f":{NAME}")


def checked_out(repo: Repo) -> bytes:
    (repo.path / NAME).unlink()
    repo.git("checkout", "-q", "-f", "--", NAME)
    return (repo.path / NAME).read_bytes()


def answers(folder: Path) -> list[Path]:
    """The files of the memory that hold a manifest."""
    return [one for one in (folder / "memo").iterdir() if b"git-theta" in one.read_bytes()[:60]]


def evil_answer(repo: Repo, folder: Path) -> bytes:
    """What the memory keeps for another file, without what binds it to that."""
    repo.write(NAME, EVIL)
    repo.git("add", NAME)
    evil = repo.blob(f":{NAME}")
    return next(one for one in answers(folder) if evil in one.read_bytes()).read_bytes()


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", ["rewritten", "renamed"])
def test_memory(repo: Repo, shared: Path, how: str) -> None:
    """An answer planted in the memory of a shared store, so that another model is committed"""
    evil = evil_answer(repo, shared)
    theirs = {one.name for one in answers(shared)}
    repo.write(NAME, DATA)
    repo.git("add", NAME)
    honest = repo.blob(f":{NAME}")
    mine = [one for one in answers(shared) if one.name not in theirs]
    assert mine
    for path in mine:
        path.unlink()
        content = evil[32:]
        digest = hashlib.sha256(path.name.encode() + content).digest()
        path.write_bytes((digest if how == "rewritten" else evil[:32]) + content)
        if how == "rewritten":
            by_another(path)
    assert add_again(repo) == honest
    assert checked_out(repo) == DATA


def test_memory_of_pipes(repo: Repo, shared: Path) -> None:
    """Pipes in the place of answers, so that every git add waits for ever"""
    repo.write(NAME, DATA)
    repo.git("add", NAME)
    for path in (shared / "memo").iterdir():
        path.unlink()
        os.mkfifo(path)
    honest = repo.blob(f":{NAME}")
    done = repo.run("timeout", "60", "git", "add", "--renormalize", ".")
    assert done.returncode == 0
    assert add_again(repo) == honest


def test_record_of_what_was_hashed(repo: Repo) -> None:
    """Planted objects, and a record that says that they were hashed and right"""
    repo.write(NAME, DATA)
    repo.commit("one")
    record = repo.path / ".git/theta/verified"
    lines = []
    for path in (repo.path / ".git/theta/objects").glob("??/??/*"):
        size = path.stat().st_size
        path.unlink()
        path.write_bytes(bytes(size))
        one = path.stat()
        lines.append(
            f"{path.name} {one.st_dev} {one.st_ino} {size} {one.st_mtime_ns} {one.st_ctime_ns}\n"
        )
    record.unlink()
    record.write_text("".join(lines))
    by_another(record)
    os.utime(repo.path / NAME, (1_700_000_000, 1_700_000_000))
    done = repo.run("git", "add", "--renormalize", NAME)
    assert b"was damaged" in done.stderr
    assert checked_out(repo) == DATA


def test_swapped_object(repo: Repo, shared: Path) -> None:
    """An object of a shared store swapped after it was hashed, its size and time as before"""
    repo.write(NAME, DATA)
    repo.commit("one")
    add_again(repo)
    for path in shared.glob("objects/??/??/*"):
        before = path.stat()
        path.chmod(0o644)
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(repo.path / NAME, (1_700_000_001, 1_700_000_001))
    assert b"was damaged" in repo.run("git", "add", "--renormalize", NAME).stderr
    assert checked_out(repo) == DATA


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link", "device", "terabyte"])
def test_no_object(repo: Repo, shared: Path, kind: str) -> None:
    """Pipes, folders, devices, links to nothing and sparse terabytes in the place of objects"""
    repo.write(NAME, DATA)
    repo.commit("one")
    for path in shared.glob("objects/??/??/*"):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "terabyte":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        else:
            path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    for words in (["fsck"], ["fetch"], ["show", NAME], ["cat", f"HEAD:{NAME}", "head.weight"]):
        done = repo.run("timeout", "60", *THETA, *words, ok=tuple(range(130)))
        assert done.returncode not in (0, 124) or words[0] == "show", done
    (repo.path / NAME).unlink()
    done = repo.run("timeout", "60", "git", "checkout", "-f", "--", NAME, ok=(1, 128))
    assert not (repo.path / NAME).exists()
    repo.write(NAME, EVIL)
    repo.run("timeout", "60", "git", "add", NAME, ok=(0, 128))
    repo.git("update-index", "--force-remove", NAME)
    repo.git("commit", "-q", "-m", "gone")
    repo.write(NAME, DATA)
    repo.run("timeout", "60", "git", "add", NAME)
    assert checked_out(repo) == DATA


def test_linked_lock(repo: Repo, shared: Path) -> None:
    """The lock of a shared store as a link, so that an empty file is made where it leads to"""
    victim = repo.path.parent / "authorized_keys"
    (shared / "lock").symlink_to(victim)
    repo.write(NAME, DATA)
    repo.git("add", NAME)
    repo.run(*THETA, "prune", ok=tuple(range(130)))
    assert not victim.exists()
    assert checked_out(repo) == DATA


def test_lock_that_is_a_pipe(tmp_path: Path) -> None:
    """A pipe in the place of a lock, so that whoever takes it waits for ever"""
    os.mkfifo(tmp_path / "lock")
    try:
        Lock(tmp_path / "lock", alone=True, timeout=1).release()
    except OSError:
        assert stat.S_ISFIFO((tmp_path / "lock").lstat().st_mode)


@pytest.mark.sample(2)
@pytest.mark.parametrize("which", ["tmp", "objects/??", "objects/??/??"])
def test_linked_folders_of_the_store(repo: Repo, shared: Path, which: str) -> None:
    """Links in the place of a shared store's folders, so that files are made elsewhere"""
    outside = repo.path.parent / "outside"
    outside.mkdir()
    repo.write(NAME, DATA)
    repo.git("add", NAME)
    for folder in list(shared.glob(which)):
        folder.rename(repo.path.parent / f"aside-{folder.name}-{folder.parent.name}")
        folder.symlink_to(outside)
    shutil.rmtree(shared / "memo", ignore_errors=True)
    if which == "tmp":
        shutil.rmtree(shared / "objects")
    repo.git("rm", "-q", "--cached", NAME)
    done = repo.run("git", "add", NAME, ok=(0, 1, 128))
    assert not list(outside.iterdir())
    assert done.returncode != 0
    assert b"is a link" in done.stderr


def test_settings_of_git_lfs(repo: Repo, shared: Path, tmp_path: Path) -> None:
    """A folder swapped while git-lfs runs, whose settings would have it run commands"""
    seen, tools = tmp_path / "seen", tmp_path / "tools"
    tools.mkdir()
    (tools / "git-lfs").write_text(
        f'#!/bin/sh\necho "$GIT_DIR\n$GIT_WORK_TREE" >>"{seen}"\nexit 1\n'
    )
    (tools / "git-lfs").chmod(0o755)
    repo.write(NAME, DATA)
    repo.commit("one")
    with lfs_server() as server:
        repo.git("config", "remote.origin.url", server.url)
        repo.git("config", "lfs.url", server.url)
        env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        repo.run(*THETA, "push", "origin", ok=tuple(range(130)), env=env)
        for path in shared.glob("objects/??/??/*"):
            path.unlink()
        repo.run(*THETA, "fetch", ok=tuple(range(130)), env=env)
    places = {Path(line) for line in seen.read_text().split("\n") if line}
    assert len(places) >= 2
    assert not [one for one in places if one.is_relative_to(shared)]


def test_open_modes(repo: Repo, sealed: Path) -> None:
    """A umask of 0: what is believed later must not be writable for others"""
    (repo.path / ".git/theta/objects").mkdir(parents=True)  # the store's top is nobody else's
    before = os.umask(0)
    try:
        branches(repo, *(st({"w": np.full(300_000, value, np.float32)}) for value in (0, 2, 4)))
        text = '[merge]\nevaluate = "true {checkpoint}"\n'
        repo.write(".theta.toml", text.encode())
        repo.theta("allow")
        repo.theta("fsck")
        os.utime(repo.path / "model.safetensors", (1_700_000_000, 1_700_000_000))
        repo.git("add", "--renormalize", ".")
    finally:
        os.umask(before)
    config = sealed / ".config/git-theta"
    found = [config, *config.rglob("*"), repo.path / ".git/theta/verified"]
    found += (repo.path / ".git/theta/memo").iterdir()
    assert len(found) >= 5
    assert not [one for one in found if one.stat().st_mode & 0o022]


def command_of(repo: Repo) -> Allowed:
    return Allowed(os.fspath((repo.path / ".git").resolve()), "touch ran {checkpoint}")


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", ["file", "link", "pipe", "folder of others", "open folder"])
def test_planted_consent(repo: Repo, sealed: Path, how: str) -> None:
    """A consent that the user did not give: planted, or brought by the clone and linked to"""
    branches(repo, *(st({"w": np.full(300, value, np.float32)}) for value in (0, 2, 4)))
    wanted = command_of(repo)
    repo.write(".theta.toml", f"[merge]\nevaluate = {json.dumps(wanted.command)}\n".encode())
    row = json.dumps({"repository": wanted.repository, "command": wanted.command})
    brought = repo.write("consent.json", row.encode())
    repo.commit("hostile")
    allowed = sealed / ".config/git-theta/allowed"
    allowed.mkdir(parents=True, mode=0o700)
    allowed.parent.chmod(0o700)
    path = allowed / wanted.name
    if how == "pipe":
        os.mkfifo(path)
    elif how == "file":
        path.write_text(row)
        by_another(path)
    elif how == "open folder":
        path.write_text(row)
        path.chmod(0o600)
        allowed.parent.chmod(0o777)
    else:
        path.symlink_to(brought)
    if how == "folder of others":
        os.chown(allowed, NOBODY, NOBODY) if os.geteuid() == 0 else allowed.chmod(0o777)
    done = repo.run("timeout", "60", *THETA, "merge", "side", "--tune", ok=(2,))
    assert b"git theta allow" in done.stderr
    assert not (repo.path / "ran").exists()
    assert repo.theta("allow", "--list") == "Nothing is allowed.\n"


def test_consent_in_an_open_folder(tmp_path: Path) -> None:
    """A folder for consent that others can write to: nothing is allowed there, which is said"""
    for mode in (0o777, 0o775):
        top = tmp_path / str(mode)
        (top / "git-theta").mkdir(parents=True)
        (top / "git-theta").chmod(mode)
        consent, wanted = Consent(top / "git-theta/allowed"), Allowed("/x/.git", "true")
        with pytest.raises(Exception, match="others can write"):
            consent.give(wanted)
        assert not consent.given(wanted)


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", ["planted", "linked", "second name"])
def test_progress_of_a_check(repo: Repo, shared: Path, how: str) -> None:
    """A record of an interrupted check that passes damage over, or leads to a file to empty"""
    repo.write(NAME, DATA)
    repo.commit("one")
    victim = repo.path.parent / "victim"
    victim.write_text("precious")
    checked = shared / "fsck/checked"
    checked.parent.mkdir(exist_ok=True)
    if how == "planted":
        checked.write_text(f"{'0' * 64}\n")
        by_another(checked)
        with pytest.raises(StoreError, match="another user's"):
            Progress(shared, resume=True)
    elif how == "linked":
        checked.symlink_to(victim)
    else:
        os.link(victim, checked)
    for path in shared.glob("objects/??/??/*"):
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    for words in (["fsck", "--resume"], ["fsck"]):
        assert repo.run(*THETA, *words, ok=tuple(range(130))).returncode != 0
        assert victim.read_text() == "precious"


def test_borrowed_objects(repo: Repo) -> None:
    """A repository to borrow objects from (git clone --shared) that holds planted ones"""
    repo.write(NAME, DATA)
    repo.commit("one")
    repo.git("clone", "-q", "--shared", "--no-checkout", ".", "../clone")
    for path in (repo.path / ".git/theta/objects").glob("??/??/*"):
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    clone = Repo(repo.path.parent / "clone")
    clone.theta("install", "--local")
    assert clone.run("git", "checkout", "-f", "main", ok=(0, 1, 128)).returncode != 0
    assert not (clone.path / NAME).exists()
    second = safetensors({name: changed(value) for name, value in model(1).items()})
    clone.git("reset", "-q")
    clone.write(NAME, second)
    clone.git("add", NAME)
    clone.git("commit", "-q", "-m", "two")
    assert checked_out(clone) == second


@pytest.mark.sample(2)
@pytest.mark.parametrize("words", [["status"], ["ls-files"], ["diff"], ["show", NAME], ["pull"]])
def test_repository_of_another_user(repo: Repo, words: list[str]) -> None:
    """A repository that is another user's, whose configuration would count"""
    mark = repo.path.parent / "ran"
    repo.write(NAME, DATA)
    repo.commit("one")
    repo.git("config", "core.fsmonitor", f"touch {mark}; false")
    env = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    done = repo.run(*THETA, *words, ok=tuple(range(130)), env=env)
    assert done.returncode != 0
    assert b"dubious ownership" in done.stderr
    assert not mark.exists()


def test_repository_of_another_user_in_python(repo: Repo) -> None:
    """The same through the Python interface, which has a quicker way to a repository"""
    repo.write(NAME, DATA)
    repo.commit("one")
    program = f"import git_theta_ext as g; print(len(g.open('HEAD:{NAME}')))"
    env = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    if os.geteuid() == 0:
        for path in (repo.path, *repo.path.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        env = {}
    done = repo.run(sys.executable, "-c", program, ok=(1,), env=env)
    assert b"dubious ownership" in done.stderr
    assert Repository.__name__.encode() in done.stderr


@pytest.mark.sample(2)
@pytest.mark.parametrize("which", ["first", "all"])
def test_chunks_of_an_opaque_file(repo: Repo, shared: Path, which: str) -> None:
    """Planted chunks of a file that is kept as opaque bytes, before a new version is added"""
    random = np.random.default_rng(5)
    data = bytearray(random.bytes(6 << 20))
    repo.write("model.bin", bytes(data))
    repo.commit("one")
    assert b"format opaque" in repo.blob("HEAD:model.bin")
    objects = sorted(shared.glob("objects/??/??/*"), key=lambda one: one.stat().st_size)
    for path in objects if which == "all" else objects[-1:]:
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    data[-1] ^= 1
    repo.write("model.bin", bytes(data))
    repo.git("add", "model.bin")
    (repo.path / "model.bin").unlink()
    repo.git("checkout", "-q", "--", "model.bin")
    assert (repo.path / "model.bin").read_bytes() == data


def test_damaged_predecessor(repo: Repo, shared: Path) -> None:
    """Every object of a shared store planted, so that nobody can add the next version"""
    repo.write(NAME, DATA)
    repo.commit("one")
    for path in shared.glob("objects/??/??/*"):
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    second = safetensors({name: changed(value) for name, value in model(1).items()})
    repo.write(NAME, second)
    assert b"was damaged" in repo.run("git", "add", NAME).stderr
    assert checked_out(repo) == second
