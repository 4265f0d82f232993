"""`log`, `blame`, `du` and `diff` over what a history may hold besides manifests, and renames."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"
VALUE = "encoder.layer.2.attention.value.weight"


def version(**tensors: np.ndarray[Any, Any]) -> bytes:
    return safetensors({**model(), **tensors})


def commit_pointer(repo: Repo, content: bytes, *, here: bool, message: str = "pointer") -> str:
    """Commit a pointer of git-lfs to some content, whose object is here or is not."""
    oid = hashlib.sha256(content).hexdigest()
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
    blob = repo.run("git", "hash-object", "-w", "--stdin", stdin=text.encode()).stdout.decode()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob.strip()},{NAME}")
    if here:
        folder = Path(".git/lfs/objects") / oid[:2] / oid[2:4]
        repo.write(str(folder / oid), content)
    repo.git("commit", "-q", "-m", message)
    return repo.git("rev-parse", "HEAD").strip()


def commit_raw(repo: Repo, content: bytes) -> str:
    """Commit a checkpoint as somebody without this extension does."""
    blob = repo.run("git", "hash-object", "-w", "--stdin", stdin=content).stdout.decode()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob.strip()},{NAME}")
    repo.git("commit", "-q", "-m", "raw")
    return repo.git("rev-parse", "HEAD").strip()


def log(repo: Repo, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(repo.theta("log", "--json", *arguments))["commits"]
    return found


def blame(repo: Repo, name: str = NAME) -> dict[str, dict[str, Any]]:
    rows = json.loads(repo.theta("blame", "--json", name))["tensors"]
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("here", [True, False])
def test_versions_that_git_lfs_stores(repo: Repo, here: bool) -> None:
    first = commit_pointer(repo, version(), here=here, message="first")
    repo.write(NAME, version(**{QUERY: changed(model()[QUERY])}))
    second = repo.commit("second")
    rows = log(repo, NAME)
    assert [row["commit"] for row in rows] == [second, first]
    assert [row["storage"] for row in rows] == ["tensors", "git-lfs"]
    assert not any(row["deleted"] for row in rows)
    told = json.loads(repo.theta("diff", "--format", "json", first, second))["files"]
    text = repo.theta("diff", first, second)
    if here:
        assert (rows[0]["compared"], rows[0]["changed"]) == (True, 1)
        assert [change["name"] for change in told[0]["changes"]] == [QUERY]
        assert "was stored by git-lfs" in text
        assert blame(repo)[VALUE]["commit"] == first
    else:
        assert (rows[0]["compared"], rows[0]["changed"]) == (False, None)
        assert not told[0]["compared"]
        assert "not on this machine (git lfs fetch --all)" in text
        row = blame(repo)[VALUE]
        assert (row["commit"], row["certain"]) == (second, False)
        assert f"^{second[:9]}" in repo.theta("blame", NAME)
        assert "what changed is not known" in repo.theta("log", NAME)
    for form in ("text", "markdown", "json"):
        shown = repo.theta("diff", "--format", form, first, second)
        assert "deleted" not in shown
        assert "new, " not in shown
    boxes = repo.theta("diff", "--format", "html", first, second).partition('class="figures"')[2]
    assert "git-lfs" in boxes
    assert "deleted" not in boxes


def test_two_versions_that_git_lfs_stores(repo: Repo) -> None:
    first = commit_pointer(repo, version(), here=True)
    second = commit_pointer(repo, version(**{QUERY: changed(model()[QUERY])}), here=True)
    told = json.loads(repo.theta("diff", "--format", "json", first, second))["files"]
    assert [change["name"] for change in told[0]["changes"]] == [QUERY]
    assert blame(repo)[QUERY]["commit"] == second
    assert blame(repo)[VALUE]["commit"] == first
    assert blame(repo)[VALUE]["update"] == "git-lfs"


def test_an_object_of_git_lfs_that_is_damaged_is_not_believed(repo: Repo) -> None:
    content = version()
    first = commit_pointer(repo, content, here=True)
    oid = hashlib.sha256(content).hexdigest()
    repo.write(f".git/lfs/objects/{oid[:2]}/{oid[2:4]}/{oid}", content[:-1] + b"\xff")
    assert [row["compared"] for row in log(repo, NAME)] == [False]
    assert "not on this machine" in log(repo, f"{first}:{NAME}")[0]["stored_as"]


def test_versions_that_git_itself_stores(repo: Repo) -> None:
    first = commit_raw(repo, version())
    repo.write(NAME, version(**{QUERY: changed(model()[QUERY])}))
    second = repo.commit("second")
    rows = log(repo, NAME)
    assert [(row["storage"], row["changed"]) for row in rows] == [
        ("tensors", 1),
        ("whole", len(model())),
    ]
    assert "stored whole" in repo.theta("log", NAME)
    assert "was stored whole" in repo.theta("diff", first, second)
    rows = json.loads(repo.theta("du", "--json"))["versions"]
    assert (rows[0]["commit"], rows[0]["kinds"]) == (first, {"whole": len(version())})
    assert rows[1]["stored"] < rows[0]["stored"]


def test_a_file_that_really_was_deleted(repo: Repo) -> None:
    repo.write(NAME, version())
    repo.commit("first")
    repo.git("rm", "-q", NAME)
    repo.git("commit", "-q", "-m", "gone")
    assert [row["deleted"] for row in log(repo, NAME)] == [True, False]


def test_a_renamed_folder_is_followed_through_many_names(repo: Repo) -> None:
    commits = []
    for step in range(6):
        if step:
            repo.git("rm", "-q", "-r", f"run/checkpoint-{step - 1}")
        moved = {QUERY: changed(model()[QUERY], seed=step)} if step % 2 else {}
        repo.write(f"run/checkpoint-{step}/{NAME}", version(**moved))
        repo.write(f"run/checkpoint-{step}/optimizer.safetensors", safetensors({"m": np.ones(99)}))
        commits.append(repo.commit(f"step {step}"))
    name = f"run/checkpoint-5/{NAME}"
    rows = log(repo, name)
    assert [row["commit"] for row in rows] == commits[::-1]
    assert rows[0]["renamed_from"] == f"run/checkpoint-4/{NAME}"
    found = blame(repo, name)
    assert found[VALUE]["commit"] == commits[0]
    assert found[QUERY]["commit"] == commits[5]
    told = json.loads(repo.theta("diff", "--format", "json", commits[4], commits[5]))["files"]
    assert [(one["path"], one["old_path"]) for one in told] == [
        (name, f"run/checkpoint-4/{NAME}"),
        ("run/checkpoint-5/optimizer.safetensors", "run/checkpoint-4/optimizer.safetensors"),
    ]
    assert [change["name"] for change in told[0]["changes"]] == [QUERY]
    assert told[0]["stored"] < len(version()) / 5


def test_a_folder_that_stays_is_no_rename_and_counts_what_it_stores(repo: Repo) -> None:
    repo.write(f"run/checkpoint-1/{NAME}", version())
    first = repo.commit("step 1")
    repo.write(f"run/checkpoint-2/{NAME}", version(**{QUERY: changed(model()[QUERY])}))
    second = repo.commit("step 2")
    told = json.loads(repo.theta("diff", "--format", "json", first, second))["files"]
    assert [(one["path"], one["old_path"]) for one in told] == [(f"run/checkpoint-2/{NAME}", None)]
    assert told[0]["stored"] < len(version()) / 4
    assert told[0]["bytes"] == len(version(**{QUERY: changed(model()[QUERY])}))


def test_a_sharded_model_that_was_renamed(repo: Repo) -> None:
    names = sorted(model())
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for step in (1, 2):
        if step == 2:
            repo.git("rm", "-q", "-r", "run/checkpoint-1")
        tensors = {**model(), **({QUERY: changed(model()[QUERY])} if step == 2 else {})}
        for number, half in enumerate(halves, 1):
            part = safetensors({name: tensors[name] for name in half})
            repo.write(f"run/checkpoint-{step}/model-0000{number}-of-00002.safetensors", part)
        repo.commit(f"step {step}")
    told = json.loads(repo.theta("diff", "--format", "json", "HEAD~1", "HEAD"))["files"]
    assert [change["name"] for one in told for change in one["changes"]] == [QUERY]
    pattern = "run/checkpoint-2/model-*-of-*.safetensors"
    assert [row["subject"] for row in log(repo, pattern)] == ["step 2", "step 1"]


def test_the_boundary_of_a_shallow_clone(repo: Repo, tmp_path: Path) -> None:
    for number in range(3):
        repo.write(NAME, version(**{QUERY: changed(model()[QUERY], seed=number)}))
        repo.commit(f"version {number}")
    repo.git("clone", "-q", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    url = (tmp_path / "bare.git").as_uri()
    repo.git("clone", "-q", "--depth", "2", "--no-checkout", url, str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    rows = log(clone, NAME)
    assert [(row["boundary"], row["changed"]) for row in rows] == [(False, 1), (True, None)]
    found = blame(clone)
    assert (found[QUERY]["certain"], found[VALUE]["certain"]) == (True, False)
    shown = clone.run("git", "theta", "blame", NAME).stderr.decode()
    assert "git fetch --unshallow" in shown
    clone.git("fetch", "-q", "--unshallow")
    assert all(row["certain"] for row in blame(clone).values())


@pytest.mark.parametrize(
    "command",
    [
        ("log", NAME, "no.such.*"),
        ("blame", NAME, "no.such.*"),
        ("du", NAME, "--tensors", "no.such.*"),
        ("diff", "HEAD~1", "HEAD", "--tensor", "no.such.*"),
        ("show", NAME, "no.such.*"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(repo: Repo, command: tuple[str, ...]) -> None:
    repo.write(NAME, version())
    repo.commit("first")
    repo.write(NAME, version(**{QUERY: changed(model()[QUERY])}))
    repo.commit("second")
    done = repo.run("git", "theta", *command, ok=(2,))
    assert b"no.such.*" in done.stderr


def test_a_pattern_that_matches_what_has_not_changed_is_none(repo: Repo) -> None:
    repo.write(NAME, version())
    repo.commit("first")
    repo.write(NAME, version(**{QUERY: changed(model()[QUERY])}))
    repo.commit("second")
    assert repo.theta("diff", "HEAD~1", "HEAD", "--tensor", VALUE) == ""


def test_links_are_no_checkpoints(repo: Repo) -> None:
    repo.write("blobs/abc", version())
    (repo.path / NAME).symlink_to("blobs/abc")
    repo.commit("link")
    assert json.loads(repo.theta("status", "--json"))["files"] == []
    assert json.loads(repo.theta("ls-files", "--json", "HEAD"))["files"] == []
    (repo.path / NAME).unlink()
    (repo.path / NAME).symlink_to("blobs/other")
    repo.commit("another link")
    assert repo.theta("diff", "HEAD~1", "HEAD") == ""


@pytest.mark.parametrize("exact", [True, False])
def test_the_raw_size_is_that_of_the_file(repo: Repo, exact: bool) -> None:
    content = version()
    repo.write(NAME, content)
    repo.commit("first")
    if not exact:
        for path in (repo.path / ".git/theta/objects").rglob("*"):
            if path.is_file():
                path.unlink()
    row = json.loads(repo.theta("ls-files", "--json"))["files"][0]
    assert row["raw_exact"] is exact
    assert (row["raw_bytes"] == len(content)) is exact


def test_removed_tensors_are_counted_among_all(repo: Repo) -> None:
    repo.write(NAME, version())
    repo.commit("first")
    kept = {name: tensor for name, tensor in model().items() if name != QUERY}
    repo.write(NAME, safetensors(kept))
    repo.commit("second")
    assert f"1 of {len(model())} tensors" in repo.theta("diff", "HEAD~1", "HEAD")
    one = json.loads(repo.theta("diff", "--format", "json", "HEAD~1", "HEAD"))["files"][0]
    assert one["changed_parameters"] == model()[QUERY].size
    assert one["parameters"] == sum(tensor.size for tensor in model().values())


def test_entries_of_complex_tensors_are_counted_once(repo: Repo) -> None:
    then = (np.arange(40000) + 1j * np.arange(40000)).astype(np.complex64)
    now = then.copy()
    now[:7] += 1 + 1j
    now[9] = complex(np.nan, np.nan)
    for name, array in (("old.npy", then), ("new.npy", now)):
        np.save(repo.path / name, array)
    done = repo.run(
        "git", "theta", "diff", "--no-index", "--format", "json", "old.npy", "new.npy", ok=(1,)
    )
    (change,) = json.loads(done.stdout)["files"][0]["changes"]
    assert change["values"]["changed_entries"] == 8
    assert change["values"]["new_not_finite"] == 1
