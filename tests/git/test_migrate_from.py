"""Histories of DVC and of git-theta 0.2 are moved in: `import-dvc`, `migrate --from-git-theta`."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from git_theta_ext import open as open_theta
from tests.scenarios.dvc import dvc_add
from tests.scenarios.moved import NAME, refs, started, version
from tests.scenarios.repositories import Repo

OLD = Path(__file__).parents[1] / "golden/git_theta_0_2.tar.xz"


def test_what_dvc_tracks(tmp_path: Path, sealed: Path) -> None:
    """A file, a folder with other files in it, and one that has no checkpoint; every version."""
    repo = started(tmp_path / "repo", lfs=False)
    repo.write(".dvc/.gitignore", b"/config.local\n/tmp\n/cache\n")
    repo.write(".gitignore", b"/model.safetensors\n/data\n/table.csv\n")
    dvc_add(repo, "table.csv", b"1,2\n")
    for number in range(2):
        dvc_add(repo, NAME, version(number))
        dvc_add(repo, "data", {"a.safetensors": version(number + 4), "sub/b.txt": b"hello"})
        repo.commit(f"version {number}")
    before = refs(repo)
    (repo.path / NAME).write_bytes(b"changed, and not added to DVC")
    done = repo.run("git", "theta", "import-dvc", ok=(2,))
    assert b"it would be lost" in done.stderr
    repo.write(NAME, version(1))
    (cached,) = repo.path.glob(f".dvc/cache/files/md5/*/{hashlib.md5(version(0)).hexdigest()[2:]}")
    cached.rename(repo.path / "away")
    done = repo.run("git", "theta", "import-dvc", ok=(6,))
    assert hashlib.md5(version(0)).hexdigest().encode() in done.stderr
    assert refs(repo) == before
    (repo.path / "away").rename(cached)

    assert "4 versions" in repo.theta("import-dvc", "--dry-run")
    repo.theta("import-dvc")
    for number, revision in enumerate(("HEAD~1", "HEAD")):
        names = repo.git("ls-tree", "-r", "--name-only", revision).split()
        assert names == [".dvc/.gitignore", ".gitattributes", ".gitignore", "data/a.safetensors",
                         "data/sub/b.txt", NAME, "table.csv.dvc"]  # fmt: skip
        for name, data in ((NAME, version(number)), ("data/a.safetensors", version(number + 4))):
            assert repo.blob(f"{revision}:{name}").startswith(b"git-theta ")
            assert repo.run("git", "cat-file", "--filters", f"{revision}:{name}").stdout == data
    assert repo.blob("HEAD:.gitignore") == b"/table.csv\n"
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() == version(1)
    assert (
        "delta" in repo.blob(f"HEAD:{NAME}").decode()
        or "sparse" in repo.blob(f"HEAD:{NAME}").decode()
    )

    # One in a project of its own in a folder; and one that Git has, too.
    repo.write("sub/.dvc/config", b"[core]\n")
    (repo.path / ".dvc/cache").rename(repo.path / "sub/.dvc/cache")
    repo.write("sub/.gitignore", b"/model.safetensors\n/.dvc/cache\n")
    dvc_add(repo, "sub/model.safetensors", version(2))
    text = (repo.path / "sub/model.safetensors.dvc").read_text()
    repo.write("sub/model.safetensors.dvc", text.replace("sub/", "").encode())
    cache = repo.path / ".dvc/cache"
    shutil.copytree(cache, repo.path / "sub/.dvc/cache", dirs_exist_ok=True)
    shutil.rmtree(cache)
    repo.commit("a project")
    repo.git("add", "--force", "sub/model.safetensors")
    repo.git("commit", "-q", "-m", "twice")
    before = refs(repo)
    done = repo.run("git", "theta", "import-dvc", ok=(2,))
    assert b"sub/model.safetensors is tracked by DVC and by Git" in done.stderr
    assert refs(repo) == before
    repo.git("reset", "-q", "--hard", "HEAD~1")
    repo.write("sub/model.safetensors", version(2))
    repo.theta("import-dvc")
    assert repo.blob("HEAD:sub/model.safetensors").startswith(b"git-theta ")


def test_what_git_theta_0_2_wrote(tmp_path: Path, sealed: Path) -> None:
    """Dense, sparse and low-rank updates: the tensors of every version, as its filter wrote them.

    The repository was written by git-theta 0.2.0 (tests/golden/make_git_theta.py).
    """
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    repo = Repo(tmp_path / "golden/repo")
    repo.git("config", "core.bare", "true")  # its filter is not here to look at the work tree
    assert "4 versions" in repo.theta("migrate", "import", "--from-git-theta", "--dry-run")
    repo.theta("migrate", "import", "--from-git-theta")
    repo.theta("fsck")
    commits = repo.git("rev-list", "--reverse", "main").split()
    assert repo.git("ls-tree", "--name-only", commits[0]) == ".gitattributes\n"
    for number, commit in enumerate(commits[1:]):
        wanted = load_file(tmp_path / f"golden/checked-out/{number}.safetensors")
        found = open_theta(f"{commit}:model.pt", repository=repo.path)
        assert set(found.keys()) == set(wanted)
        for name, values in wanted.items():
            assert found[name].dtype == values.dtype
            assert np.array_equal(np.asarray(found[name]), values), (number, name)


def test_what_a_cache_of_the_hub_may_hold(tmp_path: Path, sealed: Path) -> None:
    """Files that come later, two models, folders that speak for themselves, links and odd refs."""
    repo, cache = started(tmp_path / "repo", lfs=False), tmp_path / "models--org--tiny"
    snapshot = cache / "snapshots" / ("a" * 40)
    for path in (snapshot / "sub", cache / "refs/refs/pr", cache / "blobs", cache / ".no_exist"):
        path.mkdir(parents=True)
    (cache / "blobs/x.incomplete").write_bytes(b"half")
    (cache / "refs/refs/pr/1").write_text("a" * 40)
    (snapshot / "sub/.gitattributes").write_bytes(b"*.safetensors filter=lfs -text\n")
    (snapshot / "sub" / NAME).write_bytes(version(0))
    repo.theta("import-hf", str(cache))
    first = refs(repo)
    repo.git("checkout", "-q", "hf/refs/pr/1")
    assert ((repo.path / "sub" / NAME).read_bytes(), repo.status()) == (version(0), "")
    repo.git("checkout", "-q", "--detach")
    assert "0 snapshots" in repo.theta("import-hf", str(cache))
    (snapshot / "config.json").write_bytes(b"{}")
    assert "1 snapshot " in repo.theta("import-hf", str(cache))
    assert repo.blob("hf/refs/pr/1:config.json") == b"{}"
    assert repo.git("rev-parse", "hf/refs/pr/1~1").strip() in first.values()

    before = refs(repo)
    cases = [("snapshots/" + "a" * 40 + "/all", "/etc", "leads out of", 3),
             ("refs/link", "/etc/passwd", "refs/link cannot be read", 3),
             ("refs/a..b", None, "hf/a..b is no name for a branch", 2)]  # fmt: skip
    for name, target, said, status in cases:
        place = cache / name
        place.write_text("a" * 40) if target is None else place.symlink_to(target)
        done = repo.run("git", "theta", "import-hf", str(cache), ok=(status,))
        assert said in done.stderr.decode()
        place.unlink()
    other = cache.rename(tmp_path / "models--org--other")
    done = repo.run("git", "theta", "import-hf", str(other), ok=(2,))
    assert b"hf/* are of org/tiny" in done.stderr
    assert refs(repo) == before
