"""How programs are found and started, git above all: the only module that knows GitPython.

Git's environment (`GIT_DIR`, `GIT_WORK_TREE`, `GIT_INDEX_FILE`, alternates) is inherited by every
command and so respected. Programs are looked for in the absolute folders of PATH and nowhere else:
the current folder, where Windows looks first, is that of a repository, and may hold a `git.exe`.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from git_theta_ext.core.errors import RepositoryError

_PIPE = -1
_Taken = TypeVar("_Taken")
_importing = threading.Lock()
_NOT_HERE = "NoDefaultCurrentDirectoryInExePath"
"""Set in the environment of a Windows program, it does not look for others in its own folder."""
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", **({_NOT_HERE: "1"} if os.name == "nt" else {})}
_TICK_SECONDS = 0.2
_GRACE_SECONDS = 3.0
"""What a program that was told to end has, to clean up."""
_NEW_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
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


def absolute_places() -> None:
    """Have the folders that the environment names for Git mean the same wherever git is started."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR"):
        if place := os.environ.get(name):
            os.environ[name] = os.path.abspath(place)


def git_program() -> str:
    """The path of git.

    Raises:
        RepositoryError: there is none on PATH.
    """
    found = find_program("git")
    if found is None:
        raise RepositoryError("git was not found on PATH", hint="install Git 2.30 or newer")
    return found


def _runner(cwd: Path) -> Any:
    """GitPython's runner of commands, in a folder.

    It would expand `$NAME` in a path that it is given, so it is told of the folder afterwards.
    """
    runner = _gitpython().Git()
    runner._working_dir = str(cwd)
    return runner


@cache
def _gitpython() -> Any:
    """GitPython, which takes 0.1 s to import: so only once a command is really run.

    It starts a git of its own choice twice as it is imported. Told of one that is not there it does
    not; each command of ours names the git that it means.
    """
    told = {"GIT_PYTHON_GIT_EXECUTABLE": os.devnull, "GIT_PYTHON_REFRESH": "quiet"}
    with _importing:
        before = {name: os.environ.get(name) for name in told}
        os.environ.update(told)
        try:
            return importlib.import_module("git")
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


_tell: list[Callable[[Sequence[str]], object]] = []


def tell_of_programs(tell: Callable[[Sequence[str]], object] | None) -> None:
    """Have `tell` called with the words of each program that is started from now on."""
    _tell[:] = [] if tell is None else [tell]


def _said(command: Sequence[str]) -> None:
    for tell in _tell:
        tell(command)


def _start(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None) -> Any:
    """Start git; GitPython's handle of the process."""
    _said(command)
    try:
        return _runner(cwd).execute(
            list(command),
            as_process=True,
            istream=_PIPE,
            env={**_QUIET, **_only_absolute(), **(env or {})},
        )
    except _gitpython().GitCommandNotFound as error:
        raise RepositoryError(f"cannot start {command[0]} in {cwd}") from error


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
    process = _start([git_program(), *arguments], cwd, env)
    stdout, stderr = process.proc.communicate(stdin or b"")
    if process.proc.returncode not in ok:
        text = os.fsdecode(stderr).strip() or f"exit status {process.proc.returncode}"
        raise RepositoryError(f"git {arguments[0]} failed: {text}")
    return bytes(stdout)


class Sink(Protocol):
    """What takes bytes, one piece after the other."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""
        ...


def lines_of(answer: bytes) -> list[str]:
    """The lines that Git printed. A line feed ends one, and nothing else that Unicode counts as
    the end of a line: names of refs and remotes may have such a thing inside."""
    return [os.fsdecode(line) for line in answer.removesuffix(b"\n").split(b"\n") if answer]


def run_git_into(
    file: Sink,
    arguments: Sequence[str],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    *,
    stdin: bytes = b"",
) -> None:
    """Write what `git ARGUMENTS` prints to a file, however long it is.

    Args:
        file: what it is written to.
        arguments: what follows `git`.
        cwd: the folder to run it in.
        env: variables in addition to ours, or in their place.
        stdin: what it reads, to its end, before it prints.

    Raises:
        RepositoryError: git cannot be started, or fails.
    """

    def take(stdout: Any) -> None:
        while data := stdout.read(1 << 20):
            file.write(data)

    _piped(arguments, cwd, env, lambda write: write(stdin), take)


def run_git_fed(
    arguments: Sequence[str],
    cwd: Path,
    feed: Callable[[Callable[[bytes], object]], object],
    *,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """What `git ARGUMENTS` prints, a few lines, of input that may be long.

    Args:
        arguments: what follows `git`.
        cwd: the folder to run it in.
        feed: given a function that takes the next bytes of its input.
        env: variables in addition to ours, or in their place.

    Raises:
        RepositoryError: git cannot be started, or fails.
    """
    return _piped(arguments, cwd, env, feed, lambda stdout: bytes(stdout.read()))


def _piped(
    arguments: Sequence[str],
    cwd: Path,
    env: Mapping[str, str] | None,
    feed: Callable[[Callable[[bytes], object]], object],
    take: Callable[[Any], _Taken],
) -> _Taken:
    """Run git, have it fed and then have taken what it prints; what was made of that."""
    started = _start([git_program(), *arguments], cwd, env)
    process = started.proc  # (not without the handle, which ends the process when it goes)
    try:
        with suppress(BrokenPipeError):  # it has ended, and says why
            feed(process.stdin.write)
            process.stdin.close()
        taken = take(process.stdout)
        errors = process.stderr.read()
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
    if process.returncode:
        raise RepositoryError(f"git {_verb(arguments)} failed: {os.fsdecode(errors).strip()}")
    return taken


def _verb(arguments: Sequence[str]) -> str:
    """The command of Git among its arguments: settings may stand before it."""
    return arguments[2] if arguments[0] == "-c" else arguments[0]


@contextmanager
def conversation(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A `git ARGUMENTS` that is asked and answers, line by line: its standard input and output.

    It ends with the block. Its complaints go to a file that nobody reads: ask again, singly, why.

    Raises:
        RepositoryError: git cannot be started.
    """
    _said(["git", *arguments])
    try:
        process = subprocess.Popen(
            [git_program(), *arguments],
            cwd=cwd,
            env={**os.environ, **_QUIET, **_only_absolute(), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise RepositoryError(f"cannot start git {arguments[0]} in {cwd}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    except BaseException:
        process.kill()
        raise
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


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
    started = _start([git_program(), *arguments], cwd, env)
    process = started.proc  # (not without the handle, which ends the process when it goes)
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


def run_in_terminal(arguments: Sequence[str], program: str = "git") -> int:
    """Run `git ARGUMENTS` in the current folder, with this process's terminal; its exit status.

    Args:
        arguments: what follows the program's name.
        program: another one than git, by its name on PATH.

    Raises:
        RepositoryError: it cannot be started.
    """
    words = [program, *arguments]
    _said(words)
    if os.name == "nt":  # there words are put together to one line, which is taken apart again
        words = [subprocess.list2cmdline([word]) for word in words]
    try:
        path = git_program() if program == "git" else find_program(program) or program
        return os.spawnv(os.P_WAIT, path, words)
    except OSError as error:
        raise RepositoryError(f"cannot start {program}") from error


@dataclass(frozen=True, slots=True)
class Pager:
    """A pager that runs: what it reads, as a descriptor, and how to wait until the user ends it."""

    input: int
    wait: Callable[[], object]


def start_pager(command: str) -> Pager | None:
    """Start a pager by the line of a shell that Git has for it; None where it cannot be.

    It gets Git's own defaults for `less` and `lv`, if the user has none.
    """
    shell = find_program("sh")
    program = command.split(maxsplit=1)[0]
    if shell is None or (program.isalnum() and find_program(program) is None):
        return None
    _said([command])
    ours, its = -1, -1
    try:
        its, ours = os.pipe()
        process = subprocess.Popen(
            [shell, "-c", command], stdin=its, env={"LESS": "FRX", "LV": "-c", **os.environ}
        )
    except OSError:
        if ours >= 0:
            os.close(ours)
        return None
    finally:
        if its >= 0:
            os.close(its)
    return Pager(ours, process.wait)


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
    try:
        env = _only_absolute() if command[0] == "git" else None
        _said(command)
        process: Any = _runner(cwd).execute(
            [program, *command[1:]], as_process=True, istream=_PIPE, env=env
        )
    except (_gitpython().GitCommandNotFound, OSError) as error:
        raise RepositoryError(f"cannot start {command[0]}") from error
    try:
        stdout, stderr = process.proc.communicate(b"")
    except BaseException:
        process.proc.kill()
        process.proc.wait()
        raise
    return int(process.proc.returncode), stdout, stderr


def run_for(
    command: Sequence[str],
    cwd: Path,
    output: BinaryIO,
    errors: BinaryIO,
    *,
    seconds: float | None,
    tick: Callable[[], None],
) -> int | None:
    """Run a program with a time limit, and whatever it starts with it.

    When the time is over, or an exception comes out of `tick`, all of its processes are ended: on
    POSIX those of its process group, on Windows the tree of its children.

    Args:
        command: a program, by its path or as it is found on PATH, and its arguments.
        cwd: the folder to run it in.
        output: a file for what it prints.
        errors: one for what it says on standard error.
        seconds: how long it may take; None: as long as it wants.
        tick: called five times a second.

    Returns:
        Its exit status (negative: the signal that ended it), or None when the time was over.

    Raises:
        RepositoryError: it cannot be started.
    """
    program = command[0] if os.path.dirname(command[0]) else find_program(command[0])
    if program is None:
        raise RepositoryError(f"{command[0]} was not found on PATH")
    own = {"creationflags": _NEW_GROUP} if os.name == "nt" else {"start_new_session": True}
    _said(command)
    try:
        process = subprocess.Popen(
            [program, *command[1:]], cwd=cwd, stdin=subprocess.DEVNULL, stdout=output,
            stderr=errors, **own,
        )  # fmt: skip
    except OSError as error:
        raise RepositoryError(f"cannot start {command[0]}: {error.strerror or error}") from error
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while True:
            left = _TICK_SECONDS if end is None else min(_TICK_SECONDS, end - time.monotonic())
            if left <= 0:
                return None
            with suppress(subprocess.TimeoutExpired):
                return process.wait(left)
            tick()
    finally:
        if process.returncode is None:
            _end_all(process)


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """End a process that runs, and those that it started: politely, then not.

    It is waited for last: until then its number, which is that of its session, is nobody else's.
    """
    if os.name == "nt":
        program = find_program("taskkill")
        if program is not None:
            tree = [program, "/T", "/F", "/PID", str(process.pid)]
            subprocess.run(tree, capture_output=True, check=False)
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
            end = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < end and not _has_ended(process.pid):
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, without taking note of it; False where that cannot be told."""
    if not hasattr(os, "waitid"):
        return False
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
