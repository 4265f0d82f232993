"""LFS pointer files: the one way to write them, and what is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.git.repository import Repository, scratch_objects
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.transfer.pointer_files import (
    POINTER_BYTES,
    commands,
    lfs_sizes,
    names_by_sha256,
    object_format,
    pointer_path,
    pointer_text,
    read_pointer,
    scratch_commit,
)
from tests.scenarios.manifests import digests
from tests.scenarios.repositories import Repo

OID = sha256(b"an object").hexdigest()
TEXT = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n"
ITEMS = [UpdateRef("dense", sha256(b"%d" % n).hexdigest(), n) for n in range(40)]


def test_the_text_is_that_of_the_specification() -> None:
    assert pointer_text(UpdateRef("delta", OID, 12345)) == TEXT


@given(digests, st.integers(0, 10**18 - 1))
def test_what_is_written_is_read(oid: str, size: int) -> None:
    assert read_pointer(pointer_text(UpdateRef("x", oid, size)).encode()) == UpdateRef(
        "lfs", oid, size
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:-1],
        TEXT + "\n",
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("v1", "v2"),
        TEXT.replace("sha256", "sha1"),
        TEXT.replace(OID, OID.upper()),
        TEXT.replace(OID, OID[1:]),
        TEXT.replace("12345", "-1"),
        TEXT.replace("12345", "1e3"),
        TEXT.replace("12345", "9" * 19),
        "\n".join([*TEXT.split("\n")[::2], TEXT.split("\n")[1], ""]),
        " " + TEXT,
    ],
)
def test_nothing_else_is_a_pointer(text: str) -> None:
    assert read_pointer(text.encode()) is None


def test_lines_of_extensions_are_passed_over_up_to_the_longest_file() -> None:
    first, rest = TEXT.split("\n", 1)
    room = POINTER_BYTES - len(TEXT) - len("ext-0-x \n")
    fits, longer = (
        f"{first}\next-0-x {'y' * length}\n{rest}".encode() for length in (room, room + 1)
    )
    assert len(fits) == POINTER_BYTES
    assert read_pointer(fits) == UpdateRef("lfs", OID, 12345)
    assert read_pointer(longer) is None


def test_a_pointer_stands_in_one_of_few_folders() -> None:
    assert pointer_path(UpdateRef("x", OID, 1)) == f"{OID[:2]}/{OID}"


def test_the_stream_of_a_commit_is_in_order_and_says_every_length() -> None:
    stream = commands("refs/x", b"said\n", {"b": b"two\n", "a/b": b""}, "c0ffee")
    assert stream == (
        b"commit refs/x\ncommitter theta <theta@localhost> 0 +0000\ndata 5\nsaid\nfrom c0ffee\n"
        b"M 100644 inline a/b\ndata 0\n\nM 100644 inline b\ndata 4\ntwo\n\n"
    )
    assert b"from" not in commands("refs/x", b"", {})


@pytest.fixture(params=["sha1", "sha256"])
def repo(request: pytest.FixtureRequest, sealed: Path, tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.path.mkdir()
    made.git("init", "-q", f"--object-format={request.param}")
    return made


def test_a_commit_of_pointers_leaves_the_repository_as_it_was(repo: Repo, tmp_path: Path) -> None:
    found = Repository.discover(repo.path)
    before = sorted(path for path in repo.path.rglob("*"))
    env = scratch_objects(found, tmp_path / "objects")
    commit = scratch_commit(found, tmp_path / "scratch", ITEMS, env)
    assert sorted(path for path in repo.path.rglob("*")) == before
    listed = found.git("ls-tree", "-r", "--name-only", commit, env=env).decode().split()
    assert sorted(listed) == sorted(pointer_path(item) for item in ITEMS)
    for item in ITEMS[:2]:
        text = found.git("cat-file", "blob", f"{commit}:{pointer_path(item)}", env=env)
        assert read_pointer(text) == UpdateRef("lfs", item.oid, item.size)
    # One pack, and no file for each of them.
    assert [path.suffix for path in (tmp_path / "objects").rglob("*.pack")] == [".pack"]
    assert not list((tmp_path / "objects").glob("??/*"))
    assert (len(commit) == 64) == names_by_sha256(found)


def test_the_format_of_names_is_said_as_git_reads_it(repo: Repo, tmp_path: Path) -> None:
    found = Repository.discover(repo.path)
    config = tmp_path / "config"
    for name, value in object_format(sha256=names_by_sha256(found)):
        repo.git("config", "--file", str(config), name, value)
    said = repo.git("rev-parse", "--show-object-format").strip()
    form = repo.git(
        "config", "--file", str(config), "--default=sha1", "--get", "extensions.objectformat"
    )
    assert form.strip() == said


def test_sizes_are_those_of_the_files_that_pointers_name(
    new_repo: Callable[..., Repo],
) -> None:
    repo = new_repo(install=False)
    contents = [TEXT.encode(), b"no pointer", TEXT.encode()[:-1]]
    oids = [repo.git("hash-object", "-w", "--stdin", stdin=one).strip() for one in contents]
    assert lfs_sizes(Repository.discover(repo.path), oids) == {oids[0]: 12345}
