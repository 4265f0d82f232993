"""`git theta migrate import` and `export`: whole histories of git-lfs and of plain Git."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import steps
from tests.scenarios.advised import do, only
from tests.scenarios.moved import BELOW, NAME, history, refs, started, version
from tests.scenarios.repositories import Repo


@pytest.mark.parametrize("kind", ["lfs", "raw"])
def test_a_history_moves_in_and_back(tmp_path: Path, sealed: Path, kind: str) -> None:
    repo = history(tmp_path / "repo", lfs=kind == "lfs")
    before = refs(repo)
    objects = repo.git("count-objects")
    dry = json.loads(repo.theta("migrate", "import", "--everything", "--dry-run", "--json"))
    assert (dry["versions"], dry["commits"], refs(repo)) == (5, 6, before)
    assert repo.git("count-objects") == objects

    said = repo.theta("migrate", "import", "--everything", "--object-map", "../map", "--verbose")
    assert said.count(f"  {NAME}  ") == 4
    after = refs(repo)
    rows = dict(row.split(",") for row in (tmp_path / "map").read_text().splitlines())
    for ref in ("refs/heads/main", "refs/heads/side", "refs/tags/light"):
        assert after[ref] == rows[before[ref]]
    assert repo.git("rev-parse", "main@{1}").strip() == before["refs/heads/main"]
    assert after["refs/notes/commits"] == before["refs/notes/commits"]
    assert (
        repo.git("cat-file", "-p", "twice").splitlines()[0].split()[1] == after["refs/tags/heavy"]
    )
    # What has no checkpoint, and comes before all that have, is the commit that it was.
    assert before["refs/heads/main"] not in rows.values()
    root = repo.git("rev-list", "--max-parents=0", "main").strip()
    assert root not in rows
    assert repo.git("cat-file", "-e", root) == ""

    # Every version, as it was; and stored as if it had been added so.
    wanted = {"main~1": version(2), "main~2": version(1), "main~3": version(0), "side": version(5)}
    plain = started(tmp_path / "plain", lfs=False)
    plain.theta("install", "--local")
    plain.theta("track", "*.safetensors")
    for number, revision in enumerate(("main~3", "main~2", "main~1")):
        plain.write(NAME, version(number))
        if number == 1:
            plain.write(BELOW, version(8))
        plain.commit()
        assert repo.blob(f"{revision}:{NAME}") == plain.blob(f"HEAD:{NAME}")
    assert repo.blob(f"main:{BELOW}") == plain.blob(f"HEAD:{BELOW}")
    for revision, data in wanted.items():
        assert repo.run("git", "cat-file", "--filters", f"{revision}:{NAME}").stdout == data
        assert "filter=theta" in repo.git("cat-file", "blob", f"{revision}:.gitattributes")
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() == version(2)
    repo.theta("fsck")
    assert "Nothing to do" in repo.theta("migrate", "import", "--everything")

    if kind == "lfs":
        do(repo, only(said, "git lfs prune"))
        assert not [one for one in (repo.path / ".git/lfs/objects").rglob("*") if one.is_file()]
        do(repo, only(said, "git theta track"))
        assert "*.pt filter=theta" in (repo.path / ".gitattributes").read_text()
        repo.git("restore", ".gitattributes")
    repo.theta("migrate", "export", "--to", kind, "--everything")
    assert refs(repo) == before
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() == version(2)
    assert not (repo.path / ".git/theta-migrate").exists()
    if kind == "lfs":
        repo.git("lfs", "fsck", "main")


def test_one_that_was_killed_goes_on(tmp_path: Path, sealed: Path) -> None:
    """Nothing is moved until all is done; what was done is not done again; bare works as well."""
    repo = history(tmp_path / "repo", lfs=False)
    repo.git("clone", "-q", "--mirror", ".", "../bare.git")
    bare = Repo(tmp_path / "bare.git")
    before = refs(bare)
    command = [sys.executable, "-m", "git_theta_ext.cli.main", "migrate", "import", "--everything"]
    with subprocess.Popen([*command, "--verbose"], cwd=bare.path, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        while b".safetensors" not in run.stdout.readline():
            pass
        run.kill()
    assert run.returncode < 0
    assert refs(bare) == before
    left = list((bare.path / "theta-migrate").glob("theta-*"))
    for old in left:
        os.utime(old, (1, 1))
    said = bare.theta("migrate", "import", "--everything", "--verbose")
    assert "Going on where an earlier run stopped" in said
    assert 0 < said.count(".safetensors  ") < 5
    assert refs(bare) != before
    assert not (bare.path / "theta-migrate").exists()
    bare.git("update-ref", "--no-deref", "HEAD", "main")
    said = bare.theta("migrate", "export", "--to", "raw", "--everything")
    assert f"HEAD is detached and stays at {bare.git('rev-parse', 'HEAD')[:10]}" in said
    assert refs(bare) == before


def test_a_work_tree_that_a_killed_run_left_behind_follows(tmp_path: Path, sealed: Path) -> None:
    """Also: pointers that git-lfs reads and does not write stand for files, without extensions."""
    repo = started(tmp_path / "repo", lfs=True)
    repo.write(NAME, version(0))
    repo.commit("as git-lfs writes it")
    pointer = repo.blob(f"HEAD:{NAME}")
    odd = pointer.replace(b"git-lfs.github", b"hawser.github").replace(b"\n", b"\r\n")
    (repo.path / "odd").write_bytes(odd)
    extended = pointer.replace(b"oid ", b"ext-0-x sha256:" + b"0" * 64 + b"\noid ")
    (repo.path / "extended").write_bytes(extended)
    for name, path in (("odd", NAME), ("extended", "x.safetensors")):
        oid = repo.git("hash-object", "-w", "--no-filters", name).strip()
        repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{path}")
    repo.git("commit", "-q", "-m", "others")
    repo.git("reset", "-q", "HEAD~1", "--", ".")
    repo.git("commit", "-q", "-m", "as git-lfs writes it, again")
    done = repo.run("git", "theta", "migrate", "import", ok=(2,))
    assert b"x.safetensors: pointers of git-lfs with extensions" in done.stderr

    before = repo.git("rev-parse", "HEAD")
    dying = (
        "import os; from git_theta_ext.migration import refs; from git_theta_ext.cli.main import "
        "main; refs.follow = lambda *_: os._exit(9); main()"
    )
    command = ("migrate", "import", "--exclude", "x.safetensors")
    repo.run(sys.executable, "-c", dying, *command, ok=(9,))
    assert repo.git("rev-parse", "HEAD") != before
    assert repo.status() != ""
    done = repo.run("git", "theta", *command)
    assert b"The work tree now follows" in done.stderr
    assert repo.status() == "?? extended\n?? odd\n"
    assert (repo.path / NAME).read_bytes() == version(0)
    assert repo.blob(f"HEAD~1:{NAME}") == repo.blob(f"HEAD:{NAME}")
    assert repo.blob("HEAD~1:x.safetensors") == extended
    assert not (repo.path / ".git/theta-migrate-follows").exists()

    # A reader of the output that goes away is not the fault of a folder.
    with pytest.raises(BrokenPipeError), steps.pipes_of(Repository.discover(repo.path)):
        raise BrokenPipeError


def test_what_is_left_as_it_was(tmp_path: Path, sealed: Path) -> None:
    """Files that are excluded or nowhere, folders that say otherwise, and a work tree in use."""
    repo = started(tmp_path / "repo", lfs=True)
    repo.write("sub/.gitattributes", b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    for name in (NAME, BELOW, "sub/kept.safetensors", "lost.safetensors"):
        repo.write(name, version(len(name)))
    repo.commit("all")
    before = refs(repo)
    pointer = repo.blob("HEAD:lost.safetensors")
    lost = pointer.split(b"sha256:")[1][:64].decode()
    arguments = ("migrate", "import", "--include", "*.safetensors", "--exclude", "kept.*")

    repo.write("sub/kept.safetensors", b"changed")
    done = repo.run("git", "theta", *arguments, ok=(2,))
    assert b"not committed" in done.stderr
    repo.git("checkout", "-q", "--", ".")
    # Of a file that may be newer than the index git-lfs would make the object again.
    os.utime(repo.path / "lost.safetensors", (1, 1))
    repo.git("add", "lost.safetensors")
    (repo.path / ".git/lfs/objects" / lost[:2] / lost[2:4] / lost).unlink()
    done = repo.run("git", "theta", *arguments, ok=(6,))
    assert lost.encode() in done.stderr
    assert b"lost.safetensors" in done.stderr
    assert refs(repo) == before

    said = repo.theta(*arguments, "--missing=skip")
    assert lost in said
    assert repo.blob("HEAD:lost.safetensors") == pointer
    names = [NAME, BELOW, "sub/kept.safetensors", "lost.safetensors"]
    answer = repo.git("check-attr", "filter", "--", *names).splitlines()
    assert [line.rpartition(" ")[2] for line in answer] == ["theta", "theta", "lfs", "lfs"]
    assert repo.status() == ""
    os.remove(repo.path / NAME)
    repo.git("checkout", "--", NAME)
    assert (repo.path / NAME).read_bytes() == version(len(NAME))
    repo.theta("migrate", "export", "--to", "lfs", "--include", "*")
    assert refs(repo) == before


def test_one_commit_on_top_and_a_mirror(tmp_path: Path, sealed: Path) -> None:
    """What is shown before, the move without new history, and a branch that others can read."""
    repo = started(tmp_path / "repo", lfs=True)
    for number in range(2):
        repo.write(NAME, version(number))
        repo.commit(f"version {number}")
    shown = json.loads(repo.theta("migrate", "info", "--json"))
    (group,) = shown["groups"]
    assert (group["format"], group["versions"]) == ("safetensors", {"lfs": 2})
    (sample,) = shown["samples"]
    assert 0 < sample["next_stored"] < sample["first_stored"] // 100
    assert "2 versions to move" in do(repo, only(repo.theta("migrate", "info")))

    head = refs(repo)["refs/heads/main"]
    repo.theta("migrate", "import", "--no-rewrite", "-m", "moved")
    assert repo.git("log", "--format=%s %P", "-1") == f"moved {head}\n"
    assert repo.blob(f"HEAD:{NAME}").startswith(b"git-theta ")
    assert repo.status() == ""

    repo.write(NAME, version(3))
    repo.commit("after")
    assert "4 commits" in repo.theta("mirror", "main", "main-lfs", "--dry-run")
    repo.theta("mirror", "--to", "lfs", "main", "main-lfs")
    first = refs(repo)["refs/heads/main-lfs"]
    assert repo.git("rev-parse", "main-lfs~2").strip() == head
    repo.write(NAME, version(4))
    repo.commit("and one more")
    # Of what is in the mirror nothing is needed again, in a clone that never made it, either.
    repo.git("clone", "-q", ".", "../clone", env={"GIT_LFS_SKIP_SMUDGE": "1"})
    clone = Repo(tmp_path / "clone")
    clone.git("branch", "-q", "main-lfs", "origin/main-lfs")
    assert "1 commit, 1 file" in clone.theta("mirror", "main", "main-lfs")
    publish = only(repo.theta("mirror", "main", "main-lfs"), "REMOTE")
    assert "up to date" in repo.theta("mirror", "main", "main-lfs")
    assert refs(clone)["refs/heads/main-lfs"] == refs(repo)["refs/heads/main-lfs"] != first
    repo.git("clone", "-q", "--bare", ".", "../remote.git")
    repo.git("remote", "add", "host", "../remote.git")
    repo.git("push", "-q", "-f", "host", f"{first}:refs/heads/main-lfs")
    do(repo, publish, REMOTE="host")
    assert "up to date" in repo.theta("mirror", "--push", "host", "main", "main-lfs")
    repo.git("checkout", "-q", "main-lfs")
    assert (repo.path / NAME).read_bytes() == version(4)
    assert repo.status() == ""
    done = repo.run("git", "theta", "mirror", "main~1", "side", ok=(0,))
    assert b"side" in done.stdout
    done = repo.run("git", "theta", "mirror", "light", "main", ok=(2,))
    assert b"no revision 'light'" in done.stderr
