"""Commands in forks of the tests' warm process end as those in a Python of their own do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX
from tests.scenarios.warm_client import ADDRESS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it forks on Linux only")
FILTER = (sys.executable, "-I", "-m", "git_theta_ext.drivers.filter")


@pytest.mark.parametrize("words", [("--version",), ("no-such-verb",), ("fsck",)])
def test_a_command_of_a_test(sealed: Path, words: tuple[str, ...]) -> None:
    if Repo.warm is None:
        pytest.skip("--cold starts a Python for each")
    assert Repo.warm.takes(PREFIX, os.environ)
    ours = Repo.warm.run([*PREFIX, *words], sealed, os.environ, None, 60)
    alone = cold(*PREFIX, *words)
    assert (ours.returncode, ours.stdout, ours.stderr) == (
        alone.returncode, alone.stdout, alone.stderr,
    )  # fmt: skip


def cold(*command: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run by a Python of its own, as none listens where it is told to ask."""
    environment = {**os.environ, ADDRESS: "/nonexistent"}
    return subprocess.run(command, env=environment, capture_output=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("sent", [b"", b"not a packet"])
def test_what_git_starts(sealed: Path, sent: bytes) -> None:
    ours = subprocess.run(FILTER, input=sent, capture_output=True, check=False)
    alone = cold(*FILTER, input=sent)
    assert ours.returncode != 0
    assert (ours.returncode, ours.stdout) == (alone.returncode, alone.stdout)
    # A traceback names what it went through, which is not the same.
    assert ours.stderr.splitlines()[-1] == alone.stderr.splitlines()[-1]


def test_output_that_nobody_reads(sealed: Path) -> None:
    statuses = []
    for address in (os.environ.get(ADDRESS, ""), "/nonexistent"):
        read, write = os.pipe()
        os.close(read)
        command = [str(Path(sys.executable).with_name("git-theta")), "--help"]
        environment = {**os.environ, ADDRESS: address}
        done = subprocess.run(
            command, env=environment, stdout=write, stderr=subprocess.PIPE, check=False
        )
        os.close(write)
        statuses.append((done.returncode, done.stderr))
    assert statuses[0] == statuses[1]
    assert statuses[0][0] != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped(sealed: Path, number: int) -> None:
    statuses = []
    for address in (os.environ.get(ADDRESS, ""), "/nonexistent"):
        environment = {**os.environ, ADDRESS: address}
        with subprocess.Popen(
            FILTER, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"0016git-filter-client\n000eversion=2\n0000")
            process.stdin.flush()
            assert process.stdout.read(4)  # it answers: it is past its start
            time.sleep(0.1)
            process.send_signal(number)
            process.wait(60)
            process.communicate()
        statuses.append(process.returncode)
    assert statuses[0] == statuses[1]
    assert statuses[0] != 0
