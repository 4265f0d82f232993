"""How programs are found and started, git above all: the only module that does.

Git's environment (`GIT_DIR`, `GIT_WORK_TREE`, `GIT_INDEX_FILE`, alternates) is inherited by every
command and so respected. Programs are looked for in the absolute folders of PATH and nowhere else:
the current folder, where Windows looks first, is that of a repository, and may hold a `git.exe`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from git_theta_ext.core.errors import RepositoryError

_ENGLISH = {"LANGUAGE": "C", "LC_ALL": "C"}
"""What programs print is read, or shown among our own sentences."""
_NOT_HERE = "NoDefaultCurrentDirectoryInExePath"
"""Set in the environment of a Windows program, it does not look for others in its own folder."""
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", **({_NOT_HERE: "1"} if os.name == "nt" else {})}
_WINDOWS_ENDINGS = ".COM;.EXE;.BAT;.CMD"


def find_program(name: str) -> str | None:
    """The path of a program that is named without a folder: the first one on PATH.

    Relative folders of PATH (`.`, or an empty one) are passed over, on every system.
    """
    endings = os.environ.get("PATHEXT", _WINDOWS_ENDINGS) if os.name == "nt" else None
    return _on_path(name, os.environ.get("PATH", os.defpath), endings)


@lru_cache(maxsize=64)
def _on_path(name: str, folders: str, endings: str | None) -> str | None:
    """`endings` are those of the names of programs, where they have some; None elsewhere."""
    wanted = [name]
    if endings is not None:
        known = [ending for ending in endings.lower().split(";") if ending]
        # As Windows has it: with an ending of these the name is whole, else it gets one.
        if os.path.splitext(name)[1].lower() not in known:
            wanted = [name + ending for ending in known]
    for folder in folders.split(os.pathsep):
        folder = folder.strip('"') if endings is not None else folder
        if not os.path.isabs(folder):
            continue
        for candidate in (os.path.join(folder, one) for one in wanted):
            if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                return candidate
    return None


def _only_absolute() -> dict[str, str]:
    """PATH for git, which looks there for git-lfs and others: without relative folders, if any."""
    path = os.environ.get("PATH", os.defpath)
    folders = [one for one in path.split(os.pathsep) if os.path.isabs(one.strip('"'))]
    kept = os.pathsep.join(folders)
    return {} if kept == path else {"PATH": kept}


def git_program() -> str:
    """The path of git.

    Raises:
        RepositoryError: there is none on PATH.
    """
    found = find_program("git")
    if found is None:
        raise RepositoryError("git was not found on PATH", hint="install Git 2.30 or newer")
    return found


def _start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    """Start a program by its path, with pipes for all of its streams.

    Raises:
        RepositoryError: it cannot be started.
    """
    flags = 0
    if sys.platform == "win32":  # no window of its own, and not ended by what ends another
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        return subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **_ENGLISH, **(env or {})}, creationflags=flags,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise RepositoryError(f"cannot start {command[0]} in {cwd}") from error


def _start_git(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    return _start([git_program(), *arguments], cwd, {**_QUIET, **_only_absolute(), **(env or {})})


def _answers(process: subprocess.Popen[bytes], stdin: bytes) -> tuple[bytes, bytes]:
    """What it writes to its two streams until it ends; it does not outlive an exception here."""
    with process:
        try:
            return process.communicate(stdin)
        except BaseException:
            process.kill()
            raise


def run_git(
    arguments: Sequence[str],
    cwd: Path,
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> bytes:
    """What `git ARGUMENTS` prints when it is run in `cwd`.

    Args:
        arguments: what follows `git`.
        cwd: the folder to run it in.
        stdin: what it reads; None for nothing.
        env: variables in addition to ours, or in their place.
        ok: exit statuses that are no failure.

    Raises:
        RepositoryError: git cannot be started, or exits with a status that is not in `ok`.
    """
    process = _start_git(arguments, cwd, env)
    stdout, stderr = _answers(process, stdin or b"")
    if process.returncode not in ok:
        text = os.fsdecode(stderr).strip() or f"exit status {process.returncode}"
        raise RepositoryError(f"git {arguments[0]} failed: {text}")
    return stdout


def run_git_into(file: BinaryIO, arguments: Sequence[str], cwd: Path) -> None:
    """Write what `git ARGUMENTS` prints to a file, however long it is.

    Raises:
        RepositoryError: git cannot be started, or fails.
    """
    with _start_git(arguments, cwd, None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.close()
            while data := process.stdout.read(1 << 20):
                file.write(data)
            errors = process.stderr.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RepositoryError(f"git {arguments[0]} failed: {os.fsdecode(errors).strip()}")


def run_watched(
    arguments: Sequence[str],
    cwd: Path,
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    tick: Callable[[], None],
) -> tuple[int, str]:
    """Run a long `git ARGUMENTS`, calling `tick` five times a second; its status and stderr.

    An exception out of `tick` ends the process and is raised on.

    Args:
        arguments: what follows `git`.
        cwd: the folder to run it in.
        stdin: what it reads.
        env: variables in addition to ours, or in their place.
        tick: called while it runs.

    Raises:
        RepositoryError: git cannot be started.
    """
    request: bytes | None = stdin
    with _start_git(arguments, cwd, env) as process:
        try:
            while True:
                try:
                    _, stderr = process.communicate(request, timeout=0.2)
                    return process.returncode, os.fsdecode(stderr).strip()
                except subprocess.TimeoutExpired:
                    request = None  # communicate goes on with what it was given at first
                    tick()
        except BaseException:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def run_in_terminal(arguments: Sequence[str]) -> int:
    """Run `git ARGUMENTS` in the current folder, with this process's terminal; its exit status.

    Raises:
        RepositoryError: it cannot be started.
    """
    words = ["git", *arguments]
    if os.name == "nt":  # there words are put together to one line, which is taken apart again
        words = [subprocess.list2cmdline([word]) for word in words]
    try:
        return os.spawnv(os.P_WAIT, git_program(), words)
    except OSError as error:
        raise RepositoryError("cannot start git") from error


def run_program(command: Sequence[str], cwd: Path) -> tuple[int, bytes, bytes]:
    """The exit status, standard output and standard error of a program that is run in `cwd`.

    Raises:
        RepositoryError: it cannot be started.
    """
    program: str | None = command[0]
    if not os.path.dirname(command[0]):
        program = find_program(command[0])
    if program is None:
        raise RepositoryError(f"{command[0]} was not found on PATH")
    env = _only_absolute() if command[0] == "git" else None
    process = _start([program, *command[1:]], cwd, env)
    stdout, stderr = _answers(process, b"")
    return process.returncode, stdout, stderr
