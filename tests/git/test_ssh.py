"""Git over SSH to an sshd of this machine, and LFS beside it, as hosts have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo
from tests.servers.site import Client, Site, kept, site
from tests.servers.ssh import Ssh, ssh_server

NAME = "m.safetensors"
ONE, TWO = (safetensors(model(seed, layers=1, width=16)) for seed in (0, 1))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Ssh]]:
    root = tmp_path_factory.mktemp("ssh")
    with site("dulwich", root / "site") as host, ssh_server(host.host, root / "keys") as ssh:
        host.environment["GIT_SSH_COMMAND"] = ssh.command
        yield host, ssh


class Place:
    """A repository of the host, reached by SSH."""

    def __init__(self, host: Site, ssh: Ssh, name: str) -> None:
        self.host, self.name = host, f"{name}/model"
        self.bare: Repo = host.create(self.name)
        self.url = ssh.url(self.bare.path)
        host.host.records.clear()

    def start(self, name: str) -> Client:
        local = self.host.start(name, self.name)
        local.git("remote", "set-url", "origin", self.url)
        return local

    def clone(self, name: str) -> Client:
        self.host.client("").git("clone", "-q", self.url, str(self.host.root / name))
        return self.host.client(name)


@pytest.fixture
def place(running: tuple[Site, Ssh], request: pytest.FixtureRequest) -> Place:
    return Place(*running, request.node.name.removeprefix("test_"))


def test_the_host_hands_out_the_endpoint(place: Place) -> None:
    """`git-lfs-authenticate` over SSH; the objects go over HTTP with the header it gives."""
    local = place.start("one")
    local.write(NAME, ONE)
    local.commit()
    local.git("push", "-q", "-u", "origin", "main")
    assert place.host.unbacked(place.name) == {}
    assert kept(place.bare) == local.oids(f"HEAD:{NAME}")
    other = place.clone("two")
    assert (other.path / NAME).read_bytes() == ONE
    local.write(NAME, TWO)
    local.commit()
    local.git("push", "-q")
    other.git("pull", "-q")
    assert (other.path / NAME).read_bytes() == TWO
    assert place.host.unbacked(place.name) == {}
    moved = place.host.host.moved("upload")
    assert len(moved) == len(set(moved)) == len(local.oids(f"HEAD:{NAME}", f"HEAD~1:{NAME}"))
    # Git itself went by SSH.
    assert place.host.host.seen("git") == []


def test_an_lfs_url_beside_ssh(place: Place) -> None:
    """`.lfsconfig` names a server that asks for a password; the host's own is not asked.

    It is not the host that the remote names by SSH, so each user confirms it.
    """
    (place.bare.path / "no-lfs").touch()
    local = place.start("three")
    local.write(".lfsconfig", f"[lfs]\n\turl = {place.host.host.url}/lfs/{place.name}\n".encode())
    local.write(NAME, ONE)
    local.commit()
    assert b"not confirmed" in local.run("git", "push", "-q", "origin", "main", ok=(1,)).stderr
    assert place.host.host.records == []
    local.git("config", "--global", "theta.trustedLfsUrl", place.host.host.url)
    try:
        local.git("push", "-q", "origin", "main")
        assert place.host.unbacked(place.name) == {}
        assert (place.clone("four").path / NAME).read_bytes() == ONE
    finally:
        local.git("config", "--global", "--unset", "theta.trustedLfsUrl")


def test_objects_go_over_ssh_too(place: Place) -> None:
    """`git-lfs-transfer`: no HTTP at all, and no second sending."""
    for name in ("no-lfs", "pure-ssh"):
        (place.bare.path / name).touch()
    local = place.start("seven")
    local.write(NAME, ONE)
    local.commit()
    local.git("push", "-q", "-u", "origin", "main")
    assert place.host.unbacked(place.name) == {}
    assert kept(place.bare) == local.oids(f"HEAD:{NAME}")
    other = place.clone("eight")
    assert (other.path / NAME).read_bytes() == ONE
    assert place.host.host.records == []
    # What the server lost, or never had, is not there; nothing else comes in its place.
    lost = sorted(local.oids(f"HEAD:{NAME}"))[0]
    place.host.backend.place(place.name, lost).unlink()
    third = Client(place.host.root, place.host.environment)
    failed = third.run("git", "clone", "-q", place.url, "nine", ok=(128,)).stderr.decode()
    assert lost in failed
    assert not (place.host.root / "nine" / NAME).exists()


def test_a_host_without_access_to_lfs_gets_no_ref(place: Place) -> None:
    (place.bare.path / "no-lfs").touch()
    local = place.start("five")
    local.write(NAME, ONE)
    local.commit()
    refused = local.run("git", "push", "-q", "origin", "main", ok=(1,)).stderr.decode()
    assert "you have no access to LFS" in refused
    assert "no ref has moved" in refused
    assert place.bare.git("for-each-ref") == ""
    (place.bare.path / "no-lfs").unlink()
    local.git("push", "-q", "origin", "main")
    assert place.host.unbacked(place.name) == {}


def test_an_unknown_host_key_is_refused(place: Place, tmp_path: Path) -> None:
    local = place.start("six")
    local.write(NAME, ONE)
    local.commit()
    (tmp_path / "known").write_text("", "ascii")
    trusting = local.environment["GIT_SSH_COMMAND"].partition(" -o UserKnownHostsFile=")[0]
    command = f"{trusting} -o UserKnownHostsFile={tmp_path / 'known'} -o StrictHostKeyChecking=yes"
    local.run("git", "push", "origin", "main", ok=(128,), env={"GIT_SSH_COMMAND": command})
    assert place.bare.git("for-each-ref") == ""


def test_a_version_is_got_without_a_clone(place: Place, tmp_path: Path) -> None:
    local = place.start("published")
    local.write(NAME, ONE)
    local.commit()
    local.git("push", "-q", "origin", "main")
    place.host.host.records.clear()
    words = ("get", "-q", f"{place.url}@main:{NAME}", "-o", str(tmp_path / NAME))
    local.theta(*words, env={"GIT_THETA_CACHE": str(tmp_path / "cache")})
    assert (tmp_path / NAME).read_bytes() == ONE
    assert set(place.host.host.moved("download")) == local.oids(f"HEAD:{NAME}")
    assert place.host.host.seen("git") == []
