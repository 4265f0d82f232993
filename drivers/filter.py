"""The filter that Git starts once per command: `filter.theta.process`, protocol version 2.

Source: gitattributes(5), "Long Running Filter Process". The handshake is answered before NumPy or
anything else that takes time is imported. With `clean PATH` or `smudge PATH` it does one file, for
clients that know only `filter.theta.clean` and `.smudge`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from git_theta_ext.core.errors import ProtocolError
from git_theta_ext.core.terminal import harmless_streams
from git_theta_ext.drivers import one_file
from git_theta_ext.drivers.pktline import PacketReader, PacketWriter
from git_theta_ext.git.crashes import hook as crash_hook

_CAPABILITIES = (b"clean", b"smudge", b"delay")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve Git on standard input and output until it closes them; the process exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    about_one = len(arguments) == 2 and arguments[0] in one_file.COMMANDS
    if sys.stdin.isatty() or (arguments and not about_one):
        print("git-theta-filter is started by Git; see: git theta help install", file=sys.stderr)
        return 2
    _keep_blas_single()
    _collect_rarely()
    stdin, stdout = _binary_streams()
    with harmless_streams():
        return _run(arguments, stdin, stdout)


def _run(arguments: Sequence[str], stdin: BinaryIO, stdout: BinaryIO) -> int:
    try:
        if arguments:
            return 0 if answer_once(arguments[0], arguments[1], stdin, stdout) else 1
        serve(stdin, stdout)
    except ProtocolError as error:
        print(f"git-theta: {error}", file=sys.stderr)
        return error.exit_code
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Shake hands, then answer commands until the stream ends.

    Raises:
        ProtocolError: the other side does not speak version 2 of the protocol.
    """
    reader, writer = PacketReader(stdin), PacketWriter(stdout)
    welcome = reader.lines()
    if welcome[:1] != [b"git-filter-client"] or b"version=2" not in welcome:
        raise ProtocolError(f"expected git-filter-client version 2, found {welcome}")
    writer.lines(b"git-filter-server", b"version=2")
    offered = {line.removeprefix(b"capability=") for line in reader.lines()}
    writer.lines(*(b"capability=" + name for name in _CAPABILITIES if name in offered))

    request = _request(reader)
    if request is None:
        return
    found = _look_at(request)

    from git_theta_ext.drivers.filter_commands import Commands

    commands = Commands(reader, writer)
    while request is not None:
        commands.answer(request, found)
        request = _request(reader)
        found = _look_at(request)
    commands.close()


def answer_once(command: str, path: str, stdin: BinaryIO, stdout: BinaryIO) -> bool:
    """Clean or smudge the content on `stdin`; whether what went to `stdout` counts.

    Args:
        command: `clean` or `smudge`.
        path: the file's, from the top of the work tree, which is the current folder.
        stdin: the content, to its end.
        stdout: for what it becomes.
    """
    request = {"command": command.encode(), "pathname": os.fsencode(path)}
    found = _look_at(request)

    from git_theta_ext.drivers.filter_commands import Commands

    output = one_file.PlainOutput(stdout)
    commands = Commands(one_file.WholeInput(stdin), output)
    commands.answer(request, found)
    commands.close()
    return output.succeeded


def _request(reader: PacketReader) -> dict[str, bytes] | None:
    """The keys and values that begin a request; None after the last."""
    try:
        pairs = [line.partition(b"=") for line in reader.lines()]
    except EOFError:
        return None
    return {key.decode("ascii", "replace"): value for key, _, value in pairs}


def _look_at(request: Mapping[str, bytes] | None) -> os.stat_result | None:
    """What the file that is to be cleaned is before its content is read; None if not there.

    At once, because Git compares times by the second: of a file that is written to while it is
    read, and has kept its size, it may say for ever that it is what was staged.
    """
    if request is None or request.get("command") != b"clean":
        return None
    try:
        return os.stat(os.fsdecode(request.get("pathname", b"")))
    except (OSError, ValueError):
        return None


def _keep_blas_single() -> None:
    """Let linear algebra stay on the thread that asks for it; read when NumPy is first imported.

    Blocks are encoded on several threads of ours already. With threads of BLAS under each of them
    a `git add` of one changed tensor of 1 GB took twice as long.
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")


def _collect_rarely() -> None:
    """Look for circles of objects less often: what a manifest is read into has none.

    Of 30,000 tensors it is hundreds of thousands of objects, which live until the answer is out.
    """
    gc.set_threshold(100_000, 20, 20)


def _binary_streams() -> tuple[BinaryIO, BinaryIO]:
    """Git's ends of the pipes; nothing else in this process may print to standard output."""
    stdin = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=1 << 20)
    _widen(stdin.fileno())
    _widen(sys.stdout.fileno())
    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    sys.stdout = sys.stderr
    return stdin, stdout


def _widen(pipe: int) -> None:
    """Let a pipe hold a megabyte, where the system allows it: fewer switches between processes."""
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    except (ImportError, AttributeError, OSError):
        return


if __name__ == "__main__":
    crash_hook.install()
    sys.exit(main())
