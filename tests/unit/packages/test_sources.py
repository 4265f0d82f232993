"""`URL[@VERSION][:PATH]` as people write it, and what is no such thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.sources import Source, absolute, is_source, parse

HTTPS = "https://host/org/model"


@pytest.mark.parametrize(
    ("text", "url", "version", "path"),
    [
        (HTTPS, HTTPS, None, None),
        (f"{HTTPS}@v1.2", HTTPS, "v1.2", None),
        (f"{HTTPS}@v1.2:weights/m.safetensors", HTTPS, "v1.2", "weights/m.safetensors"),
        (f"{HTTPS}:weights/", HTTPS, None, "weights"),
        (f"{HTTPS}@model@v1.2.0", HTTPS, "model@v1.2.0", None),
        (f"{HTTPS}@feature/x:a@b:c", HTTPS, "feature/x", "a@b:c"),
        ("https://me:pw@host:8443/a/b.git@v1", "https://me:pw@host:8443/a/b.git", "v1", None),
        ("https://host/@scope/model@v1", "https://host/@scope/model", "v1", None),
        ("ssh://git@host:22/~/m@v1:x", "ssh://git@host:22/~/m", "v1", "x"),
        ("git@host:org/model@v1:x", "git@host:org/model", "v1", "x"),
        ("git@host:org/model", "git@host:org/model", None, None),
        ("[::1]:org/model@v1", "[::1]:org/model", "v1", None),
        ("hub:org/model@v1", "hub:org/model", "v1", None),
        ("ext::sh -c echo@x", "ext::sh -c echo@x", None, None),
        ("/srv/model.git@v1:x", absolute("/srv/model.git"), "v1", "x"),
        ("/srv/model", absolute("/srv/model"), None, None),
    ],
)  # fmt: skip
def test_what_people_write(text: str, url: str, version: str | None, path: str | None) -> None:
    assert parse(text) == Source(url, version, path)


@pytest.mark.skipif(os.name == "nt", reason="no name has a colon there")
def test_a_path_ends_where_something_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work@home" / "a:b").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    odd = str(tmp_path / "work@home" / "a:b")
    assert parse(f"{odd}@v1:x") == Source(odd, "v1", "x")
    assert parse("work@home/a:b@v1") == Source(odd, "v1", None)
    assert parse("model:weights") == Source(str(tmp_path / "model"), None, "weights")
    assert parse("./model@v1") == Source(str(tmp_path / "model"), "v1", None)
    assert absolute("model", tmp_path) == absolute("./model") == str(tmp_path / "model")


@pytest.mark.parametrize(
    "text",
    [
        "", ":x", "-u@v1", f"{HTTPS}@", f"{HTTPS}@v1:", f"{HTTPS}@-x", f"{HTTPS}@a..b",
        f"{HTTPS}@v*", f"{HTTPS}@HEAD~1", f"{HTTPS}@v1:../x", f"{HTTPS}@v1:a/../b", "https://h/a\nb",
        f"{HTTPS}@v 1", f"{HTTPS}@x.lock",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_a_revision_here_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    revisions = [
        "main:m.safetensors", ":m.safetensors", "m.safetensors", "model@v1.2.0:m.safetensors",
        "HEAD@{1}:m", "HEAD@{2:00}:m", "./m.safetensors", "../m.safetensors", "a/b@c:m",
    ]  # fmt: skip
    assert [text for text in revisions if is_source(text)] == []
    (tmp_path / "model" / ".git").mkdir(parents=True)
    (tmp_path / "model" / ".git" / "HEAD").write_bytes(b"")
    (tmp_path / "m.bundle").write_bytes(b"# v2 git bundle\n")
    sources = [
        f"{HTTPS}@v1:m", "file:///srv/m:x", "git@host:org/model@v1:m", "me@host:org/model@v1:m",
        "/srv/gone@v1:m", "./model@v1:m", "./m.bundle@v1:m", "~/m:x",
    ]  # fmt: skip
    assert [text for text in sources if not is_source(text)] == []


def test_a_url_without_a_name_names_no_folder() -> None:
    with pytest.raises(UsageError):
        _ = Source("https://host/..", None, None).folder


@pytest.mark.parametrize(
    ("url", "name"),
    [(HTTPS, "model"), (f"{HTTPS}.git/", "model"), ("/srv/model/.git", "model"),
     ("git@host:model.git", "model"), ("/srv/m.bundle", "m")],
)  # fmt: skip
def test_the_name_is_that_of_a_clone(url: str, name: str) -> None:
    assert Source(url, None, None).name == name
