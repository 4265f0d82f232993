"""Servers and folders that a branch, not the user, chose: what they are told and what they get."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.core.errors import MissingObjectError, TransferError
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.transfer import endpoints, folders, lfsconfig, transport
from git_theta_ext.objects.transfer.endpoints import Endpoint
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.objects import put
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server
from tests.servers.listening import Handler, listening

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"
OLD = {"GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"}
SECRETS = ("Authorization", "X-Secret", "Cookie", "Proxy-Authorization")
THETA = [sys.executable, "-m", "git_theta_ext.cli.main"]


class Stranger:
    """A server that keeps nothing: what it was sent, and what it says of an object."""

    def __init__(self, has: Callable[[str, int], bool], *, locked: bool) -> None:
        self.has, self.locked, self.url = has, locked, ""
        self.headers: list[dict[str, str]] = []

    @property
    def secrets(self) -> list[str]:
        """Whatever it was told that it should not know."""
        return [sent[name] for sent in self.headers for name in SECRETS if name in sent]


@contextmanager
def stranger(
    has: Callable[[str, int], bool] = lambda oid, size: False, *, locked: bool = False
) -> Iterator[Stranger]:
    """Serve until the block ends; `locked` asks everybody for a password."""
    state = Stranger(has, locked=locked)

    class StrangerHandler(Handler):
        def do_POST(self) -> None:
            state.headers.append(dict(self.headers))
            asked = json.loads(self.body())
            rows = []
            for item in asked.get("objects", []):
                if state.has(item["oid"], item["size"]):
                    item["actions"] = {"download": {"href": f"{state.url}/{item['oid']}"}}
                else:
                    item["error"] = {"code": 404, "message": "no such object"}
                rows.append(item)
            names = ("LFS-Authenticate", "WWW-Authenticate") if state.locked else ()
            status = 401 if state.locked else 200
            headers = dict.fromkeys(names, 'Basic realm="x"')
            self.answer(status, {"transfer": "basic", "objects": rows}, headers)

        def do_GET(self) -> None:
            state.headers.append(dict(self.headers))
            self.answer(404)

    with listening(StrangerHandler) as url:
        state.url = f"{url}/x"
        yield state


@pytest.fixture
def server() -> Iterator[LfsServer]:
    """A right LFS server."""
    with lfs_server() as state:
        yield state


def version(seed: int) -> bytes:
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=seed)})


def objects(repo: Repo) -> set[str]:
    return set(Store(repo.path / ".git/theta").oids())


def path_remote(
    new_repo: Callable[..., Repo], name: str = "origin.git", *, settings: str = ""
) -> tuple[Repo, Path]:
    """A repository with a first version to push, and its remote `origin`, a folder.

    `settings` is what the version has as its `.lfsconfig`.
    """
    repo = new_repo("repo")
    repo.git("init", "-q", "--bare", f"../{name}")
    repo.git("remote", "add", "origin", f"../{name}")
    if settings:
        repo.write(".lfsconfig", settings.encode())
    repo.write(NAME, version(1))
    repo.commit("first")
    return repo, repo.path.parent / name


WAYS = {
    "lfs.url": "[lfs]\n\turl = {url}\n",
    "lfsurl": '[remote "origin"]\n\tlfsurl = {url}\n',
    "default": '[remote]\n\tlfsdefault = evil\n[remote "evil"]\n\tlfsurl = {url}\n',
    "pushurl": "[lfs]\n\tpushurl = {url}\n",
}


@pytest.fixture
def unpushed(new_repo: Callable[..., Repo]) -> tuple[Repo, set[str]]:
    """A repository with a pushed main, an old unpushed branch `mine`, and what only that needs."""
    repo, _ = path_remote(new_repo)
    repo.git("push", "-q", "origin", "main")
    pushed = objects(repo)
    repo.git("checkout", "-q", "-b", "mine")
    repo.write(NAME, version(2))
    repo.git("add", NAME)
    repo.git("commit", "-q", "-m", "mine", env=OLD)
    repo.git("checkout", "-q", "main")
    repo.git("reflog", "expire", "--expire=now", "--all")
    return repo, objects(repo) - pushed


def grow_old(repo: Repo) -> None:
    store = Store(repo.path / ".git/theta")
    for oid in store.oids():
        os.utime(store.path(oid), (1_600_000_000, 1_600_000_000))


OPTIONS: list[list[str]] = [
    [], ["--keep-days", "0"], ["--keep-days", "0", "--no-verify-remote"],
    ["--keep-days", "0", "--remote", "origin", "--verify-unreachable"],
]  # fmt: skip


@pytest.mark.parametrize("way", list(WAYS))
def test_a_branchs_server_is_not_asked_what_may_go(
    unpushed: tuple[Repo, set[str]], way: str
) -> None:
    repo, only = unpushed
    with stranger(lambda oid, size: size != 1) as liar:
        repo.git("checkout", "-q", "-b", "theirs")
        repo.write(".lfsconfig", WAYS[way].format(url=liar.url).encode())
        repo.commit("theirs")
        grow_old(repo)
        for options in OPTIONS:
            said = repo.run(*THETA, "prune", *options).stdout.decode()
            assert "origin.git)" in said
            assert only <= objects(repo)
        repo.run(*THETA, "fsck", "--remote", "origin", ok=(0, 6))
        assert liar.headers == []
    (repo.path / ".lfsconfig").unlink()
    repo.git("checkout", "-q", "-f", "mine")
    assert (repo.path / NAME).read_bytes() == version(2)


@pytest.mark.parametrize("options", OPTIONS[1:])
def test_unpushed_work_stays_whatever_the_chosen_server_says(
    unpushed: tuple[Repo, set[str]], options: list[str]
) -> None:
    """It knows which objects are real, so that no probe gives it away."""
    repo, only = unpushed
    needed = objects(repo)
    with stranger(lambda oid, size: oid in needed) as liar:
        repo.git("config", "lfs.url", liar.url)
        grow_old(repo)
        kept = repo.run(*THETA, "prune", "--json", *options).stdout
        assert json.loads(kept)["removed"] == []
        assert json.loads(kept)["unpushed"] == len(only)
        assert json.loads(kept)["endpoint"] == f"{liar.url}, from git config lfs.url"
        assert only <= objects(repo)
        # Not even if the commits are all that is left of a branch, or a stranger's branch has them.
        repo.git("branch", "-q", "tagged", "mine")
        repo.git("update-ref", "refs/remotes/fork/mine", "mine")
        grow_old(repo)
        repo.run(*THETA, "prune", *options)
        assert only <= objects(repo)


def test_who_claims_what_was_made_up_is_not_believed(unpushed: tuple[Repo, set[str]]) -> None:
    """Whatever it can see of an object: real ones and made-up ones have the same sizes."""
    repo, only = unpushed
    sizes: set[int] = set()
    with stranger(lambda oid, size: not sizes.add(size) and size != 1) as liar:  # type: ignore[func-returns-value]
        repo.git("config", "lfs.url", liar.url)
        repo.git("push", "-q", "--no-verify", "origin", "mine")
        grow_old(repo)
        said = repo.run(*THETA, "prune", "--keep-days", "0", ok=(9,)).stderr.decode()
        assert "do not exist" in said
        assert liar.url in said
        assert only <= objects(repo)
        fsck = repo.run(*THETA, "fsck", "--remote", "origin", ok=(9,)).stderr.decode()
        assert "do not exist" in fsck
        store = Store(repo.path / ".git/theta")
        assert sizes <= {store.path(oid).stat().st_size for oid in objects(repo)}


def test_a_strangers_branch_does_not_choose_the_remote(unpushed: tuple[Repo, set[str]]) -> None:
    repo, _ = unpushed
    repo.git("init", "-q", "--bare", "../fork.git")
    repo.git("remote", "add", "fork", "../fork.git")
    repo.git("config", "branch.main.remote", "fork")
    assert "relied on: origin" in repo.run(*THETA, "prune").stdout.decode()
    repo.git("config", "remote.pushDefault", "fork")
    assert "relied on: fork" in repo.run(*THETA, "prune").stdout.decode()


@pytest.mark.parametrize("way", ["lfs.url", "lfsurl", "pushurl"])
def test_nothing_is_sent_before_the_server_is_confirmed(
    new_repo: Callable[..., Repo], server: LfsServer, way: str
) -> None:
    """And what the error says to type is all that has to be typed."""
    repo, _ = path_remote(new_repo, settings=WAYS[way].format(url=server.url))
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert "no ref has moved" in said
    assert server.url in said
    assert server.requests == []
    if way != "pushurl":
        for command in (["prune"], ["fsck", "--remote", "origin"]):
            refused = repo.run(*THETA, *command, ok=(9,)).stderr.decode()
            assert "you have not confirmed it" in refused
    assert server.requests == []
    command = re.search(r"git config --add theta\.trustedLfsUrl .*", said)
    assert command is not None
    repo.run(*shlex.split(command[0]))
    sent = repo.run("git", "push", "-q", "origin", "main").stderr.decode()
    assert f"sent to origin ({server.url}, from .lfsconfig" in sent
    assert set(server.objects) == objects(repo)
    assert not (repo.path.parent / "origin.git/lfs").exists()


def test_another_branchs_server_gets_nothing(
    new_repo: Callable[..., Repo], server: LfsServer
) -> None:
    repo, _ = path_remote(new_repo)
    repo.git("push", "-q", "origin", "main")
    repo.git("checkout", "-q", "-b", "theirs")
    text = f"[lfs]\n\turl = {server.url}\n\tpushurl = {server.url}\n"
    repo.write(".lfsconfig", text.encode())
    repo.write(NAME, version(2))
    repo.commit("theirs")
    repo.git("push", "-q", "origin", "theirs")
    assert server.requests == []
    there = {path.name for path in (repo.path.parent / "origin.git/lfs").glob("objects/??/??/*")}
    assert there == objects(repo)
    # Not even where git config names a server and the file the one for pushes.
    with lfs_server() as chosen:
        repo.git("config", "lfs.url", chosen.url)
        repo.git("checkout", "-q", "main")
        repo.git("merge", "-q", "theirs")
        repo.theta("push", "--no-cache")
        assert set(chosen.objects) == objects(repo)
        repo.theta("fsck", "--remote", "origin")
    assert server.requests == []


@pytest.mark.parametrize("locked", [False, True])
def test_a_server_that_was_not_chosen_learns_no_secret(
    new_repo: Callable[..., Repo], sealed: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    repo = new_repo("repo")
    with stranger(locked=locked) as liar:
        repo.write(".lfsconfig", f"[lfs]\n\turl = {liar.url}\n".encode())
        repo.write(NAME, version(1))
        repo.commit("first")
        repo.git("clone", "-q", "--bare", ".", "../origin.git")
        helper = sealed / "helper"
        helper.write_text("#!/bin/sh\ntouch asked\necho username=me\necho password=hidden\n")
        helper.chmod(0o755)
        asked = sealed / "asked"
        helper.write_text(helper.read_text().replace("touch asked", f"touch '{asked}'"))
        repo.git("config", "--global", "credential.helper", str(helper))
        repo.git("config", "--global", "http.extraHeader", "X-Secret: hidden")
        repo.git("config", "--global", f"lfs.{liar.url}.access", "basic")
        (sealed / ".netrc").write_text("default login me password hidden\n")
        (sealed / ".netrc").chmod(0o600)
        monkeypatch.setenv("GIT_ASKPASS", str(helper))
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.extraHeader")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", "X-Secret: hidden")
        repo.run(*THETA, "install")
        done = repo.run("git", "clone", "-q", "../origin.git", "../clone", ok=(128,))
        assert f"git config --add theta.trustedLfsUrl {liar.url}" in done.stderr.decode()
        assert len(liar.headers) >= 1
        assert liar.secrets == []
        assert not asked.exists()
        # The proof that there was something to learn: once it is confirmed, it is told.
        clone = Repo(repo.path.parent / "clone")
        clone.git("config", "theta.trustedLfsUrl", liar.url)
        clone.run(*THETA, "fetch", ok=(6,))
        assert "X-Secret" in str(liar.headers)
        encoded = base64.b64encode(b"me:hidden").decode()
        assert (f"Basic {encoded}" in liar.secrets) or not locked


def test_a_public_server_serves_a_fresh_clone(
    new_repo: Callable[..., Repo], server: LfsServer
) -> None:
    """As git-lfs would have it: the clone needs no configuration to read."""
    repo = new_repo("repo")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    repo.git("config", "lfs.url", server.url)
    repo.write(".lfsconfig", f"[lfs]\n\turl = {server.url}\n".encode())
    for seed in (1, 2):
        repo.write(NAME, version(seed))
        repo.commit(f"version {seed}")
    repo.git("push", "-q", "origin", "main")
    repo.run(*THETA, "install")
    repo.git("clone", "-q", "../origin.git", "../clone")
    clone = Repo(repo.path.parent / "clone")
    assert (clone.path / NAME).read_bytes() == version(2)
    clone.git("checkout", "-q", "HEAD~1")
    assert (clone.path / NAME).read_bytes() == version(1)
    assert not list((clone.path / ".git/theta/lfs").glob("run-*"))


@pytest.mark.parametrize(
    "url", ["file://{other}", "{other}", "ssh://127.0.0.1:1/x", "http://me@h/"]
)
def test_no_folder_and_no_ssh_host_of_a_branch_is_looked_at(
    new_repo: Callable[..., Repo], tmp_path: Path, url: str
) -> None:
    """A file of `.lfsconfig` would make the objects of another folder appear, or go there."""
    repo, other = new_repo("repo"), tmp_path / "private"
    other.mkdir()
    Repo(other).git("init", "-q", "--bare")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    text = f"[lfs]\n\turl = {url.format(other=other)}\n"
    repo.write(".lfsconfig", text.encode())
    repo.write(NAME, version(1))
    repo.commit("first")
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert "you have not confirmed it" in said
    assert not (other / "lfs").exists()
    ref = next(iter(objects(repo)))
    Store(repo.path / ".git/theta").path(ref).unlink()
    fetched = repo.run(*THETA, "fetch", ok=(6,)).stderr.decode()
    assert "it was not asked" in fetched


@pytest.mark.parametrize(
    ("url", "remote", "expected"),
    [
        ("https://host.example/x.git/info/lfs", "https://host.example/x.git", True),
        ("https://HOST.example/x", "https://me:secret@host.example/x", True),
        ("https://host.example/x", "git@host.example:x.git", True),
        ("https://host.example/x", "ssh://git@host.example:2222/x", True),
        ("http://host.example:81/lfs", "http://host.example:81/x", True),
        ("ssh://git@host.example/x", "git@host.example:x", True),
        ("http://host.example/x", "https://host.example/x", False),
        ("http://host.example/x", "git@host.example:x", False),
        ("https://host.example:8443/x", "https://host.example/x", False),
        ("https://host.example:8443/x", "git@host.example:x", False),
        ("https://host.example.evil.example/x", "https://host.example/x", False),
        ("https://host.example@evil.example/x", "https://host.example/x", False),
        ("https://me@host.example/x", "https://host.example/x", False),
        ("https://host.example\\@evil.example/x", "https://host.example/x", False),
        ("https://host.example%0ahost=other.example/", "https://host.example/x", False),
        ("https://host.example/x?token=1", "https://host.example/x", False),
        ("https://host.example/../x", "https://host.example/x", False),
        ("file:///srv/x", "file:///srv/x", False),
        ("/srv/x", "/srv/x", False),
        ("file://host.example/x", "https://host.example/x", False),
        ("https://host.example/x", "/srv/x", False),
        ("https://host.example/x", "https://host.example:x", False),
    ],
)
def test_which_server_is_the_remotes_own_host(url: str, remote: str, expected: bool) -> None:
    assert lfsconfig.same_host(url, remote) is expected


def test_a_confirmed_url_covers_what_lies_below_it(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("repo")
    for value in ("https://one.example/team", "https://", "https://two.example/a/"):
        repo.git("config", "--add", "theta.trustedLfsUrl", value)
    here = Repository.discover(repo.path)
    for url, expected in {
        "https://one.example/team": True,
        "https://one.example/team/x": True,
        "https://one.example/team/../x": False,
        "https://one.example/teams": False,
        "https://one.example.evil.example/team": False,
        "https://two.example/a": True,
        "https://three.example/": False,
        "http://one.example/team": False,
    }.items():
        assert lfsconfig.is_confirmed(here, url) is expected, url


ODD = [
    "--upload-pack=touch pwned;/x",
    "-oProxyCommand=touch pwned/x",
    "ssh://-oProxyCommand=touch/x",
    "ssh://git@-oProxyCommand=touch/x",
    "-oProxyCommand=touch:x/y",
    "git@-oProxyCommand=touch:x/y",
    "https://host.example%0ahost=other.example/x",
    "https://host.example/x%0Dhost=other.example",
    "https://host.example/\nhost=other.example",
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("url", ODD)
def test_urls_that_would_be_options_are_refused(new_repo: Callable[..., Repo], url: str) -> None:
    repo = new_repo("repo")
    repo.write(NAME, version(1))
    repo.commit("first")
    repo.git("config", "remote.origin.url", url)
    repo.git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    for words in (["push", "origin"], ["fsck", "--remote", "origin"], ["prune"]):
        said = repo.run(*THETA, *words, ok=(9,)).stderr.decode()
        assert "is not used as a URL" in said
    said = repo.run(*THETA, "push", "--", url, ok=(9, 2)).stderr.decode()
    assert "is not used as a URL" in said or "neither a remote nor" in said
    assert not list(repo.path.rglob("pwned*"))
    here = Repository.discover(repo.path)
    with pytest.raises(TransferError, match="is not used as a URL"):
        endpoints.for_push(here, "origin", url)


@pytest.mark.parametrize("how", ["lfs.storage", "link", "deep link"])
def test_a_push_to_a_path_names_where_it_really_writes(
    new_repo: Callable[..., Repo], tmp_path: Path, how: str
) -> None:
    repo, origin = path_remote(new_repo)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "objects").mkdir(parents=True)
    if how == "lfs.storage":
        Repo(origin).git("config", "lfs.storage", str(elsewhere))
    elif how == "link":
        (origin / "lfs").symlink_to(elsewhere)
    else:
        (origin / "lfs").mkdir()
        (origin / "lfs/objects").symlink_to(elsewhere / "objects")
    said = repo.run("git", "push", "origin", "main").stderr.decode()
    assert str(elsewhere / "objects") in said
    assert {path.name for path in elsewhere.glob("objects/??/??/*")} == objects(repo)


def test_a_link_among_the_objects_is_not_followed(
    new_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    repo, origin = path_remote(new_repo)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (origin / "lfs/objects").mkdir(parents=True)
    for oid in objects(repo):
        (origin / "lfs/objects" / oid[:2]).symlink_to(elsewhere)
    said = repo.run("git", "push", "origin", "main", ok=(1,)).stderr.decode()
    assert "a link stands in its way" in said
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]


@pytest.mark.skipif(os.name == "nt", reason="files have no owner in that sense")
def test_another_users_repository_does_not_write_into_ours(
    new_repo: Callable[..., Repo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, origin = path_remote(new_repo)
    Repo(origin).git("config", "lfs.storage", str(tmp_path / "home/mine"))
    here = Repository.discover(repo.path)
    endpoint = Endpoint("origin", origin.as_uri(), origin)
    assert endpoints.lfs_folder_to_fill(here, endpoint)[1] is not None
    # The repository is somebody's who is not we, and the folder ours.
    real, owner = Path.stat, os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner)

    def stat(path: Path, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if path == origin:
            fields = list(found)
            fields[4] = owner + 1
            return os.stat_result(fields)
        return found

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(TransferError, match="does not belong to the owner"):
        endpoints.lfs_folder_to_fill(here, endpoint)


def test_a_link_to_the_only_copy_is_no_second_one(unpushed: tuple[Repo, set[str]]) -> None:
    """A path remote whose objects are links into our own store, or files of it."""
    repo, only = unpushed
    repo.git("push", "-q", "origin", "mine")
    store = Store(repo.path / ".git/theta")
    for oid in only:
        there = folders.object_path(repo.path.parent / "origin.git/lfs", oid)
        there.unlink()
        there.symlink_to(store.path(oid))
    grow_old(repo)
    done = json.loads(repo.run(*THETA, "prune", "--json", "--keep-days", "0").stdout)
    assert done["lacking"] == len(only)
    assert only <= objects(repo)


@pytest.mark.parametrize("first", ["detached", "switched off"])
def test_whoever_looks_at_anybodys_commits_asks_nobody(
    new_repo: Callable[..., Repo], server: LfsServer, first: str
) -> None:
    """A commit without a branch, as a pull request is checked out: no branch speaks for it."""
    repo, _ = path_remote(new_repo, settings=f"[lfs]\n\turl = {server.url}\n")
    if first == "detached":
        repo.git("checkout", "-q", "--detach")
    else:
        repo.git("config", "theta.lfsConfig", "false")
    store = Store(repo.path / ".git/theta")
    for oid in objects(repo):
        store.path(oid).unlink()
    said = repo.run(*THETA, "fetch", ok=(6,)).stderr.decode()
    assert ("may be of any branch" in said) == (first == "detached")
    assert server.requests == []


@pytest.mark.skipif(os.name == "nt", reason="there are no pipes in folders")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_in_a_remotes_folder_is_not_read(
    new_repo: Callable[..., Repo], tmp_path: Path, kind: str
) -> None:
    repo, origin = path_remote(new_repo)
    other = new_repo("other")
    other.git("remote", "add", "origin", str(origin))
    refs = put(Repository.discover(repo.path), b"content")
    path = folders.object_path(origin / "lfs", refs[0].oid)
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(MissingObjectError, match="not there"):
        transport.fetch(Repository.discover(other.path), refs)
