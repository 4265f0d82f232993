"""One repository: what Git says of it, with whatever names and settings it has."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.git.operations import revisions_in_progress
from git_theta_ext.git.repository import (
    IndexEntry,
    Repository,
    any_commit_here,
    git_hash,
    scratch_objects,
    skips_smudge,
)
from git_theta_ext.git.trees import file_mode_at, is_file_at
from tests.scenarios.repositories import Repo

ODD_NAMES = ["é.pt", "[x].pt", "-dash.pt", "a b.pt"]
if os.name != "nt":
    ODD_NAMES += ["a\nb.pt", ' "quoted"\t.pt', "[x]*?.pt", ":(top)colon.pt"]
if sys.platform == "linux":  # others know only names that are text
    ODD_NAMES.append(os.fsdecode(b"latin-\xe9.pt"))

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such names, links or modes")

NewRepo = Callable[..., Repo]


@pytest.fixture
def plain(new_repo: NewRepo) -> Repo:
    """A repository without the extension."""
    return new_repo("plain", install=False)


def configured(**settings: str) -> Repository:
    """A repository of which only settings are asked: `theta_x` is `theta.x`."""
    found = Repository(Path("/r"), Path("/r/.git"), Path("/r/.git"), None)
    found.__dict__["_settings"] = {
        name.replace("_", "."): value for name, value in settings.items()
    }
    return found


class TestWhereItIs:
    def test_at_the_top_and_below_it(self, plain: Repo) -> None:
        below = plain.path / "a" / "b"
        below.mkdir(parents=True)
        for folder in (plain.path, below):
            for found in (Repository.discover(folder), Repository.discover_quickly(folder)):
                assert found.cwd == folder
                assert found.git_dir == found.common_dir == plain.path / ".git"
                assert found.work_tree == found.top == plain.path

    @pytest.mark.parametrize("quickly", [False, True])
    def test_bare_or_in_the_git_folder_there_is_no_work_tree(
        self, plain: Repo, tmp_path: Path, quickly: bool
    ) -> None:
        plain.git("init", "-q", "--bare", str(tmp_path / "bare"))
        discover = Repository.discover_quickly if quickly else Repository.discover
        for folder, git_dir in (
            (tmp_path / "bare", tmp_path / "bare"),
            (plain.path / ".git" / "refs", plain.path / ".git"),
        ):
            found = discover(folder)
            assert (found.git_dir, found.work_tree) == (git_dir, None)
            with pytest.raises(RepositoryError, match="no work tree"):
                _ = found.top

    @pytest.mark.parametrize("quickly", [False, True])
    def test_a_linked_work_tree_shares_its_common_folder(
        self, plain: Repo, tmp_path: Path, quickly: bool
    ) -> None:
        plain.write("file", b"x")
        plain.commit()
        plain.git("worktree", "add", "-q", str(tmp_path / "linked"))
        discover = Repository.discover_quickly if quickly else Repository.discover
        found = discover(tmp_path / "linked")
        assert found.work_tree == tmp_path / "linked"
        assert found.git_dir == plain.path / ".git" / "worktrees" / "linked"
        assert found.common_dir == plain.path / ".git"

    @posix
    def test_a_folder_with_a_line_end_in_its_name(self, new_repo: NewRepo) -> None:
        repo = new_repo("first\nsecond", install=False)
        found = Repository.discover(repo.path)
        assert (found.git_dir, found.top) == (repo.path / ".git", repo.path)

    @pytest.mark.usefixtures("sealed")
    def test_nowhere(self, tmp_path: Path) -> None:
        with pytest.raises(RepositoryError, match="is not in a Git repository") as caught:
            Repository.discover(tmp_path)
        assert "git init" in (caught.value.hint or "")

    def test_variables_of_git_count(
        self, plain: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_DIR", str(plain.path / ".git"))
        for found in (Repository.discover(tmp_path), Repository.discover_quickly(tmp_path)):
            assert found.git_dir == plain.path / ".git"


class TestSettings:
    def test_names_are_compared_as_git_does(self, plain: Repo) -> None:
        plain.git("config", "Theta.Some.Branch.SkipSmudge", "yes")
        found = Repository.discover(plain.path)
        assert found.setting("theta.Some.Branch.skipsmudge") == "yes"
        assert found.setting("THETA.Some.Branch.SKIPSMUDGE") == "yes"
        assert found.setting("theta.some.branch.skipSmudge") is None
        assert found.setting("theta.none", "default") == "default"

    def test_values_may_hold_lines_and_be_none_at_all(self, plain: Repo) -> None:
        with (plain.path / ".git" / "config").open("a") as file:
            file.write(
                '[theta]\n\talone\n\tempty =\n\tlines = "a\\nb=c"\n\ttwice = 1\n\ttwice = 2\n'
            )
        found = Repository.discover(plain.path)
        names = ("alone", "empty", "lines", "twice")
        assert [found.setting(f"theta.{one}") for one in names] == ["true", "", "a\nb=c", "2"]
        assert found.flag("theta.alone")

    @pytest.mark.parametrize("value", ["true", "True", "YES", "on", "1", ""])
    def test_spellings_of_yes(self, value: str) -> None:
        assert configured(theta_x=value).flag("theta.x")

    @pytest.mark.parametrize("value", ["false", "No", "OFF", "0"])
    def test_spellings_of_no(self, value: str) -> None:
        assert not configured(theta_x=value).flag("theta.x", True)

    def test_without_one_the_default_counts(self) -> None:
        assert configured().flag("theta.x", True)
        assert not configured().flag("theta.x")

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"theta\.x is 'maybe', not true or false"):
            configured(theta_x="maybe").flag("theta.x")

    @pytest.mark.parametrize(
        ("variable", "setting", "skips"),
        [
            (None, None, False),
            (None, "true", True),
            ("1", None, True),
            ("yes", "false", True),
            ("0", "true", False),
            ("False", "true", False),
            ("", "true", False),
            ("no", "true", False),
        ],
    )
    def test_a_variable_overrules_the_setting(
        self, variable: str | None, setting: str | None, skips: bool
    ) -> None:
        settings = {} if setting is None else {"theta_skipsmudge": setting}
        environment = {} if variable is None else {"GIT_THETA_SKIP_SMUDGE": variable}
        assert skips_smudge(configured(**settings), environment) == skips

    def test_a_quick_look_sees_what_git_does(self, plain: Repo, tmp_path: Path) -> None:
        plain.git("config", "theta.storage", "../elsewhere")
        here = plain.path / ".git"
        for found in (Repository.discover(plain.path), Repository.discover_quickly(plain.path)):
            assert found.quick_setting("theta.storage", here) == "../elsewhere"
            assert found.quick_setting("theta.storage", tmp_path / "none") == "../elsewhere"
            assert found.quick_setting("theta.none", here) is None


class TestTheIndex:
    def test_names_come_back_whatever_is_in_them(self, plain: Repo) -> None:
        for number, name in enumerate(ODD_NAMES):
            plain.write(f"folder/{name}", b"%d" % number)
        plain.git("add", "-A")
        found = Repository.discover(plain.path / "folder")
        by_name = {one.path: one for one in found.index()}
        assert set(by_name) == {f"folder/{name}" for name in ODD_NAMES}
        for number, name in enumerate(ODD_NAMES):
            path = f"folder/{name}"
            one = by_name[path]
            assert (one.mode, one.stage) == ("100644", 0)
            assert found.blob(one.oid) == b"%d" % number
            assert found.index(f":(top,literal){path}") == [one]
            assert found.indexed_files([path])[path].oid == one.oid
        assert found.attributes("filter", by_name) == dict.fromkeys(by_name, "unspecified")

    def test_names_of_a_commit_are_no_patterns(self, plain: Repo) -> None:
        for number, name in enumerate(ODD_NAMES):
            plain.write(name, b"%d" % number)
        plain.commit()
        quick, slow = (
            Repository.discover_quickly(plain.path),
            Repository.discover(plain.path),
        )
        slow.__dict__["_libgit2"] = None
        for number, name in enumerate(ODD_NAMES):
            for found in (quick, slow):
                oid = found.blob_at("HEAD", name)
                assert oid is not None
                assert found.blob(oid) == b"%d" % number
                assert found.blob_at("HEAD", f"{name}x") is None
            assert is_file_at(slow, "HEAD", name)
        assert slow.blob_at("HEAD", "*.pt") is quick.blob_at("HEAD", "*.pt") is None

    def test_the_mode_of_a_file_is_kept(self, plain: Repo) -> None:
        for name in ("-run", "data"):
            plain.write(name, b"x")
        plain.git("add", "-A")
        plain.git("update-index", "--chmod=+x", "--", "-run")
        plain.git("commit", "-q", "-m", "modes")
        found = Repository.discover(plain.path)
        modes = [file_mode_at(found, "HEAD", name) for name in ("-run", "data", "none")]
        assert modes == ["100755", "100644", "100644"]

    def test_both_sides_of_a_conflict_are_there(self, plain: Repo) -> None:
        oids = [plain.git("hash-object", "-w", "--stdin", stdin=b"%d" % n).strip() for n in (1, 2)]
        rows = "".join(f"100644 {oid} {2 + at}\tw.pt\n" for at, oid in enumerate(oids))
        plain.git("update-index", "--index-info", stdin=rows.encode())
        found = Repository.discover(plain.path)
        assert found.index() == [
            IndexEntry("100644", oids[0], 2, "w.pt"),
            IndexEntry("100644", oids[1], 3, "w.pt"),
        ]
        assert found.indexed_files(["w.pt"]) == {}

    def test_what_it_knows_of_a_file_is_what_the_system_says(self, plain: Repo) -> None:
        path = plain.write("w.pt", b"12345")
        plain.git("add", "-A")
        known = Repository.discover(plain.path).indexed_files(["w.pt"])["w.pt"]
        status = path.stat()
        assert (known.size, known.mtime_ns) == (5, status.st_mtime_ns)
        assert known.inode == status.st_ino % 2**32

    @posix
    def test_only_files_that_the_filter_has_are_tracked(self, plain: Repo) -> None:
        plain.write(".gitattributes", b"*.pt filter=theta\n")
        for name in ("a.pt", "b/c.pt", "d.txt"):
            plain.write(name, b"x")
        (plain.path / "link.pt").symlink_to("a.pt")
        plain.git("-c", "filter.theta.clean=", "add", "-A")
        below = Repository.discover(plain.path / "b")
        assert [one.path for one in below.tracked()] == ["a.pt", "b/c.pt"]
        assert below.attribute("filter", "b/c.pt") == "theta"

    def test_it_learns_of_files_that_were_written(self, plain: Repo) -> None:
        name = ODD_NAMES[0]
        path = plain.write(name, b"one")
        plain.git("add", "-A")
        path.write_bytes(b"two")
        found = Repository.discover(plain.path)
        found.update_index([name])
        (one,) = found.index()
        assert found.blob(one.oid) == b"two"


class TestRevisions:
    def test_before_the_first_commit_there_is_none(self, plain: Repo) -> None:
        for found in (Repository.discover(plain.path), Repository.discover_quickly(plain.path)):
            assert revisions_in_progress(found) == []
            assert found.resolve("HEAD") is None
        assert Repository.discover(plain.path).branch("HEAD") == "refs/heads/main"

    def test_heads_of_what_is_under_way(self, plain: Repo) -> None:
        plain.write("f", b"x")
        commit = plain.commit()
        for name in ("MERGE_HEAD", "REBASE_HEAD", "FETCH_HEAD"):
            (plain.path / ".git" / name).write_text(f"{commit}\n")
        found = Repository.discover(plain.path)
        assert revisions_in_progress(found) == ["HEAD", "MERGE_HEAD", "REBASE_HEAD"]

    def test_names_of_revisions(self, plain: Repo) -> None:
        plain.write("f", b"x")
        commit = plain.commit()
        plain.git("tag", "v1")
        for found in (Repository.discover(plain.path), Repository.discover_quickly(plain.path)):
            for name in ("HEAD", "main", "v1", commit, commit[:12]):
                assert found.resolve(name) == commit
            for name in ("none", "--all", "-x", "HEAD~7"):
                assert found.resolve(name) is None
            names = [found.branch(one) for one in ("HEAD", "main", "v1", "none", "--all", commit)]
            assert names == ["refs/heads/main", "refs/heads/main", None, None, None, None]
        plain.git("checkout", "-q", "--detach")
        assert Repository.discover(plain.path).branch("HEAD") is None

    def test_whether_any_is_here(self, plain: Repo) -> None:
        plain.write("f", b"x")
        commit = plain.commit()
        found = Repository.discover(plain.path)
        assert any_commit_here(found, ["0" * 39 + "1", commit])
        assert not any_commit_here(found, ["0" * 39 + "1"])
        assert not any_commit_here(found, [])


class TestBlobs:
    CONTENTS = (b"", b"one\n\nline", b"missing\n", bytes(range(256)) * 20)

    def put(self, repo: Repo) -> list[str]:
        return [
            repo.git("hash-object", "-w", "--stdin", stdin=data).strip() for data in self.CONTENTS
        ]

    def test_many_at_once_and_those_that_are_not_here_left_out(self, plain: Repo) -> None:
        oids = self.put(plain)
        found = Repository.discover(plain.path)
        asked = [oids[0], "0" * 39 + "1", *oids[1:]]
        assert list(found.blobs(asked)) == list(zip(oids, self.CONTENTS, strict=True))
        assert list(found.blobs([])) == []
        assert [found.blob_size(oid) for oid in oids] == [len(data) for data in self.CONTENTS]

    def test_only_small_ones_that_begin_so(self, plain: Repo) -> None:
        oids = self.put(plain)
        tree = plain.git("mktree", stdin=b"").strip()
        found = Repository.discover(plain.path)
        asked = [*oids, tree, "0" * 39 + "1"]
        assert list(found.small_blobs(asked, b"one", 9)) == [(oids[1], self.CONTENTS[1])]
        assert list(found.small_blobs(asked, b"one", 8)) == []
        assert list(found.small_blobs(asked, b"\0\1", 1 << 20)) == [(oids[3], self.CONTENTS[3])]
        assert list(found.small_blobs([], b"", 9)) == []

    def test_one_into_a_file_or_an_error(self, plain: Repo) -> None:
        oids = self.put(plain)
        found = Repository.discover(plain.path)
        file = io.BytesIO()
        found.write_blob(oids[3], file)
        assert file.getvalue() == self.CONTENTS[3]
        with pytest.raises(RepositoryError):
            found.blob("0" * 39 + "1")

    @pytest.mark.parametrize(("digits", "form"), [(40, "sha1"), (64, "sha256")])
    def test_the_hash_is_gits(self, plain: Repo, tmp_path: Path, digits: int, form: str) -> None:
        plain.git("init", "-q", f"--object-format={form}", str(tmp_path / form))
        repo = Repo(tmp_path / form)
        for data in (b"", b"x", b"y" * ((1 << 20) + 1)):
            expected = repo.git("hash-object", "--stdin", stdin=data).strip()
            assert (
                git_hash(lambda at, n, data=data: data[at : at + n], len(data), digits) == expected
            )
            assert len(hashlib.new(form).hexdigest()) == digits

    def test_names_by_sha256_are_read_too(self, plain: Repo, tmp_path: Path) -> None:
        """libgit2 may not open such a repository; then it is Git that answers."""
        plain.git("init", "-q", "--object-format=sha256", str(tmp_path / "new"))
        repo = Repo(tmp_path / "new")
        repo.write("w.pt", b"content")
        repo.commit()
        for found in (Repository.discover(repo.path), Repository.discover_quickly(repo.path)):
            oid = found.blob_at("HEAD", "w.pt")
            assert oid is not None
            assert (len(oid), found.blob(oid)) == (64, b"content")

    @posix
    @pytest.mark.parametrize("name", ["plain", 'co:lon "and quotes"'])
    def test_scratch_objects_are_not_in_the_repository(
        self, new_repo: NewRepo, tmp_path: Path, name: str
    ) -> None:
        repo = new_repo(name, install=False)
        (known,) = (repo.git("hash-object", "-w", "--stdin", stdin=b"known").strip(),)
        found = Repository.discover(repo.path)
        env = scratch_objects(found, tmp_path / "scratch")
        new = found.git("hash-object", "-w", "--stdin", stdin=b"new", env=env).decode().strip()
        for oid in (known, new):
            assert found.git("cat-file", "-t", oid, env=env) == b"blob\n"
        assert found.git("cat-file", "-e", known) == b""
        with pytest.raises(RepositoryError):
            found.git("cat-file", "-e", new)
