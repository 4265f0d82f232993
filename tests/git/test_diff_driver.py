"""What Git's own commands show of a changed checkpoint, with the driver and without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import changed, model, safetensors
from tests.conftest import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"


@pytest.fixture
def versions(repo: Repo) -> Repo:
    repo.write(NAME, safetensors(model(), {"step": "1"}))
    repo.commit("first")
    repo.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}, {"step": "2"}))
    repo.commit("second")
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
    from git_theta_ext.manifest import Manifest

    old, new = (Manifest.parse(versions.blob(f"HEAD{at}:{NAME}")) for at in ("~1", ""))
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


def test_difftool_gets_whole_checkpoints(versions: Repo) -> None:
    script = 'import sys; print(*(len(open(p, "rb").read()) for p in sys.argv[1:]))'
    (versions.path.parent / "tool.py").write_text(script)
    versions.git("config", "difftool.x.cmd", 'python3 ../tool.py "$LOCAL" "$REMOTE"')
    sizes = versions.git("difftool", "-y", "-t", "x", "HEAD~1", "HEAD", "--", NAME).split()
    length = len(safetensors(model(), {"step": "1"}))
    assert sizes == [str(length), str(length)]
