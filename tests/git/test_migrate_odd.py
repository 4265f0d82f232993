"""Histories that are odd, incomplete or in use: nothing is lost, and nothing moved by halves."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.scenarios.moved import NAME, refs, started, version
from tests.scenarios.repositories import Repo

_LFS = b"*.safetensors big\n"
_STOPPED = "import os; from git_theta_ext.migration import {0}; from git_theta_ext.cli.main import "
_STOPPED += "main; {0}.{1} = lambda *_: os._exit(9); main()"


def stopped(repo: Repo, at: str, *arguments: str) -> None:
    """Run `git theta`, and end it without a word where it would call a function of migration."""
    code = _STOPPED.format(*at.split("."))
    repo.run(sys.executable, "-c", code, *arguments, ok=(9,))


def written(repo: Repo, kind: str, data: bytes) -> str:
    """An object that Git of today would not write so."""
    (repo.path / ".git/odd").write_bytes(data)
    return repo.git("hash-object", "-t", kind, "-w", "--literally", ".git/odd").strip()


def versions(repo: Repo, *names: str) -> list[bytes]:
    """The first bytes of what Git stores of some files in each commit of `main`, oldest first."""
    commits = repo.git("rev-list", "--reverse", "main").split()
    return [repo.blob(f"{commit}:{name}")[:9] for commit in commits for name in names]


def odd_history(path: Path) -> Repo:
    """git-lfs by a macro, undone in a folder; a file of changing kind; a commit of old Git."""
    repo = started(path, lfs=True)
    repo.write(".gitattributes", b"[attr]big filter=lfs diff=lfs merge=lfs -text\n" + _LFS)
    repo.write("sub/.gitattributes", _LFS)
    repo.write("w.bin", b"no checkpoint yet " * 200)
    for name in (NAME, "kept.safetensors", "sub/a.safetensors"):
        repo.write(name, version(len(name)))
    repo.commit("one")
    repo.write("w.bin", version(7))
    repo.commit("two")
    repo.write("w.bin", b"no checkpoint any more " * 200)
    tip = repo.commit("three")
    blob = bytes.fromhex(repo.git("rev-parse", f"HEAD:{NAME}").strip())
    empty = bytes.fromhex(written(repo, "tree", b""))
    tree = written(repo, "tree", b"100644 b\0" + blob + b"100664 a\0" + blob)
    lines = bytes.fromhex(repo.git("rev-parse", "HEAD:.gitattributes").strip())
    rows = (
        b"100644 .gitattributes\0"
        + lines
        + b"040000 empty\0"
        + empty
        + b"100644 "
        + NAME.encode()
        + b"\0"
        + blob
    )
    rows += b"40000 x\0" + bytes.fromhex(tree)
    top = written(repo, "tree", rows)
    words = f"tree {top}\nparent {tip}\nauthor  <> 1 +0\ncommitter A <a 1 +9999\n\nold".encode()
    repo.git("update-ref", "refs/heads/old", written(repo, "commit", words))
    return repo


def test_odd_histories_come_back(tmp_path: Path, sealed: Path) -> None:
    """What tracks a file is what Git says, wherever it says so; nothing is corrected by the way."""
    repo = odd_history(tmp_path / "repo")
    before, arguments = refs(repo), ("--everything", "--exclude", "kept.*")
    folders = repo.git("rev-parse", "old:x", "old:empty")
    place = repo.write(".git/info/attributes", b"*.safetensors filter=lfs\n")
    done = repo.run("git", "theta", "migrate", "import", *arguments, ok=(2,))
    assert f"{NAME}: filter=lfs".encode() in done.stderr
    assert refs(repo) == before
    place.unlink()

    repo.theta("migrate", "import", *arguments)
    assert versions(repo, NAME, "sub/a.safetensors", "w.bin") == [b"git-theta"] * 9
    assert versions(repo, "kept.safetensors") == [b"version h"] * 3
    assert repo.git("rev-parse", "old:x", "old:empty") == folders
    for name in (NAME, "kept.safetensors", "sub/a.safetensors", "w.bin"):
        os.utime(repo.path / name, (1, 1))
    assert repo.status() == ""
    assert (repo.path / "sub/a.safetensors").read_bytes() == version(len("sub/a.safetensors"))

    # As plain files come back as those of git-lfs, in two steps.
    repo.theta("migrate", "export", "--to", "raw", "--everything", "--include", "w.bin")
    repo.theta("migrate", "export", "--to", "lfs", "--everything")
    assert refs(repo) == before


def test_what_is_not_whole_is_refused(tmp_path: Path, sealed: Path) -> None:
    """A version that is gone, a file that Git ignores; what a graft hides is moved all the same."""
    repo = started(tmp_path / "repo", lfs=False)
    repo.write(".gitignore", b".gitattributes\n")
    for number in range(3):
        repo.write(NAME, version(number))
        repo.commit(f"version {number}")
    before = refs(repo)
    precious = repo.write(".gitattributes", b"* precious\n")
    done = repo.run("git", "theta", "migrate", "import", ok=(10,))
    assert b".gitattributes, which Git ignores, is in the way" in done.stderr
    assert (precious.read_bytes(), refs(repo)) == (b"* precious\n", before)
    precious.unlink()

    oid = repo.git("rev-parse", f"HEAD~1:{NAME}").strip()
    place = repo.path / ".git/objects" / oid[:2] / oid[2:]
    place.rename(repo.path / ".git/away")
    for verb in ("info", "import"):
        done = repo.run("git", "theta", "migrate", verb, ok=(10,))
        assert f"blob {oid} is not in this repository".encode() in done.stderr
    assert refs(repo) == before
    (repo.path / ".git/away").rename(place)

    head = before["refs/heads/main"]
    repo.write(".git/info/grafts", f"{head}\n".encode())
    repo.theta("migrate", "import")
    (repo.path / ".git/info/grafts").unlink()
    assert versions(repo, NAME) == [b"git-theta"] * 3


def test_a_stopped_run_and_other_wishes(tmp_path: Path, sealed: Path) -> None:
    """What was done for a part of the history serves the whole; the work tree is taken as it is."""
    repo = started(tmp_path / "repo", lfs=True)
    for number in range(4):
        repo.write(NAME, version(number))
        repo.commit(f"version {number}")
    stopped(repo, "steps.moved_refs", "migrate", "import", "main", "^main~2")
    stopped(repo, "steps.moved_refs", "migrate", "import", "--object-map", "../map")
    # Stopped between the refs and the work tree, of which some is written, and some gone.
    stopped(repo, "refs.follow", "migrate", "import", "--object-map", "../map")
    assert versions(repo, NAME) == [b"git-theta"] * 4
    repo.write(".gitattributes", repo.blob("HEAD:.gitattributes"))
    (repo.path / NAME).unlink()
    done = repo.run("git", "theta", "migrate", "import")
    assert b"The work tree now follows" in done.stderr
    assert (repo.status(), (repo.path / NAME).read_bytes()) == ("", version(3))

    # What git-lfs has in a repository whose objects this one shares.
    repo.git("clone", "-q", "--shared", ".", "../shared", env={"GIT_LFS_SKIP_SMUDGE": "1"})
    shared = Repo(tmp_path / "shared")
    shared.git("remote", "remove", "origin")
    shared.git("checkout", "-q", "-b", "old", refs(repo)["refs/heads/main"])
    old = repo.git("rev-parse", "main@{1}").strip()
    said = shared.theta("migrate", "import", "--dry-run", "--json", "--include-ref", old)
    assert (json.loads(said)["versions"], json.loads(said)["missing"]) == (4, 0)

    # A branch of manifests is no mirror of itself, and one of two sources no mirror of the other.
    repo.git("branch", "copy")
    done = repo.run("git", "theta", "mirror", "main", "copy", ok=(2,))
    assert b"no mirror of this source" in done.stderr
    repo.theta("mirror", "main", "lfs")
    assert repo.blob(f"lfs~3:{NAME}").startswith(b"version https://git-lfs")
    said = repo.theta("mirror", "--dry-run", "--json", "main", "lfs")
    assert json.loads(said)["commits"] == 0
