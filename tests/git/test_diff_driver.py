"""What Git's own commands show of a changed checkpoint, with the driver and without it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"
THETA = (sys.executable, "-m", "git_theta_ext.cli.main")


@pytest.fixture
def versions(repo: Repo) -> Repo:
    def make() -> None:
        repo.write(NAME, safetensors(model(), {"step": "1"}))
        repo.commit("first")
        repo.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}, {"step": "2"}))
        repo.commit("second")

    repo.once(make)
    return repo


def is_report(text: str) -> bool:
    """Whether this is the driver's report on the second version."""
    return (
        f"{NAME}  1 of 14 tensors changed" in text
        and f"~ {QUERY}  F32 [64, 64]" in text
        and "metadata.step  1 → 2" in text
    )


@pytest.mark.parametrize(
    "command",
    [
        ("diff", "HEAD~1", "HEAD"),
        ("diff", "HEAD~1..HEAD", "--", NAME),
        ("show", "--ext-diff", "HEAD"),
        ("log", "-p", "--ext-diff", "-1"),
        ("-c", "core.pager=cat", "diff", "HEAD~1"),
    ],
    ids=lambda command: command[0] + command[-1],
)
def test_commands_that_show_diffs(versions: Repo, command: tuple[str, ...]) -> None:
    assert is_report(versions.git(*command))


def test_the_work_tree_and_the_index(versions: Repo) -> None:
    versions.write(NAME, safetensors(model(), {"step": "1"}))
    assert "1 of 14 tensors changed" in versions.git("diff")
    versions.git("add", NAME)
    assert "1 of 14 tensors changed" in versions.git("diff", "--cached")
    assert versions.git("diff") == ""


def test_a_stash(versions: Repo) -> None:
    versions.write(NAME, safetensors(model(), {"step": "1"}))
    versions.git("stash", "push", "-q")
    text = versions.git("stash", "show", "-p", "--ext-diff")
    assert f"~ {QUERY}" in text
    versions.git("stash", "pop", "-q")
    assert (versions.path / NAME).read_bytes() == safetensors(model(), {"step": "1"})


def test_added_and_deleted_files(versions: Repo) -> None:
    versions.git("rm", "-q", NAME)
    assert f"{NAME}  deleted, 14 tensors" in versions.git("diff", "--cached")
    empty = versions.git("hash-object", "-t", "tree", "/dev/null").strip()
    assert f"{NAME}  new, 14 tensors" in versions.git("diff", empty, "HEAD", "--", NAME)


def test_without_the_driver_the_manifest_reads_well(versions: Repo) -> None:
    text = versions.git("diff", "--no-ext-diff", "--no-textconv", "HEAD~1", "HEAD", "--", NAME)
    added = [line for line in text.splitlines() if line.startswith("+  F32 [64, 64] sha256:")]
    assert len(added) == 1 or "Binary files" in text


def test_only_the_objects_of_changed_tensors_are_read(versions: Repo) -> None:

    old, new = (parse_manifest(versions.blob(f"HEAD{at}:{NAME}")) for at in ("~1", ""))
    needed = {ref.oid for found in (old, new) for ref in found.skeleton.chain}
    for found in (old, new):
        needed |= {
            ref.oid
            for entry in found.entries
            if entry.tensor.name == QUERY
            for block in entry.blocks
            for ref in block.chain
        }
    for path in (versions.path / ".git/theta/objects").glob("??/??/*"):
        if path.name not in needed:
            path.unlink()
    assert is_report(versions.git("diff", "HEAD~1", "HEAD"))


def test_files_outside_a_repository(versions: Repo, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(safetensors(model()))
    (folder / "b.safetensors").write_bytes(safetensors({**model(), "x": np.ones(99, np.float32)}))
    outside = Repo(folder)
    text = outside.theta("diff", "--no-index", "a.safetensors", "b.safetensors", ok=(1,))
    assert "+ x  F32 [99]" in text


def test_histories_without_the_driver_read_as_text(versions: Repo) -> None:
    """`git log -p`, `show` and `stash show -p` call no driver: they show manifests."""
    versions.write(NAME, safetensors(model(), {"step": "1"}))
    versions.git("stash", "push", "-q")
    for command in (("log", "-p", "-1"), ("show", "HEAD"), ("stash", "show", "-p")):
        text = versions.git(*command)
        assert "Binary files" not in text
        lines = [line for line in text.splitlines() if line[:1] in "+-" and line[1:3] == "  "]
        kinds = {line[3:].split()[0] for line in lines}
        assert kinds <= {"F32", "U8", "delta", "dense", "patch", "sparse"}
        assert any("F32 [64, 64]" in line for line in lines)
        assert len(text.splitlines()) < 60
        # The tensor that a change belongs to stands near it, or in the head of its part.
        assert f"tensor {QUERY}" in text


def test_range_diff(versions: Repo) -> None:
    start = versions.git("rev-parse", "HEAD").strip()
    other = "encoder.layer.2.attention.value.weight"
    for branch, scale in (("one", 1e-3), ("two", 2e-3)):
        versions.git("checkout", "-q", "-b", branch, start)
        tensors = {**model(), QUERY: changed(model()[QUERY])}
        tensors[other] = changed(model()[other], scale)
        versions.write(NAME, safetensors(tensors, {"step": "2"}))
        versions.commit("Train the value")
    text = versions.git("range-diff", f"{start}..one", f"{start}..two")
    assert "Train the value" in text
    changes = [line.strip() for line in text.splitlines() if "F32 [64, 64] sha256:" in line]
    assert {line[:2] for line in changes} >= {"-+", "++"}
    assert QUERY not in "".join(changes)
    assert "Binary" not in text


def test_files_compared_by_git_itself(versions: Repo, tmp_path: Path) -> None:
    """`git diff --no-index` calls the driver where attributes are read: in a repository."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(safetensors(model()))
    (folder / "b.safetensors").write_bytes(safetensors({**model(), "x": np.ones(99, np.float32)}))
    paths = [str(folder / name) for name in ("a.safetensors", "b.safetensors")]
    text = versions.git("diff", "--no-index", *paths, ok=(1,))
    assert "+ x  F32 [99]   mean 1" in text.replace("\n      ", "   ")
    same = versions.git("diff", "--no-index", paths[0], paths[0])
    assert same == ""
    theta = versions.theta("diff", "--no-index", *paths, ok=(1,))
    assert "+ x  F32 [99]" in theta
    assert versions.theta("diff", "--no-index", paths[0], paths[0]) == ""
    outside = Repo(folder)
    assert "differ" in outside.git("diff", "--no-index", "a.safetensors", "b.safetensors", ok=(1,))


def test_the_driver_can_be_turned_off(versions: Repo) -> None:
    text = versions.git("-c", "diff.theta.command=", "diff", "--no-ext-diff", "HEAD~1", "HEAD")
    assert "tensors changed" not in text


def test_hostile_names_on_a_terminal(repo: Repo) -> None:
    evil = "w\x1b[31m\r\n+ forged  F32 [9]\u202egnp.exe\u2066"
    for value in ("1", "2"):
        tensors = {evil: np.full(20, float(value), np.float32), "w": np.ones(20, np.float32)}
        repo.write(NAME, safetensors(tensors, {f"key\x1b]0;title\x07{evil}": f"\x9b2J{value}"}))
        repo.commit(f"version {value}")
    commands = (
        ("git", "-c", "color.ui=never", "diff", "HEAD~1", "HEAD"),
        (*THETA, "diff", "HEAD~1", "HEAD"), (*THETA, "diff", "HEAD~1", "HEAD", "--stat"),
        (*THETA, "diff", "HEAD~1", "HEAD", "--name-only"),
        (*THETA, "diff", "HEAD~1", "HEAD", "--format", "json"),
        (*THETA, "diff", "HEAD~1", "HEAD", "--format", "markdown"),
        (*THETA, "diff", "HEAD~1", "HEAD", "--format", "html"),
        (*THETA, "log", NAME), (*THETA, "log", NAME, "--json"), (*THETA, "blame", NAME),
    )  # fmt: skip
    for command in commands:
        text = repo.run(*command).stdout.decode("utf-8")
        assert "forged" in text, command
        assert not [line for line in text.splitlines() if line.startswith("+ forged")], command
        bad = {char for char in text if not char.isprintable()} - set("\n")
        assert not bad, (command, bad)


def test_a_compared_file_is_let_go(versions: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    from git_theta_ext.cli.main import main as theta
    from git_theta_ext.formats.layout.source import FileSource

    monkeypatch.chdir(versions.path)
    opened: list[FileSource] = []
    original = FileSource.__init__

    def counted(self: FileSource, path: Path) -> None:
        original(self, path)
        opened.append(self)

    monkeypatch.setattr(FileSource, "__init__", counted)
    versions.write(NAME, safetensors(model(), {"step": "1"}))
    (versions.path / "other.bin").write_bytes(b"not a checkpoint")
    assert theta(["diff", "-o", "report.txt"]) == 0
    assert theta(["diff", "--no-index", NAME, "other.bin", "-o", "report.txt"]) == 1
    assert theta(["diff", "--no-index", NAME, "missing", "-o", "report.txt"]) == 2
    assert len(opened) == 4
    assert all(source._file.closed for source in opened)


def test_difftool_gets_whole_checkpoints(versions: Repo) -> None:
    script = 'import sys; print(*(len(open(p, "rb").read()) for p in sys.argv[1:]))'
    (versions.path.parent / "tool.py").write_text(script)
    versions.git("config", "difftool.x.cmd", 'python3 ../tool.py "$LOCAL" "$REMOTE"')
    sizes = versions.git("difftool", "-y", "-t", "x", "HEAD~1", "HEAD", "--", NAME).split()
    length = len(safetensors(model(), {"step": "1"}))
    assert sizes == [str(length), str(length)]
