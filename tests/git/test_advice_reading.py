"""What `show`, `log`, `blame`, `diff` and the rest advise where there is nothing to show."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.scenarios.advised import clone, do, only, take
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.diverged import APART, BASE, OURS
from tests.scenarios.merges import QUERY, st
from tests.scenarios.repositories import Repo
from tests.scenarios.terminals import on_terminal

NAME = "sub folder/it's mine.safetensors"
LAST = "it's mine.safetensors"


@pytest.fixture
def two(repo: Repo) -> Repo:
    """Two versions of a checkpoint in a subfolder, whose name the shell must have quoted."""

    def make() -> None:
        for content in (st(BASE), st(BASE, OURS)):
            repo.write(NAME, content)
            repo.commit("version")

    repo.once(make)
    return repo


@pytest.mark.parametrize(
    "command",
    [("show", NAME, "nope"), ("show", f"HEAD~1:{NAME}", "nope"), ("cat", NAME, "nope"),
     ("du", NAME, "--tensors", "nope"), ("export", NAME, "-o", "x.pt", "--tensors", "nope"),
     ("log", NAME, "nope"), ("blame", NAME, "nope"), ("blame", f"HEAD~1:{NAME}", "nope")],
    ids=" ".join,
)  # fmt: skip
def test_a_tensor_that_is_not_there(two: Repo, command: tuple[str, ...]) -> None:
    advice = take(two, "git", "theta", *command, has="theta show")
    assert QUERY in do(two, advice)


@pytest.mark.parametrize("verb", ["show", "cat", "log", "blame"])
def test_from_a_subfolder(two: Repo, verb: str) -> None:
    for name in (LAST, f"HEAD:{NAME}"):
        done = two.run("sh", "-c", f'cd "sub folder" && git theta {verb} "{name}" nope', ok=(2,))
        assert QUERY in do(two, only(done.stderr.decode(), "theta show"), "sub folder")


def test_a_name_that_cannot_be_shown_is_not_given_for_pasting(repo: Repo) -> None:
    name = "a\x1b[2Jb.safetensors"
    repo.write(name, safetensors(model()))
    repo.commit()
    said = repo.run("git", "theta", "show", name, "nope", ok=(2,)).stderr.decode()
    assert "git theta show FILE" in said
    assert "Tab key" in said
    assert "\x1b" not in said


def test_diff_of_a_tensor_that_is_not_there(two: Repo) -> None:
    for words in (["HEAD~1", "HEAD"], ["HEAD~1", "--", NAME], ["--cached", "HEAD~1"],
                  [f"HEAD~1:{NAME}", f":{NAME}"]):  # fmt: skip
        assert QUERY in do(two, take(two, "git", "theta", "diff", "--tensor", "nope", *words))


def test_diff_of_what_is_neither_a_revision_nor_a_file(two: Repo) -> None:
    advice = take(two, "git", "theta", "diff", "nope")
    assert advice == "git theta diff [REV [REV]] FILE"
    assert QUERY in do(two, advice.replace("[REV [REV]]", "HEAD~1 HEAD"), FILE=f"'{LAST[:2]}'*"
                       ) or QUERY in do(two, f'git theta diff HEAD~1 HEAD "{NAME}"')  # fmt: skip
    advice = take(two, "git", "theta", "diff", "HEAD:nope", f"HEAD:{NAME}")
    assert advice == "git theta diff REV:FILE REV:FILE"
    assert QUERY in do(two, f'git theta diff HEAD~1:"{NAME}" HEAD:"{NAME}"')


def test_diff_outside_of_a_repository(two: Repo, tmp_path: Path) -> None:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "a.safetensors").write_bytes(st(BASE))
    (place / "b.safetensors").write_bytes(st(BASE, APART))
    advice = take(Repo(place), "git", "theta", "diff", has="FILE FILE")
    command = advice.replace("FILE FILE", "a.safetensors b.safetensors")
    done = Repo(place).run("sh", "-c", command, ok=(1,))
    assert b"1 tensor changed" in done.stdout or b"changed" in done.stdout


def test_diff_of_two_versions_of_a_sharded_model(repo: Repo) -> None:
    for seed in (0, 1):
        for number in (1, 2):
            name = f"model-0000{number}-of-00002.safetensors"
            repo.write(name, safetensors({f"w{number}": model(seed)[QUERY]}))
        repo.commit()
    pattern = "model-*-of-00002.safetensors"
    advice = take(repo, "git", "theta", "diff", f"HEAD~1:{pattern}", f"HEAD:{pattern}")
    advice = advice.replace("REV REV", "HEAD~1 HEAD")
    assert "w1" in do(repo, advice, PATH=f"'{pattern}'")


def test_the_history_of_a_shallow_clone(two: Repo, tmp_path: Path) -> None:
    shallow = clone(two, tmp_path / "clone", "--depth", "1")
    before = shallow.theta("log", NAME)
    do(shallow, only(before, "unshallow"))
    after = shallow.theta("log", NAME)
    assert "unshallow" not in after
    assert after.count("\ncommit ") + after.startswith("commit ") >= before.count("commit ")
    assert QUERY in after


@pytest.fixture
def pointers(repo: Repo, tmp_path: Path) -> Repo:
    """A clone whose versions are stored by git-lfs, the older ones only at the remote."""
    repo.git("lfs", "install", "--local", "--skip-repo")
    (repo.path / ".gitattributes").unlink()
    repo.git("lfs", "track", "*.safetensors")
    for content in (st(BASE), st(BASE, OURS), st(BASE, OURS, APART)):
        repo.write(LAST, content)
        repo.commit("with git-lfs")
    bare = tmp_path / "bare.git"
    repo.git("clone", "-q", "--bare", str(repo.path), str(bare))
    repo.git("remote", "add", "origin", bare.as_uri())
    repo.git("lfs", "push", "--all", "origin")
    repo.git("fetch", "-q", "origin")
    shutil.rmtree(repo.path / ".git/lfs")
    repo.theta("track", "*.safetensors")
    repo.write(LAST, st(BASE, OURS, APART))
    repo.git("add", "--renormalize", ".")
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "by tensor")
    return repo


def test_what_git_lfs_has_elsewhere_is_fetched_for_blame(pointers: Repo) -> None:
    said = pointers.run("git", "theta", "blame", LAST).stderr.decode()
    do(pointers, only(said, "lfs fetch"))
    assert pointers.run("git", "theta", "blame", LAST).stderr == b""


def test_what_git_lfs_has_elsewhere_is_fetched_for_diff_and_log(pointers: Repo) -> None:
    before = pointers.theta("diff", "HEAD~2", "HEAD")
    assert QUERY not in before
    do(pointers, only(before, "lfs fetch"))
    after = pointers.theta("diff", "HEAD~3", "HEAD~2")
    assert QUERY in after
    assert "lfs fetch" not in after
    assert QUERY in pointers.theta("log", LAST)


def test_verbs_that_are_none(repo: Repo) -> None:
    assert "usage:" in do(repo, take(repo, "git", "theta", "frobnicate"))
    assert "usage:" in do(repo, take(repo, "git", "theta", "--nope"))
    assert do(repo, take(repo, "git", "theta", "stauts")) == repo.theta("status")
    assert "--json" in do(repo, take(repo, "git", "theta", has="VERB -h"), VERB="status")
    assert "EXIT" in do(repo, take(repo, "git", "theta", has="help VERB"), VERB="status").upper()


def test_what_is_not_there(two: Repo) -> None:
    for command in (("ls-files", "nope"), ("log", "nope.pt"), ("blame", "HEAD~1:nope.pt")):
        assert NAME in do(two, take(two, "git", "theta", *command, has="ls-files"))


def test_pull_of_what_is_not_tracked(two: Repo) -> None:
    two.write("code.py", b"")
    two.commit()
    assert NAME in do(two, take(two, "git", "theta", "pull", "code.py"))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no terminals of that kind")
@pytest.mark.parametrize("program", ["filter", "diff", "merge"])
def test_a_driver_that_is_started_by_hand(repo: Repo, program: str) -> None:
    words = (sys.executable, "-m", f"git_theta_ext.drivers.{program}")
    said = on_terminal(repo.path, *words).decode()
    assert "git config" in do(repo, only(said, "help"))
