"""An SSH server on this machine, before the repositories and the LFS server of a site."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.front import Front

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
MaxStartups 100
PasswordAuthentication no
PermitRootLogin prohibit-password
"""


@dataclass(frozen=True, slots=True)
class Ssh:
    """Where the server is, and how a client gets in."""

    port: int
    command: str
    """For GIT_SSH_COMMAND."""

    def url(self, path: Path) -> str:
        """The URL of a repository."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"


def _program() -> str:
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("sshd is not installed: apt-get install openssh-server")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ssh_server(host: Front, folder: Path) -> Iterator[Ssh]:
    """Run sshd with keys of its own; who gets in may run what `ssh_shell.py` allows."""
    folder.mkdir(parents=True)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    port = _free_port()
    shell = Path(__file__).with_name("ssh_shell.py")
    words = [sys.executable, str(shell), host.url, host.authorization]
    words.append(str(host.backend.folder))
    command = " ".join(shlex.quote(word) for word in words).replace('"', '\\"')
    key = (folder / "user.pub").read_text("ascii")
    (folder / "authorized").write_text(f'command="{command}",restrict {key}', "utf-8")
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder), "utf-8")
    host_key = (folder / "host.pub").read_text("ascii")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}", "ascii")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd(8): where it locks itself in
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [_program(), "-D", "-e", "-f", str(folder / "config")],
            stdin=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip
    try:
        _wait_for(server, port, folder / "log")
        yield Ssh(
            port,
            f"ssh -F none -i {shlex.quote(str(folder / 'user'))} -o IdentitiesOnly=yes -o"
            f" BatchMode=yes -o UserKnownHostsFile={shlex.quote(str(folder / 'known'))}",
        )
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"sshd did not start: {log.read_text('utf-8', 'replace')}")
