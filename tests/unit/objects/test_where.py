"""Where a repository keeps its objects, and whose it may read besides."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.repositories import Repo

DATA = b"parameter file" * 1000


class Configured(Repository):
    """A repository of which only the folder and one setting are asked."""

    def __init__(self, common_dir: Path, storage: str | None = None) -> None:
        super().__init__(common_dir, common_dir, common_dir, None)
        self.storage = storage

    def quick_setting(self, name: str, folder: Path) -> str | None:
        assert name == "theta.storage"
        return self.storage


@pytest.fixture
def git_dir(sealed: Path, tmp_path: Path) -> Path:
    path = tmp_path / "repo" / ".git"
    (path / "objects" / "info").mkdir(parents=True)
    return path


def put(folder: Path) -> str:
    """An object in the store at a folder."""
    store = Store(folder)
    oid, _ = store.put([DATA])
    store.flush()
    return oid


def test_below_the_common_folder_and_nothing_is_made(git_dir: Path) -> None:
    assert store_of(Configured(git_dir)).root == git_dir / "theta"
    assert not (git_dir / "theta").exists()


def test_each_repository_has_one(git_dir: Path, tmp_path: Path) -> None:
    one, other = Configured(git_dir), Configured(tmp_path)
    assert store_of(one) is store_of(one)
    assert store_of(one) is not store_of(other)


@pytest.mark.parametrize(
    ("setting", "root"),
    [
        (None, "repo/.git/theta"),
        ("", "repo/.git/theta"),
        ("elsewhere", "repo/.git/elsewhere"),
        ("../shared", "repo/.git/../shared"),
        ("~/models", "home/models"),
    ],
)
def test_a_setting_names_another_folder(
    git_dir: Path, tmp_path: Path, setting: str | None, root: str
) -> None:
    assert store_of(Configured(git_dir, setting)).root == tmp_path / root


def test_the_folder_of_a_user_who_is_not_there(git_dir: Path) -> None:
    with pytest.raises(UsageError, match="~nobody-here/x: there is no such user"):
        store_of(Configured(git_dir, "~nobody-here/x"))


def test_an_absolute_setting_counts_as_it_is(git_dir: Path, tmp_path: Path) -> None:
    assert store_of(Configured(git_dir, str(tmp_path / "disk"))).root == tmp_path / "disk"


def test_what_was_verified_is_remembered_in_the_repository_itself(
    git_dir: Path, tmp_path: Path
) -> None:
    """Others may write to a shared store: what they say of it is not believed."""
    oid = put(tmp_path / "disk")
    store = store_of(Configured(git_dir, str(tmp_path / "disk")))
    assert store.sound(oid, len(DATA))
    store.save_verified()
    assert (git_dir / "theta" / "verified").exists()
    assert not (tmp_path / "disk" / "verified").exists()


class TestBorrowed:
    """Repositories that Git objects are borrowed from have stores too; they are only read."""

    def test_each_line_of_the_list_is_one(self, git_dir: Path, tmp_path: Path) -> None:
        oid = put(tmp_path / "one" / "theta")
        (git_dir / "objects/info/alternates").write_text(
            f"# {tmp_path}/comment/objects\n\n{tmp_path}/none/objects\n{tmp_path}/one/objects\n"
        )
        store = store_of(Configured(git_dir))
        assert store.read(oid) == DATA
        assert store.path(oid) == Store(git_dir / "theta").path(oid)
        assert not store.path(oid).exists()

    def test_a_commented_one_is_not(self, git_dir: Path) -> None:
        oid = put(git_dir / "objects" / "#comment" / "theta")
        (git_dir / "objects/info/alternates").write_text("#comment/objects\n")
        assert not store_of(Configured(git_dir)).has(oid)

    def test_a_relative_one_counts_from_the_objects(self, git_dir: Path, tmp_path: Path) -> None:
        oid = put(tmp_path / "one" / ".git" / "theta")
        (git_dir / "objects/info/alternates").write_text("../../../one/.git/objects\n")
        assert store_of(Configured(git_dir)).has(oid)

    def test_those_of_the_environment_count(
        self, git_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        oid = put(tmp_path / "two" / "theta")
        folders = ["", str(tmp_path / "one" / "objects"), str(tmp_path / "two" / "objects")]
        monkeypatch.setenv("GIT_ALTERNATE_OBJECT_DIRECTORIES", os.pathsep.join(folders))
        assert store_of(Configured(git_dir)).has(oid)
        monkeypatch.delenv("GIT_ALTERNATE_OBJECT_DIRECTORIES")
        assert not store_of(Configured(git_dir)).has(oid)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\n"])
    def test_a_list_that_is_no_text_borrows_nothing(self, git_dir: Path, content: bytes) -> None:
        (git_dir / "objects/info/alternates").write_bytes(content)
        assert not store_of(Configured(git_dir)).has("0" * 64)

    def test_as_git_makes_them(self, new_repo: Callable[..., Repo], tmp_path: Path) -> None:
        """`git clone --shared`, and a work tree that is linked to that."""
        origin = new_repo("origin", install=False)
        origin.write("file", b"x")
        origin.commit()
        oid = put(origin.path / ".git" / "theta")
        origin.git("clone", "-q", "--shared", ".", str(tmp_path / "clone"))
        clone = Repo(tmp_path / "clone")
        clone.git("worktree", "add", "-q", str(tmp_path / "linked"))
        for place in (clone.path, tmp_path / "linked"):
            store = store_of(Repository.discover(place))
            assert store.root == clone.path / ".git" / "theta"
            assert store.read(oid) == DATA
