"""Git commands that call the filter in ways of their own: in parts, by patches, without a key."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from git_theta_ext.manifest.model import is_manifest
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"
OTHER = "encoder.layer.0.attention.query.weight"


def version(number: int) -> bytes:
    """A model of which one tensor differs from version to version."""
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=number)})


def two(repo: Repo) -> Path:
    """Commit two versions; the path of the checkpoint."""
    for number in (1, 2):
        repo.write(NAME, version(number))
        repo.commit(f"version {number}")
    return repo.path / NAME


def is_update(repo: Repo, spec: str) -> bool:
    """Whether Git holds a manifest there whose changed tensor is an update of an older one."""
    entries = parse_manifest(repo.blob(spec)).by_name()
    return len(entries[WEIGHT].blocks[0].chain) > 1


# -- commands that work in parts -------------------------------------------------------------------


def several(*weights: str, seed: int) -> bytes:
    """The second version with these tensors changed."""
    tensors = model()
    tensors[WEIGHT] = changed(tensors[WEIGHT], seed=2)
    return safetensors({**tensors, **{w: changed(tensors[w], seed=seed) for w in weights}})


def test_single_tensors_are_staged_and_committed(repo: Repo) -> None:
    path = two(repo)
    repo.write(NAME, several(OTHER, WEIGHT, seed=3))
    asked = repo.run("git", "add", "-p", stdin=b"y\nn\n").stdout.decode()
    assert f"-tensor {OTHER}" not in asked
    assert asked.count("Stage this hunk") == 2
    repo.git("commit", "-q", "-m", "one tensor")
    assert repo.status() == f" M {NAME}\n"
    repo.git("stash", "-q")
    assert path.read_bytes() == several(OTHER, seed=3)
    repo.git("stash", "pop", "-q")
    assert path.read_bytes() == several(OTHER, WEIGHT, seed=3)
    repo.theta("fsck")


def test_single_tensors_are_stashed_and_restored(repo: Repo) -> None:
    path = two(repo)
    repo.write(NAME, several(OTHER, WEIGHT, seed=3))
    repo.git("stash", "push", "-q", "-p", stdin=b"y\nn\n")
    assert path.read_bytes() == several(WEIGHT, seed=3)
    repo.git("commit", "-q", "-a", "-m", "the other tensor")
    repo.git("stash", "pop", "-q")
    assert path.read_bytes() == several(OTHER, WEIGHT, seed=3)
    repo.git("restore", "-p", "--source=HEAD~1", NAME, stdin=b"n\ny\n")
    assert path.read_bytes() == several(OTHER, seed=3)


def test_half_of_a_tensor_is_found_and_never_written(repo: Repo) -> None:
    path = two(repo)
    repo.write(NAME, version(3))
    repo.git("add", "-p", stdin=b"s\ny\nn\n")
    repo.git("commit", "-q", "-m", "the hash of one version, the update of another")
    found = repo.run("git", "theta", "fsck", ok=(5,)).stdout.decode()
    assert WEIGHT in found
    path.unlink()
    done = repo.run("git", "checkout", "--", NAME, ok=(128,))
    assert WEIGHT.encode() in done.stderr
    assert not path.exists()
    repo.git("checkout", "HEAD~1", "--", NAME)
    assert path.read_bytes() == version(2)


def test_a_tensor_without_its_structure_is_found_and_never_written(repo: Repo) -> None:
    path = two(repo)
    tensors = model()
    tensors[WEIGHT] = tensors[WEIGHT][:32]
    repo.write(NAME, safetensors(tensors))
    repo.git("add", "-p", stdin=b"n\ny\n")
    repo.git("commit", "-q", "-m", "32 rows, and a header that says 64")
    assert b"header" in repo.run("git", "theta", "fsck", ok=(5,)).stdout
    path.unlink()
    done = repo.run("git", "checkout", "--", NAME, ok=(128,))
    assert b"header does not belong to the manifest's tensors" in done.stderr
    repo.write(NAME, safetensors(tensors))
    repo.git("commit", "-q", "-a", "-m", "and the header")
    path.unlink()
    repo.git("checkout", "--", NAME)
    assert path.read_bytes() == safetensors(tensors)


def test_intent_to_add(repo: Repo) -> None:
    path = repo.write(NAME, version(1))
    repo.git("add", "-N", NAME)
    assert repo.status() == f" A {NAME}\n"
    assert "new, 14 tensors" in repo.git("diff")
    assert path.read_bytes() == version(1)
    repo.git("commit", "-q", "-a", "-m", "first")
    path.unlink()
    repo.git("checkout", "--", NAME)
    assert path.read_bytes() == version(1)
    assert repo.status() == ""


def test_a_commit_of_named_paths_leaves_the_rest_staged(repo: Repo) -> None:
    two(repo)
    repo.write("other.safetensors", version(7))
    repo.git("add", "other.safetensors")
    repo.write(NAME, version(3))
    repo.git("commit", "-q", "-m", "in part", NAME)
    assert repo.status() == "A  other.safetensors\n"
    assert is_update(repo, f"HEAD:{NAME}")
    repo.write(NAME, version(4))
    repo.git("commit", "-q", "--amend", "--no-edit", "-a")
    assert repo.status() == ""
    assert repo.git("show", "--format=", "--name-only").split() == [NAME, "other.safetensors"]


def test_a_checkpoint_in_conflict_is_added_as_an_update(repo: Repo) -> None:
    path = two(repo)
    repo.git("checkout", "-q", "-b", "side", "HEAD~1")
    repo.write(NAME, version(3))
    repo.commit("side")
    repo.run("git", "merge", "main", ok=(1,))
    repo.write(NAME, version(4))
    repo.git("commit", "-q", "-a", "-m", "settled by hand")
    assert is_update(repo, f"HEAD:{NAME}")
    assert path.read_bytes() == version(4)
    assert repo.status() == ""


# -- commands that write files without telling the commit ------------------------------------------


def test_content_asked_for_by_its_blob(repo: Repo) -> None:
    path = two(repo)
    asked = repo.run("git", "cat-file", "--filters", f"HEAD~1:{NAME}")
    assert asked.stdout == version(1)
    path.unlink()
    repo.git("checkout-index", "-q", "-f", "-a")
    assert path.read_bytes() == version(2)
    repo.git("checkout-index", "--prefix=copies/", NAME)
    assert (repo.path / "copies" / NAME).read_bytes() == version(2)
    repo.git("checkout-index", "--temp", NAME)
    made = list(repo.path.glob(".merge_file_*"))
    assert [one.read_bytes() for one in made] == [version(2)]


def test_patches_by_mail(repo: Repo, tmp_path: Path) -> None:
    path = two(repo)
    repo.git("format-patch", "-q", "-1", "-o", str(tmp_path / "mail"))
    (patch,) = (tmp_path / "mail").iterdir()
    assert patch.stat().st_size < 5000
    repo.git("reset", "-q", "--hard", "HEAD~1")
    assert path.read_bytes() == version(1)
    repo.git("am", "-q", str(patch))
    assert path.read_bytes() == version(2)
    assert repo.status() == ""
    repo.git("apply", "-R", str(patch))
    assert path.read_bytes() == version(1)
    assert repo.status() == f" M {NAME}\n"
    repo.git("apply", "--3way", "-R", str(patch), ok=(1,))
    repo.git("reset", "-q", "--hard")
    repo.git("apply", "--index", "-R", str(patch))
    assert path.read_bytes() == version(1)
    assert repo.status() == f"M  {NAME}\n"


def test_bundles_and_streams_of_commits(repo: Repo, tmp_path: Path) -> None:
    """They carry manifests; the objects are pushed and fetched as ever."""
    path = two(repo)
    repo.git("bundle", "create", str(tmp_path / "all.bundle"), "main")
    repo.git("remote", "add", "bundle", str(tmp_path / "all.bundle"))
    repo.git("fetch", "-q", "bundle")
    repo.git("checkout", "-q", "bundle/main~1")
    assert path.read_bytes() == version(1)
    stream = repo.run("git", "fast-export", "main").stdout
    assert len(stream) < len(version(1)) / 4
    repo.git("checkout", "-q", "--detach")
    repo.git("branch", "-q", "-D", "main")
    repo.run("git", "fast-import", "--quiet", stdin=stream)
    repo.git("checkout", "-q", "main")
    assert path.read_bytes() == version(2)
    assert repo.status() == ""


def test_history_that_is_searched_and_rewritten(repo: Repo) -> None:
    path = two(repo)
    for number in (3, 4, 5):
        repo.write(NAME, version(number))
        repo.commit(f"version {number}")
    good = repr([hashlib.sha256(version(number)).hexdigest() for number in (1, 2)])
    check = (
        "import hashlib, pathlib, sys\n"
        f"sys.exit(hashlib.sha256(pathlib.Path({NAME!r}).read_bytes()).hexdigest() not in {good})"
    )
    repo.git("bisect", "start", "HEAD", "HEAD~4")
    said = repo.git("bisect", "run", sys.executable, "-c", check)
    said = said.replace("'bad'", "bad")  # as Git 2.55 writes it
    assert f"{repo.git('rev-parse', 'main~2').strip()} is the first bad commit" in said
    repo.git("bisect", "reset")
    assert path.read_bytes() == version(5)

    move = "mkdir -p models && mv *.safetensors models/"
    quiet = {"FILTER_BRANCH_SQUELCH_WARNING": "1"}
    repo.git("filter-branch", "-f", "--tree-filter", move, "HEAD~4..HEAD", env=quiet)
    assert (repo.path / "models" / NAME).read_bytes() == version(5)
    assert is_manifest(repo.blob(f"HEAD~1:models/{NAME}")[:64])
    repo.git("checkout", "-q", "HEAD~2")
    assert (repo.path / "models" / NAME).read_bytes() == version(3)
    assert repo.status() == ""


# -- where Git looks -------------------------------------------------------------------------------


def test_relative_folders_in_the_environment(repo: Repo, tmp_path: Path) -> None:
    path = two(repo)
    outside = Repo(tmp_path)
    where = {"GIT_DIR": f"{repo.path.name}/.git", "GIT_WORK_TREE": repo.path.name}
    repo.write(NAME, version(3))
    outside.git("add", str(path), env=where)
    assert is_update(repo, f":{NAME}")
    outside.git("commit", "-q", "-m", "from outside", env=where)
    path.unlink()
    outside.git("checkout", "-q", "HEAD~1", "--", ".", env=where)
    assert path.read_bytes() == version(2)
    index = {"GIT_INDEX_FILE": "../other-index"}
    repo.git("read-tree", "HEAD", env=index)
    repo.git("add", NAME, env=index)
    assert repo.git("ls-files", "-s", NAME, env=index).split()[1] in repo.git("ls-tree", "HEAD~1")


SPARSE = pytest.param("index.sparse", marks=pytest.mark.git("2.35"))  # sparse-checkout set --cone


@pytest.mark.parametrize("setting", ["core.fsmonitor", SPARSE, "core.untrackedCache"])
def test_indexes_that_leave_things_out(repo: Repo, setting: str) -> None:
    repo.write("small/a.safetensors", version(3))
    repo.write("large/b.safetensors", version(4))
    path = two(repo)
    # A hook that knows nothing makes Git look at everything, by the same code.
    repo.git("config", setting, "/bin/false" if setting == "core.fsmonitor" else "true")
    if setting == "index.sparse":
        repo.git("sparse-checkout", "set", "--cone", "small")
    repo.write("small/a.safetensors", version(5))
    repo.write(NAME, version(6))
    repo.commit("in part")
    assert is_manifest(repo.blob("HEAD:large/b.safetensors")[:64])
    assert is_update(repo, "HEAD:small/a.safetensors")
    repo.git("checkout", "-q", "HEAD~1")
    assert path.read_bytes() == version(2)
    assert (repo.path / "small/a.safetensors").read_bytes() == version(3)
    assert repo.status() == ""


def test_settings_whose_program_is_gone(repo: Repo) -> None:
    """Git refuses every work on checkpoints, and nothing is lost; `install` mends it."""
    path = two(repo)
    process = repo.git("config", "filter.theta.process")
    repo.git("config", "filter.theta.process", process.strip().replace(sys.executable, "/gone"))
    repo.write(NAME, version(3))
    assert b"/gone" in repo.run("git", "add", NAME, ok=(128,)).stderr
    assert path.read_bytes() == version(3)
    assert repo.blob(f":{NAME}") == repo.blob(f"HEAD:{NAME}")
    repo.theta("install", "--local")
    repo.git("add", NAME)
    assert is_update(repo, f":{NAME}")
    assert repo.status() == f"M  {NAME}\n"
