"""`git theta sync`, `update` and `outdated`: a folder of models as `theta.lock` has it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import git_theta_ext as theta
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.packages.base_file import FILE, BaseRecord, base_text
from git_theta_ext.packages.identity import identity_of, tensors_of
from git_theta_ext.packages.locking import placed
from git_theta_ext.packages.locking.project import Project
from git_theta_ext.packages.locking.sync import Options, sync
from git_theta_ext.packages.locking.update import update
from tests.scenarios.advised import advised, do, take
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.merges import st
from tests.scenarios.repositories import Repo
from tests.scenarios.signatures import keys
from tests.scenarios.warm import PREFIX
from tests.servers.backends import KINDS
from tests.servers.site import site

NAME = "model.safetensors"
BASE = model(width=24)
FIRST, SECOND = next(iter(BASE)), list(BASE)[1]
V1 = st(BASE)
V11 = st(BASE, {FIRST: changed(BASE[FIRST])})
V2 = st(BASE, {SECOND: changed(BASE[SECOND])})


def publish(repo: Repo) -> None:
    """Versions v1.0, v1.1 and a pre-release of 2.0 of a model, with a configuration beside it."""
    repo.write("config.json", b"{}\n")
    for content, tag in ((V1, "v1.0"), (V11, "v1.1"), (V2, "v2.0.0-rc.1")):
        repo.write(NAME, content)
        repo.commit(tag)
        repo.git("tag", tag)


@pytest.fixture
def base(new_repo: Callable[..., Repo]) -> Repo:
    """Somebody's repository with three versions."""
    repo = new_repo("base")
    repo.once(lambda: publish(repo), "publish")
    return repo


@pytest.fixture
def app(sealed: Path, tmp_path: Path) -> Repo:
    """A project that needs models; a repository without this extension."""
    path = tmp_path / "app"
    path.mkdir()
    repo = Repo(path)
    repo.git("init", "-q")
    return repo


def needs(app: Repo, version: str | None = "^1.0", more: str = "", **keys: str) -> None:
    """Write a `models.toml` that asks for the base, and more."""
    rows = {"name": "base", "url": "../base", "into": "models/base"} | keys
    if version is not None:
        rows["version"] = version
    lines = [f'{key} = "{value}"\n' for key, value in rows.items()]
    app.write("models.toml", "".join(["[[model]]\n", *lines, more]).encode())


def fails(repo: Repo, *words: str, code: int = 1) -> str:
    """What `git theta` complains of, where it exits with a code."""
    return repo.run(*PREFIX, *words, ok=(code,)).stderr.decode()


def content(repo: Repo, name: str = f"models/base/{NAME}") -> bytes:
    return (repo.path / name).read_bytes()


def files(repo: Repo, folder: str) -> list[str]:
    top = repo.path / folder
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())


def test_a_folder_is_made_as_locked(base: Repo, app: Repo, tmp_path: Path) -> None:
    needs(app)
    assert "base v1.1: 2 files" in app.theta("sync")
    assert content(app) == V11
    assert files(app, "models/base") == ["config.json", NAME]
    lock = content(app, "theta.lock")
    assert f'commit = "{base.git("rev-parse", "v1.1").strip()}"'.encode() in lock
    # The folder with what was written ignores itself; the models are for .gitignore.
    app.write(".gitignore", b"/models/\n")
    app.commit("what we need", "models.toml", "theta.lock", ".gitignore")
    assert app.status() == ""

    # A colleague gets the same, whatever was published meanwhile, from any folder inside.
    base.write(NAME, V2)
    base.git("tag", "v1.2")
    app.git("clone", "-q", str(app.path), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    needs(clone, url=str(base.path))
    assert "is not as models.toml has it" in fails(clone, "sync", "--locked")
    do(clone, take(clone, "git", "theta", "sync", "--locked", has="sync"))
    clone.git("checkout", "-q", "models.toml", "theta.lock")
    (clone.path / "deep").mkdir()
    inside = Repo(clone.path / "deep")
    inside.theta("sync", "--locked")
    assert content(clone) == V11
    assert content(clone, "theta.lock") == lock

    # What is there needs no remote, and what is in the cache is had without.
    moved = base.path.rename(tmp_path / "gone")
    assert clone.theta("sync") == "1 model: as theta.lock says\n"
    (clone.path / "models/base/config.json").unlink()
    assert "1 of 2 files new" in clone.theta("sync", "--locked", "--offline")
    assert "could not be fetched" in fails(clone, "sync", "--locked", code=9)
    shutil.rmtree(inside.path.parent.parent / "home/.cache")
    (clone.path / "models/base/config.json").unlink()
    assert "is not in the cache" in fails(clone, "sync", "--offline", code=9)
    moved.rename(base.path)
    clone.theta("sync", "-q")
    assert content(clone, "models/base/config.json") == b"{}\n"


def test_what_somebody_changed_is_named_and_kept(base: Repo, app: Repo) -> None:
    app.write("models/base/config.json", b"mine\n")  # before we ever wrote there
    needs(app)
    said = fails(app, "sync")
    assert "models/base/config.json was changed by hand: kept" in said
    assert (content(app, "models/base/config.json"), content(app)) == (b"mine\n", V11)
    assert "changed by hand" in fails(app, "sync", "-q")
    record = json.loads(app.run(*PREFIX, "sync", "--json", ok=(1,)).stdout)
    assert record["kept"] == [{"path": "models/base/config.json", "why": "was changed by hand"}]
    assert not record["as_locked"]
    with pytest.raises(ThetaError, match=r"files were kept:\nmodels/base/config.json was changed"):
        theta.sync(app.path)
    do(app, take(app, "git", "theta", "sync", has="--force"))
    assert theta.sync(app.path, offline=True) == {"base": app.path / "models/base"}
    assert content(app, "models/base/config.json") == b"{}\n"

    # A version without a file, and a model that is not needed: removed where it is as written.
    app.write("models/base/config.json", b"mine again\n")
    base.git("rm", "-q", "config.json")
    base.commit("no configuration")
    base.git("tag", "v1.2")
    said = fails(app, "update")
    assert "config.json is not locked any more, but was changed by hand" in said
    app.write("models/base/config.json", b"{}\n")
    assert app.theta("sync") == "Removed 1 file that theta.lock does not name\n"
    app.write("models/base/own.txt", b"never ours")
    app.write("models.toml", b"")
    app.theta("sync", "-q")
    assert files(app, "models") == ["base/own.txt"]


def test_a_tag_that_was_moved(base: Repo, app: Repo) -> None:
    needs(app, "v1.0")
    app.theta("sync")
    base.git("tag", "-f", "v1.0", "v1.1")
    said = fails(app, "sync", "--locked")
    assert "base: the tag v1.0 was" in said
    assert content(app) == V1
    # Also where nothing of it is in the cache: what is locked is had by its commit.
    shutil.rmtree(app.path.parent / "home/.cache")
    (app.path / "models/base" / NAME).unlink()
    said = app.run(*PREFIX, "sync").stderr.decode()
    assert re.search(r"v1.0 was \w+ when it was locked, and names \w+ now: theta.lock", said)
    assert content(app) == V1
    table = app.run(*PREFIX, "outdated", ok=(1,)).stdout.decode()
    assert len(re.findall(r" v1.0 \(\w{10}\)", table)) == 2
    assert re.match(r"base: v1.0 \(\w{10}\) → v1.0 \(\w{10}\)\n", app.theta("update", "-n"))
    do(app, take(app, "git", "theta", "sync", "--locked", has="update"))
    assert content(app) == V11
    app.theta("sync", "--locked")

    # The locked commit is nowhere any more.
    base.git("checkout", "-q", "--orphan", "new")
    base.write(NAME, V1)
    base.commit("a new beginning")
    base.git("tag", "-f", "v1.0")
    base.git("branch", "-D", "main")
    base.git("tag", "-d", "v1.1", "v2.0.0-rc.1")
    base.git("reflog", "expire", "--expire=now", "--all")
    base.git("gc", "-q", "--prune=now")
    shutil.rmtree(app.path.parent / "home/.cache")
    (app.path / "models/base" / NAME).unlink()
    said = fails(app, "sync")
    assert "the commit that is locked is not there any more" in said
    do(app, next(one for one in advised(said) if "update" in one))
    assert content(app) == V1


def test_update_says_what_changes(base: Repo, app: Repo, tmp_path: Path) -> None:
    needs(app, "==1.0")
    app.theta("sync")
    needs(app)  # what is locked is allowed still, and stays
    app.theta("sync", "-q")
    assert content(app) == V1
    for tag, value in (("v1.0", 0.5), ("v1.1", 0.75)):
        path = tmp_path / f"{tag}.json"
        path.write_text(json.dumps({"rte": {"acc": value}}))
        base.git("checkout", "-q", tag)
        base.theta("evaluate", "--evaluation", "glue", "--import", str(path))

    table = app.run(*PREFIX, "outdated", ok=(1,)).stdout.decode()
    assert re.search(r"^base +v1.0 +v1.1 +v1.1$", table, re.M)
    before = content(app, "theta.lock")
    said = app.theta("update", "--dry-run")
    assert "base: v1.0 → v1.1\n" in said
    assert re.search(rf"  {NAME}  1 of \d+ tensors changed · .* stores ", said)
    assert "    glue/rte/acc 0.5 → 0.75\n" in said
    assert (content(app, "theta.lock"), content(app)) == (before, V1)
    assert said.splitlines() == app.theta("update", "base").splitlines()[:-1]
    assert content(app) == V11
    assert "Nothing to update" in app.theta("update")
    assert json.loads(app.theta("outdated", "--json"))[0]["outdated"] is False
    assert "did you mean base?" in fails(app, "update", "bsae", code=2)


def test_several_entries_of_one_repository(base: Repo, app: Repo) -> None:
    part = f'[[model]]\nname = "part"\nurl = "../base"\nversion = "<1.1"\npath = "{NAME}"\n'
    needs(app, more=f'{part}tensors = ["{FIRST}"]\ninto = "part"\n')
    app.theta("sync")  # v1.0 is what both allow
    assert content(app) == V1
    assert content(app, f"part/{NAME}") == safetensors({FIRST: BASE[FIRST]})
    shutil.rmtree(app.path / "part")
    app.theta("sync", "--offline")
    assert content(app, f"part/{NAME}") == safetensors({FIRST: BASE[FIRST]})

    text = content(app, "models.toml").replace(b"<1.1", b"==1.1")
    app.write("models.toml", text)
    said = fails(app, "sync")
    assert "part and base need different versions of ../base" in said
    assert "base (models.toml, line 1) is locked at v1.0" in said
    do(app, next(one for one in advised(said) if "update" in one))
    assert content(app) == V11
    app.write("models.toml", text.replace(b"^1.0", b"==1.0"))
    said = fails(app, "sync")
    assert "base (models.toml, line 1) asks for ==1.0, which is v1.0" in said
    app.write("models.toml", text.replace(b"^1.0", b"==1.0") + b"alone = true\n")
    app.theta("sync")
    assert content(app) == V1
    assert b'ref = "refs/tags/v1.1"' in content(app, "theta.lock")


def adapter(new_repo: Callable[..., Repo], base: Repo, tag: str) -> Repo:
    """A repository in which an adapter was trained on a locked base."""
    repo = new_repo("adapter")
    needs(repo, f"=={tag}", url="../base", into="base")
    repo.write(".gitignore", b"/base/\n")
    repo.theta("sync", "-q")
    repo.write("adapter_config.json", b"{}\n")
    repo.write("adapter_model.safetensors", st({"lora": np.ones((4, 4), np.float32)}))
    repo.commit("an adapter")
    repo.git("tag", "v1.0")
    return repo


def test_an_adapter_and_its_base(base: Repo, app: Repo, new_repo: Callable[..., Repo]) -> None:
    more = '[[model]]\nname = "tone"\nurl = "../adapter"\nbase = "base"\ninto = "models/tone"\n'
    lora = adapter(new_repo, base, "1.0")
    needs(app, "v1.0", more)
    app.theta("sync")
    assert (app.path / "models/tone/adapter_model.safetensors").exists()

    needs(app, "v1.1", more)
    said = fails(app, "sync")
    assert "tone was made on another base than the one that is locked" in said
    assert f"1 of {len(BASE)} tensors differs or is missing: {FIRST}" in said
    assert content(app) == V1  # nothing was written
    # The version that it was trained on anew.
    (lora.path / "theta.lock").unlink()
    needs(lora, "v1.1", into="base")
    lora.theta("sync", "-q")
    lora.commit("trained anew")
    do(app, next(one for one in advised(said) if "update" in one))
    assert content(app) == V11

    # Another name for the same content is the same base; an adapter that says nothing is none.
    base.git("commit", "-q", "--allow-empty", "-m", "again")
    base.git("tag", "v1.1.1", "v1.1")
    needs(app, "v1.1.1", more)
    app.theta("sync")
    (lora.path / "theta.lock").unlink()
    lora.commit("says nothing")
    said = fails(app, "update", "tone")
    assert "does not say on which base it was made" in said

    # What a release says beside it; also where models.toml does not ask.
    parts = [parse_manifest(base.blob(f"v1.1:{NAME}"))]
    record = BaseRecord(
        str(base.path), "v1.1", None, NAME, identity_of(parts), {}, tensors_of(parts)
    )
    lora.write(FILE, base_text(record))
    lora.commit("says so")
    app.theta("update", "tone")
    needs(app, "v1.0", more.replace('base = "base"\n', ""))
    said = fails(app, "sync")
    assert f"it was made on {base.path}@v1.1, and base is locked at v1.0" in said
    assert f"1 of {len(BASE)} tensors differs or is missing: {FIRST}" in said


def test_two_at_once_and_one_that_was_stopped(
    base: Repo, app: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(app)
    place, calls = placed.place, []

    def stopped(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return place(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(placed, "place", stopped)
    with pytest.raises(KeyboardInterrupt):
        sync(app.path)
    monkeypatch.undo()
    assert files(app, "models/base") == ["config.json"]
    assert not (app.path / "theta.lock").exists()
    both = [subprocess.Popen([*PREFIX, "sync"], cwd=app.path) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert content(app) == V11
    assert not (app.path / ".theta-sync/incoming").exists()
    assert [row.label for row in Project.read(app.path).locked.values()] == ["v1.1"]

    # Stopped right after a file got its place: it is known as ours, forwards and backwards.
    base.git("tag", "v1.2", "v2.0.0-rc.1")
    take_file, taken = WorkTree.take, []

    def stopped_late(tree: WorkTree, source: Path, path: str) -> None:
        take_file(tree, source, path)
        taken.extend(sorted(one.name for one in source.parent.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkTree, "take", stopped_late)
    with pytest.raises(KeyboardInterrupt):
        update(app.path, [], Options())
    assert taken == []  # config.json is the same, and was not made
    monkeypatch.undo()
    assert content(app) == V2
    assert sync(app.path).as_locked
    assert content(app) == V11


def test_traps(base: Repo, app: Repo, tmp_path: Path) -> None:
    """A committed link in the place of a folder, a lock that names a place outside, a signature."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (app.path / "models").symlink_to(outside)
    needs(app)
    assert "a link inside a work tree: nothing is written there" in fails(app, "sync", code=11)
    assert list(outside.iterdir()) == []
    (app.path / "models").unlink()
    app.theta("sync")
    lock = content(app, "theta.lock")
    app.commit("what we need", "models.toml", "theta.lock")
    app.write("theta.lock", lock.replace(b"models/base", b"../outside"))
    said = fails(app, "sync", code=2)
    assert "theta.lock cannot be read: into = ../outside is not a path" in said
    do(app, next(one for one in advised(said) if "checkout" in one))
    assert content(app, "theta.lock") == lock
    app.write("theta.lock", lock.replace(b"size = 3", b"size = 4"))
    (app.path / "models/base/config.json").unlink()
    assert "has 3 bytes and is of blob" in fails(app, "sync", code=5)
    app.write("theta.lock", re.sub(rb'(identity = ")\w', rb"\g<1>0", lock))
    assert "other identities of the checkpoints of base" in fails(app, "sync", code=5)
    wrong = re.sub(rb'(config.json", blob = "\w+", size = \d+, sha256 = ")\w', rb"\g<1>0", lock)
    app.write("theta.lock", wrong)
    assert "and theta.lock says 0" in fails(app, "sync", code=5)
    app.write("theta.lock", lock.replace(b"config.json", b"conf.json"))
    assert "theta.lock names conf.json of base, which commit" in fails(app, "sync", code=5)
    app.write("theta.lock", lock)
    more = '[[model]]\nname = "part"\nurl = "../base"\nalone = true\nversion = "v1.7"\n'
    needs(app, "^9", more)
    said = fails(app, "sync")
    assert "base: no version of ../base is ^9" in said
    assert "part: ../base has no version v1.7" in said
    needs(app, issuer="https://issuer")
    said = fails(app, "sync", code=2)
    assert "models.toml, line 1: base: whose signature is to be verified?" in said
    # What a commit can hold, and Git takes for a repository: its settings might name a program.
    app.git("clone", "-q", "--bare", str(base.path), str(app.path / "evil"))
    for url in ("evil", f"file://{app.path}/%65vil", "../app/evil/", "."):
        needs(app, url=url)
        assert "leads into the work tree that models.toml is in" in fails(app, "sync", code=2)
    app.git("rm", "-q", "--cached", "models.toml", ok=(0, 128))
    (app.path / "models.toml").unlink()
    assert "there is no models.toml here, nor at the top of" in fails(app, "sync", code=2)


def test_from_a_host_with_a_password(sealed: Path, tmp_path: Path) -> None:
    """Over HTTP, with an LFS server; a second sync asks nobody, one with --locked about tags."""
    with site(KINDS[0], tmp_path / "host") as host:
        host.create("team/model")
        publisher = host.start("publisher", "team/model")
        publish(publisher)
        publisher.git("push", "-q", "origin", "main", "--tags")
        there = host.client("app")
        there.path.mkdir()
        needs(there, url=host.url("team/model"))
        host.host.records.clear()
        assert "base v1.1: 2 files" in there.theta("sync")
        assert content(there) == V11
        assert set(host.host.moved("download")) == publisher.oids(f"v1.1:{NAME}")
        host.host.records.clear()
        assert there.theta("sync") == "1 model: as theta.lock says\n"
        assert host.host.records == []
        there.theta("sync", "--locked")
        assert host.host.records != []


def test_signatures(base: Repo, app: Repo) -> None:
    private, public = keys(app.path)
    _, other = keys(app.path, "other")
    needs(app, "==1.0", public_key=public.name)
    said = fails(app, "sync", code=15)
    assert "is not signed: there is no model.sig" in said
    assert said.endswith("hint: models.toml, line 1 asks for it: public_key\n")
    base.git("checkout", "-q", "v1.1")
    base.theta("sign", "--private-key", str(private))
    base.commit("signed")
    base.git("tag", "v1.2")
    needs(app, public_key=other.name)
    fails(app, "sync", code=15)
    assert not (app.path / "models").exists()
    needs(app, public_key=public.name)
    app.theta("sync", "-q")
    assert content(app) == V11
    # It is remembered, for this key.
    gone = base.path.rename(base.path.parent / "gone")
    app.theta("sync", "-q")
    public.write_bytes(other.read_bytes())
    fails(app, "sync", code=15)
    public.unlink()
    assert "models.toml, line 1: cannot read" in fails(app, "sync", code=2)
    gone.rename(base.path)


def test_two_locks_are_merged(base: Repo, app: Repo) -> None:
    needs(app, "==1.0")
    app.write(".gitignore", b"/models/\n")
    app.theta("sync", "-q")
    needs(app)
    app.theta("sync", "-q")
    app.commit("v1.0")
    app.git("checkout", "-q", "-b", "side")
    app.theta("update", "-q")
    app.commit("v1.1")
    base.git("tag", "v1.2", "v2.0.0-rc.1")
    app.git("checkout", "-q", "main")
    app.theta("update", "-q")
    app.commit("v1.2")
    app.git("merge", "side", ok=(1,))
    do(app, take(app, "git", "theta", "sync", has="--theirs"))
    assert content(app) == V11
    app.theta("sync", "--locked")
