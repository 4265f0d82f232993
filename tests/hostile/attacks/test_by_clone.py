"""A hostile clone.

A clone brings what commits can hold: files and links under any name, branches and tags under any
name that Git allows, `.gitattributes`, `.lfsconfig`, `.theta.toml`. Nothing of it may run, write
outside of the work tree or into `.git`, or be taken for an option.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.traps import SECRET, Trap, in_conflict, link, run_all
from tests.servers.lfs import lfs_server

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and such names need POSIX")

NAME = "model.safetensors"
THETA = (sys.executable, "-I", "-m", "git_theta_ext.cli.main")
ANY = tuple(range(130))
A = np.arange(1000, dtype=np.float32)


@pytest.fixture
def trap(repo: Repo) -> Iterator[Trap]:
    made = Trap(repo)
    yield made
    made.check()


def ways(*names: str) -> Iterator[list[str]]:
    """Commands of all kinds that are given names of the clone."""
    for name in names:
        for words in (
            ["status"], ["ls-files"], ["du"], ["fsck"], ["pull"], ["fetch"], ["prune", "--dry-run"],
            ["track"], ["resolve"], ["diff"], ["diff", "HEAD~1", "HEAD"],
        ):  # fmt: skip
            if name == names[0]:
                yield words
        for words in (
            ["show"], ["log"], ["blame"], ["ls-files"], ["du"], ["diff", "HEAD~1", "--"],
            ["resolve", "--strategy", "average"], ["resolve", "--strategy", "average", "--"],
            ["track", "--filename"], ["untrack"], ["mergetool"], ["export", "-o", "../out.npz"],
            ["cat"], ["add", "--update"], ["log", "--"], ["show", "--"], ["merge", "--plan"],
        ):  # fmt: skip
            yield [*words, name]
        yield ["cat", name, name]
        yield ["show", f"HEAD:{name}"]
        yield ["diff", "--format", "html", "-o", "../out.html", "HEAD~1", "HEAD", "--", name]


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.sample(3)
@pytest.mark.parametrize(("depth", "target"), [(1, "outside"), (2, ".git"), (3, ".git/hooks")])
def test_linked_folder(repo: Repo, trap: Trap, depth: int, target: str) -> None:
    """A linked folder at each depth on the way to a checkpoint in conflict"""
    in_conflict(repo, f"a/b/c/{NAME}")
    folder = "/".join(["a", "b", "c"][:depth])
    place = repo.path.parent / "outside" if target == "outside" else repo.path / target
    below = place.joinpath(*["b", "c"][depth - 1 :])
    below.mkdir(parents=True, exist_ok=True)
    (below / NAME).write_text(SECRET)
    link(repo, folder, str(place))
    trap.arm()
    for words in (["--strategy", "average"], ["--abort"]):
        done = repo.run(*THETA, "resolve", f"a/b/c/{NAME}", *words, ok=ANY)
        assert done.returncode != 0
        assert (below / NAME).read_text() == SECRET
        trap.check()


def test_folder_swapped_meanwhile(repo: Repo, trap: Trap) -> None:
    """A folder that is swapped for a link, and back, as fast as can be while files are written"""
    in_conflict(repo, f"sub/{NAME}")
    (trap.outside / NAME).write_text(SECRET)
    trap.arm()
    sub, aside, trick = (repo.path / one for one in ("sub", "aside", "trick"))
    trick.symlink_to(trap.outside)
    stop = threading.Event()

    def place(source: Path) -> None:
        try:
            os.rename(source, sub)
        except OSError:  # it was made anew in between
            shutil.rmtree(sub, ignore_errors=True)
            place(source)

    def swap() -> None:
        while not stop.is_set():
            os.rename(sub, aside)
            place(trick)
            time.sleep(0.0002)
            os.rename(sub, trick)
            place(aside)
            time.sleep(0.0002)

    thread = threading.Thread(target=swap)
    thread.start()
    program = (
        "import sys; from pathlib import Path; from git_theta_ext.git.work_tree import WorkTree\n"
        "from git_theta_ext.core.errors import StoreError\n"
        "tree, done = WorkTree(Path('.')), [0, 0]\n"
        "for _ in range(3000):\n"
        "    try:\n"
        f"        tree.replace('sub/{NAME}', b'evil'); done[0] += 1\n"
        "    except StoreError: done[1] += 1\n"
        "print(*done)"
    )
    try:
        said = repo.run(sys.executable, "-I", "-c", program).stdout.split()
    finally:
        stop.set()
        thread.join()
    assert int(said[0]) > 10
    assert int(said[1]) > 10
    assert (trap.outside / NAME).read_text() == SECRET
    assert sorted(os.listdir(trap.outside)) == ["deep", NAME, "victim"]


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "folder",
    [".g\u200cit", ".GIT\ufeff", "\u206f.git", "git~1", ".git .", ".git::$INDEX_ALLOCATION"],
)
def test_git_in_another_spelling(repo: Repo, trap: Trap, folder: str) -> None:
    """A folder that another file system takes for .git"""
    repo.git("config", "core.protectHFS", "false")
    repo.git("config", "core.protectNTFS", "false")
    in_conflict(repo, f"{folder}/{NAME}")
    before = (repo.path / folder / NAME).read_bytes()
    trap.arm()
    done = repo.run(*THETA, "resolve", f"{folder}/{NAME}", "--strategy", "average", ok=ANY)
    assert done.returncode != 0
    assert b"leads into .git" in done.stderr
    assert (repo.path / folder / NAME).read_bytes() == before


# -- what could run --------------------------------------------------------------------------------


def planted(folder: Path, mark: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch '{mark}'\nexit 1\n")
        path.chmod(0o755)


@pytest.mark.sample(3)
@pytest.mark.parametrize("first", ["", ".", "./bin", "bin"])
def test_programs_of_the_clone(repo: Repo, tmp_path: Path, first: str) -> None:
    """git, git-lfs, ssh and pagers in the clone, where PATH begins with a relative folder"""
    mark = tmp_path / "ran"
    planted(
        repo.path / (first or "."), mark,
        "git", "git.exe", "git-lfs", "git-lfs.exe", "ssh", "less", "python", "sh",
    )  # fmt: skip
    repo.write(NAME, safetensors(model(1)))
    repo.write("opaque.bin", b"x" * 5000)
    repo.commit("one")
    repo.write(NAME, safetensors(model(2)))
    repo.write("opaque.bin", b"y" * 6000)
    repo.commit("two")
    repo.git("rm", "-q", "--cached", "opaque.bin")
    repo.git("config", "filter.theta.clean", "")
    env = {"PATH": f"{first}{os.pathsep}{os.environ['PATH']}"}
    with lfs_server() as server:
        repo.git("config", "remote.origin.url", "ssh://127.0.0.1:1/x")
        repo.git("config", "lfs.url", server.url)
        more = [["push"], ["push", "origin"], ["version"], ["fsck", "--remote", "origin"]]
        run_all(repo, [words for words in (*ways(NAME), *more) if words[0] != "mergetool"], env)
        for path in (repo.path / ".git/theta/objects").glob("??/??/*"):
            path.unlink()
        repo.run(*THETA, "fetch", ok=ANY, env=env)
    assert not mark.exists()


def test_large_blob_is_read_by_the_real_git(repo: Repo, tmp_path: Path) -> None:
    """A git in the clone, run when a checkpoint committed as a plain blob is compared"""
    mark = tmp_path / "ran"
    planted(repo.path, mark, "git")
    attributes = (repo.path / ".gitattributes").read_bytes()
    repo.write(".gitattributes", b"")
    for seed in (1, 2):
        repo.write(NAME, safetensors(model(seed)))
        repo.commit(f"raw {seed}")
    repo.write(".gitattributes", attributes)
    repo.commit("track")
    env = {"PATH": f".{os.pathsep}{os.environ['PATH']}"}
    done = repo.run(*THETA, "diff", "HEAD~2", "HEAD~1", ok=ANY, env=env)
    assert b"head.weight" in done.stdout
    assert not mark.exists()


def test_modules_of_the_clone(repo: Repo, tmp_path: Path) -> None:
    """Modules in the clone, with empty and relative entries in the variables of Python"""
    mark = tmp_path / "ran"
    text = f"open({str(mark)!r}, 'w')\n"
    names = ("git_theta_ext/__init__", "numpy", "json", "runpy", "sitecustomize", "usercustomize",
             "git", "pygit2", "os", "encodings/__init__", "ml_dtypes", "re", "startup")  # fmt: skip
    for name in names:
        repo.write(f"{name}.py", text.encode())
    version = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    repo.write(f"{version}/usercustomize.py", text.encode())
    repo.write(f"{version}/evil.pth", f"import sys; open({str(mark)!r}, 'w')\n".encode())
    repo.write(NAME, safetensors(model(1)))
    repo.commit("one")
    repo.git("branch", "other")
    repo.write(NAME, safetensors(model(2)))
    repo.commit("two")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    env = {
        "PYTHONPATH": f"{os.pathsep}.{os.pathsep}git_theta_ext", "PYTHONUSERBASE": ".",
        "PYTHONSTARTUP": "startup.py", "PYTHONSAFEPATH": "", "PYTHONBREAKPOINT": "startup.x",
        "PYTHONWARNINGS": "error::startup.X",
    }  # fmt: skip
    for words in (
        ["checkout", "-q", "other"], ["checkout", "-q", "main"], ["diff", "HEAD~1", "HEAD"],
        ["merge", "-q", "other"], ["push", "-q", "origin", "main"], ["stash"], ["status"],
    ):  # fmt: skip
        repo.run("git", *words, env=env)
    repo.run("git", "clone", "-q", ".", "../clone", env=env)
    assert not mark.exists()


def test_repository_inside_the_clone(repo: Repo, tmp_path: Path) -> None:
    """A bare repository among the files of the clone, with a configuration that runs commands"""
    mark = tmp_path / "ran"
    repo.write(NAME, safetensors(model(1)))
    repo.git("init", "-q", "--bare", "data")
    run = f"touch {mark}; false"
    inner = Repo(repo.path / "data")
    for key in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.askPass", "credential.helper",
        "diff.external", "filter.theta.process", "filter.theta.clean", "diff.theta.command",
        "merge.theta.driver", "core.editor", "lfs.customtransfer.x.path",
    ):  # fmt: skip
        inner.git("config", key, run if key != "credential.helper" else f"!{run}")
    inner.git("config", "core.bare", "false")
    inner.git("config", "core.worktree", "..")
    inner.path.joinpath(NAME).write_bytes(safetensors(model(2)))
    inner.path.joinpath("objects/keep").write_bytes(b"")
    inner.path.joinpath("refs/keep").write_bytes(b"")
    repo.commit("one")
    repo.write("data/more", b"x")
    repo.commit("two")
    run_all(repo, [words for words in ways(f"data/{NAME}", "data") if words[0] != "mergetool"])
    assert not mark.exists()


SETTINGS = (
    "core.sshCommand", "core.fsmonitor", "core.hooksPath", "credential.helper", "core.askPass",
    "lfs.customtransfer.x.path", "lfs.standalonetransferagent", "lfs.extension.x.clean",
    "lfs.extension.x.smudge", "filter.theta.process", "filter.lfs.process", "include.path",
    "http.proxy", "remote.origin.vcs", "remote.origin.uploadpack", "alias.theta", "lfs.storage",
    "theta.storage", "theta.trustedLfsUrl", "theta.skipSmudge",
)  # fmt: skip


def test_settings_in_lfsconfig(repo: Repo, tmp_path: Path) -> None:
    """An .lfsconfig that sets everything that runs a command or moves a folder"""
    mark, elsewhere = tmp_path / "ran", tmp_path / "elsewhere"
    repo.write(NAME, safetensors(model(1)))
    value = {"lfs.storage": str(elsewhere), "theta.storage": str(elsewhere)}
    value |= {"lfs.standalonetransferagent": "x", "include.path": "evil.config"}
    text = f'[core]\n\tsshCommand = "touch {mark}"\n\tfsmonitor = "touch {mark}"\n'
    repo.write("evil.config", text.encode())
    for key in SETTINGS:
        repo.git("config", "--file", ".lfsconfig", key, value.get(key, f"touch {mark}; #"))
    repo.git("config", "--file", ".lfsconfig", "lfs.url", "ssh://127.0.0.1:1/x")
    repo.commit("hostile")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    for words in (
        ["push"],
        ["fetch"],
        ["pull"],
        ["fsck"],
        ["fsck", "--remote", "origin"],
        ["status"],
    ):
        repo.run(*THETA, *words, ok=ANY)
    with lfs_server() as server:
        repo.git("config", "lfs.url", server.url)
        for words in (["push"], ["fetch"], ["fsck", "--remote", "origin"], ["prune"]):
            repo.run(*THETA, *words, ok=ANY)
        for path in (repo.path / ".git/theta/objects").glob("??/??/*"):
            path.unlink()
        repo.run(*THETA, "fetch", ok=ANY)
    assert not mark.exists()
    assert not elsewhere.exists()


# -- names -----------------------------------------------------------------------------------------

FILES = (
    "--output=pwned", "-rf", "--help", "--upload-pack=touch pwned", "$(touch pwned)",
    "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a\ntouch pwned\n",
    "|touch pwned", "-opwned",
    ":(top)x", ":!x", "@{-1}", "HEAD", "%O;touch pwned", "--ext-diff", "--exec=touch pwned",
)  # fmt: skip


def test_file_names(repo: Repo) -> None:
    """Files whose names are options, pathspecs or shell commands"""
    names = [f"{name}.safetensors" for name in FILES]
    for seed in (1, 2):
        for name in names:
            repo.write(name, safetensors({"w": A + seed}))
        repo.commit(f"version {seed}")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    run_all(repo, [words for words in ways(*names) if words[0] not in ("mergetool", "untrack")])
    repo.git("checkout", "-q", "-f", "-b", "side", "HEAD~1")
    for name in names:
        repo.write(name, safetensors({"w": A + 7}))
    repo.commit("side")
    repo.run(*THETA, "merge", "main", ok=(1,))
    settle = [["resolve", "--strategy", "average", "--", one] for one in names]
    run_all(repo, [*settle, ["push", "origin"], ["status"]])
    assert not [one for one in repo.path.parent.rglob("*pwned") if one.is_file()]
    assert not [one for one in repo.path.rglob("pwned*") if one.name not in names]
    for name in names:
        assert (repo.path / name).read_bytes()[:8] == safetensors({"w": A})[:8]


BRANCHES = (
    "-x", "--output=pwned", "--upload-pack=touch${IFS}pwned", "$(touch${IFS}pwned)",
    "';touch${IFS}pwned;'", "`touch${IFS}pwned`", "|touch${IFS}pwned", "--exec=touch${IFS}pwned",
    "-opwned", "@", "HEAD",
)  # fmt: skip


def test_branch_names(repo: Repo) -> None:
    """Branches and tags whose names are options or shell commands, the current one among them"""
    for seed in (1, 2):
        repo.write(NAME, safetensors({"w": A + seed}))
        repo.commit(f"version {seed}")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    head = repo.git("rev-parse", "main")
    for kind in ("heads", "tags", "remotes/origin"):
        for branch in BRANCHES:
            repo.git("update-ref", f"refs/{kind}/{branch}", "HEAD~1")
    for branch in BRANCHES:
        repo.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
        repo.git("reset", "-q", "--hard")
        run_all(repo, [
            ["merge", branch], ["merge", "--", branch], ["merge", branch, "--plan"], ["pull"],
            ["log", branch, "--", NAME], ["show", f"{branch}:{NAME}"], ["du", branch],
            ["diff", f"heads/{branch}", "main"], ["diff", "--", branch], ["fsck", branch], ["push"],
            ["fetch", "origin", branch], ["push", "origin", branch], ["pull", "origin", branch],
        ])  # fmt: skip
    repo.run("git", "push", "origin", "--all", ok=(0, 1))
    found = repo.path.parent.rglob("*pwned*")
    assert not [path for path in found if "refs" not in path.parts and "logs" not in path.parts]
    assert repo.git("rev-parse", "main") == head


def test_thousands_of_tags(repo: Repo) -> None:
    """So many tags that what the hook is told is longer than a variable may be"""
    repo.write(NAME, safetensors(model(1)))
    repo.commit("one")
    oid = repo.git("rev-parse", "HEAD").strip()
    lines = "".join(f"create refs/tags/{'t' * 150}{n} {oid}\n" for n in range(2000))
    repo.run("git", "update-ref", "--stdin", stdin=lines.encode())
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    repo.git("push", "-q", "--tags", "origin")
    there = list((repo.path.parent / "origin.git/lfs/objects").glob("??/??/*"))
    assert len(there) == len(list((repo.path / ".git/theta/objects").glob("??/??/*")))


def test_attributes_of_thousands_of_lines(repo: Repo) -> None:
    """Attributes with thousands of macros, and the filter for every file, its own settings too"""
    macros = "".join(
        f"[attr]m{n} m{n + 1} filter=theta diff=theta merge=theta\n" for n in range(5000)
    )
    lines = "".join(f"{'*' * 20}a{n}* m{n} -text\n" for n in range(5000))
    text = f"{macros}{lines}* m0\n"
    repo.write(NAME, safetensors(model(1)))
    repo.write(".theta.toml", b'[merge]\nstrategy = "average"\n')
    repo.write(".gitattributes", text.encode())
    repo.run("timeout", "60", "git", "add", NAME, ".theta.toml", ".gitattributes")
    repo.git("commit", "-q", "-m", "hostile")
    start = time.monotonic()
    for words in (
        ["status"],
        ["track"],
        ["track", "*.x"],
        ["untrack", "*.x"],
        ["ls-files"],
        ["fsck"],
    ):
        repo.run("timeout", "60", *THETA, *words, ok=tuple(range(12)))
    assert time.monotonic() - start < 60


# -- consent ---------------------------------------------------------------------------------------


def test_consent_elsewhere(repo: Repo, tmp_path: Path) -> None:
    """A command allowed in one repository, named by another, and by one that a link leads to"""
    mark = tmp_path / "ran"
    text = f'[merge]\nevaluate = "touch {mark} {{checkpoint}}"\n'
    in_conflict(repo)
    repo.git("merge", "--abort")
    repo.write(".theta.toml", text.encode())
    repo.commit("how")
    repo.theta("allow")
    repo.git("clone", "-q", ".", "../clone")
    clone = Repo(repo.path.parent / "clone")
    clone.theta("install", "--local")
    clone.git("branch", "-q", "theirs", "origin/theirs")
    aside = repo.path.parent / "aside"
    repo.path.rename(aside)
    repo.path.symlink_to(clone.path)
    for place in (clone, repo):
        done = place.run(*THETA, "merge", "theirs", "--tune", ok=(2,))
        assert b"git theta allow" in done.stderr
    assert not mark.exists()


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "trick", ["\\u200b", "\\u202e", "\\u0000x", "\\r", "\\u3164", "\\u001b[8m", "\\n"]
)
def test_shown_command(repo: Repo, trick: str) -> None:
    """A command with characters that hide a part of it where it is shown"""
    repo.write(".theta.toml", f'[merge]\nevaluate = "true {{checkpoint}}{trick}; evil"\n'.encode())
    repo.commit("hostile")
    done = repo.run(*THETA, "allow", ok=(0, 2))
    text = (done.stdout + done.stderr).decode()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\u3164" not in text
    assert done.returncode == 2 or "; evil" in text


def test_names_in_a_traceback(repo: Repo) -> None:
    """An internal error whose message holds the clone's names, as they are"""
    evil = "\x1b]0;x\x07\x9b31m\u202e\r::error::x"
    for verb in ("status", "show"):
        program = (
            f"import sys, git_theta_ext.cli.verbs.{verb} as m\n"
            "from git_theta_ext.cli.main import main\n"
            f"def run(args): raise RuntimeError({evil!r})\n"
            "m.run = run\n"
            f"sys.exit(main([{verb!r}, *sys.argv[1:]]))"
        )
        words = [NAME] if verb == "show" else []
        done = repo.run(sys.executable, "-c", program, *words, ok=(1,))
        text = done.stderr.decode()
        assert "RuntimeError" in text
        assert all(char.isprintable() or char == "\n" for char in text)


def test_measuring_a_branch_of_a_stranger(repo: Repo, tmp_path: Path) -> None:
    """A branch to be measured from one's own, with another command, script, pickle and name"""
    mark = tmp_path / "mark"
    command = f"'{sys.executable}' -I evaluate.py {{checkpoint}}"
    repo.write(".theta.toml", f"[[evaluation]]\nname = 'e'\ncommand = {json.dumps(command)}\n"
               .encode())  # fmt: skip
    repo.write("evaluate.py", b"import os, sys\nprint(os.path.getsize(sys.argv[1]))\n")
    repo.write(NAME, safetensors(model(1)))
    repo.commit("ours")
    repo.git("checkout", "-q", "-b", "stranger")
    evil = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    repo.write("evaluate.py", evil.encode())
    repo.write("sitecustomize.py", evil.encode())
    repo.write(".theta.toml", f"[[evaluation]]\nname = 'e'\ncommand = 'touch {mark} {{checkpoint}}'"
               .encode())  # fmt: skip
    repo.git("rm", "-q", NAME)
    repo.write(f"$(touch {mark.name});-x.safetensors", safetensors(model(2)))
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "theirs")
    repo.git("checkout", "-q", "main")
    repo.run(*THETA, "allow")
    assert b"e/score" in repo.run(*THETA, "evaluate", "stranger").stdout
    # On the branch itself the command is another one, which was not allowed.
    repo.git("checkout", "-q", "stranger")
    done = repo.run(*THETA, "evaluate", "--force", ok=(2,))
    assert b"that you have not allowed" in done.stderr
    assert not mark.exists()
    assert not (repo.path / mark.name).exists()


def test_recipes(repo: Repo, trap: Trap) -> None:
    """A recipe that leaves the work tree by names and links, runs programs, or passes options"""
    repo.write(NAME, safetensors(model(1)))
    repo.commit("one")
    mark = repo.path.parent / "mark"
    plain = f'[[part]]\nfrom = "HEAD:{NAME}"\n'
    outside = trap.outside.as_posix()
    ours = '[model]\npath = "m.safetensors"\n[[part]]\nfrom = '
    recipes = {
        '[model]\npath = "../outside/m.safetensors"\n' + plain: 2,
        f'[model]\npath = "{outside}/m.safetensors"\n' + plain: 2,
        '[model]\npath = ".GIT /config.safetensors"\n' + plain: 2,
        '[model]\npath = "away/m.safetensors"\n' + plain: 11,
        f'{ours}"--output={mark}:{NAME}"': 2,
        f'{ours}"ext::touch {mark}:x"': 2,
        f'{ours}"ssh://-oProxyCommand=touch {mark}/x"': 9,
    }
    for text, status in recipes.items():
        link(repo, "away", outside)
        link(repo, "recipe.lock", f"{outside}/victim")
        repo.write("recipe.toml", text.encode())
        done = repo.run(*THETA, "assemble", "recipe.toml", ok=(status,))
        assert b"Traceback" not in done.stderr
    link(repo, "recipe.toml", f"{outside}/victim")
    said = repo.run(*THETA, "assemble", "recipe.toml", ok=(2,)).stderr
    assert SECRET.encode().strip() not in said
    (repo.path / "recipe.toml").unlink()
    repo.write("recipe.toml", f'[model]\npath = "m.safetensors"\n{plain}'.encode())
    repo.run(*THETA, "assemble", "recipe.toml")  # the link in the lock's place is replaced
    assert not (repo.path / "recipe.lock").is_symlink()
    assert not mark.exists()


def test_drivers_that_fail(repo: Repo) -> None:
    """An internal error in what Git starts: filter, drivers and hooks, with the clone's names"""
    evil = "\x1b]0;x\x07\x9b31m\u202e\r"
    modules = {"filter": "", "merge": "12345", "diff": "1234567", "pre_push": "12", "post_hook": ""}
    for module, words in modules.items():
        program = (
            f"import sys, git_theta_ext.drivers.{module} as m\n"
            f"def run(*args): raise RuntimeError({evil!r})\n"
            "for name in ('_run', '_answer'):\n"
            "    if hasattr(m, name): setattr(m, name, run)\n"
            "sys.exit(m.main() if m.__name__.endswith('filter') else m.main(sys.argv[1:]))"
        )
        done = repo.run(sys.executable, "-c", program, *words, ok=(1,), stdin=b"")
        text = done.stderr.decode()
        assert "RuntimeError" in text, module
        assert all(char.isprintable() or char == "\n" for char in text), module


def test_json_after_a_refusal(repo: Repo) -> None:
    """A damaged manifest in the history: no list is complete, or exits with 0, without a word"""
    repo.write(NAME, safetensors(model(1)))
    repo.commit("one")
    bad = repo.blob(f"HEAD:{NAME}").replace(b"sha256:", b"sha256:z", 1)
    oid = repo.run("git", "hash-object", "-w", "--stdin", stdin=bad).stdout.decode().strip()
    repo.git("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    repo.git("commit", "-q", "-m", "bad")
    asked = "ls-files --json, status --json, du --json, fsck --json, show --json F, log --json F"
    for text in f"{asked}, diff --format json HEAD~1 HEAD, blame --json F".split(", "):
        words = [NAME if word == "F" else word for word in text.split()]
        done = repo.run(*THETA, *words, ok=ANY)
        if done.stdout:
            json.loads(done.stdout)
        words_of_it = (b"damaged", b"error", b"problem", b"sha256:z")
        told = done.stderr or any(word in done.stdout for word in words_of_it)
        assert done.returncode != 0 or told, words
        assert b"Traceback" not in done.stderr, words
