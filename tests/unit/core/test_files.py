"""Files are replaced whole or not at all; what lies in the way is replaced, never followed."""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.git import outputs, work_tree
from git_theta_ext.git.work_tree import WorkTree, collision, is_git_dir, parts_of

posix = pytest.mark.skipif(os.name == "nt", reason="permissions and pipes of POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["by folder", "plain"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top of a work tree, with the system's calls and with the plain fallback."""
    if request.param == "plain":
        monkeypatch.setattr(files, "BY_FOLDER", False)
    elif not files.BY_FOLDER:
        pytest.skip("names cannot be taken relative to a folder here")
    top = tmp_path / "tree"
    (top / ".git").mkdir(parents=True)
    (top / "sub").mkdir()
    return top


# -- files -----------------------------------------------------------------------------------------


class Interrupt(BaseException):
    """Like a signal's KeyboardInterrupt."""


def fail_in(block: AbstractContextManager[IO[bytes]], error: type[BaseException]) -> None:
    with block as file:
        file.write(b"new")
        raise error("stop")


@pytest.mark.parametrize("error", [OSError, ValueError, Interrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error, match="stop"):
        fail_in(files.replacing(path), error)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_failed_move_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        files.replace_file(tmp_path / "folder", b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@posix
def test_permissions_are_there_before_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o600)
    before = os.umask(0)
    try:
        with files.replacing(path, kept=files.permissions(path)) as file:
            (hidden,) = (one for one in tmp_path.iterdir() if one != path)
            assert mode(hidden) == 0o600
            file.write(b"new")
    finally:
        os.umask(before)
    assert (mode(path), path.read_bytes()) == (0o600, b"new")


@posix
def test_a_new_file_respects_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.replace_file(tmp_path / "file", b"")
        files.replace_file(tmp_path / "run", b"", mode=0o777)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "file"), mode(tmp_path / "run")) == (0o640, 0o750)


def test_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("outside")
    files.replace_file(tmp_path / "file", [b"n", memoryview(b"ew")])
    assert (tmp_path / "outside").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("write", ["new_file", "appending", "editing"])
def test_no_way_to_open_a_file_follows_a_link(tmp_path: Path, write: str) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("outside")
    with pytest.raises(OSError, match="file"):
        getattr(files, write)(tmp_path / "file").__enter__()
    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_long_names_in_any_script_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("語" * 80)
    files.replace_file(path, b"new")
    assert path.read_bytes() == b"new"


@posix
def test_durable_bytes_are_synced_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.fstat(fd).st_size), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *a, **k: (done.append("name"), replace(*a, **k)))
    files.replace_file(tmp_path / "file", b"four", durable=True)
    assert done == [4, "name"]


# -- the work tree ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        ".git", ".GIT", ".Git", ".git.", ".git ", ".git . .", "git~1", "GIT~1", "git~1.",
        ".git::$INDEX_ALLOCATION", ".git:stream", ".git .:x", ".g\u200cit", "\ufeff.git",
        ".gi\u202et", ".git\u206f", ".git\\config", "a\\.git", "a\\git~1\\config",
    ],
)  # fmt: skip
def test_spellings_of_git_are_refused(tree: Path, name: str) -> None:
    assert is_git_dir(name)
    for path in (name, f"{name}/config", f"sub/{name}", f"sub/{name}/hooks/x"):
        with pytest.raises(StoreError, match=r"\.git"):
            WorkTree(tree).replace(path, b"evil")
    assert sorted(one.name for one in tree.rglob("*")) == [".git", "sub"]


@pytest.mark.parametrize(
    "name", [".gitignore", ".gitattributes", "git", "git~2", ".github", "x.git", "git~10", "..git"]
)
def test_other_names_are_no_git_dir(name: str) -> None:
    assert not is_git_dir(name)
    assert parts_of(f"a/{name}") == ["a", name]


@pytest.mark.parametrize(
    "path", ["../x", "sub/../../x", "sub/..", "/tmp/x", "", "sub/", "sub//x", "./x", "a\0b", ".."]
)
def test_paths_that_leave_the_work_tree_are_refused(tree: Path, path: str) -> None:
    for use in (lambda: WorkTree(tree).replace(path, b""), lambda: WorkTree(tree).remove(path)):
        with pytest.raises(StoreError, match="not a path inside the work tree"):
            use()
    assert not (tree.parent / "x").exists()


def test_a_linked_folder_is_refused_wherever_it_stands(tree: Path) -> None:
    outside = tree.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "victim").write_bytes(b"precious")
    (tree / "link").symlink_to(outside)
    (tree / "sub/link").symlink_to("../../outside/deep")
    (tree / "dangling").symlink_to("../outside/made")
    for path in ("link/victim", "link/deep/x", "sub/link/x", "dangling/x"):
        with pytest.raises(StoreError, match="symbolic link"):
            WorkTree(tree).replace(path, b"evil")
        with pytest.raises(StoreError, match="symbolic link"):
            WorkTree(tree).remove(path)
        assert not WorkTree(tree).has_file(path)
        WorkTree(tree).set_time(path, 0)
    assert (outside / "victim").read_bytes() == b"precious"
    assert (outside / "victim").stat().st_mtime_ns > 0
    assert sorted(one.name for one in outside.rglob("*")) == ["deep", "victim"]


def test_a_link_at_the_end_is_replaced_and_removed_as_itself(tree: Path) -> None:
    (tree.parent / "outside").write_bytes(b"precious")
    for use in (
        lambda: WorkTree(tree).replace("sub/f", b"new"),
        lambda: WorkTree(tree).remove("sub/f"),
    ):
        (tree / "sub/f").unlink(missing_ok=True)
        (tree / "sub/f").symlink_to("../../outside")
        assert not WorkTree(tree).has_file("sub/f")
        WorkTree(tree).set_time("sub/f", 0)
        use()
        assert not (tree / "sub/f").is_symlink()
    assert (tree.parent / "outside").read_bytes() == b"precious"
    assert (tree.parent / "outside").stat().st_mtime_ns > 0


def test_folders_are_made_and_removing_nothing_is_no_error(tree: Path) -> None:
    WorkTree(tree).replace("a/b/c", b"new")
    assert (tree / "a/b/c").read_bytes() == b"new"
    assert WorkTree(tree).has_file("a/b/c")
    WorkTree(tree).remove("a/b/c")
    WorkTree(tree).remove("a/b/c")
    WorkTree(tree).remove("none/c")
    assert list((tree / "a/b").iterdir()) == []


@posix
def test_permissions_of_a_work_tree_file_are_kept(tree: Path) -> None:
    (tree / "secret").touch()
    (tree / "secret").chmod(0o600)
    (tree.parent / "wide").touch()
    (tree.parent / "wide").chmod(0o777)
    (tree / "link").symlink_to("../wide")
    WorkTree(tree).replace("secret", b"new")
    WorkTree(tree).replace("link", b"new")
    assert mode(tree / "secret") == 0o600
    assert not mode(tree / "link") & 0o111  # not those of what the link led to


@pytest.mark.skipif(not files.BY_FOLDER, reason="needs descriptors of folders")
def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    top, outside = tmp_path / "tree", tmp_path / "outside"
    (top / "sub").mkdir(parents=True)
    outside.mkdir()
    with WorkTree(top).replacing("sub/file") as file:
        (top / "sub").rename(top / "moved")
        (top / "sub").symlink_to(outside)
        file.write(b"new")
    assert list(outside.iterdir()) == []
    assert (top / "moved/file").read_bytes() == b"new"


def test_a_junction_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = 0xA0000003
    seen = SimpleNamespace(st_mode=stat.S_IFDIR | 0o777, st_reparse_tag=tag)
    monkeypatch.setattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", tag, raising=False)
    monkeypatch.setattr(work_tree.os, "lstat", lambda path: seen)
    assert work_tree.is_link(tmp_path)
    seen.st_reparse_tag = 0x9000001A  # a file of a cloud drive
    assert not work_tree.is_link(tmp_path)


@pytest.mark.skipif(os.name != "nt", reason="junctions are of Windows")
def test_nothing_is_written_through_a_junction(tmp_path: Path) -> None:
    import _winapi

    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").mkdir()
    _winapi.CreateJunction(str(tmp_path / "outside"), str(tmp_path / "tree/sub"))  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="symbolic link"):
        WorkTree(tmp_path / "tree").replace("sub/x", b"evil")
    assert list((tmp_path / "outside").iterdir()) == []


def test_names_that_are_one_file_are_told_apart() -> None:
    assert collision("Model.bin", ["model.bin", "x"]) == "model.bin"
    assert collision("Model.bin", ["model.bin", "Model.bin"]) is None
    assert collision("straße", ["STRASSE"]) == "STRASSE"
    assert collision("e\u0301", ["\u00e9"]) is None  # macOS gives names decomposed
    assert collision("E\u0301", ["\u00e9"]) == "\u00e9"
    assert collision("new", ["x"]) is None


def test_a_collision_on_this_file_system_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "model.bin").write_bytes(b"other")
    lstat = os.lstat

    def blind(path: str | Path, **how: object) -> os.stat_result:
        """As a file system answers for which case does not count."""
        folder, name = os.path.split(path)
        known = {one.casefold(): one for one in os.listdir(folder)}
        return lstat(os.path.join(folder, known.get(name.casefold(), name)))

    monkeypatch.setattr(work_tree.os, "lstat", blind)
    for path in ("Model.bin", "SUB/x"):
        with pytest.raises(StoreError, match="one file on this file system"):
            WorkTree(tree).replace(path, b"evil")
    WorkTree(tree).replace("model.bin", b"new")
    assert (tree / "model.bin").read_bytes() == b"new"


# -- files that the user names -----------------------------------------------------------------


def test_an_output_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="stop"):
        fail_in(outputs.writing(path), ValueError)
    assert path.read_bytes() == b"old"
    outputs.write(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(StoreError, match="cannot write"):
        outputs.write(tmp_path / "none/report", b"")


def test_links_outside_of_work_trees_are_the_users_word(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "short").symlink_to("real")
    outputs.write(tmp_path / "short/report", b"new")
    assert (tmp_path / "real/report").read_bytes() == b"new"


@pytest.mark.parametrize(
    "path",
    ["link/x", "sub/../link/x", "link/../x", "git/config", "git", ".git/x", "sub/../.git/x",
     "sub/up/x", ".GIT/x", "link/none/x"],
)  # fmt: skip
def test_an_output_inside_a_work_tree_goes_nowhere_else(tree: Path, path: str) -> None:
    (tree / ".git/config").write_bytes(b"config")
    (tree / ".GIT").mkdir(exist_ok=True)
    (tree.parent / "outside").mkdir()
    (tree / "link").symlink_to(tree.parent / "outside")
    (tree / "git").symlink_to(".git")
    (tree / "sub/up").symlink_to("../..")
    if path == "git":  # at the end a link is replaced
        outputs.write(tree / path, b"new")
        assert (tree / path).read_bytes() == b"new"
        assert not (tree / path).is_symlink()
    else:
        with pytest.raises(StoreError, match=r"link|\.git|Git"):
            outputs.write(tree / path, b"evil")
    assert (tree / ".git/config").read_bytes() == b"config"
    assert [one.name for one in (tree / ".git").iterdir()] == ["config"]
    assert list((tree.parent / "outside").iterdir()) == []


def test_relative_outputs_count_from_the_folder_and_not_through_links(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree.parent / "outside").mkdir()
    (tree / "link").symlink_to("../outside")
    monkeypatch.chdir(tree / "sub")
    outputs.write("report", b"1")
    outputs.write("../report", b"2")
    outputs.write("../../report", b"3")
    with pytest.raises(StoreError, match="link"):
        outputs.write("../link/report", b"4")
    texts = [(place / "report").read_bytes() for place in (tree / "sub", tree, tree.parent)]
    assert texts == [b"1", b"2", b"3"]


def test_a_users_link_into_a_work_tree_opens_no_way_through_it(tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (tree / "docs").symlink_to("../outside")
    (tree.parent / "short").symlink_to("tree/docs")
    (tree.parent / "top").symlink_to("tree")
    (tree.parent / "loop").symlink_to("loop")
    for path in ("short/x", "top/docs/x", "top/.git/x"):
        with pytest.raises(StoreError, match=r"a link inside a work tree|\.git"):
            outputs.write(tree.parent / path, b"evil")
    for path in ("short", "top/docs", "top/docs/new", "top/.git", "top/.git/new"):
        with pytest.raises(StoreError, match=r"a link inside a work tree|\.git"):
            outputs.check_folder(tree.parent / path)
    outputs.check_folder(tree.parent / "top/sub/new/deep")
    with pytest.raises(StoreError, match="cannot write"):
        outputs.write(tree.parent / "loop/x", b"")
    outputs.write(tree.parent / "top/sub/x", b"new")
    assert list(outside.iterdir()) == []
    assert (tree / "sub/x").read_bytes() == b"new"


def test_a_bare_repository_is_no_place_for_outputs(tmp_path: Path) -> None:
    for name in ("objects", "refs", "hooks"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    (tmp_path / "bare/HEAD").touch()
    for path in ("bare/config", "bare/hooks/post-update"):
        with pytest.raises(StoreError, match="Git directory"):
            outputs.write(tmp_path / path, b"evil")


def test_a_work_tree_without_git_in_it_is_one_when_told(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree/link").symlink_to("../outside")
    with pytest.raises(StoreError, match="link"):
        outputs.write(tmp_path / "tree/link/x", b"evil", tmp_path / "tree")
    assert list((tmp_path / "outside").iterdir()) == []


@posix
def test_devices_and_pipes_get_the_bytes_and_stay(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    outputs.write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    outputs.write("/dev/stdout", b"shown\n")
    assert os.path.islink("/dev/stdout") or stat.S_ISCHR(os.stat("/dev/stdout").st_mode)
    reader, writer = os.pipe()
    outputs.write(f"/dev/fd/{writer}", b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)
    assert capfdbinary.readouterr().out == b"shown\n"


@posix
def test_a_link_of_a_work_tree_to_a_device_is_replaced(tree: Path) -> None:
    (tree / "report").symlink_to("/dev/null")
    outputs.write(tree / "report", b"new")
    assert (tree / "report").read_bytes() == b"new"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
