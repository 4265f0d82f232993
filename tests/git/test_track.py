"""`track`, `untrack`, `ls-files` and `status` in real repositories."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

_OURS = "filter=theta diff=theta merge=theta -text\n"


@pytest.fixture
def plain(new_repo: Callable[..., Repo]) -> Repo:
    """A repository in which nothing is installed or tracked."""
    return new_repo("plain", install=False)


def _fail(repo: Repo, *arguments: str, code: int) -> str:
    done = repo.run(sys.executable, "-m", "git_theta_ext.cli.main", *arguments, ok=(code,))
    return (done.stdout + done.stderr).decode()


def test_track_writes_the_line_and_installs_where_needed(plain: Repo) -> None:
    shown = plain.theta("track", "*.pt")
    assert 'Tracking "*.pt"' in shown
    assert "git theta install --local" in shown
    assert "git add .gitattributes" in shown
    assert (plain.path / ".gitattributes").read_text() == f"*.pt {_OURS}"
    assert plain.git("config", "--local", "filter.theta.required").strip() == "true"
    assert plain.status() == "?? .gitattributes\n"


def test_track_twice_changes_nothing(plain: Repo) -> None:
    plain.theta("track", "*.pt", "*.pt")
    before = (plain.path / ".gitattributes").read_bytes()
    shown = plain.theta("track", "./*.pt")
    assert shown == '"*.pt" already tracked\n'
    assert (plain.path / ".gitattributes").read_bytes() == before == f"*.pt {_OURS}".encode()


def test_a_pattern_belongs_to_the_current_folder(plain: Repo) -> None:
    (plain.path / "sub").mkdir()
    inner = Repo(plain.path / "sub")
    inner.theta("track", "my model.pt", str(inner.path / "abs.pt"))
    expected = f'"my model.pt" {_OURS}/abs.pt {_OURS}'
    assert (inner.path / ".gitattributes").read_text() == expected
    assert json.loads(plain.theta("track", "--json"))["patterns"] == [
        {"pattern": "my model.pt", "source": "sub/.gitattributes"},
        {"pattern": "/abs.pt", "source": "sub/.gitattributes"},
    ]
    assert "    my model.pt (sub/.gitattributes)\n" in plain.theta("track")
    assert "sub/.gitattributes tracks it" in _fail(plain, "untrack", "my model.pt", code=1)


def test_a_file_name_is_taken_literally(plain: Repo) -> None:
    plain.theta("track", "--filename", "m[1]*.pt")
    attribute = plain.git("check-attr", "filter", "--", "m[1]*.pt", "m1x.pt")
    assert attribute.splitlines() == ["m[1]*.pt: filter: theta", "m1x.pt: filter: unspecified"]


@pytest.mark.parametrize("pattern", ["!*.pt", "folder", "folder/", "../x.pt"])
def test_patterns_that_match_nothing_are_refused(plain: Repo, pattern: str) -> None:
    (plain.path / "folder").mkdir()
    assert "hint: " in _fail(plain, "track", pattern, code=2)
    assert not (plain.path / ".gitattributes").exists()


def test_a_symbolic_link_is_refused(plain: Repo) -> None:
    (plain.path / ".gitattributes").symlink_to("elsewhere")
    assert "symbolic link" in _fail(plain, "track", "*.pt", code=2)


def test_a_line_of_git_lfs_is_overruled_and_named(plain: Repo) -> None:
    lfs = "*.pt filter=lfs diff=lfs merge=lfs -text\n"
    (plain.path / ".gitattributes").write_text(lfs)
    assert "filter=lfs stays" in plain.theta("track", "*.pt")
    assert (plain.path / ".gitattributes").read_text() == f"{lfs}*.pt {_OURS}"
    assert plain.git("check-attr", "filter", "a.pt") == "a.pt: filter: theta\n"


def test_checkpoints_that_are_plain_blobs_are_named(plain: Repo) -> None:
    plain.write("old.pt", b"raw")
    plain.commit("Before")
    shown = plain.theta("track", "*.pt")
    assert "1 checkpoint already committed as a plain blob, such as old.pt" in shown
    assert "git add --renormalize :/" in shown


def test_permissions_of_the_file_stay(plain: Repo) -> None:
    path = plain.write(".gitattributes", b"*.txt text\n")
    path.chmod(0o600)
    plain.theta("track", "*.pt")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(plain.path.glob(".gitattributes.*"))


def test_untrack_removes_the_line_only(plain: Repo) -> None:
    path = plain.write(".gitattributes", b"# kept\r\n*.txt text\r\n")
    plain.theta("track", "*.pt", "*.bin")
    assert 'Untracking "*.pt"' in plain.theta("untrack", "*.pt", "*.bin")
    assert path.read_bytes() == b"# kept\r\n*.txt text\r\n"


def test_outside_a_repository(sealed: Path, tmp_path: Path) -> None:
    assert "git theta: error: " in _fail(Repo(tmp_path), "track", "*.pt", code=10)


def test_ls_files_counts(repo: Repo) -> None:
    tensors = model()
    content = safetensors(tensors)
    repo.write("a.safetensors", content)
    repo.write("note.txt", b"git-theta manifest")
    first = repo.commit("First")
    repo.write("b.safetensors", content)
    repo.commit("Second")
    rows = json.loads(repo.theta("ls-files", "--json"))["files"]
    assert [row["path"] for row in rows] == ["a.safetensors", "b.safetensors"]
    assert rows[0]["tensors"] == len(tensors)
    assert rows[0]["parameters"] == sum(value.size for value in tensors.values())
    assert rows[0]["missing"] == 0
    objects = [path for path in (repo.path / ".git/theta/objects").rglob("*") if path.is_file()]
    assert 0 < rows[0]["stored_bytes"] <= sum(path.stat().st_size for path in objects)
    # The skeleton has the header's bytes and layout; with the tensors it makes the whole file.
    assert rows[0]["raw_bytes"] >= sum(value.nbytes for value in tensors.values())
    assert repo.theta("ls-files", first).count("\n") == 1
    assert repo.theta("ls-files").startswith("*  a.safetensors  safetensors  ")
    assert "stored in " in repo.theta("ls-files", "--size")
    objects[0].unlink()
    assert repo.theta("ls-files").startswith("-")
    assert "no revision" in _fail(repo, "ls-files", "nope", code=2)


def test_status_tells_each_state(repo: Repo) -> None:
    content = safetensors(model())
    for name in ("kept", "gone", "edited", "unsmudged"):
        repo.write(f"{name}.safetensors", content)
    repo.write("named.safetensors", b"no such container, only bytes\n" * 5)
    repo.commit("First")
    (repo.path / "gone.safetensors").unlink()
    repo.write("edited.safetensors", safetensors(model(seed=1)))
    repo.write("unsmudged.safetensors", repo.blob("HEAD:unsmudged.safetensors"))
    report = json.loads(repo.theta("status", "--json"))
    assert report["installed"] is True
    assert report["scopes"] == ["local"]
    files = {row["path"].removesuffix(".safetensors"): row for row in report["files"]}
    assert {name: (row["work_tree"], row["modified"]) for name, row in files.items()} == {
        "edited": ("checkpoint", True),
        "gone": ("absent", True),
        "kept": ("checkpoint", False),
        "named": ("checkpoint", False),
        "unsmudged": ("manifest", True),
    }
    assert files["named"]["expected_format"] == "safetensors"
    assert files["kept"]["expected_format"] is None
    shown = repo.theta("status")
    assert "manifest in the work tree" in shown
    assert "content is opaque, not safetensors" in shown
    assert "git theta pull" in shown


def test_status_names_plain_blobs_and_missing_objects(repo: Repo) -> None:
    repo.write("good.safetensors", safetensors(model()))
    raw = repo.write("raw.pt", b"raw checkpoint")
    oid = repo.git("hash-object", "-w", "--no-filters", str(raw)).strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},raw.pt")
    repo.git("add", "good.safetensors")
    for path in (repo.path / ".git/theta/objects").rglob("*"):
        if path.is_file():
            path.unlink()
    files = {row["path"]: row for row in json.loads(repo.theta("status", "--json"))["files"]}
    assert files["raw.pt"]["stored_as"] == "plain blob"
    assert files["good.safetensors"]["missing_objects"] > 0
    shown = repo.theta("status")
    assert "git theta fetch" in shown
    assert "plain blob" in shown


def test_status_where_nothing_is_set_up(plain: Repo) -> None:
    shown = plain.theta("status")
    assert "git-theta is not set up here: git theta install" in shown
    assert "filter.theta.process is not set" in shown


def test_content_wins_over_the_extension(repo: Repo) -> None:
    repo.write("model.pt", safetensors(model()))
    repo.write("right.safetensors", safetensors(model()))
    said = repo.theta("track", "*.pt", "*.safetensors")
    repo.write("text.npz", b"no archive")
    assert "model.pt: its content is not torch-zip; it will be split as safetensors" in said
    assert "text.npz: its content is not npz; it will be kept exactly" in repo.theta(
        "track", "*.npz"
    )
    (repo.path / "text.npz").unlink()
    assert "right" not in said
    repo.commit("First")
    rows = json.loads(repo.theta("status", "--json"))["files"]
    assert {row["path"]: (row["format"], row["expected_format"]) for row in rows} == {
        "model.pt": ("safetensors", "torch-zip"),
        "right.safetensors": ("safetensors", None),
    }
