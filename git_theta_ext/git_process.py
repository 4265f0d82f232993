"""How programs are started, git above all: the only module that knows GitPython.

Git's environment (`GIT_DIR`, `GIT_WORK_TREE`, `GIT_INDEX_FILE`, alternates) is inherited by every
command and so respected.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from git_theta_ext.errors import RepositoryError

_PIPE = -1
_QUIET = {"GIT_OPTIONAL_LOCKS": "0"}


def _runner(cwd: Path) -> Any:
    """GitPython's runner of commands, in a folder.

    It would expand `$NAME` in a path that it is given, so it is told of the folder afterwards.
    """
    from git import Git  # 0.1 s to import, so only once a command is really run

    runner = Git()
    runner._working_dir = str(cwd)
    return runner


def run_git(
    arguments: Sequence[str],
    cwd: Path,
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> bytes:
    """What `git ARGUMENTS` prints when it is run in `cwd`.

    Raises:
        RepositoryError: git cannot be started, or exits with a status that is not in `ok`.
    """
    from git.exc import GitCommandNotFound

    runner = _runner(cwd)
    try:
        process: Any = runner.execute(
            ["git", *arguments],
            as_process=True,
            istream=_PIPE,
            env={**_QUIET, **(env or {})},
        )
    except GitCommandNotFound as error:
        raise RepositoryError(
            "git was not found on PATH", hint="install Git 2.30 or newer"
        ) from error
    stdout, stderr = process.proc.communicate(stdin or b"")
    if process.proc.returncode not in ok:
        text = os.fsdecode(stderr).strip() or f"exit status {process.proc.returncode}"
        raise RepositoryError(f"git {arguments[0]} failed: {text}")
    return bytes(stdout)


def run_git_into(file: BinaryIO, arguments: Sequence[str], cwd: Path) -> None:
    """Write what `git ARGUMENTS` prints to a file, however long it is.

    Raises:
        RepositoryError: git cannot be started, or fails.
    """
    from git.exc import GitCommandNotFound

    try:
        started: Any = _runner(cwd).execute(
            ["git", *arguments], as_process=True, istream=_PIPE, env=_QUIET
        )
    except GitCommandNotFound as error:
        raise RepositoryError(
            "git was not found on PATH", hint="install Git 2.30 or newer"
        ) from error
    process = started.proc
    try:
        process.stdin.close()
        shutil.copyfileobj(process.stdout, file, 1 << 20)
        errors = process.stderr.read()
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
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

    Raises:
        RepositoryError: git cannot be started.
    """
    from git.exc import GitCommandNotFound

    try:
        started: Any = _runner(cwd).execute(
            ["git", *arguments], as_process=True, istream=_PIPE, env={**_QUIET, **(env or {})}
        )
    except GitCommandNotFound as error:
        raise RepositoryError(
            "git was not found on PATH", hint="install Git 2.30 or newer"
        ) from error
    process = started.proc
    request: bytes | None = stdin
    try:
        while True:
            try:
                _, stderr = process.communicate(request, timeout=0.2)
                return int(process.returncode), os.fsdecode(stderr).strip()
            except subprocess.TimeoutExpired:
                request = None  # communicate goes on with what it was given at first
                tick()
    except BaseException:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def run_program(command: Sequence[str], cwd: Path) -> tuple[int, bytes, bytes]:
    """The exit status, standard output and standard error of a program that is run in `cwd`.

    Raises:
        RepositoryError: it cannot be started.
    """
    from git.exc import GitCommandNotFound

    try:
        process: Any = _runner(cwd).execute(list(command), as_process=True, istream=_PIPE)
    except (GitCommandNotFound, OSError) as error:
        raise RepositoryError(f"cannot start {command[0]}") from error
    try:
        stdout, stderr = process.proc.communicate(b"")
    except BaseException:
        process.proc.kill()
        process.proc.wait()
        raise
    return int(process.proc.returncode), stdout, stderr
