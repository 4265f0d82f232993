"""Commands of `git theta` in processes that have all their imports behind them.

Most commands here take less time than Python, NumPy, pygit2 and GitPython take to be imported. So
one process imports them, and then forks for each command, which has a process of its own as ever:
its arguments, folder, environment and streams, and an exit status. `--cold` has each one started
anew, and so have all commands that something else starts: Git, a shell, a terminal.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PREFIX = (sys.executable, "-m", "git_theta_ext.cli.main")
_TYPED = ("git", "theta")
"""What a command begins with that can be run here: this Python, or what Git finds beside it."""

_ROOT = Path(__file__).parents[2]
_AS_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "OPENBLAS_", "OMP_")
"""Beginnings of the names of variables that count when a process starts, and not later."""


class Warm:
    """The process that forks, from the test's side."""

    def __init__(self) -> None:
        """It starts with the first command that is run."""
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: dict[str, str] = {}
        self._sending = threading.Lock()

    def _start(self, environment: Mapping[str, str]) -> None:
        self._settings = _at_the_start(environment)
        self._socket, its = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.warm", str(its.fileno())],
            cwd=_ROOT, env=environment, pass_fds=[its.fileno()],
            # Pipes, as its forks have: Python asks of its streams at the start what they are.
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        its.close()

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
        given = _at_the_start(environment)
        with self._sending:
            if self._process is None and given == _at_the_start(os.environ):
                self._start(environment)
        return self._process is not None and given == self._settings

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


def _at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in environment if name.startswith(_AS_AT_THE_START)}


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


def _import_everything() -> None:
    from git_theta_ext.cli import main
    from git_theta_ext.git import process

    for module, _ in main.VERBS.values():
        importlib.import_module(f"git_theta_ext.cli.verbs.{module}")
    for name in ("numpy", "ml_dtypes", "zstandard", "git_theta_ext.git.libgit2"):
        importlib.import_module(name)
    process._gitpython()
    gc.collect()
    gc.freeze()  # what the forks share is not to be copied as they look for rubbish


def _next_command(requests: socket.socket) -> list[str] | None:
    """The arguments of a command, in the process that is to run it; None when there are no more."""
    while True:
        _forget_the_finished()
        head, descriptors, _, _ = socket.recv_fds(requests, 8, 4)
        if not head:
            _forget_the_finished()
            return None
        data = b""
        while len(data) < int.from_bytes(head, "big"):
            data += requests.recv(1 << 20)
        watcher = os.fork()
        if watcher == 0:
            requests.close()
            return _watched(descriptors, *pickle.loads(data))
        for descriptor in descriptors:
            os.close(descriptor)


def _forget_the_finished() -> None:
    """Of the forks, of which there may be several at a time."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watched(
    descriptors: list[int], arguments: list[str], cwd: str, environment: dict[str, str], umask: int
) -> list[str]:
    """In a fork that becomes two: one runs the command, and one waits and says how it ended."""
    command = os.fork()
    status = descriptors.pop()
    if command:
        for descriptor in descriptors:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        os.write(status, str(code).encode())
        os._exit(0)
    os.close(status)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.umask(umask)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = cwd  # as `python -m` has it
    _forget_home()
    return arguments


def _forget_home() -> None:
    """libgit2 found the user's configuration as it was imported, for another user."""
    from pygit2 import settings
    from pygit2.enums import ConfigLevel

    home = os.environ.get("HOME", "")
    settings.search_path[ConfigLevel.GLOBAL] = home
    settings.search_path[ConfigLevel.XDG] = os.path.join(
        os.environ.get("XDG_CONFIG_HOME", os.path.join(home, ".config")), "git"
    )


def _main() -> None:
    _import_everything()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        arguments = _next_command(requests)
    if arguments is not None:
        from git_theta_ext.cli.main import main

        sys.argv[:] = [str(sys.modules["git_theta_ext.cli.main"].__file__), *arguments]
        sys.orig_argv[:] = [*PREFIX, *arguments]
        sys.exit(main())


if __name__ == "__main__":
    _main()
