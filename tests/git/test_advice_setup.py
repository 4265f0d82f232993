"""What is advised about the setup: tracking, hooks, servers, packages, adapters, statistics."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.cli.demo import story
from git_theta_ext.core import advice
from git_theta_ext.core.errors import StoreError, ThetaError, TransferError, UsageError
from git_theta_ext.git import attributes
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.objects.transfer import lfsconfig
from git_theta_ext.objects.transfer.endpoints import for_push
from tests.scenarios.adapters import adapter, lora
from tests.scenarios.advised import advised, do, only, take
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

NAME = "sub folder/it's mine.safetensors"
LAST = "it's mine.safetensors"


def test_a_folder_is_tracked_by_what_is_in_it(repo: Repo) -> None:
    repo.write("it's/a.gguf", b"GGUF")
    for typed in ("it's", "it's/"):
        (repo.path / ".gitattributes").unlink()
        do(repo, take(repo, "git", "theta", "track", typed))
        assert repo.git("check-attr", "filter", "it's/a.gguf").endswith(": theta\n")


def test_a_pattern_of_another_folder(repo: Repo) -> None:
    repo.write("models/a.gguf", b"GGUF")
    repo.write("code/b", b"")
    with pytest.raises(UsageError) as raised:
        attributes.check("../models/*.gguf")
    said = repo.run("sh", "-c", "cd code && git theta track ../models/*.gguf", ok=(2,)).stderr
    hint = "run git theta track in the folder that holds the checkpoints"
    assert raised.value.hint == hint
    assert hint in said.decode()
    do(repo, "git theta track '*.gguf'", "models")
    assert repo.git("check-attr", "filter", "models/a.gguf").endswith(": theta\n")


def test_setting_up_as_status_says(new_repo: object) -> None:
    plain = new_repo("plain", install=False)  # type: ignore[operator]
    said = plain.theta("status")
    do(plain, only(said, "install"))
    do(plain, only(plain.theta("status"), "track").rstrip(")"), PATTERN="'*.gguf'")
    assert "*.gguf" in plain.theta("status")
    assert "Set up in" in plain.theta("status")


def test_the_demo_ends_with_what_to_type(repo: Repo) -> None:
    said = next(
        line for line in Path(story.__file__).read_text().splitlines()
        if "In your own repository:" in line
    )  # fmt: skip
    for command in ("git theta install", "git theta track '*.safetensors'"):
        assert command in said
        do(repo, command)


def test_taking_it_away(repo: Repo) -> None:
    content = repo.write(LAST, safetensors(model())).read_bytes()
    repo.commit()
    repo.theta("install")
    said = repo.theta("uninstall", "--local")
    # Where it is set up twice, the other one is named.
    command = next(one for one in advised(said) if "theta uninstall" in one)
    said = do(repo, command)
    assert "not set up" in repo.theta("status")
    line = next(line for line in said.splitlines() if "untrack PATTERN" in line)
    patterns = "'*.safetensors' '*.pt' '*.bin' '*.weights'"
    do(repo, line.partition(": ")[2] + " -q -m plain", PATTERN=patterns)
    assert repo.blob(f"HEAD:{LAST}") == content
    assert repo.status() == ""


def test_hooks_of_a_shared_folder_are_taken_away(repo: Repo, tmp_path: Path) -> None:
    folder = tmp_path / "company"
    folder.mkdir()
    repo.git("config", "core.hooksPath", str(folder))
    said = repo.theta("status")
    if "install --hooks" in said:
        do(repo, next(one for one in advised(said) if "--hooks" in one))
        assert hooks.warnings(Repository.discover(repo.path), lambda: []) == []
    else:
        repo.theta("install", "--hooks")
    said = repo.theta("uninstall", "--local")
    do(repo, next(one for one in advised(said) if "uninstall --hooks" in one))
    assert not any(folder.iterdir())


def test_a_hook_that_is_not_there_or_does_not_run(repo: Repo) -> None:
    repo.write(LAST, safetensors(model()))
    repo.commit()
    hook = repo.path / ".git/hooks/pre-push"
    for harm in (hook.unlink, lambda: hook.chmod(0o644)):
        harm()
        said = repo.theta("status")
        if "Hooks:" not in said:  # Git 2.54 and newer run them from git config
            return
        commands = [one for one in advised(said) if one.startswith(("chmod", "git theta install"))]
        do(repo, commands[0])
        assert "Hooks:" not in repo.theta("status")


def test_a_hook_that_cannot_be_written_leaves_the_push_to_a_command(
    repo: Repo, tmp_path: Path
) -> None:
    repo.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    shutil.rmtree(repo.path / ".git/hooks")
    repo.write(".git/hooks", b"a file in its place")
    lines = hooks.ensure(Repository.discover(repo.path), sys.executable)
    repo.write(LAST, safetensors(model()))
    repo.commit()
    do(repo, only(lines[0], "push"))
    assert list((tmp_path / "origin.git/lfs/objects").glob("??/??/*"))
    repo.git("config", "core.hooksPath", ".git/hooks/nowhere")
    with pytest.raises(StoreError) as raised:
        hooks.share(Repository.discover(repo.path))
    do(repo, only(str(raised.value.hint)))


def test_plain_blobs_that_go_out_are_told(repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    repo.write(NAME, safetensors(model()))
    without = ("process=", "clean=cat", "smudge=cat", "required=false")
    raw = [word for one in without for word in ("-c", f"filter.theta.{one}")]
    repo.git(*raw, "add", ".")
    repo.git(*raw, "commit", "-q", "-m", "raw")
    said = repo.run("git", "push", "-q", "origin", "main").stderr.decode()
    do(repo, only(said, "renormalize"), "sub folder")
    assert repo.blob(f":{NAME}").startswith(b"git-theta ")


def test_a_server_that_lfsconfig_names(repo: Repo) -> None:
    repo.git("remote", "add", "origin", "https://git.example.invalid/model.git")
    repo.write(".lfsconfig", b"[lfs]\n\turl = https://lfs.example.invalid/store\n")
    repo.commit()
    here = Repository.discover(repo.path)
    with pytest.raises(TransferError) as raised:
        for_push(here, "origin", "https://git.example.invalid/model.git")
    confirm, another = advised(str(raised.value.hint))
    assert lfsconfig.TRUSTED in confirm
    do(repo, confirm)
    here = Repository.discover(repo.path)
    found = for_push(here, "origin", "https://git.example.invalid/model.git")
    assert found.url == "https://lfs.example.invalid/store"
    do(repo, another, URL="https://other.example.invalid/x")
    here = Repository.discover(repo.path)
    found = for_push(here, "origin", "https://git.example.invalid/model.git")
    assert found.url == "https://other.example.invalid/x"


def test_the_package_is_installed_from_its_source(tmp_path: Path) -> None:
    """Pip reads its source where the advice says; nothing is fetched, and nothing installed."""
    said = advice.install_package()
    command = next(part for part in [said.partition(": ")[2]] if "-I -m pip install" in part)
    root = Path(__file__).resolve().parents[2]
    from_sources = root in Path(advice.__file__).resolve().parents
    assert (str(root) in command) is from_sources
    here = Repo(root)
    quiet = {"PIP_NO_INDEX": "1", "PIP_DRY_RUN": "1", "PIP_NO_DEPS": "1",
             "PIP_NO_BUILD_ISOLATION": "0"}  # fmt: skip
    done = here.run("sh", "-c", command, env=quiet, ok=(0, 1))
    assert b"Would install git-theta-ext" in done.stdout, done.stderr


def test_a_package_for_a_part_is_named_as_its_index_does(repo: Repo, tmp_path: Path) -> None:
    """Installed from a folder that has a package of that name, in the place of the index."""
    command = advice.install_other("torch")
    wheel(tmp_path, "torch")
    quiet = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path),
             "PIP_TARGET": str(tmp_path / "site")}  # fmt: skip
    repo.run("sh", "-c", command, env=quiet)
    assert (tmp_path / "site/torch.py").is_file()


def wheel(folder: Path, name: str) -> None:
    """A package with one empty module."""
    import zipfile

    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
                      "Tag: py3-none-any\n")  # fmt: skip
        file.writestr(f"{info}/RECORD", "")


def test_an_update_of_what_is_not_committed(repo: Repo) -> None:
    repo.write(NAME, safetensors(model()))
    words = ("git", "theta", "add", LAST, "--update", adapter(repo, lora()))
    line = repo.run("sh", "-c", 'cd "sub folder" && exec "$@"', "sh", *words, ok=(2,))
    (command,) = advised(line.stderr.decode())
    do(repo, f"{command} -q -m first", "sub folder")
    repo.run("sh", "-c", 'cd "sub folder" && exec "$@"', "sh", *words)
    assert repo.git("diff", "--cached", "--name-only", "-z") == f"{NAME}\0"
    repo.git("commit", "-q", "-m", "second")
    # And over what was changed meanwhile: the change is committed, or given up.
    before = (repo.path / NAME).read_bytes()
    for number in (0, 1):
        repo.write(NAME, safetensors(model(7 + number)))
        said = repo.run(*words[:3], NAME, *words[4:], ok=(2,)).stderr.decode()
        commit, _, give_up = said.partition("hint: ")[2].strip().partition(", or: ")
        if number == 0:
            do(repo, give_up.partition("   ")[0])
            assert (repo.path / NAME).read_bytes() == before
        else:
            do(repo, f"{commit} -q -m third")
            assert repo.status() == ""
    repo.run(*words[:3], NAME, *words[4:])


def test_an_update_of_what_is_stored_whole(repo: Repo) -> None:
    repo.write("m.gguf.safetensor", safetensors(model()))
    repo.commit()
    words = ("theta", "add", "m.gguf.safetensor", "--update", adapter(repo, lora()))
    said = repo.run("git", *words, ok=(2,)).stderr.decode()
    track, store = said.partition("hint: ")[2].split(", then: ")[:2]
    do(repo, track, PATTERN="'*.safetensor'")
    do(repo, f"{store.split(', then')[0].strip().replace('git commit', 'git commit -q -m x')}")
    before = repo.blob("HEAD:m.gguf.safetensor")
    assert before.startswith(b"git-theta manifest")
    repo.git(*words)
    assert repo.blob(":m.gguf.safetensor") != before


def test_a_shard_is_not_the_model(repo: Repo) -> None:
    tensors = list(model().items())
    shards = [dict(tensors[:6]), dict(tensors[6:])]
    for number, shard in enumerate(shards, 1):
        repo.write(f"my models/model-0000{number}-of-00002.safetensors", safetensors(shard))
    repo.commit()
    folder = adapter(repo, lora())
    shard = "my models/model-00001-of-00002.safetensors"
    command = take(repo, "git", "theta", "add", shard, "--update", folder)
    do(repo, command, ADAPTER=folder)
    assert repo.git("diff", "--cached", "--name-only").count("safetensors") == 2


def test_a_link_in_the_way(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repo.path / "it's").symlink_to(tmp_path / "elsewhere")
    tree = WorkTree(repo.path)
    with pytest.raises(ThetaError) as raised:
        tree.replace("it's/a", b"x")
    do(repo, only(str(raised.value.hint)))
    tree.replace("it's/a", b"x")
    assert (repo.path / "it's/a").read_bytes() == b"x"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_names_of_options_and_magic_are_not_taken_for_that(repo: Repo) -> None:
    for name in ("-a.safetensors", ":b.safetensors", "it's $(c).safetensors"):
        repo.write(name, safetensors(model()))
        do(repo, advice.with_name("git add FILE", name))
        assert repo.blob(f":./{name}").startswith(b"git-theta ")


def test_statistics_are_tracked_and_added(repo: Repo, tmp_path: Path) -> None:
    from tests.scenarios.statistics import SCRIPT

    script = tmp_path / "stats.py"
    script.write_text(f"BATCHES = [[[1.0, 2.0]]]\n{SCRIPT}")
    layer = {"layer.weight": np.ones((3, 2), np.float32)}
    repo.write("sub folder/my model.gguf.st", safetensors(layer))
    words = f'cd "sub folder" && git theta stats "my model.gguf.st" --with {script}'
    said = repo.run("sh", "-c", words).stdout.decode()
    for command in advised(said):
        do(repo, command.replace("git commit", "git commit -q -m x"), "sub folder")
    (name,) = repo.git("-c", "core.quotePath=false", "ls-files", "sub folder").splitlines()
    assert repo.git("check-attr", "filter", name).endswith(": theta\n")
    assert repo.blob(f"HEAD:{name}").startswith(b"git-theta ")


def test_a_pointer_that_is_staged_by_mistake(repo: Repo, tmp_path: Path) -> None:
    """Its file comes where git-lfs still tracks it; then it is stored by tensor."""
    content = safetensors(model())
    repo.git("lfs", "install", "--local", "--skip-repo")
    kept = (repo.path / ".gitattributes").read_bytes()
    (repo.path / ".gitattributes").unlink()
    repo.git("lfs", "track", "*.safetensors")
    repo.write(LAST, content)
    repo.commit("with git-lfs")
    bare = tmp_path / "bare.git"
    repo.git("init", "-q", "--bare", str(bare))
    repo.git("remote", "add", "origin", bare.as_uri())
    repo.git("push", "-q", "origin", "main")
    repo.git("lfs", "push", "--all", "origin")
    repo.write(LAST, repo.blob(f"HEAD:{LAST}"))
    shutil.rmtree(repo.path / ".git/lfs")
    tracked = repo.write(".gitattributes", kept).read_bytes()
    said = repo.run("git", "add", "--renormalize", LAST).stderr.decode()
    command = only(said, "lfs pull")
    repo.git("checkout", "-q", "HEAD", "--", ".gitattributes")
    repo.git("reset", "-q")
    do(repo, command)
    assert (repo.path / LAST).read_bytes() == content
    assert tracked


def test_a_damaged_checkpoint_is_written_again(repo: Repo) -> None:
    content = safetensors(model())
    repo.write(LAST, content[:-100])
    said = repo.run("git", "add", LAST).stderr.decode()
    repo.write(LAST, content)
    do(repo, next(one for one in advised(said) if one == "git add FILE"), FILE=f'"{LAST}"')
    assert b"\nformat safetensors\n" in repo.blob(f":{LAST}")
