"""The ref of pointer files: what is added to it, by whom, and what a refusal costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.transfer import pointers
from git_theta_ext.objects.transfer.pointer_files import read_pointer
from git_theta_ext.objects.transfer.pointers import REF, REFS, publish
from tests.scenarios.repositories import Repo

ONE, TWO, THREE = (UpdateRef("dense", digit * 64, int(digit)) for digit in "123")
BESIDE = UpdateRef("dense", "1" * 63 + "2", 9)
"""In the same folder as the first."""


@pytest.fixture
def repo(new_repo: Callable[..., Repo]) -> Repo:
    return new_repo(install=False)


@pytest.fixture
def repository(repo: Repo) -> Repository:
    return Repository.discover(repo.path)


@pytest.fixture
def remote(sealed: Path, tmp_path: Path) -> Repo:
    host = Repo(tmp_path / "host.git")
    host.path.mkdir()
    host.git("init", "-q", "--bare")
    return host


def published(remote: Repo, ref: str = REF) -> set[UpdateRef]:
    """The objects that the pointer files of a ref name; each stands under its name."""
    found = set()
    for line in remote.git("ls-tree", "-r", ref).splitlines():
        oid, path = line.split()[2:]
        if path != "README":
            pointer = read_pointer(remote.blob(oid))
            assert pointer is not None
            assert path == f"{pointer.oid[:2]}/{pointer.oid}"
            found.add(UpdateRef("dense", pointer.oid, pointer.size))
    return found


def add(
    repository: Repository,
    remote: Repo,
    *items: UpdateRef,
    all_sent: Iterable[UpdateRef] = (),
    moved: Iterable[str] = (),
) -> str | None:
    return publish(repository, str(remote.path), items, lambda: all_sent, set(moved))


def test_the_first_push_names_all_that_was_ever_sent(repository: Repository, remote: Repo) -> None:
    assert add(repository, remote, ONE, all_sent=[TWO]) is None
    assert published(remote) == {ONE, TWO}
    assert "theta.pointerRef" in remote.git("show", f"{REF}:README")


def test_later_ones_add_and_one_that_adds_nothing_writes_nothing(
    repository: Repository, remote: Repo
) -> None:
    add(repository, remote, ONE)
    first = remote.git("rev-parse", REF)
    add(repository, remote, BESIDE, TWO, all_sent=[THREE])
    assert published(remote) == {ONE, BESIDE, TWO}
    assert remote.git("rev-parse", f"{REF}^") == first
    second = remote.git("rev-parse", REF)
    add(repository, remote, ONE, TWO)
    assert remote.git("rev-parse", REF) == second


def test_clones_that_do_not_know_each_other_are_united(
    repository: Repository, remote: Repo, new_repo: Callable[..., Repo]
) -> None:
    other = Repository.discover(new_repo("other", install=False).path)
    add(repository, remote, ONE)
    add(other, remote, TWO)
    add(repository, remote, BESIDE)
    assert published(remote) == {ONE, TWO, BESIDE}


def test_somebody_who_was_faster_is_no_refusal(
    repository: Repository,
    remote: Repo,
    new_repo: Callable[..., Repo],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Repository.discover(new_repo("other", install=False).path)
    commit, waiting = pointers._commit, [TWO, THREE]

    def slow(repository: Repository, parent: str | None, items: Iterable[UpdateRef]) -> str:
        made = commit(repository, parent, items)
        if waiting:
            monkeypatch.setattr(pointers, "_commit", commit)
            add(other, remote, waiting.pop())
            monkeypatch.setattr(pointers, "_commit", slow)
        return made

    monkeypatch.setattr(pointers, "_commit", slow)
    assert add(repository, remote, ONE) is None
    assert waiting == []
    assert published(remote) == {ONE, TWO, THREE}


def test_nothing_is_left_in_the_repository_but_what_is_known(
    repo: Repo, repository: Repository, remote: Repo
) -> None:
    add(repository, remote, ONE)
    refs = repo.git("for-each-ref", "--format=%(refname)").split()
    assert [ref.rpartition("/")[0] for ref in refs] == ["refs/theta/known"]
    assert repo.git("rev-parse", refs[0]) == remote.git("rev-parse", REF)


class TestARefusal:
    @pytest.fixture
    def refusing(self, remote: Repo, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """A host that takes no such ref; the URLs that a publishing was tried at."""
        tried: list[str] = []

        def refuse(repository: Repository, url: str, *rest: object) -> None:
            tried.append(url)
            raise RepositoryError("git push failed: remote: deny updating a hidden ref")

        monkeypatch.setattr(pointers, "_publish_once", refuse)
        return tried

    def test_is_said_once_and_not_tried_again_that_day(
        self, repository: Repository, remote: Repo, refusing: list[str]
    ) -> None:
        said = add(repository, remote, ONE)
        assert said is not None
        assert "hidden ref" in said
        assert "git config theta.pointerRef false" in said
        assert add(repository, remote, TWO) is None
        assert refusing == [str(remote.path)]

    def test_is_of_one_host(
        self, repository: Repository, remote: Repo, refusing: list[str]
    ) -> None:
        add(repository, remote, ONE)
        assert publish(repository, "elsewhere", [ONE], list) is not None
        assert refusing == [str(remote.path), "elsewhere"]

    def test_of_yesterday_is_tried_again_and_not_said_again(
        self, repository: Repository, remote: Repo, refusing: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        add(repository, remote, ONE)
        now = pointers.time.time
        monkeypatch.setattr(pointers.time, "time", lambda: now() + 24 * 3600 + 1)
        assert add(repository, remote, ONE) is None
        assert len(refusing) == 2

    def test_is_forgotten_once_the_host_takes_it(
        self, repository: Repository, remote: Repo
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pointers, "_ATTEMPTS", 0)
            add(repository, remote, ONE)
        assert add(repository, remote, ONE) is None
        assert not list(remote.path.glob("refs/theta/*"))
        (kept,) = (repository.common_dir / "theta" / "confirmed").iterdir()
        os.utime(kept, (0, 0))
        assert add(repository, remote, ONE) is None
        assert published(remote) == {ONE}
        assert not kept.exists()

    def test_a_lost_race_is_tried_five_times(
        self, repository: Repository, remote: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[int] = []

        def lose(*arguments: object) -> None:
            tried.append(1)
            raise RepositoryError("git push failed: ! [rejected] (fetch first)")

        monkeypatch.setattr(pointers, "_publish_once", lose)
        assert "fetch first" in (add(repository, remote, ONE) or "")
        assert len(tried) == 5


def test_who_does_not_want_it_has_no_ref(repo: Repo, remote: Repo) -> None:
    repo.git("config", "theta.pointerRef", "false")
    assert add(Repository.discover(repo.path), remote, ONE) is None
    assert remote.git("for-each-ref") == ""


def test_a_ref_that_the_push_itself_moves_is_left_alone(
    repository: Repository, remote: Repo
) -> None:
    """As `git push --mirror` does; then all of them are named under the next one."""
    add(repository, remote, ONE)
    add(repository, remote, TWO, all_sent=[ONE, THREE], moved=[REF])
    assert published(remote) == {ONE}
    assert published(remote, REFS[1]) == {ONE, TWO, THREE}
    # Again, where the next one is there already: it may lack what the first one names.
    add(repository, remote, TWO, all_sent=[BESIDE], moved=[REF])
    assert published(remote, REFS[1]) == {ONE, TWO, THREE, BESIDE}
    add(repository, remote, TWO, moved=REFS)
    assert remote.git("for-each-ref", "--format=%(refname)").split() == list(REFS[:2])


def test_a_tree_of_the_servers_is_not_read_beyond_our_share(
    repository: Repository, remote: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, remote, ONE)
    monkeypatch.setattr(pointers, "_TREE_BYTES", 10)
    assert "too long" in (add(repository, remote, BESIDE) or "")
    # A folder that it does not have costs nothing.
    assert publish(repository, f"{remote.path}/.", [TWO], list) is None
    assert published(remote) == {ONE, TWO}
