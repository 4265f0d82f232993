"""What is advised where objects, manifests or remotes are not as they should be."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from git_theta_ext.core.errors import MissingObjectError, ThetaError, TransferError, UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, transport
from tests.scenarios.advised import advised, clone, do, only, take
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.diverged import BASE, OURS
from tests.scenarios.merges import st
from tests.scenarios.objects import damage
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"


@pytest.fixture
def pushed(repo: Repo, tmp_path: Path) -> Repo:
    """Two versions, both pushed to a folder."""
    repo.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    repo.git("remote", "add", "origin", (tmp_path / "origin.git").as_uri())
    for content in (st(BASE), st(BASE, OURS)):
        repo.write(NAME, content)
        repo.commit("version")
    repo.git("push", "-q", "-u", "origin", "main")
    return repo


def largest(repo: Repo, revision: str = "HEAD") -> Path:
    """The file of the largest object of a version."""
    manifest = parse_manifest(repo.blob(f"{revision}:{NAME}"))
    ref = max(manifest.objects(), key=lambda ref: ref.size)
    return store_of(Repository.discover(repo.path)).path(ref.oid)


def test_status_of_missing_objects(pushed: Repo) -> None:
    largest(pushed).unlink()
    do(pushed, take(pushed, "git", "theta", "status", has="fetch"))
    assert largest(pushed).exists()
    assert "missing" not in pushed.theta("status")


@pytest.mark.parametrize("kind", ["damaged", "missing"])
def test_fsck(pushed: Repo, kind: str) -> None:
    damage(largest(pushed)) if kind == "damaged" else largest(pushed).unlink()
    before = largest(pushed)
    do(pushed, take(pushed, "git", "theta", "fsck", has="--repair"))
    assert hashlib.sha256(before.read_bytes()).hexdigest() == before.name
    assert "0 problems" in pushed.theta("fsck")


def test_reading_what_is_not_here(pushed: Repo) -> None:
    path = largest(pushed)
    path.unlink()
    store = store_of(Repository.discover(pushed.path))
    with pytest.raises(MissingObjectError) as raised:
        store.read(path.name)
    hint = str(raised.value.hint)
    pushed.run("sh", "-c", "git theta fsck", ok=(6,))
    assert "git theta fsck" in hint
    do(pushed, only(hint, "fetch"))
    assert store.read(path.name)


@pytest.mark.parametrize("how", ["verify", "push"])
def test_an_object_that_is_damaged(pushed: Repo, how: str, tmp_path: Path) -> None:
    path = largest(pushed)
    damage(path)
    repository = Repository.discover(pushed.path)
    store = store_of(repository)
    pushed.git("init", "-q", "--bare", str(tmp_path / "other.git"))
    pushed.git("remote", "add", "other", str(tmp_path / "other.git"))
    refs = reachable.objects_in(repository, [repository.resolve("HEAD") or ""])

    def use() -> None:
        if how == "verify":
            store.verify(path.name)
        else:
            transport.push(repository, "other", str(tmp_path / "other.git"), refs.values())

    with pytest.raises(ThetaError) as raised:
        use()
    assert "remove that file" in str(raised.value.hint)
    assert str(path) in raised.value.message
    path.unlink()
    do(pushed, only(str(raised.value.hint)))
    store.verify(path.name)


def test_building_on_a_damaged_object(pushed: Repo) -> None:
    repository = Repository.discover(pushed.path)
    manifest = parse_manifest(pushed.blob(f"HEAD:{NAME}"))
    blocks = Blocks.open(repository)
    block = max((e.blocks[0] for e in manifest.entries), key=lambda block: block.nbytes)
    damage(store_of(repository).path(block.chain[-1].oid))
    with pytest.raises(ThetaError) as raised:
        blocks.append(None, "0" * 64, block.chain, None)  # type: ignore[arg-type]
    do(pushed, only(str(raised.value.hint)))
    assert blocks.sound(block.chain)


def test_what_no_remote_has(pushed: Repo, tmp_path: Path) -> None:
    other = clone(pushed, tmp_path / "clone")
    other.git("remote", "set-url", "origin", (tmp_path / "origin.git").as_uri())
    other.theta("install", "--local")
    shutil.rmtree(tmp_path / "origin.git/lfs")
    said = other.run("git", "theta", "fetch", ok=(6,)).stderr.decode()
    line = next(line for line in said.splitlines() if "git theta push REMOTE --all" in line)
    there, here = re.findall(r"git theta (?:push|fetch) REMOTE(?: --all)?", line)
    do(pushed, there, REMOTE="origin")
    do(other, here, REMOTE="origin")
    other.git("checkout", "-q", "-f", "main")
    assert (other.path / NAME).read_bytes() == st(BASE, OURS)


def test_a_remote_that_is_not_mounted(pushed: Repo, tmp_path: Path) -> None:
    largest(pushed).unlink()
    (tmp_path / "origin.git").rename(tmp_path / "away.git")
    said = pushed.run("git", "theta", "fetch", ok=(6, 9)).stderr.decode()
    assert "put right what it says, then type: git theta fetch" in said
    with pytest.raises(TransferError) as raised:
        endpoints.common_dir_of(tmp_path / "origin.git")
    assert "origin.git" in do(pushed, only(str(raised.value.hint)))
    (tmp_path / "away.git").rename(tmp_path / "origin.git")
    do(pushed, next(one for one in advised(said) if one == "git theta fetch"))
    assert largest(pushed).exists()


@pytest.fixture
def manifests(pushed: Repo, tmp_path: Path) -> Repo:
    """A clone whose work tree holds manifests, made before anything was set up."""
    pushed.git("clone", "-q", (tmp_path / "origin.git").as_uri(), str(tmp_path / "clone"))
    return Repo(tmp_path / "clone")


@pytest.mark.parametrize("who", ["install", "status", "skip", "add"])
def test_manifests_in_the_work_tree(manifests: Repo, who: str) -> None:
    if who == "install":
        said = manifests.theta("install", "--local")
    else:
        manifests.theta("install", "--local", *(["--skip-smudge"] if who == "skip" else []))
        verb = ["theta", "status"] if who != "add" else ["add", "--renormalize", NAME]
        done = manifests.run("git", *verb)
        said = (done.stdout + done.stderr).decode()
    commands = {one for one in advised(said) if "theta pull" in one}
    assert len(commands) == 1, said
    do(manifests, *commands)
    assert (manifests.path / NAME).read_bytes() == st(BASE, OURS)


def test_without_room_the_manifest_is_kept_and_written_later(pushed: Repo) -> None:
    """What a checkout advises where disk or memory are too small (`bounds`)."""
    from git_theta_ext.objects import bounds

    (command,) = [one for one in advised(bounds.SKIP) if "theta pull" in one]
    assert "GIT_THETA_SKIP_SMUDGE=1" in bounds.SKIP
    pushed.git("checkout", "-q", "HEAD~1", env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert (pushed.path / NAME).read_bytes().startswith(b"git-theta ")
    do(pushed, re.sub(" where.*", "", command), FILE=NAME)
    assert (pushed.path / NAME).read_bytes() == st(BASE)


def test_files_that_a_failed_checkout_removed(pushed: Repo, tmp_path: Path) -> None:
    mine = pushed.write("notes.txt", b"mine")
    pushed.commit("notes")
    mine.write_bytes(b"not committed")
    path = largest(pushed, "HEAD~2")
    kept = path.read_bytes()
    damage(path)
    shutil.rmtree(tmp_path / "origin.git/lfs")
    (pushed.path / NAME).unlink()
    said = pushed.run("git", "checkout", "HEAD~2", "--", NAME, ok=(1, 128)).stderr.decode()
    assert "git status" in said
    path.write_bytes(kept)
    do(pushed, only(said, "git restore"), FILE=NAME)
    assert (pushed.path / NAME).exists()
    assert mine.read_bytes() == b"not committed"


def test_a_clone_whose_checkout_failed(pushed: Repo, tmp_path: Path) -> None:
    (tmp_path / "origin.git/lfs").rename(tmp_path / "lfs")
    pushed.theta("install")
    words = ("git", "clone", "-q", (tmp_path / "origin.git").as_uri(), str(tmp_path / "clone"))
    said = pushed.run(*words, ok=(1, 128)).stderr.decode()
    (tmp_path / "lfs").rename(tmp_path / "origin.git/lfs")
    (command,) = set(re.findall(r"after git clone: (git checkout -f)", said))
    do(Repo(tmp_path / "clone"), command)
    assert (tmp_path / "clone" / NAME).read_bytes() == st(BASE, OURS)


@pytest.mark.parametrize("fault", ["header", "missing", "extra"])
def test_a_version_that_does_not_fit_together(pushed: Repo, fault: str) -> None:
    """As after staging parts of a checkpoint, or editing its manifest."""
    parts = pushed.blob(f"HEAD:{NAME}").split(b"\n\n")
    first = next(at for at, part in enumerate(parts) if part.startswith(b"tensor "))
    if fault == "missing":
        del parts[first]
    elif fault == "extra":
        parts.insert(first, parts[first].replace(b"tensor ", b"tensor a"))
    else:
        parts[first] = parts[first].replace(b"\n  F32 ", b"\n  I32 ")
    text = b"\n\n".join(parts)
    blob = pushed.git("hash-object", "-w", "--no-filters", "--stdin", stdin=text).strip()
    pushed.git("update-index", "--cacheinfo", f"100644,{blob},{NAME}")
    pushed.git("commit", "-q", "-m", "parts")
    (pushed.path / NAME).unlink()
    said = pushed.run("git", "checkout", "--", NAME, ok=(1, 128)).stderr.decode()
    line = next(line for line in said.splitlines() if "git log --oneline" in line)
    listed = do(pushed, re.search("git log .*? FILE", line)[0], FILE=NAME)  # type: ignore[index]
    revision = listed.splitlines()[1].split()[0]
    do(pushed, re.search("git checkout REV -- FILE", line)[0], FILE=NAME, REV=revision)  # type: ignore[index]
    assert (pushed.path / NAME).read_bytes() == st(BASE, OURS)
    if "git add FILE" in line:
        do(pushed, "git add FILE", FILE=NAME)
        assert pushed.blob(f":{NAME}").startswith(b"git-theta ")


def test_prune_of_what_the_remote_lacks(pushed: Repo, tmp_path: Path) -> None:
    from tests.scenarios.objects import grow_old

    pushed.write(NAME, safetensors(model(9)))
    pushed.commit("another")
    pushed.git("push", "-q")
    grow_old(pushed)
    shutil.rmtree(tmp_path / "origin.git/lfs")
    done = pushed.run("git", "theta", "prune", "--keep-days", "0", ok=(0, 1, 2))
    do(pushed, only(done.stderr.decode(), "push"))
    again = pushed.run("git", "theta", "prune", "--keep-days", "0")
    assert "not at origin" not in again.stderr.decode()


def test_prune_of_a_store_that_may_be_shared(pushed: Repo, tmp_path: Path) -> None:
    (pushed.path / ".git/theta").rename(tmp_path / "shared")
    pushed.git("config", "theta.storage", str(tmp_path / "shared"))
    hint = pushed.run("git", "theta", "prune", ok=(2,)).stderr.decode()
    (tmp_path / "shared").rename(pushed.path / ".git/theta")
    assert "moving the store to .git/theta" in hint
    do(pushed, only(hint, "prune"))


def test_prune_beside_a_manifest_that_is_damaged(pushed: Repo) -> None:
    text = pushed.blob(f"HEAD:{NAME}") + b"rubbish\n"
    blob = pushed.git("hash-object", "-w", "--no-filters", "--stdin", stdin=text).strip()
    pushed.git("update-index", "--cacheinfo", f"100644,{blob},{NAME}")
    command = take(pushed, "git", "theta", "prune", has="fsck")
    done = pushed.run("sh", "-c", command, ok=(4,))
    assert blob[:7].encode() in done.stdout or NAME.encode() in done.stdout


def test_a_push_where_there_is_no_remote(repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    repo.write(NAME, st(BASE))
    repo.commit()
    do(repo, take(repo, "git", "theta", "push"), URL=str(tmp_path / "origin.git"))
    repo.theta("push")
    assert list((tmp_path / "origin.git/lfs/objects").glob("??/??/*"))


def test_a_url_that_is_not_used(repo: Repo) -> None:
    repo.git("config", "remote.origin.url", "-oProxyCommand=x")
    with pytest.raises(TransferError) as raised:
        endpoints.for_push(Repository.discover(repo.path), "origin", "-oProxyCommand=x")
    assert "remote.origin.url" in do(repo, only(str(raised.value.hint)))


def test_a_missing_object_without_any_remote(repo: Repo) -> None:
    with pytest.raises(MissingObjectError) as raised:
        transport.fetch(Repository.discover(repo.path), [UpdateRef("dense", "1" * 64, 3)])
    assert "this repository has no remote" in raised.value.message


def test_a_checkpoint_that_is_committed_from_python_must_be_tracked(repo: Repo) -> None:
    import numpy as np

    from git_theta_ext import commit

    arrays = {"w": np.ones(3, np.float32)}
    with pytest.raises(UsageError) as raised:
        commit(arrays, "m.safetensor", message="first", repository=repo.path)
    (command,) = [one for one in advised(str(raised.value.hint)) if "track" in one]
    do(repo, command.split(",")[0], PATTERN="'*.safetensor'")
    repo.commit("Track")
    commit(arrays, "m.safetensor", message="first", repository=repo.path)
    assert repo.blob("HEAD:m.safetensor").startswith(b"git-theta ")
