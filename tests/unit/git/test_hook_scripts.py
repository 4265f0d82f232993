"""The texts of the hooks, run by a shell: what is called, with what, in what order."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.git import launch
from git_theta_ext.git.setup.hook_scripts import (
    CHAINED,
    HOOKS,
    by_hand,
    calls_lfs,
    calls_ours,
    configured,
    is_ours,
    script,
    shared_script,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a script")

REFS = b"refs/heads/main 1 refs/heads/main 2\nrefs/heads/o 3 refs/heads/o 4\n"
ARGUMENTS = ("it's", "$HOME `x`", 'a "url"')

_RECORDER = """\
#!/bin/sh
{{ printf '%s' {name}; for one in "$@"; do printf ' <%s>' "$one"; done; echo; cat; }} >>'{log}'
exit {status}
"""


_AGAIN = """\
#!/bin/sh
test "$DEPTH" = xxx && exit 9
export DEPTH="x$DEPTH"
exec "{hook}" "$@"
"""
"""Starts the hook that starts it; not for ever, if nothing else ends that."""


class Folder:
    """A folder of hooks, and what was run from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.python = str(path / 'it\'s "$HOME" `x`' / "python 3")
        self.record("ours", Path(self.python))

    def record(self, name: str, path: Path, status: int = 0) -> Path:
        """A program that says what it was given."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(_RECORDER.format(name=name, log=self.log, status=status))
        path.chmod(0o755)
        return path

    def hook(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(
        self,
        *command: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            cwd=self.path,
            input=stdin,
            capture_output=True,
            env={**os.environ, **(env or {})},
            check=False,
        )

    def said(self) -> list[str]:
        """What was run, and what each read, line by line."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def folder(sealed: Path, tmp_path: Path) -> Folder:
    """A folder in which hooks are started: the top of a work tree."""
    path = tmp_path / "hooks"
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return Folder(path)


def line(who: str, *arguments: str) -> str:
    return " ".join([who, *(f"<{one}>" for one in arguments)])


def own(folder: Folder, name: str) -> Path:
    return folder.hook(name, script(name, [folder.python, "-I"]))


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize(
    "text",
    [
        lambda name: script(name, ["/it's/python", "-I", "-c", "print('a')"]),
        lambda name: shared_script(name, by_sh=True),
        lambda name: shared_script(name, by_sh=False),
    ],
)
def test_each_is_a_script_that_knows_itself_again(
    folder: Folder, name: str, text: Callable[[str], str]
) -> None:
    written = text(name)
    assert written.startswith("#!/bin/sh\n")
    assert is_ours(written.encode())
    assert calls_ours(name, written.encode())
    done = folder.run("sh", "-n", folder.hook(name, written))
    assert (done.returncode, done.stderr) == (0, b"")
    assert "{" + "name}" not in written
    assert "{lfs}" not in written


def test_scripts_of_others_are_not_ours() -> None:
    assert not is_ours(b'#!/bin/sh\ngit lfs pre-push "$@"\n')
    assert not is_ours(b"#!/bin/sh\n" + b"#" * 300 + script("pre-push", ["/p", "-I"]).encode())


class TestPrePush:
    def test_refs_and_arguments_come_as_they_are(self, folder: Folder) -> None:
        done = folder.run(own(folder, "pre-push"), *ARGUMENTS, stdin=REFS)
        assert (done.returncode, done.stderr) == (0, b"")
        ours = line("ours", "-I", "-m", "git_theta_ext.drivers.pre_push", *ARGUMENTS)
        assert folder.said() == [ours, *REFS.decode().splitlines()]

    def test_what_stood_there_runs_first_with_the_same(self, folder: Folder) -> None:
        hook = own(folder, "pre-push")
        folder.record("theirs", folder.path / f"pre-push{CHAINED}")
        assert folder.run(hook, *ARGUMENTS, stdin=REFS).returncode == 0
        refs = REFS.decode().splitlines()
        theirs, ours = line("theirs", *ARGUMENTS), folder.said()[3]
        assert folder.said() == [theirs, *refs, ours, *refs]
        assert ours.startswith("ours ")

    def test_what_stood_there_may_stop_the_push(self, folder: Folder) -> None:
        hook = own(folder, "pre-push")
        folder.record("theirs", folder.path / f"pre-push{CHAINED}", status=3)
        assert folder.run(hook, stdin=REFS).returncode == 3
        assert [one for one in folder.said() if one.startswith("ours")] == []

    def test_one_that_is_not_executable_is_not_run(self, folder: Folder) -> None:
        hook = own(folder, "pre-push")
        folder.record("theirs", folder.path / f"pre-push{CHAINED}").chmod(0o644)
        assert folder.run(hook, stdin=REFS).returncode == 0
        assert folder.said()[0].startswith("ours")

    def test_a_failure_of_ours_stops_the_push(self, folder: Folder) -> None:
        folder.record("ours", Path(folder.python), status=1)
        done = folder.run(own(folder, "pre-push"), stdin=REFS)
        assert done.returncode == 1
        # The Python is asked whether the package is there at all; it says no, and so do we.
        assert b"is not installed in" in done.stderr
        assert b"nothing is lost" in done.stderr

    def test_without_the_python_the_push_is_stopped_with_what_to_type(self, folder: Folder) -> None:
        hook = own(folder, "pre-push")
        Path(folder.python).unlink()
        done = folder.run(hook, stdin=REFS)
        assert done.returncode == 1
        assert folder.python.encode() in done.stderr
        assert b"git theta install" in done.stderr

    def test_one_that_chains_and_is_chained_runs_once(self, folder: Folder) -> None:
        """Another tool may have moved our file, put its own there, and been chained by us."""
        hook = own(folder, "pre-push")
        again = folder.hook(f"pre-push{CHAINED}", _AGAIN.format(hook=hook))
        assert folder.run(hook, "origin", stdin=REFS).returncode == 0
        assert again.exists()
        assert len([one for one in folder.said() if one.startswith("ours")]) == 1
        # Another push, from within the first one, is not the same.
        inside = {"GIT_THETA_IN_PRE_PUSH": "of another push"}
        assert folder.run(hook, "origin", stdin=REFS, env=inside).returncode == 0
        assert len([one for one in folder.said() if one.startswith("ours")]) == 2

    @pytest.mark.parametrize(
        ("chained", "times"), [(None, 1), ("git-lfs pre-push", 1), ("true", 1), ("false", 0)]
    )
    def test_git_lfs_runs_once_where_it_is_at_work(
        self, folder: Folder, chained: str | None, times: int
    ) -> None:
        """Whether the other hook has git-lfs upload is seen."""
        (folder.path / ".git" / "lfs").mkdir()
        programs = folder.path / "bin"
        folder.record("lfs", programs / "git-lfs")
        hook = own(folder, "pre-push")
        if chained is not None:
            folder.hook(f"pre-push{CHAINED}", f'#!/bin/sh\n{chained} "$@"\n')
        path = {"PATH": os.pathsep.join([str(programs), os.environ["PATH"]])}
        done = folder.run(hook, "origin", "url", stdin=REFS, env=path)
        assert done.returncode == (0 if times else 1)
        ran = [one for one in folder.said() if one.startswith("lfs")]
        assert ran == [line("lfs", "pre-push", "origin", "url")] * times

    def test_git_lfs_does_not_run_where_it_is_not_at_work(self, folder: Folder) -> None:
        folder.record("lfs", folder.path / "bin" / "git-lfs")
        path = {"PATH": os.pathsep.join([str(folder.path / "bin"), os.environ["PATH"]])}
        assert folder.run(own(folder, "pre-push"), stdin=REFS, env=path).returncode == 0
        assert [one for one in folder.said() if one.startswith("lfs")] == []


class TestAfterwards:
    @pytest.mark.parametrize("name", HOOKS[1:])
    def test_ours_is_told_which_and_reads_nothing(self, folder: Folder, name: str) -> None:
        done = folder.run(own(folder, name), *ARGUMENTS, stdin=b"not to be read\n")
        assert (done.returncode, done.stderr) == (0, b"")
        assert folder.said() == [
            line("ours", "-I", "-m", "git_theta_ext.drivers.post_hook", name, *ARGUMENTS)
        ]

    @pytest.mark.parametrize("status", [0, 5])
    def test_the_status_is_that_of_what_stood_there(self, folder: Folder, status: int) -> None:
        hook = own(folder, "post-merge")
        folder.record("theirs", folder.path / f"post-merge{CHAINED}", status=status)
        assert folder.run(hook, "0").returncode == status
        assert [one.split()[0] for one in folder.said()] == ["theirs", "ours"]

    def test_without_the_python_it_is_said_and_nothing_fails(self, folder: Folder) -> None:
        hook = own(folder, "post-checkout")
        Path(folder.python).unlink()
        done = folder.run(hook, "a", "b", "1")
        assert done.returncode == 0
        assert b"is gone; type: git theta install" in done.stderr

    def test_one_that_chains_and_is_chained_runs_once(self, folder: Folder) -> None:
        hook = own(folder, "post-merge")
        again = folder.hook(f"post-merge{CHAINED}", _AGAIN.format(hook=hook))
        assert folder.run(hook, "0").returncode == 0
        assert again.exists()
        assert len(folder.said()) == 1


class TestInAFolderOfOthers:
    """No path of this machine stands in it: the Python is the filter's."""

    def filter_is(self, folder: Folder) -> None:
        command = launch.shell_command([folder.python, "-I"])
        subprocess.run(
            ["git", "config", "--global", "filter.theta.process",
             f"{command} -m git_theta_ext.drivers.filter"],
            check=True,
        )  # fmt: skip

    @pytest.mark.parametrize("by_sh", [False, True])
    def test_the_python_is_that_of_the_filter(self, folder: Folder, by_sh: bool) -> None:
        self.filter_is(folder)
        text = shared_script("pre-push", by_sh=by_sh)
        assert str(folder.path) not in text
        hook = folder.hook("pre-push", text)
        done = folder.run(*(["sh", "-e", hook] if by_sh else [hook]), *ARGUMENTS, stdin=REFS)
        assert (done.returncode, done.stderr) == (0, b"")
        ours = line("ours", "-I", "-m", "git_theta_ext.drivers.pre_push", *ARGUMENTS)
        assert folder.said() == [ours, *REFS.decode().splitlines()]

    @pytest.mark.parametrize("by_sh", [False, True])
    def test_who_has_no_filter_runs_what_was_there_and_no_more(
        self, folder: Folder, by_sh: bool
    ) -> None:
        hook = folder.hook("pre-push", shared_script("pre-push", by_sh=by_sh))
        theirs = folder.record("theirs", folder.path / f"pre-push{CHAINED}")
        theirs.chmod(0o644 if by_sh else 0o755)  # husky runs files that are not executable
        done = folder.run(*(["sh", "-e", hook] if by_sh else [hook]), "origin", stdin=REFS)
        assert (done.returncode, done.stderr) == (0, b"")
        assert folder.said() == [line("theirs", "origin"), *REFS.decode().splitlines()]

    def test_a_repository_with_checkpoints_is_told_that_nothing_is_done(
        self, folder: Folder
    ) -> None:
        hook = folder.hook("post-merge", shared_script("post-merge", by_sh=False))
        git = ["git", "-C", str(folder.path)]
        (folder.path / ".gitattributes").write_text("*.pt filter=theta\n")
        subprocess.run([*git, "add", ".gitattributes"], check=True)
        subprocess.run([*git, "-c", "core.hooksPath=/none", "commit", "-qm", "x"], check=True)
        done = folder.run(hook, "0")
        assert done.returncode == 0
        assert b"git-theta is not set up here" in done.stderr


class TestInGitConfig:
    def run(self, folder: Folder, name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """As Git runs a command that needs a shell."""
        text = configured([folder.python, "-I"])[f"hook.theta-{name}.command"]
        return folder.run("sh", "-c", f'{text} "$@"', text, *arguments, stdin=REFS)

    def test_each_event_has_its_command(self) -> None:
        found = configured(["/p", "-I"])
        events = {name: value for name, value in found.items() if name.endswith(".event")}
        assert events == {f"hook.theta-{name}.event": name for name in HOOKS}
        # Git complains of an event without a command, so that comes first.
        assert [name.rpartition(".")[2] for name in found] == ["command", "event"] * len(HOOKS)
        assert not any("\n" in value for value in found.values())

    def test_a_push_runs_ours(self, folder: Folder) -> None:
        done = self.run(folder, "pre-push", *ARGUMENTS)
        assert (done.returncode, done.stderr) == (0, b"")
        driver = "git_theta_ext.drivers.pre_push"
        ours = line("ours", "-I", "-m", driver, "--configured", *ARGUMENTS)
        assert folder.said() == [ours, *REFS.decode().splitlines()]

    @pytest.mark.parametrize("used", [False, True])
    def test_without_the_python_only_who_uses_it_is_stopped(
        self, folder: Folder, used: bool
    ) -> None:
        if used:
            (folder.path / ".git" / "theta").mkdir()
        Path(folder.python).unlink()
        done = self.run(folder, "pre-push")
        assert done.returncode == (1 if used else 0)
        assert folder.python.encode() in done.stderr

    @pytest.mark.parametrize("used", [False, True])
    def test_afterwards_only_repositories_that_use_it_are_looked_at(
        self, folder: Folder, used: bool
    ) -> None:
        if used:
            (folder.path / ".git" / "theta").mkdir()
        assert self.run(folder, "post-rewrite", "rebase").returncode == 0
        driver = "git_theta_ext.drivers.post_hook"
        ours = line("ours", "-I", "-m", driver, "--configured", "post-rewrite", "rebase")
        assert folder.said() == ([ours] if used else [])


class TestByHand:
    @pytest.mark.parametrize("name", HOOKS)
    def test_the_line_does_our_part(self, folder: Folder, name: str) -> None:
        added = by_hand(name, [folder.python, "-I"])
        hook = folder.hook(name, f"#!/bin/sh\n{added}\n")
        assert calls_ours(name, hook.read_bytes())
        assert folder.run(hook, *ARGUMENTS).returncode == 0
        word = ["git_theta_ext.drivers.pre_push"]
        if name != "pre-push":
            word = ["git_theta_ext.drivers.post_hook", name]
        assert folder.said() == [line("ours", "-I", "-m", *word, *ARGUMENTS)]

    def test_a_comment_calls_nothing(self) -> None:
        assert not calls_ours("pre-push", b"  # python -m git_theta_ext.drivers.pre_push\n")
        assert not calls_lfs(b"# git lfs pre-push\n")
        assert not calls_ours("post-merge", by_hand("pre-push", ["/p", "-I"]).encode())

    @pytest.mark.parametrize("content", [b'git lfs pre-push "$@"\n', b"\tgit-lfs pre-push\n"])
    def test_git_lfs_is_known_by_both_of_its_names(self, content: bytes) -> None:
        assert calls_lfs(content)
        assert not calls_lfs(content.replace(b"lfs", b"lfsx"))


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_any_text_is_one_word_of_the_shell(words: list[str]) -> None:
    quoted = " ".join(launch.shell_word(word) for word in words)
    said = subprocess.run(
        ["sh", "-c", f"for one in {quoted}; do printf '%s\\0' \"$one\"; done"],
        capture_output=True,
        check=True,
    )
    assert said.stdout.decode().split("\0")[:-1] == words
