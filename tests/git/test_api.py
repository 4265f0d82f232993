"""The Python interface on real repositories: the right values, and only what is asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import git_theta_ext as theta
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import awkward, changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


@pytest.fixture
def versions(repo: Repo) -> Repo:
    """Two versions, tagged v1 and v2, of which one tensor differs."""

    def make() -> None:
        repo.write(NAME, safetensors(model(), {"step": "1"}))
        repo.commit("first")
        repo.git("tag", "v1")
        repo.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}, {"step": "2"}))
        repo.commit("second")
        repo.git("tag", "v2")

    repo.once(make)
    return repo


def test_every_value_of_every_version(versions: Repo) -> None:
    for revision, query in (("v1", model()[QUERY]), ("v2", changed(model()[QUERY]))):
        with theta.open(f"{revision}:{NAME}", repository=versions.path) as checkpoint:
            expected = {**model(), QUERY: query}
            assert set(checkpoint) == set(expected)
            assert checkpoint.metadata == {"step": revision[1]}
            for name, array in checkpoint.items():
                assert same_bits(array, expected[name])


def test_awkward_values_come_back(repo: Repo) -> None:
    repo.write(NAME, safetensors(awkward()))
    repo.commit()
    checkpoint = theta.open(NAME, repository=repo.path)
    for name, expected in awkward().items():
        assert same_bits(checkpoint[name], expected)


def test_only_the_objects_of_one_tensor_are_needed(versions: Repo) -> None:
    manifest = parse_manifest(versions.blob(f"v2:{NAME}"))
    wanted = {
        ref.oid
        for entry in manifest.entries
        if entry.tensor.name == QUERY
        for ref in entry.blocks[0].chain
    }
    for ref in manifest.objects():
        if ref.oid not in wanted:
            path = versions.path / ".git/theta/objects" / ref.oid[:2] / ref.oid[2:4] / ref.oid
            path.unlink(missing_ok=True)
    checkpoint = theta.open(f"v2:{NAME}", repository=versions.path)
    assert same_bits(checkpoint[QUERY], changed(model()[QUERY]))


def test_missing_objects_are_fetched(versions: Repo, tmp_path: Path) -> None:
    versions.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    versions.git("remote", "add", "origin", str(tmp_path / "host.git"))
    versions.git("push", "-q", "origin", "main")
    versions.git(
        "clone", "-q", "--no-checkout", str(tmp_path / "host.git"), str(tmp_path / "clone")
    )
    checkpoint = theta.open(f"main:{NAME}", repository=tmp_path / "clone")
    found = checkpoint.select("*.query.weight")
    assert list(found) == [f"encoder.layer.{n}.attention.query.weight" for n in range(3)]
    assert same_bits(found[QUERY], changed(model()[QUERY]))


def test_a_bare_repository_and_the_index_do(versions: Repo, tmp_path: Path) -> None:
    versions.git("clone", "-q", "--bare", str(versions.path), str(tmp_path / "bare.git"))
    versions.git("--git-dir", str(tmp_path / "bare.git"), "config", "core.bare", "true")
    bare = theta.open(f"v1:{NAME}", repository=tmp_path / "bare.git")
    assert same_bits(bare[QUERY], model()[QUERY])
    versions.write(NAME, safetensors({"only": np.ones(100, np.float32)}))
    versions.git("add", NAME)
    assert list(theta.open(f":{NAME}", repository=versions.path)) == ["only"]


def test_patterns_with_braces(versions: Repo) -> None:
    checkpoint = theta.open(NAME, repository=versions.path)
    found = checkpoint.select("encoder.layer.{0..1}.attention.{query,value}.bias")
    assert len(found) == 4
    assert checkpoint.select("no such tensor") == {}
    assert set(checkpoint.select()) == set(model())


def test_rows_of_a_tensor_of_several_blocks(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.arange(9_000_000, dtype=np.float32).reshape(9000, 1000)
    repo.write(NAME, safetensors({"table": table, "half": table[:3].astype(ml_dtypes.bfloat16)}))
    repo.commit()
    checkpoint = theta.open(NAME, repository=repo.path)
    assert len(checkpoint.entry("table").blocks) == 2
    for start, stop in ((0, 3), (8385, 8395), (8990, 9999), (5, 5), (9000, 9001)):
        assert np.array_equal(checkpoint.rows("table", start, stop), table[start:stop])
    assert same_bits(checkpoint["table"], table)
    assert checkpoint.rows("half", 1, 2).shape == (1, 1000)


def test_many_threads_may_read(versions: Repo) -> None:
    checkpoint = theta.open(NAME, repository=versions.path)
    failures: list[str] = []

    def read() -> None:
        for name, expected in model().items():
            if name != QUERY and not same_bits(checkpoint[name], expected):
                failures.append(name)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:model.safetensors", "there is no 'v9:model.safetensors'"),
        ("v1:other.safetensors", "there is no"),
        ("v1:.gitattributes", "not stored tensor by tensor"),
        ("v1:", "is not a file"),
    ],
)
def test_what_cannot_be_opened_is_explained(versions: Repo, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        theta.open(name, repository=versions.path)


def test_a_tensor_that_is_not_there(versions: Repo) -> None:
    with pytest.raises(KeyError, match="no tensor 'nope'"):
        theta.open(NAME, repository=versions.path)["nope"]


def test_records_are_plain_rows(versions: Repo) -> None:
    rows = {row["name"]: row for row in theta.open(NAME, repository=versions.path).to_records()}
    assert rows[QUERY]["updates"][0] == "dense"
    assert len(rows[QUERY]["updates"]) == 2
    assert rows[QUERY]["bytes"] == 64 * 64 * 4
    assert rows["num_batches_tracked"]["updates"] == ["inline"]


def test_diff_gives_the_objects_behind_the_reports(versions: Repo) -> None:
    comparison = theta.diff("v1", "v2", NAME, repository=versions.path)
    assert [change.name for change in comparison.changes] == [QUERY]


def test_a_commit_without_a_work_tree(versions: Repo) -> None:
    before = versions.status()
    arrays = {"w": np.arange(5000, dtype=np.float32).reshape(50, 100), "step": np.array(3)}
    made = theta.commit(
        arrays, "new/trained.safetensors", message="Trained\n\nelsewhere", parent="main",
        metadata={"by": "api"}, repository=versions.path,
    )  # fmt: skip
    assert versions.git("rev-parse", "main").strip() == made
    assert versions.git("log", "-1", "--format=%s").strip() == "Trained"
    versions.git("reset", "-q", "--hard")
    assert versions.status() == before
    data = (versions.path / "new/trained.safetensors").read_bytes()
    assert data == safetensors(arrays, {"by": "api"})
    assert (versions.path / NAME).exists()


def test_a_commit_on_the_branch_that_is_checked_out_is_taken_over_as_documented(
    versions: Repo,
) -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text("utf-8")
    (command,) = re.findall(r"To take it over: `([^`]+)`", page)
    made = theta.commit({"w": np.ones(3)}, NAME, message="m", repository=versions.path)
    assert versions.git("rev-parse", "HEAD").strip() == made
    assert versions.status() == f"M  {NAME}\n"  # as if it were undone, and that were staged
    versions.run("sh", "-c", command)
    assert versions.status() == ""
    assert np.array_equal(theta.open(NAME, repository=versions.path)["w"], np.ones(3))


def test_a_commit_of_another_container(versions: Repo) -> None:
    arrays = {"w": np.arange(5000, dtype=np.float32).reshape(50, 100)}
    theta.commit(arrays, "trained.pt", message="m", parent="main", repository=versions.path)
    checkpoint = theta.open("main:trained.pt", repository=versions.path)
    assert checkpoint.format == "torch-zip"
    assert same_bits(checkpoint["w"], arrays["w"])


def test_a_commit_is_an_update_of_its_parent(versions: Repo) -> None:
    versions.git("branch", "side", "v1")
    arrays = {**model(), QUERY: changed(model()[QUERY], seed=5)}
    detached = theta.commit(arrays, NAME, message="m", parent="v1", repository=versions.path)
    assert versions.git("rev-parse", "main") == versions.git("rev-parse", "v2")
    made = theta.commit(arrays, NAME, message="m", parent="side", repository=versions.path)
    assert versions.git("rev-parse", "side").strip() == made
    assert versions.blob(f"{detached}:{NAME}") == versions.blob(f"{made}:{NAME}")
    first = theta.open(f"v1:{NAME}", repository=versions.path).entry(QUERY).blocks[0].chain
    second = theta.open(f"{made}:{NAME}", repository=versions.path).entry(QUERY).blocks[0].chain
    assert second[: len(first)] == first
    assert len(second) == len(first) + 1


def test_a_commit_needs_a_parent(versions: Repo) -> None:
    with pytest.raises(UsageError, match="no revision 'nowhere'"):
        theta.commit({}, NAME, message="m", parent="nowhere", repository=versions.path)


def test_a_commit_that_would_lose_a_race_does_not_move_the_branch(
    versions: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from git_theta_ext.git.repository import Repository

    real = Repository.branch

    def overtaken(self: Repository, revision: str) -> str | None:
        versions.git("commit", "-q", "--allow-empty", "-m", "meanwhile")
        return real(self, revision)

    monkeypatch.setattr(Repository, "branch", overtaken)
    with pytest.raises(RepositoryError):
        theta.commit({"w": np.ones(3)}, NAME, message="m", parent="main", repository=versions.path)
    assert versions.git("log", "-1", "--format=%s").strip() == "meanwhile"


def test_a_path_without_the_filter_is_refused(versions: Repo) -> None:
    with pytest.raises(UsageError, match="is not tracked"):
        theta.commit({"w": np.ones(3)}, "model.txt", message="m", repository=versions.path)


def test_arrays_that_no_checkpoint_has_are_refused(versions: Repo) -> None:
    with pytest.raises(UsageError, match="cannot be stored"):
        theta.commit({"w": np.array(["a"])}, NAME, message="m", repository=versions.path)


def test_big_endian_and_strided_arrays_are_stored_as_their_values(versions: Repo) -> None:
    arrays = {"big": np.arange(100, dtype=">f4"), "t": np.arange(200.0).reshape(10, 20).T[::2]}
    theta.commit(arrays, NAME, message="m", parent="main", repository=versions.path)
    checkpoint = theta.open(f"main:{NAME}", repository=versions.path)
    assert np.array_equal(checkpoint["big"], arrays["big"])
    assert np.array_equal(checkpoint["t"], arrays["t"])


def test_the_interface_is_imported_only_when_it_is_used(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo(install=False)
    code = "import sys, git_theta_ext; assert 'numpy' not in sys.modules; git_theta_ext.open"
    import sys

    repo.run(sys.executable, "-c", code)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        theta.nothing  # noqa: B018


def test_the_errors_are_where_they_are_documented() -> None:
    from git_theta_ext.core import errors
    from git_theta_ext.errors import ThetaError

    assert ThetaError is theta.errors.ThetaError is errors.ThetaError


def test_no_room_hides_a_function() -> None:
    """A folder of the package becomes an attribute of it when something in it is imported."""
    rooms = {path.name for path in Path(theta.__file__).parent.iterdir() if path.is_dir()}
    assert not rooms & set(theta.__all__)
