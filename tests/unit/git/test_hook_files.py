"""Where the hooks are put, what is chained, and what is said where they are not ours to write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks
from git_theta_ext.git.setup.hook_scripts import HOOKS, by_hand, is_ours, script, shared_script

PYTHON = "/it's/python"
FOREIGN = b"#!/bin/sh\necho foreign\n"


class Configured(Repository):
    """A repository that has settings and no Git, as before 2.54."""

    def __init__(self, top: Path, **settings: str) -> None:
        super().__init__(top, top / ".git", top / ".git", top)
        self.settings = {name.replace("_", "."): value for name, value in settings.items()}

    def setting(self, name: str, default: str | None = None) -> str | None:
        return self.settings.get(name, default)

    def git(self, *arguments: str, **options: object) -> bytes:
        assert arguments[:2] == ("hook", "list")
        return b"theta-pre-push\n" if "newer.git" in self.settings else b"other\n"


@pytest.fixture
def top(sealed: Path, tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    (path / ".git" / "hooks").mkdir(parents=True)
    return path


def warned(repository: Repository) -> list[str]:
    return hooks.warnings(repository, lambda: [PYTHON, "-I"])


class TestTheFolder:
    def test_is_none_where_there_is_no_such_user(self, top: Path) -> None:
        with pytest.raises(UsageError, match="~nobody-here/x: there is no such user"):
            hooks.hooks_folder(Configured(top, core_hooksPath="~nobody-here/x"))

    @pytest.mark.parametrize(
        ("setting", "folder", "own"),
        [
            (None, "repo/.git/hooks", True),
            (".git/mine", "repo/.git/mine", True),
            (".husky", "repo/.husky", False),
            ("../shared", "shared", False),
            ("~/hooks", "home/hooks", False),
        ],
    )
    def test_is_the_one_in_which_git_looks(
        self, top: Path, tmp_path: Path, setting: str | None, folder: str, own: bool
    ) -> None:
        found = Configured(top, **({} if setting is None else {"core_hooksPath": setting}))
        assert hooks.hooks_folder(found) == tmp_path / folder
        assert hooks.is_elsewhere(found) is not own

    def test_of_a_bare_repository_counts_from_the_git_folder(self, top: Path) -> None:
        found = Configured(top, core_hooksPath="mine")
        found.work_tree = None
        assert hooks.hooks_folder(found) == top / ".git" / "mine"

    @pytest.mark.skipif(os.name == "nt", reason="needs links")
    def test_that_is_a_link_out_of_the_repository_is_not_ours(self, top: Path) -> None:
        (top / ".git" / "hooks").rmdir()
        (top / "outside").mkdir()
        (top / ".git" / "hooks").symlink_to(top / "outside")
        assert hooks.is_elsewhere(Configured(top))
        hooks.ensure(Configured(top), PYTHON)
        assert not list((top / "outside").iterdir())


class TestInOurFolder:
    def test_each_is_put_there_and_runs(self, top: Path) -> None:
        folder = top / ".git" / "hooks"
        changes = hooks.ensure(Configured(top), PYTHON)
        assert changes == [f"installed {folder / name}" for name in HOOKS]
        for name in HOOKS:
            assert (folder / name).read_text() == script(name, [PYTHON, "-I"])
            assert os.access(folder / name, os.X_OK)
        assert hooks.are_there(Configured(top))
        assert warned(Configured(top)) == []
        assert hooks.ensure(Configured(top), PYTHON) == []

    def test_what_follows_the_interpreter_is_kept(self, top: Path) -> None:
        hooks.ensure(Configured(top), PYTHON, "-I", "-c", "x", "/folder")
        text = (top / ".git" / "hooks" / "pre-push").read_text()
        assert text == script("pre-push", [PYTHON, "-I", "-c", "x", "/folder"])

    def test_what_was_there_is_chained_and_comes_back(self, top: Path) -> None:
        path = top / ".git" / "hooks" / "pre-push"
        path.write_bytes(FOREIGN)
        hooks.ensure(Configured(top), PYTHON)
        assert path.with_name("pre-push.theta-chained").read_bytes() == FOREIGN
        assert is_ours(path.read_bytes())
        hooks.remove(Configured(top))
        assert path.read_bytes() == FOREIGN
        assert list(path.parent.iterdir()) == [path]
        assert not hooks.are_there(Configured(top))

    def test_one_of_git_lfs_of_another_version_is_not_kept_twice(self, top: Path) -> None:
        path = top / ".git" / "hooks" / "pre-push"
        for version in (b"1", b"2"):
            path.write_bytes(b'#!/bin/sh\n# %s\ngit lfs pre-push "$@"\n' % version)
            hooks.ensure(Configured(top), PYTHON)
        assert b"# 2" in path.with_name("pre-push.theta-chained").read_bytes()
        assert not list(path.parent.glob("*.theta-replaced-*"))

    def test_without_one_a_push_would_leave_objects_behind(self, top: Path) -> None:
        said, advice = warned(Configured(top))
        assert "no pre-push hook" in said
        assert advice == "git theta install --local"

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such mode")
    def test_one_that_does_not_run_is_warned_of(self, top: Path) -> None:
        hooks.ensure(Configured(top), PYTHON)
        path = top / ".git" / "hooks" / "pre-push"
        path.chmod(0o644)
        said, advice = warned(Configured(top))
        assert "not executable" in said
        assert advice == f"chmod +x '{path}'"

    def test_git_config_may_run_them_instead(self, top: Path) -> None:
        settings = {"hook_theta-pre-push_command": "theta", "core_x": "1"}
        older = Configured(top, **settings)
        assert not hooks.runs_from_config(older, "pre-push")
        assert warned(older)
        newer = Configured(top, newer_git="yes", **settings)
        assert hooks.runs_from_config(newer, "pre-push")
        assert warned(newer) == []
        assert not hooks.runs_from_config(Configured(top, newer_git="yes"), "pre-push")


class TestInAFolderOfOthers:
    @pytest.fixture
    def shared(self, top: Path) -> Configured:
        (top / ".husky").mkdir()
        return Configured(top, core_hooksPath=".husky")

    def test_nothing_is_written_unless_told_to(self, shared: Configured, top: Path) -> None:
        first, *lines = hooks.ensure(shared, PYTHON)
        assert "git theta install --hooks" in first
        folder = top / ".husky"
        assert lines == [f"  {folder / name}: {by_hand(name, [PYTHON, '-I'])}" for name in HOOKS]
        assert not list(folder.iterdir())

    def test_lines_that_are_there_are_not_asked_for(self, shared: Configured, top: Path) -> None:
        for name in HOOKS:
            (top / ".husky" / name).write_text(f"{by_hand(name, [PYTHON, '-I'])}\n")
            (top / ".husky" / name).chmod(0o755)
        assert hooks.ensure(shared, PYTHON) == []
        assert warned(shared) == []

    def test_told_to_it_writes_what_is_the_same_on_every_machine(
        self, shared: Configured, top: Path
    ) -> None:
        (top / ".husky" / "pre-push").write_bytes(FOREIGN)
        hooks.share(shared)
        for name in HOOKS:
            assert (top / ".husky" / name).read_text() == shared_script(name, by_sh=False)
        assert hooks.share(shared) == []
        assert warned(shared) == []
        assert "git theta uninstall --hooks" in hooks.remove(shared)[0]
        hooks.unshare(shared)
        assert (top / ".husky" / "pre-push").read_bytes() == FOREIGN
        assert len(list((top / ".husky").iterdir())) == 1

    def test_of_husky_the_scripts_are_above_its_launchers(self, top: Path) -> None:
        (top / ".husky" / "_").mkdir(parents=True)
        (top / ".husky" / "_" / "h").write_text("")
        found = Configured(top, core_hooksPath=".husky/_")
        hooks.share(found)
        assert (top / ".husky" / "pre-push").read_text() == shared_script("pre-push", by_sh=True)
        assert [one.name for one in (top / ".husky" / "_").iterdir()] == ["h"]
        (top / ".husky" / "pre-push").chmod(0o644)
        assert warned(found) == []  # husky starts it with sh

    def test_it_is_said_what_to_type(self, shared: Configured, top: Path) -> None:
        said, *advice = warned(shared)
        assert said.startswith(f"core.hooksPath is set to {top / '.husky'}, and its pre-push hook")
        assert advice[1].startswith("git theta install --hooks")
        assert advice[2] == (
            f"or add this line to {top / '.husky' / 'pre-push'}:\n"
            f"{by_hand('pre-push', [PYTHON, '-I'])}"
        )

    def test_a_line_that_could_run_files_of_a_work_tree_is_to_be_replaced(
        self, shared: Configured, top: Path
    ) -> None:
        line = f'{PYTHON} -P -m git_theta_ext.drivers.pre_push "$@"\n'
        (top / ".husky" / "pre-push").write_text(line)
        said, advice = warned(shared)
        assert "files of a work tree could be run" in said
        assert advice.endswith(by_hand("pre-push", [PYTHON, "-I"]))

    @pytest.mark.parametrize(
        ("content", "calls"),
        [
            (None, False),
            (FOREIGN, False),
            (b'git lfs pre-push "$@"\n', True),
            (shared_script("pre-push", by_sh=False).encode(), True),
        ],
    )
    def test_whether_git_lfs_is_called(
        self, shared: Configured, top: Path, content: bytes | None, calls: bool
    ) -> None:
        if content is not None:
            (top / ".husky" / "pre-push").write_bytes(content)
        assert hooks.file_calls_lfs(shared) == calls
