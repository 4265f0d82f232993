"""Everyday Git against Git LFS servers that others wrote, over HTTP and with passwords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.objects.transfer.pointers import REF
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.servers.backends import KINDS
from tests.servers.front import BATCH_LIMIT
from tests.servers.site import Client, Site, kept, site

pytestmark = pytest.mark.sample(2, spread=True)
NAME = "m.safetensors"


@pytest.fixture(scope="module", params=KINDS)
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A host; each test makes repositories of names of its own."""
    with site(request.param, tmp_path_factory.mktemp("host")) as running:
        yield running


one_server = pytest.mark.parametrize("host", KINDS[:1], indirect=True)
"""For what the LFS server has little part in."""


@pytest.fixture
def team(host: Site, request: pytest.FixtureRequest) -> str:
    """A name for this test's repositories, and a clean record of requests."""
    host.host.records.clear()
    return request.node.originalname.removeprefix("test_")


def versions(count: int) -> list[bytes]:
    """Versions of a little checkpoint; each changes one tensor of the one before."""
    tensors = dict(model(0, layers=1, width=16))
    found = []
    for number in range(count):
        if number:
            name = "encoder.layer.0.attention.query.weight"
            tensors[name] = changed(tensors[name], seed=number)
        found.append(safetensors(tensors))
    return found


def publish(host: Site, team: str, contents: list[bytes], **settings: str) -> Client:
    """A repository at the host with a commit for each content, and the clone it came from."""
    host.create(f"{team}/model")
    local = host.start(f"{team}-first", f"{team}/model")
    for name, value in settings.items():
        local.git("config", f"theta.{name}", value)
    for content in contents:
        local.write(NAME, content)
        local.commit()
    local.git("push", "-q", "origin", "main")
    return local


def content(client: Client) -> bytes:
    return (client.path / NAME).read_bytes()


def moved_twice(host: Site) -> dict[str, int]:
    """Objects that went over the line more than once, up or down."""
    counts = Counter(host.host.moved("upload")) | Counter(host.host.moved("download"))
    return {oid: count for oid, count in counts.items() if count > 1}


def test_push_clone_fetch_and_pull(host: Site, team: str) -> None:
    one, two, three = versions(3)
    local = publish(host, team, [one])
    assert host.unbacked(f"{team}/model") == {}
    assert set(host.host.moved("upload")) == local.oids(f"HEAD:{NAME}")

    other = host.clone(f"{team}-second", f"{team}/model")
    assert content(other) == one
    assert other.status() == ""
    assert set(host.host.moved("download")) == local.oids(f"HEAD:{NAME}")

    for version in (two, three):
        local.write(NAME, version)
        local.commit()
    local.git("push", "-q", "origin", "main")
    other.git("fetch", "-q")
    assert not host.host.moved("download")[len(local.oids(f"HEAD~2:{NAME}")) :]
    other.git("pull", "-q")
    assert content(other) == three
    other.git("checkout", "-q", "HEAD~1")
    assert content(other) == two
    assert host.unbacked(f"{team}/model") == {}
    assert moved_twice(host) == {}
    # Nobody was served without the password, and everybody was asked for it.
    assert any(record.status == 401 for record in host.host.seen("batch"))


def test_shallow_clone(host: Site, team: str) -> None:
    contents = versions(3)
    local = publish(host, team, contents)
    shallow = host.clone(f"{team}-shallow", f"{team}/model", "--depth=1")
    assert content(shallow) == contents[2]
    assert set(host.host.moved("download")) == local.oids(f"HEAD:{NAME}")

    shallow.write(NAME, versions(4)[3])
    shallow.commit()
    shallow.git("push", "-q", "origin", "main")
    assert host.unbacked(f"{team}/model") == {}

    shallow.git("fetch", "-q", "--unshallow")
    shallow.git("checkout", "-q", "HEAD~3")
    assert content(shallow) == contents[0]
    local.git("pull", "-q", "origin", "main")
    assert content(local) == versions(4)[3]
    assert moved_twice(host) == {}


@one_server
def test_partial_clone(host: Site, team: str) -> None:
    contents = versions(3)
    publish(host, team, contents)
    partial = host.clone(f"{team}-partial", f"{team}/model", "--filter=blob:none")
    assert content(partial) == contents[2]
    partial.git("checkout", "-q", "-b", "side", "HEAD~2")
    assert content(partial) == contents[0]
    partial.write(NAME, versions(5)[4])
    partial.commit()
    partial.git("push", "-q", "origin", "side")
    assert host.unbacked(f"{team}/model") == {}
    assert content(host.clone(f"{team}-b", f"{team}/model", "--branch=side")) == versions(5)[4]


def test_fork(host: Site, team: str) -> None:
    """A fork is a second remote with an LFS server of its own, empty at first."""
    contents = versions(2)
    publish(host, team, contents)
    host.create(f"{team}/fork")
    clone = host.clone(f"{team}-clone", f"{team}/model")
    clone.git("remote", "add", "fork", host.url(f"{team}/fork"))
    clone.git("push", "-q", "fork", "main")
    assert host.unbacked(f"{team}/fork") == {}
    first = len(host.host.moved("upload"))

    clone.write(NAME, versions(3)[2])
    clone.commit()
    clone.git("push", "-q", "fork", "main")
    assert host.host.moved("upload")[first:] == sorted(
        clone.oids(f"HEAD:{NAME}") - clone.oids(f"HEAD~1:{NAME}")
    )
    forked = host.clone(f"{team}-forked", f"{team}/fork")
    assert content(forked) == versions(3)[2]
    forked.git("checkout", "-q", "HEAD~2")
    assert content(forked) == contents[0]

    # The pull request is merged upstream by somebody who has both remotes.
    clone.git("push", "-q", "origin", "main")
    assert host.unbacked(f"{team}/model") == {}


@one_server
def test_mirror(host: Site, team: str) -> None:
    """The whole repository moves to another host by way of a bare mirror."""
    contents = versions(2)
    local = publish(host, team, contents)
    local.git("tag", "-a", "-m", "first", "v1", "HEAD~1")
    local.git("push", "-q", "origin", "v1")
    host.create(f"{team}/new")
    mirror = host.clone(f"{team}-mirror.git", f"{team}/model", "--mirror")
    mirror.theta("install", "--local")
    mirror.git("push", "-q", "--mirror", host.url(f"{team}/new"))
    assert host.unbacked(f"{team}/new") == {}
    bare = Client(host.host.projects / f"{team}/new.git", host.environment)
    assert local.oids(f"HEAD:{NAME}", f"HEAD~1:{NAME}") <= kept(bare)
    moved = host.clone(f"{team}-moved", f"{team}/new", "--branch=v1")
    assert content(moved) == contents[0]

    # The old one gets more; the mirror brings it over without sending anything again.
    local.write(NAME, versions(3)[2])
    local.commit()
    local.git("push", "-q", "origin", "main")
    sent = len(host.host.moved("upload"))
    mirror.git("remote", "update")
    mirror.git("push", "-q", "--mirror", host.url(f"{team}/new"))
    assert host.unbacked(f"{team}/new") == {}
    fresh = local.oids(f"HEAD:{NAME}") - local.oids(f"HEAD~1:{NAME}")
    assert set(host.host.moved("upload")[sent:]) == fresh
    assert local.oids(f"HEAD:{NAME}", f"HEAD~1:{NAME}") <= kept(bare)


def test_the_committed_lfs_url_is_used(host: Site, team: str) -> None:
    """`.lfsconfig` names another place; the usual one answers 404."""
    (one,) = versions(1)
    host.host.usual_endpoint = False
    try:
        host.create(f"{team}/model")
        local = host.start(f"{team}-first", f"{team}/model")
        local.write(".lfsconfig", f"[lfs]\n\turl = {host.host.url}/lfs/{team}/model\n".encode())
        local.write(NAME, one)
        local.commit()
        local.git("push", "-q", "origin", "main")
        assert host.unbacked(f"{team}/model") == {}
        assert content(host.clone(f"{team}-second", f"{team}/model")) == one
        local.git("rm", "-q", "--cached", ".lfsconfig")
        (local.path / ".lfsconfig").unlink()
        local.write(NAME, versions(2)[1])
        local.commit()
        refused = local.run("git", "push", "-q", "origin", "main", ok=(1,))
        assert b"no ref has moved" in refused.stderr
    finally:
        host.host.usual_endpoint = True
    assert host.unbacked(f"{team}/model") == {}


def test_more_objects_than_a_batch_may_name(host: Site, team: str) -> None:
    random = np.random.default_rng(5)
    tensors = {
        f"layer.{number}": random.normal(0, 1, 32).astype(np.float32)
        for number in range(BATCH_LIMIT + 30)
    }
    local = publish(host, team, [safetensors(tensors)], packBelow="0")
    assert len(local.oids(f"HEAD:{NAME}")) > BATCH_LIMIT
    assert host.unbacked(f"{team}/model") == {}
    assert content(host.clone(f"{team}-second", f"{team}/model")) == safetensors(tensors)
    sizes = [len(record.request.oids) for record in host.host.seen("batch", ok=True)]
    assert max(sizes) <= BATCH_LIMIT < sum(sizes)
    assert moved_twice(host) == {}


@one_server
def test_wrong_password(host: Site, team: str) -> None:
    one, two = versions(2)
    local = publish(host, team, [one])
    passwords = Path(host.environment["HOME"]) / "passwords"
    before = passwords.read_text("utf-8")
    local.write(NAME, two)
    local.commit()
    passwords.write_text(before.replace("correct", "wrong"), "utf-8")
    try:
        refused = local.run("git", "push", "-q", "origin", "main", ok=(1, 128))
        assert b"could not read Username" in refused.stderr or b"Authentication" in refused.stderr
    finally:
        passwords.write_text(before, "utf-8")
    assert host.unbacked(f"{team}/model") == {}
    local.git("push", "-q", "origin", "main")
    assert host.unbacked(f"{team}/model") == {}


@one_server
def test_tools_that_know_only_pointer_files_see_every_object(host: Site, team: str) -> None:
    """`git lfs fetch --all` and `git lfs fsck` in a mirror; git-lfs moves it to another server."""
    local = publish(host, team, versions(2))
    objects = local.oids(f"HEAD:{NAME}", f"HEAD~1:{NAME}")
    bare = Client(host.host.projects / f"{team}/model.git", host.environment)
    assert kept(bare) == objects
    mirror = host.clone(f"{team}-mirror.git", f"{team}/model", "--mirror")
    mirror.git("lfs", "fetch", "--all")
    found = {path.name for path in (mirror.path / "lfs/objects").glob("??/??/*")}
    assert found == objects
    assert "OK" in mirror.git("lfs", "fsck", "--objects", REF)
    host.create(f"{team}/new")
    new = host.url(f"{team}/new")
    mirror.git("lfs", "push", "--all", new)
    mirror.git("push", "-q", "--mirror", new)
    assert host.unbacked(f"{team}/new") == {}
    assert content(host.clone(f"{team}-moved", f"{team}/new")) == versions(2)[1]


@one_server
def test_pushers_at_the_same_time_are_united(host: Site, team: str) -> None:
    local = publish(host, team, versions(1))
    people = [host.clone(f"{team}-{name}", f"{team}/model") for name in ("b", "c", "d")]
    wanted = local.oids(f"HEAD:{NAME}")
    for number, person in enumerate(people):
        person.git("switch", "-q", "-c", f"branch-{number}")
        person.write(NAME, safetensors(model(number + 10, layers=1, width=16)))
        person.commit()
        wanted |= person.oids(f"HEAD:{NAME}")
    running = [person.popen("git", "push", "-q", "origin", "HEAD") for person in people]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert said == [b"", b"", b""]
    assert host.unbacked(f"{team}/model") == {}
    bare = Client(host.host.projects / f"{team}/model.git", host.environment)
    assert kept(bare) == wanted


@one_server
def test_a_mirror_push_that_removes_the_ref_loses_nothing(host: Site, team: str) -> None:
    """`--mirror` deletes what the clone does not have, and that is the ref of pointers."""
    local = publish(host, team, versions(1))
    bare = Client(host.host.projects / f"{team}/model.git", host.environment)
    clone = host.clone(f"{team}-clone", f"{team}/model")
    clone.write(NAME, versions(2)[1])
    clone.commit()
    for _ in range(2):
        clone.git("push", "-q", "--mirror", "origin")
        assert bare.git("rev-parse", "main") == clone.git("rev-parse", "main")
        assert kept(bare) == clone.oids(f"HEAD:{NAME}", f"HEAD~1:{NAME}")
    assert host.unbacked(f"{team}/model") == {}
    clone.write(NAME, versions(3)[2])
    clone.commit()
    clone.git("push", "-q", "origin", "main")
    assert kept(bare) >= clone.oids(*(f"HEAD~{back}:{NAME}" for back in range(3)))
    assert local.oids(f"HEAD:{NAME}") <= kept(bare)


@one_server
def test_a_host_that_refuses_the_ref_is_told_of_once(host: Site, team: str) -> None:
    host.create(f"{team}/model")
    bare = Client(host.host.projects / f"{team}/model.git", host.environment)
    bare.write("hooks/update", f'#!/bin/sh\ntest "$1" != {REF}\n'.encode()).chmod(0o755)
    local = host.start(f"{team}-first", f"{team}/model")
    said = []
    for version in versions(2):
        local.write(NAME, version)
        local.commit()
        said.append(local.run("git", "push", "-q", "origin", "main").stderr)
    assert [REF.encode() in text for text in said] == [True, False]
    assert host.unbacked(f"{team}/model") == {}
