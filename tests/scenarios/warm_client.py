"""What a Python that Git starts does first in the tests: let a warm process do its work.

`.ci/setup tests` has this run by a `.pth` file, before anything else is imported; it does nothing
unless the tests ask for it. The process that is warm forks, and the fork has this one's arguments,
folder, environment, umask and streams; this one waits, passes interrupts on, and ends as the fork
does. It goes on as a Python of its own wherever that could make a difference: on a terminal, under
a tracer (strace), with other limits, in another session or namespace, under a measurement.
"""

from __future__ import annotations

import marshal
import os
import sys

ADDRESS = "THETA_TESTS_WARM"
"""The variable that says where the warm process listens."""
_AS_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "OPENBLAS_", "OMP_")
"""Beginnings of the names of variables that count when a process starts, and not later."""
_MODULES = ("git_theta_ext.drivers.", "git_theta_ext.cli.main", "git_theta_ext.cli.pull_request")
"""Beginnings of the names of modules that are started by `-I -m`."""
_COMMAND = "git-theta"
"""What `git theta` runs: it stands beside Python."""


def at_the_start(environment: dict[str, str]) -> dict[str, str]:
    """The variables that a process which has been started can no longer follow."""
    return {name: environment[name] for name in environment if name.startswith(_AS_AT_THE_START)}


def surroundings() -> tuple[object, ...]:
    """What a process has from where it was started, besides what it hands on."""
    with open("/proc/self/limits") as file:
        limits = file.read()
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "user")]
    return limits, spaces, os.getsid(0), os.getuid(), os.getgid(), at_the_start(dict(os.environ))


def _is_ours(words: list[str]) -> bool:
    """Whether these words start what Git starts."""
    if words[1:3] == ["-I", "-m"]:
        return words[3].startswith(_MODULES)
    return words[1:2] == [os.path.join(os.path.dirname(sys.executable), _COMMAND)]


def _is_plain() -> bool:
    """Whether nobody looks at this very process."""
    if any(os.isatty(stream) for stream in range(3)):
        return False
    if any(name.startswith("COVERAGE_") for name in os.environ):
        return False
    with open("/proc/self/status") as file:
        return "\nTracerPid:\t0\n" in file.read()


def hand_over() -> None:
    """Become the waiting end of a fork of the warm process, if that is the same; else return."""
    try:
        if not _is_ours(sys.orig_argv) or not _is_plain():
            return
        umask = os.umask(0)
        os.umask(umask)
        request = marshal.dumps((
            surroundings(), sys.orig_argv, os.getcwd(), dict(os.environ), umask, os.getppid(),
        ))  # fmt: skip
        import _socket

        warm = _socket.socket(_socket.AF_UNIX)
        warm.connect(os.environ[ADDRESS])
        streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)]
        warm.sendmsg([len(request).to_bytes(8, "big")], rights)
        sent = 0
        while sent < len(request):
            sent += warm.send(request[sent:])
        if warm.recv(1) != b"y":
            return
    except OSError:
        return
    os.close(0)
    os.close(1)
    os._exit(_status(warm))


def _status(warm: object) -> int:
    """How the fork ended, with every interrupt passed on to it."""
    while True:
        try:
            said = warm.recv(8)  # type: ignore[attr-defined]
        except KeyboardInterrupt:
            warm.send(b"i")  # type: ignore[attr-defined]
            continue
        code = int(said or b"1")
        if code < 0:
            import signal

            if -code != signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        return code
