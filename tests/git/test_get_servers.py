"""`git theta get` from real servers over HTTP: with a password, with faults, and moved tags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.warm import PREFIX
from tests.servers.backends import KINDS
from tests.servers.front import PASSWORD, Fault, Request
from tests.servers.site import Client, Site, site

pytestmark = pytest.mark.sample(2, spread=True)
NAME = "m.safetensors"
GET = (*PREFIX, "get")


@pytest.fixture(params=KINDS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A host with a model of ten tensors, each an object, in the versions v1 and v2."""
    with site(request.param, tmp_path / "host") as running:
        running.environment["GIT_THETA_CACHE"] = str(tmp_path / "cache")
        running.create("team/model")
        local = running.start("first", "team/model")
        local.write("config.json", b"{}\n")
        for number in (1, 2):
            local.write(NAME, content(number))
            local.commit()
            local.git("tag", f"v{number}")
        local.git("push", "-q", "origin", "main", "--tags")
        running.host.records.clear()
        yield running


def content(number: int) -> bytes:
    """A version; one tensor differs."""
    tensors = {
        f"layer.{at}": np.random.default_rng([at, number * (at == 3)]).normal(size=(300, 300))
        for at in range(10)
    }
    return safetensors({name: value.astype(np.float32) for name, value in tensors.items()})


def product(host: Site) -> Client:
    client = host.client("product")
    client.path.mkdir()
    return client


def test_over_http(host: Site) -> None:
    here, url, records = product(host), host.url("team/model"), host.host.records
    here.theta("get", f"{url}@v1:{NAME}", "--tensors", "layer.3", "-o", "three.safetensors")
    assert len(host.host.moved("download")) <= 2, "one tensor, and the structure of the file"
    assert sum(one.sent for one in records) < 600_000

    # The line is cut in the middle: what came is kept, and nothing half is left.
    left = 4

    def cut(request: Request) -> Fault | None:
        nonlocal left
        left -= request.kind == "download"
        return Fault("cut") if request.kind == "download" and left <= 0 else None

    host.host.faults = cut
    done = here.run(*GET, f"{url}@v1", ok=(6,))
    assert b"of 10 tensors" in done.stderr
    assert not (here.path / "model" / NAME).exists()
    host.host.faults = None
    here.theta("get", f"{url}@v1")
    assert (here.path / "model" / NAME).read_bytes() == content(1)
    moved = host.host.moved("download")
    assert len(moved) == len(set(moved))

    # Nothing is asked again, whatever is written.
    records.clear()
    assert "there already" in here.theta("get", f"{url}@v1")
    here.theta("get", f"{url}@v1", "-o", "other", "--to", "npz")
    assert records == []

    # A server that leaves nothing out, and one version more: one object.
    bare = Client(host.host.projects / "team/model.git", host.environment)
    bare.git("config", "uploadpack.allowFilter", "false")
    got = json.loads(here.theta("get", "--json", f"{url}@v2"))
    assert [row["path"] for row in got["files"] if row["new"]] == [NAME]
    assert (here.path / "model" / NAME).read_bytes() == content(2)
    assert len(host.host.moved("download")) <= 2

    # The tag is moved: that is said, and not followed before it was.
    local = host.client("first")
    local.git("push", "-q", "-f", "origin", "v1:refs/tags/v2")
    records.clear()
    here.theta("get", "-q", f"{url}@v2")
    assert records == []
    done = here.run(*GET, "--refresh", f"{url}@v2")
    assert b"the tag v2 of " in done.stderr
    assert (here.path / "model" / NAME).read_bytes() == content(1)
    commit = got["commit"]
    here.theta("get", "--offline", f"{url}@{commit}", "-o", "as-it-was")
    assert (here.path / "as-it-was" / NAME).read_bytes() == content(2)

    # Somebody without a password; and one who has it in the URL.
    here.theta("cache", "prune", "--all")
    (host.root / "home" / "passwords").unlink()
    done = here.run(*GET, f"{url}@v1", "-o", "nobody", ok=(9,))
    assert b"could not be fetched" in done.stderr
    secret = url.replace("://", f"://ada:{PASSWORD.replace(' ', '%20')}@")
    done = here.run(*GET, f"{secret}@v1:config.json", "-o", "config.json")
    done = here.run(*GET, f"{secret}@none", ok=(2,))
    assert b"has no version 'none'" in done.stderr
    assert b"correct" not in done.stderr + here.run(*PREFIX, "cache", "list").stdout
