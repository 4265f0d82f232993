"""Commands of `git theta`, and what Git starts, in processes that have their imports behind them.

Most commands here take less time than Python, NumPy and pygit2 take to be imported. So one process
imports them, and then forks for each command, which has a process of its own as ever: its
arguments, folder, environment and streams, and an exit status. The filters, drivers and hooks that
Git starts hand their work over to it (`warm_client`). `--cold` has each one started anew, as are
all that a terminal starts, or that run under strace.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import pickle
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.scenarios.warm_client import ADDRESS, at_the_start, surroundings

_MAIN = "git_theta_ext.cli.main"
PREFIX = (sys.executable, "-m", _MAIN)
_TYPED = ("git", "theta")
"""What a command begins with that can be run here: this Python, or what Git finds beside it."""

_ROOT = Path(__file__).parents[2]


class Warm:
    """The process that forks, from the test's side."""

    def __init__(self) -> None:
        """It starts with the first command that is run."""
        self._process: subprocess.Popen[bytes] | None = None
        # Not below the folder of the tests: the name of a socket has 107 bytes at most.
        self._folder = Path(tempfile.mkdtemp(prefix="theta-warm-"))
        self._settings: dict[str, str] = {}
        self._sending = threading.Lock()

    def address(self) -> tuple[str, str]:
        """The variable by which what Git starts finds this process, which is started if need be."""
        with self._sending:
            if self._process is None:
                self._start()
        return ADDRESS, str(self._folder / "socket")

    def _start(self) -> None:
        environment = {**os.environ, "LC_ALL": "C"}
        self._settings = at_the_start(environment)
        self._socket, its = socket.socketpair()
        doors = socket.socket(socket.AF_UNIX)
        doors.bind(str(self._folder / "socket"))
        doors.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.warm", str(its.fileno()), str(doors.fileno())],
            cwd=_ROOT, env=environment, pass_fds=[its.fileno(), doors.fileno()],
            # Pipes, as its forks have: Python asks of its streams at the start what they are.
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        its.close()
        doors.close()

    def takes(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a command would be the same here as in a process that is started for it."""
        beside = str(Path(sys.executable).parent)
        if tuple(command[:3]) != PREFIX and (
            tuple(command[:2]) != _TYPED
            or environment.get("PATH", "").split(os.pathsep)[0] != beside
        ):
            return False
        if any(name.startswith("COVERAGE_") for name in environment):
            return False
        with self._sending:
            if self._process is None:
                self._start()
        return at_the_start(dict(environment)) == self._settings

    def run(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str],
        stdin: bytes | None, seconds: float,
    ) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
        """Run a command that `takes` is true of, as `subprocess.run` would."""
        umask = os.umask(0)
        os.umask(umask)
        arguments = list(command[3 if tuple(command[:3]) == PREFIX else 2 :])
        request = pickle.dumps((arguments, str(cwd), dict(environment), umask))
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "status")}
        read_in, write_in = (os.open(os.devnull, os.O_RDONLY), -1) if stdin is None else os.pipe()
        theirs = [read_in, *(end for _, end in pipes.values())]
        with self._sending:
            socket.send_fds(self._socket, [len(request).to_bytes(8, "big")], theirs)
            self._socket.sendall(request)
        for descriptor in theirs:
            os.close(descriptor)
        found: dict[str, bytes] = {}
        threads = [
            threading.Thread(target=_read, args=(name, end, found), daemon=True)
            for name, (end, _) in pipes.items()
        ]
        if stdin is not None:
            threads.append(threading.Thread(target=_write, args=(write_in, stdin), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds)
            if thread.is_alive():
                raise subprocess.TimeoutExpired(command, seconds)
        status = int(found["status"])
        return subprocess.CompletedProcess(command, status, found["stdout"], found["stderr"])

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._socket.close()
            _, said = self._process.communicate(timeout=60)
            assert not said, said.decode()
        shutil.rmtree(self._folder)


def _read(name: str, descriptor: int, found: dict[str, bytes]) -> None:
    with open(descriptor, "rb") as file:
        found[name] = file.read()


def _write(descriptor: int, data: bytes) -> None:
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass  # it ended before it read everything


# -- in the process that forks ---------------------------------------------------------------------


class _Command(NamedTuple):
    """What a fork is to run."""

    module: str
    """`cli.main`, of which `main` is called, or one that is run as Python's option `-m` does."""
    argv: list[str]
    started_by: list[str]
    """All words that start it, Python first."""
    first_place: str | None
    """Where modules are looked for first; None for nowhere but where they always are."""
    streams: list[int]
    cwd: str
    environment: dict[str, str]
    umask: int
    parent: int | None
    """What started it; None where nothing asks for that."""


class _Running(NamedTuple):
    """A fork that runs a command."""

    pid: int
    status: int
    """Where to say how it ended: a pipe, or a socket of one that handed its work over."""
    watched: bool
    """Whether it is interrupted, and killed, with what waits for it."""


def _import_everything() -> None:
    gc.disable()
    from git_theta_ext.cli import main
    from git_theta_ext.git import process

    for module, _ in main.VERBS.values():
        importlib.import_module(f"git_theta_ext.cli.verbs.{module}")
    for module in ("filter", "filter_commands", "merge", "diff", "pre_push", "post_hook"):
        importlib.import_module(f"git_theta_ext.drivers.{module}")
    others = ("numpy", "ml_dtypes", "pcodec", "zstandard", "git_theta_ext.git.libgit2")
    for name in (*others, "git_theta_ext.cli.pull_request"):
        importlib.import_module(name)
    process._gitpython()  # half of the time of a filter
    gc.collect()
    gc.enable()
    gc.freeze()  # what the forks share is not to be copied as they look for rubbish


def _next_command(requests: socket.socket, doors: socket.socket) -> _Command | None:
    """What to run, in the process that is to run it; None when there are no more."""
    running: dict[int, _Running] = {}
    while True:
        clients = {one.status: number for number, one in running.items() if one.watched}
        ready = select.select([requests, doors, *running, *clients], [], [])[0][0]
        if ready in running:
            os.close(ready)
            _say_how_it_ends(running.pop(ready))
            continue
        if ready in clients:
            running[clients[ready]] = _passed_on(running[clients[ready]])
            continue
        if ready is requests:
            asked = _from_a_test(requests)
            if asked is None:
                return None
        else:
            asked = _handed_over(doors.accept()[0])
            if asked is None:
                continue
        command, status = asked
        pid = os.fork()
        if pid == 0:
            for number, one in running.items():
                os.close(number)
                os.close(one.status)
            os.close(status)
            _become(command)
            return command
        for descriptor in command.streams:
            os.close(descriptor)
        running[os.pidfd_open(pid)] = _Running(pid, status, ready is doors)


def _all_of(stream: socket.socket, head: bytes) -> bytes:
    """What follows the eight bytes of its length; less, if the other end is killed."""
    data = b""
    while len(data) < int.from_bytes(head, "big"):
        got = stream.recv(1 << 20)
        if not got:
            break
        data += got
    return data


def _from_a_test(requests: socket.socket) -> tuple[_Command, int] | None:
    """A command of `Repo.run`, and where to say how it ends; None when there are no more."""
    head, descriptors, _, _ = socket.recv_fds(requests, 8, 4)
    if not head:
        return None
    arguments, cwd, environment, umask = pickle.loads(_all_of(requests, head))
    argv = [str(sys.modules[_MAIN].__file__), *arguments]
    *streams, status = descriptors
    started_by = [*PREFIX, *arguments]
    # Modules are looked for as `python -m` has it.
    command = _Command(_MAIN, argv, started_by, cwd, streams, cwd, environment, umask, None)
    return command, status


def _handed_over(client: socket.socket) -> tuple[_Command, int] | None:
    """As `_from_a_test`, for a process that has been started, and lives as long as its fork.

    None if it is to go on by itself, or has gone.
    """
    with client:
        head, streams, _, _ = socket.recv_fds(client, 8, 3)
        data = _all_of(client, head)
        if data and len(data) == int.from_bytes(head, "big"):
            theirs, words, cwd, environment, umask, parent = marshal.loads(data)
            with suppress(OSError):
                if theirs == surroundings():
                    client.sendall(b"y")
                    if words[1] == "-I":
                        module, argv, first_place = words[3], words[3:], None
                    else:
                        module, argv, first_place = _MAIN, words[1:], os.path.dirname(words[1])
                    command = _Command(
                        module, argv, words, first_place, streams, cwd, environment, umask, parent
                    )
                    return command, client.detach()
    for descriptor in streams:
        os.close(descriptor)
    return None


def _passed_on(one: _Running) -> _Running:
    """Interrupt it, as what waits for it is, or kill it, if nobody waits any more."""
    asked = b""
    with suppress(OSError):
        asked = os.read(one.status, 1)
    os.kill(one.pid, signal.SIGINT if asked else signal.SIGKILL)
    return one if asked else one._replace(watched=False)


def _say_how_it_ends(one: _Running) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1])
    with suppress(OSError):
        os.write(one.status, str(code).encode())
    os.close(one.status)


def _become(command: _Command) -> None:
    for number, descriptor in enumerate(command.streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.umask(command.umask)
    os.chdir(command.cwd)
    os.environ.clear()
    os.environ.update(command.environment)
    if command.parent is not None:
        parent = command.parent
        os.getppid = lambda: parent
    if command.first_place is None:
        del sys.path[0]
    else:
        sys.path[0] = command.first_place
    sys.argv[:] = command.argv
    sys.orig_argv[:] = command.started_by
    _forget_home()


def _forget_home() -> None:
    """libgit2 found the user's configuration as it was imported, for another user."""
    from pygit2 import settings
    from pygit2.enums import ConfigLevel

    home = os.environ.get("HOME", "")
    settings.search_path[ConfigLevel.GLOBAL] = home
    settings.search_path[ConfigLevel.XDG] = os.path.join(
        os.environ.get("XDG_CONFIG_HOME", os.path.join(home, ".config")), "git"
    )


def _run(name: str) -> None:
    module = sys.modules[name]
    if name != _MAIN:  # as `python -m` does
        del sys.modules[name]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    sys.exit(module.main())


def _run_and_end(name: str) -> None:
    """As `_run`, but Python does not take apart all that was imported before it ends.

    That would write to most of the memory that the forks share, and takes longer than most commands
    do. Whatever ends in an unusual way is left to Python.
    """
    status: object = 0
    try:
        _run(name)
    except SystemExit as ending:
        status = ending.code
    # What it had open in its frames is closed by here, as by Python.
    if status is not None and not isinstance(status, int):
        sys.exit(str(status))
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (AttributeError, OSError, ValueError):
        sys.exit(status)
    os._exit((status or 0) & 0xFF)


def _main() -> None:
    _import_everything()
    requests, doors = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    with requests, doors:
        command = _next_command(requests, doors)
    if command is not None:
        _run_and_end(command.module)


if __name__ == "__main__":
    _main()
