"""Commands in a clone where nobody typed `git theta install`: refused, not done half."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.advised import do, only, take
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"


def version(number: int) -> bytes:
    """A model of which one tensor differs from version to version."""
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=number)})


@pytest.fixture
def clone(repo: Repo, tmp_path: Path) -> Repo:
    """A clone without the settings, of two branches that collide."""
    repo.write(NAME, version(1))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "other")
    repo.write(NAME, version(2))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    repo.write(NAME, version(3))
    repo.commit("ours")
    repo.git("clone", "-q", str(repo.path), str(tmp_path / "clone"))
    return Repo(tmp_path / "clone")


def refused(clone: Repo, *arguments: str) -> None:
    """Run a command that must change nothing, and say what is to be typed."""
    before = (clone.path / NAME).read_bytes()
    done = clone.run("git", "theta", *arguments, ok=(2,))
    error = done.stderr.decode()
    assert "git-theta is not set up here" in error
    assert "git theta install" in error
    assert not done.stdout
    assert (clone.path / NAME).read_bytes() == before
    assert clone.status() == ""


def test_pull_does_not_stage_checkpoints_whole(clone: Repo) -> None:
    refused(clone, "pull")
    do(clone, take(clone, "git", "theta", "pull", has="install"))
    clone.theta("pull")
    assert (clone.path / NAME).read_bytes() == version(3)
    assert clone.status() == ""


def test_a_filter_that_is_switched_off_is_not_there(clone: Repo) -> None:
    clone.theta("install", "--local")
    clone.git("config", "filter.theta.process", "")
    clone.git("config", "filter.theta.required", "false")
    refused(clone, "pull")
    # What is refused for the setting works without it.
    clone.theta("install", "--local")
    clone.theta("pull")
    assert (clone.path / NAME).read_bytes() == version(3)


def test_nothing_to_write_is_no_error(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit("base")
    repo.theta("uninstall", "--local")
    assert "The checkpoint is in the work tree" in repo.theta("pull")


def test_merge_does_not_leave_the_strategy_out(clone: Repo) -> None:
    refused(clone, "merge", "origin/other", "--strategy", "average")
    assert "1 checkpoint changed on both sides" in clone.theta("merge", "origin/other", "--plan")
    clone.theta("install", "--local")
    clone.theta("pull")
    clone.theta("merge", "origin/other", "--strategy", "average")


def test_add_does_not_stage_the_result_whole(clone: Repo, tmp_path: Path) -> None:
    row = safetensors({f"{WEIGHT}.indices": model()[WEIGHT][0, :2].astype("int64") * 0})
    (tmp_path / "update.safetensors").write_bytes(row)
    refused(clone, "add", NAME, "--update", str(tmp_path / "update.safetensors"))


def test_resolve_does_not_write_what_git_would_store_whole(clone: Repo) -> None:
    clone.run("git", "merge", "-q", "origin/other", ok=(1,))
    shown = clone.theta("resolve", NAME, ok=(0, 1))
    assert WEIGHT in shown
    before = (clone.path / NAME).read_bytes()
    done = clone.run("git", "theta", "resolve", NAME, "--strategy", "ours", ok=(2,))
    assert b"not set up here" in done.stderr
    assert (clone.path / NAME).read_bytes() == before


def test_a_wrong_word_shows_the_usage_of_its_verb(repo: Repo) -> None:
    done = repo.run("git", "theta", "track", "--bogus", "*.pt", ok=(2,))
    assert b"usage: git theta track" in done.stderr
    assert b"git theta track: error: unrecognized arguments: --bogus" in done.stderr


@pytest.mark.parametrize(("verb", "what"), [("blame", ""), ("show", " | MERGE")])
def test_only_what_is_required_is_asked_for(repo: Repo, verb: str, what: str) -> None:
    error = repo.run("git", "theta", verb, ok=(2,)).stderr.decode()
    assert f"required: [REV:]FILE{what}\n" in error


def test_a_revision_is_named_as_it_was_typed(repo: Repo) -> None:
    error = repo.run("git", "theta", "fetch", "upstream", ok=(2,)).stderr.decode()
    assert "upstream is neither a remote nor a revision here" in error


@pytest.mark.usefixtures("sealed")
def test_du_without_a_commit_says_so(tmp_path: Path) -> None:
    empty = Repo(tmp_path)
    empty.git("init", "-q")
    assert b"there is no commit here yet" in empty.run("git", "theta", "du", ok=(2,)).stderr
    # What has nothing to do says that, too: an answer that is empty leaves one in doubt.
    assert empty.theta("pull") == "No checkpoint is tracked here\n"
    done = empty.run("git", "theta", "summary")
    assert (done.stdout, done.stderr) == (b"", b"git theta: no checkpoint that changed is staged\n")


def test_one_of_a_kind_is_counted_as_one(repo: Repo) -> None:
    repo.write(NAME, safetensors({"weight": model()[WEIGHT][:1, :1]}))
    repo.commit("one")
    listed = repo.theta("ls-files")
    assert "  1 tensor  1 parameter\n" in listed
    assert "The checkpoint is in the work tree" in repo.theta("pull")


@pytest.mark.usefixtures("sealed")
def test_push_without_a_commit_says_so(tmp_path: Path) -> None:
    empty = Repo(tmp_path)
    empty.git("init", "-q")
    empty.git("remote", "add", "origin", "elsewhere")
    done = empty.run("git", "theta", "push", ok=(2,))
    assert b"error: there is no commit here yet\n" in done.stderr


@pytest.mark.usefixtures("sealed")
def test_outside_a_repository_the_folder_is_named(tmp_path: Path) -> None:
    error = Repo(tmp_path).run("git", "theta", "status", ok=(10,)).stderr.decode()
    assert f"error: {tmp_path} is not in a Git repository\n" in error
    assert "fatal" not in error
    do(Repo(tmp_path), take(Repo(tmp_path), "git", "theta", "status"))
    Repo(tmp_path).theta("status")


@pytest.mark.parametrize(("number", "commits"), [("-1", 1), ("0", 0), ("1", 1)])
def test_a_negative_count_is_no_limit(repo: Repo, number: str, commits: int) -> None:
    repo.write(NAME, version(1))
    repo.commit("base")
    assert repo.theta("log", "-n", number, NAME).count("base") == commits


@pytest.mark.usefixtures("sealed")
def test_install_prints_no_scripts(tmp_path: Path) -> None:
    printed = Repo(tmp_path).theta("install")
    assert max(map(len, printed.splitlines())) < 400
    assert "hook.theta-pre-push.command = theta() {" in printed
    assert "filter.theta.required = true\n" in printed


def test_uninstall_counts_paths(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit("base")
    assert "1 path here still has filter=theta" in repo.theta("uninstall", "--local")


def test_du_tells_a_way_through_the_folder_above_from_a_range(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit("base")
    (repo.path / "below").mkdir()
    below = Repo(repo.path / "below")
    assert WEIGHT in below.theta("du", f"../{NAME}")
    assert WEIGHT in below.theta("du", f"./../{NAME}")


def test_an_empty_pattern_is_called_so(repo: Repo) -> None:
    before = repo.blob("HEAD:.gitattributes")
    for pattern in ("", " ", "./"):
        error = repo.run("git", "theta", "track", pattern, ok=(2,)).stderr.decode()
        assert "error: an empty pattern matches no file" in error
        assert only(error) == "git theta track '*.safetensors'"
    assert (repo.path / ".gitattributes").read_bytes() == before
    do(repo, only(error))


def test_track_promises_to_split_what_is_whole(repo: Repo) -> None:
    repo.write("cut.npy", version(1)[:-100])
    said = repo.theta("track", "*.npy")
    assert "cut.npy: its content is not npy; it will be split as safetensors if whole" in said
    repo.git("add", "cut.npy")
    assert b"format opaque" in repo.blob(":cut.npy")
