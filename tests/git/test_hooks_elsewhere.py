"""`core.hooksPath`, git config's hooks, and other people's hooks: no push goes out in silence.

The tests hold with every Git: where git config's hooks run (2.54 and newer) the objects arrive, and
with an earlier Git each `git add` says what is to be done.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta_ext.git import launch
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hook_scripts, hooks, installation
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.remotes import are_at, bare, objects_of
from tests.scenarios.repositories import Repo

NewRepo = Callable[..., Repo]
OWN = '#!/bin/sh\necho ran >>"$(git rev-parse --git-common-dir)/log"\n'


def runs_configured_hooks() -> bool:
    """Whether the Git on PATH is 2.54 or newer."""
    said = subprocess.run(["git", "version"], capture_output=True, check=True, text=True).stdout
    major, minor = map(int, re.findall(r"\d+", said)[:2])
    return (major, minor) >= (2, 54)


@pytest.fixture
def husky(new_repo: NewRepo) -> Repo:
    """A repository whose hooks are in a tracked folder, with a pre-push of its own."""
    repo = new_repo("husky", install=False)
    repo.theta("install")
    repo.theta("track", "*.safetensors")
    hook = repo.write(".husky/pre-push", OWN.encode())
    hook.chmod(0o755)
    repo.commit()
    repo.git("config", "core.hooksPath", ".husky")
    return repo


def stage(repo: Repo, *command: str) -> str:
    """Change the checkpoint and stage it; what was said on stderr."""
    repo.write(NAME, safetensors(model()))
    return repo.run("git", *(command or ("add", "-A"))).stderr.decode()


def log(repo: Repo) -> list[str]:
    """What the hook of somebody else has written."""
    path = repo.path / ".git/log"
    return path.read_text().split() if path.exists() else []


def test_what_a_program_asks_for_has_no_warning_in_it(husky: Repo) -> None:
    """lint-staged takes all that `git stash create` says for the name of the stash."""
    husky.write("other.safetensors", safetensors(model(2)))
    stage(husky)
    husky.git("commit", "-q", "-m", "one")
    husky.write(NAME, safetensors(model(1)))
    husky.write("other.safetensors", husky.blob(f"HEAD:{NAME}"))
    done = husky.run("git", "stash", "create")
    assert re.fullmatch(rb"[0-9a-f]{40}\n", done.stdout)
    assert done.stderr == b""
    assert b"holds a manifest" in husky.run("git", "add", "-A").stderr


def push(repo: Repo, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
    """Push; what was said on stderr."""
    return repo.run("git", "push", *(arguments or ("origin", "main")), ok=ok).stderr.decode()


# Hooks elsewhere


def test_a_push_carries_the_objects_or_every_add_says_what_to_type(husky: Repo) -> None:
    remote = bare(husky)
    said = stage(husky)
    again = husky.run("git", "add", "--renormalize", ".").stderr.decode()
    husky.git("commit", "-q", "-m", "m")
    push(husky)
    assert log(husky) == ["ran"]
    if runs_configured_hooks():
        assert "core.hooksPath" not in said + again
        assert are_at(remote, objects_of(husky, f"HEAD:{NAME}"))
        return
    assert not are_at(remote, objects_of(husky, f"HEAD:{NAME}"))
    for text in (said, again):
        assert text.count("core.hooksPath") == 1
        assert "pre-push" in text
        assert "git theta install --hooks" in text
        assert 'git_theta_ext.drivers.pre_push "$@"' in text


def test_the_other_commands_say_it_too(husky: Repo) -> None:
    texts = [husky.theta("status"), husky.run("git", "theta", "install").stderr.decode(),
             husky.run("git", "theta", "track", "*.pt").stderr.decode()]  # fmt: skip
    silent = runs_configured_hooks()
    assert [("git theta install --hooks" in text) for text in texts] == [not silent] * 3
    husky.theta("install", "--hooks")
    texts = [husky.theta("status"), husky.run("git", "theta", "install").stderr.decode()]
    assert not any("git theta install --hooks" in text for text in texts)


def test_looking_stages_nothing_and_says_nothing(husky: Repo) -> None:
    stage(husky)
    husky.write(NAME, safetensors({"w": changed(next(iter(model().values())))}))
    assert husky.run("git", "status").stderr == b""


@pytest.mark.parametrize("way", ["the command", "the line"])
def test_doing_what_it_says_heals_it(husky: Repo, way: str) -> None:
    remote = bare(husky)
    if way == "the command":
        said = husky.theta("install", "--hooks")
        assert "runs first" in said
        assert "/python" not in (husky.path / ".husky/pre-push").read_text()
    else:
        repository = Repository.discover(husky.path)
        line = hook_scripts.by_hand("pre-push", launch.python_command())
        hook = husky.path / ".husky/pre-push"
        hook.write_text(f"{OWN}{line}\n")
        assert hooks.warnings(repository) == []
    assert stage(husky) == ""
    husky.git("commit", "-q", "-m", "m")
    push(husky)
    assert log(husky) == ["ran"]
    assert are_at(remote, objects_of(husky, f"HEAD:{NAME}"))


def test_shared_hooks_are_taken_away_only_when_told_to(husky: Repo) -> None:
    before = (husky.path / ".husky/pre-push").read_bytes()
    husky.theta("install", "--hooks")
    assert "stay: git theta uninstall --hooks" in husky.theta("uninstall")
    assert (husky.path / ".husky/pre-push").read_bytes() != before
    husky.theta("uninstall", "--hooks")
    assert [path.name for path in (husky.path / ".husky").iterdir()] == ["pre-push"]
    assert (husky.path / ".husky/pre-push").read_bytes() == before


def test_a_shared_hook_harms_nobody_who_has_no_git_theta(husky: Repo) -> None:
    """The folder is committed: others get the hooks, with or without the program."""
    bare(husky)
    husky.theta("install", "--hooks")
    husky.theta("uninstall")
    husky.git("commit", "-q", "--allow-empty", "-m", "m")
    said = push(husky)
    assert log(husky) == ["ran"]
    assert "git-theta is not set up here" in said


def test_husky_9_runs_what_is_above_its_launchers(husky: Repo) -> None:
    remote = bare(husky)
    launchers = husky.path / ".husky/_"
    launchers.mkdir()
    start = 'n=$(basename "$0")\ns=$(dirname "$(dirname "$0")")/$n\n[ ! -f "$s" ] && exit 0\n'
    (launchers / "h").write_text(f'#!/bin/sh\n{start}sh -e "$s" "$@"\n')
    for name in hooks.HOOKS:
        (launchers / name).write_text('#!/bin/sh\n. "$(dirname "$0")/h"\n')
        (launchers / name).chmod(0o755)
    (husky.path / ".husky/pre-push").write_text(OWN.removeprefix("#!/bin/sh\n"))
    (husky.path / ".husky/pre-push").chmod(0o644)
    husky.git("config", "core.hooksPath", ".husky/_")
    assert ("--hooks" in stage(husky)) == (not runs_configured_hooks())
    husky.theta("install", "--hooks")
    assert stage(husky, "add", "--renormalize", ".") == ""
    husky.git("add", "-A")
    husky.git("commit", "-q", "-m", "m")
    push(husky)
    assert log(husky) == ["ran"]
    assert are_at(remote, objects_of(husky, f"HEAD:{NAME}"))


@pytest.mark.parametrize("where", ["a link", "global", "not executable", "old flags", "a comment"])
def test_hooks_that_would_not_run_are_told(husky: Repo, where: str, tmp_path: Path) -> None:
    line = hook_scripts.by_hand("pre-push", launch.python_command())
    hook, wanted = husky.path / ".husky/pre-push", "git theta install --hooks"
    if where == "a link":
        husky.git("config", "--unset", "core.hooksPath")
        for path in (husky.path / ".git/hooks").iterdir():
            path.unlink()
        (husky.path / ".git/hooks").rmdir()
        (husky.path / ".git/hooks").symlink_to("../.husky")
    elif where == "global":
        husky.git("config", "--unset", "core.hooksPath")
        husky.git("config", "--global", "core.hooksPath", str(tmp_path / "company"))
    elif where == "not executable":
        hook.write_text(f"{OWN}{line}\n")
        hook.chmod(0o644)
        wanted = "chmod +x"
    elif where == "old flags":
        hook.write_text(f"{OWN}{line.replace('-I', '-P')}\n")
        wanted = line
    else:
        hook.write_text(f"{OWN}# {line}\n")
    said = stage(husky)
    if where != "old flags" and runs_configured_hooks():
        assert said == ""
    else:
        assert wanted in said


# Hooks from git config


def test_the_settings_of_configured_hooks() -> None:
    settings = installation.settings(["/some/py thon's", "-I"])
    for name in hooks.HOOKS:
        command = settings[f"hook.theta-{name}.command"]
        assert settings[f"hook.theta-{name}.event"] == name
        assert f"hook.theta-{name}.parallel" not in settings  # one after the other
        names = list(settings)
        assert names.index(f"hook.theta-{name}.command") < names.index(f"hook.theta-{name}.event")
        assert "'/some/py thon'\\''s' -I -m git_theta_ext.drivers.p" in command
        assert subprocess.run(["sh", "-n", "-c", command], check=True).returncode == 0


def test_uninstall_takes_events_away_before_their_commands(husky: Repo) -> None:
    """Git 2.54 refuses to push where there is an event without a command."""
    removed = husky.theta("uninstall").splitlines()
    for name in hooks.HOOKS:
        event = removed.index(f"removed hook.theta-{name}.event")
        assert event < removed.index(f"removed hook.theta-{name}.command")
    assert "hook" not in husky.git("config", "--global", "--list").replace("core.hooks", "")


def walks(repo: Repo, enabled: bool) -> int:
    """How often a push to a new remote looks for what to send."""
    remote, trace = (repo.path.parent / f"{name}-{enabled}" for name in ("remote.git", "trace"))
    repo.git("init", "-q", "--bare", str(remote))
    option = f"hook.theta-pre-push.enabled={'true' if enabled else 'false'}"
    repo.git("-c", option, "push", "-q", str(remote), "main", env={"GIT_TRACE": str(trace)})
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    return len(re.findall(r"git rev-list --objects --no-object-names", trace.read_text()))


def test_beside_a_file_the_configured_hook_does_not_run_twice(new_repo: NewRepo) -> None:
    repo = new_repo()
    repo.write(NAME, safetensors(model()))
    repo.commit()
    assert (repo.path / ".git/hooks/pre-push").exists()
    alone = walks(repo, False)
    assert walks(repo, True) == alone > 0
    repository = Repository.discover(repo.path)
    assert hooks.runs_from_config(repository, "pre-push") == runs_configured_hooks()
    repo.git("commit", "-q", "--allow-empty", "-m", "m")
    (repo.path / ".git/hooks/pre-push").unlink()  # after all that may put it there again
    assert (hooks.warnings(repository) == []) == runs_configured_hooks()


def test_a_configured_hook_that_is_switched_off_leaves_it_to_the_file(new_repo: NewRepo) -> None:
    repo = new_repo()
    remote = bare(repo)
    repo.theta("install")
    repo.git("config", "hook.theta-pre-push.enabled", "false")
    repo.write(NAME, safetensors(model()))
    repo.commit()
    assert not hooks.runs_from_config(Repository.discover(repo.path), "pre-push")
    push(repo)
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))


def test_a_mirror_needs_no_file(new_repo: NewRepo, tmp_path: Path) -> None:
    repo = new_repo()
    remote = bare(repo)
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("tag", "-a", "-m", "t", "v1")
    push(repo, "origin", "main", "v1")
    repo.theta("install")
    repo.git("clone", "-q", "--mirror", str(remote), str(tmp_path / "mirror.git"))
    mirror, new = Repo(tmp_path / "mirror.git"), tmp_path / "new.git"
    mirror.git("init", "-q", "--bare", str(new))
    said = mirror.run("git", "theta", "install").stderr.decode()
    if not runs_configured_hooks():
        assert "git theta install --local" in said
        mirror.theta("install", "--local")
    else:
        assert said == ""
        assert not (mirror.path / "hooks/pre-push").exists()
    push(mirror, "--mirror", str(new))
    assert are_at(new, objects_of(repo, f"HEAD:{NAME}"))


def configured(name: str, python: str) -> str:
    """The command of a configured hook, as Git would give it to the shell."""
    return hook_scripts.configured([python, "-I"])[f"hook.theta-{name}.command"] + ' "$@"'


@pytest.mark.parametrize("concerned", [True, False])
def test_a_python_that_is_gone_stops_only_pushes_that_matter(
    new_repo: NewRepo, concerned: bool
) -> None:
    """From git config of the user the hook runs in each of their repositories."""
    repo = new_repo("one", install=concerned)
    repo.git("commit", "-q", "--allow-empty", "-m", "m")
    command = ["sh", "-c", configured("pre-push", "/gone/python"), "theta", "origin", "url"]
    done = repo.run(*command, ok=(int(concerned),))
    assert b"/gone/python is gone" in done.stderr
    assert b"git theta install" in done.stderr
    repo.run("sh", "-c", configured("post-checkout", "/gone/python"), "x", ok=(int(concerned),))


@pytest.mark.parametrize("name", hooks.HOOKS)
def test_the_configured_commands_do_their_work(repo: Repo, name: str) -> None:
    """Run as Git runs them, whatever Git is here."""
    remote = bare(repo)
    repo.write(NAME, safetensors(model()))
    repo.commit()
    content = (repo.path / NAME).read_bytes()
    command = ["sh", "-c", configured(name, sys.executable), "theta"]
    if name == "pre-push":
        head = repo.git("rev-parse", "HEAD").strip()
        line = f"refs/heads/main {head} refs/heads/main {'0' * 40}\n"
        repo.run(*command, "origin", str(remote), stdin=line.encode())
        assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    else:
        repo.write(NAME, repo.blob(f"HEAD:{NAME}"))
        repo.run(*command, "a", "b", "1")
        assert (repo.path / NAME).read_bytes() == content


# git-lfs beside us


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("body", "times"),
    [
        ("touch ran\n", 1),
        ("# git-lfs is not used here: no git lfs pre-push\n", 1),
        ('git lfs pre-push "$@"\n', 1),
        ('exec git-lfs pre-push "$@"\n', 1),
        ('sh ./upload "$@"\n', 1),
        ("git-lfs version >/dev/null\n", 1),
    ],
)
def test_files_of_git_lfs_are_uploaded_once(
    new_repo: NewRepo, tmp_path: Path, body: str, times: int
) -> None:
    repo = new_repo("both", install=False)
    repo.write("upload", b'git lfs pre-push "$@"\n')
    hook = repo.write(".git/hooks/pre-push", f"#!/bin/sh\n{body}".encode())
    hook.chmod(0o755)
    repo.theta("install", "--local")
    repo.theta("track", "*.safetensors")
    repo.git("config", "filter.lfs.process", "git-lfs filter-process")
    repo.git("config", "filter.lfs.required", "true")
    repo.write(
        ".gitattributes", (repo.path / ".gitattributes").read_bytes() + b"*.big filter=lfs\n"
    )
    big = repo.write("a.big", os.urandom(5000))
    repo.write(NAME, safetensors(model()))
    repo.commit()
    remote = bare(repo)
    repo.git("remote", "set-url", "origin", remote.as_uri())
    trace = tmp_path / "trace"
    repo.git("push", "-q", "origin", "main", env={"GIT_TRACE": str(trace)})
    held = {path.read_bytes() for path in (remote / "lfs/objects").glob("??/??/*")}
    assert big.read_bytes() in held
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    calls = re.findall(r"(?:exec|run_command): git-lfs pre-push", trace.read_text())
    direct = "exec git-lfs" in body
    assert len(calls) == (0 if direct else times * 2)  # Git notes that it tries, and that it runs


def test_a_push_that_git_lfs_refuses_is_stopped(new_repo: NewRepo) -> None:
    repo = new_repo("both")
    (repo.path / ".git/lfs").mkdir()
    hook = repo.write(".git/hooks/pre-push.theta-chained", b"#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    remote = bare(repo)
    tools = repo.path.parent / "tools"
    tools.mkdir()
    (tools / "git-lfs").write_text("#!/bin/sh\nexit 7\n")
    (tools / "git-lfs").chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    repo.git("push", "origin", "main", env={"PATH": path}, ok=(1,))
    assert repo.git("ls-remote", str(remote)) == ""


def test_worktrees_and_submodules_push_their_objects(repo: Repo, tmp_path: Path) -> None:
    """The hooks of a submodule are those of its own Git directory; the filter puts them there."""
    remote = bare(repo)
    repo.theta("install")
    repo.git("worktree", "add", "-q", str(tmp_path / "tree"))
    tree = Repo(tmp_path / "tree")
    tree.write(NAME, safetensors(model()))
    tree.commit()
    tree.git("push", "-q", "origin", "HEAD:refs/heads/main")
    assert are_at(remote, objects_of(tree, f"HEAD:{NAME}"))
    outer = Repo(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q")
    outer.git("submodule", "add", "-q", "-b", "main", str(remote), "inner")
    inner = Repo(outer.path / "inner")
    inner.write(NAME, safetensors({"w": changed(next(iter(model().values())))}))
    inner.commit()
    inner.git("push", "-q", "origin", "HEAD:main")
    assert are_at(remote, objects_of(inner, f"HEAD:{NAME}"))


def test_shlex_reads_what_the_shell_does() -> None:
    command = [sys.executable, "-I", "-c", "a 'b' \"c\" $d", "/e f"]
    assert shlex.split(launch.shell_command(command)) == command
