"""`git theta log` and `blame`: who changed which tensor, to the bit, across branches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"
VALUE = "encoder.layer.2.attention.value.weight"


def commit(repo: Repo, message: str, **tensors: NDArray[np.generic]) -> str:
    repo.write(NAME, safetensors({**model(), **tensors}))
    return repo.commit(message)


@pytest.fixture
def history(repo: Repo) -> dict[str, str]:
    """Commits by message: two branches that changed different tensors, merged."""

    def make() -> dict[str, str]:
        made = {"first": commit(repo, "first")}
        repo.git("checkout", "-q", "-b", "side")
        made["query"] = commit(repo, "query", **{QUERY: changed(model()[QUERY])})
        repo.git("checkout", "-q", "main")
        made["value"] = commit(repo, "value", **{VALUE: changed(model()[VALUE])})
        repo.git("merge", "-q", "-m", "merge", "side")
        made["merge"] = repo.git("rev-parse", "HEAD").strip()
        return made

    return repo.once(make)


def blamed(repo: Repo, *arguments: str) -> dict[str, dict[str, object]]:
    rows = json.loads(repo.theta("blame", "--json", NAME, *arguments))["tensors"]
    return {row["name"]: row for row in rows}


def test_blame_passes_through_merges(repo: Repo, history: dict[str, str]) -> None:
    rows = blamed(repo)
    assert set(rows) == set(model())
    for name, row in rows.items():
        expected = {QUERY: "query", VALUE: "value"}.get(name, "first")
        assert row["commit"] == history[expected]
        assert row["author"] == "Ada"


def test_blame_of_an_older_version_and_of_some_tensors(repo: Repo, history: dict[str, str]) -> None:
    rows = json.loads(repo.theta("blame", "--json", f"side:{NAME}", "*.value.weight"))["tensors"]
    assert [row["commit"] for row in rows] == [history["first"]] * 3


def test_blame_of_a_change_that_was_taken_back(repo: Repo, history: dict[str, str]) -> None:
    back = commit(repo, "back", **{VALUE: changed(model()[VALUE])})
    assert blamed(repo)[QUERY]["commit"] == back


def test_drift(repo: Repo, history: dict[str, str]) -> None:
    old, new = model()[QUERY].astype(float), changed(model()[QUERY]).astype(float)
    rows = blamed(repo, "--drift")
    assert rows[QUERY]["drift"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old))
    assert rows["encoder.layer.0.attention.query.weight"]["drift"] == 0
    assert "drift" in repo.theta("blame", NAME, "--drift")


def test_log_lists_what_each_commit_changed(repo: Repo, history: dict[str, str]) -> None:
    rows = json.loads(repo.theta("log", NAME, "--json"))["commits"]
    assert {row["commit"] for row in rows} == set(history.values())
    found = {row["subject"]: [one["name"] for one in row["changes"]] for row in rows}
    assert found["query"] == [QUERY]
    assert found["value"] == [VALUE]
    assert len(found["first"]) == len(model())


def test_log_of_one_tensor(repo: Repo, history: dict[str, str]) -> None:
    text = repo.theta("log", NAME, VALUE)
    assert history["value"][:9] in text
    assert history["first"][:9] in text
    assert history["query"][:9] not in text
    assert text.splitlines()[0].endswith("Ada")


def test_log_counts(repo: Repo, history: dict[str, str]) -> None:
    assert len(json.loads(repo.theta("log", "-n", "2", NAME, "--json"))["commits"]) == 2


def test_a_deleted_checkpoint_has_a_log(repo: Repo, history: dict[str, str]) -> None:
    repo.git("rm", "-q", NAME)
    repo.commit("gone")
    assert "deleted" in repo.theta("log", NAME)


@pytest.mark.parametrize("verb", ["log", "blame"])
@pytest.mark.parametrize("file", ["nothing.pt", f"nowhere:{NAME}"])
def test_what_is_not_there(repo: Repo, history: dict[str, str], verb: str, file: str) -> None:
    import sys

    command = (sys.executable, "-m", "git_theta_ext.cli.main", verb, file)
    assert b"error" in repo.run(*command, ok=(2,)).stderr


def test_an_emptied_file_is_not_called_deleted(repo: Repo) -> None:
    for number, data in enumerate((safetensors(model()), b"", safetensors(model()))):
        repo.write(NAME, data)
        repo.commit(f"version {number}")
    text = repo.theta("log", NAME)
    assert "deleted" not in text
    assert "version 1\n    empty\n" in text
    row = json.loads(repo.theta("log", "--json", NAME))["commits"][1]
    assert (row["deleted"], row["stored_as"]) == (False, "empty")
    said = repo.run("git", "theta", "blame", f"HEAD~1:{NAME}", ok=(2,)).stderr.decode()
    assert f"{NAME!r} is empty in HEAD~1" in said
    repo.git("rm", "-q", NAME)
    repo.commit("gone")
    assert "gone\n    deleted\n" in repo.theta("log", NAME)
    said = repo.run("git", "theta", "blame", NAME, ok=(2,)).stderr.decode()
    assert "is deleted in HEAD" in said
