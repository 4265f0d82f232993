"""A checkpoint that another program changes, replaces or cuts while `git add` reads it.

Whatever the moment: either the add fails and says so, or what was staged is one of the states that
the file had, or, where the file was written to in place, `git status` shows it as modified and what
was staged decodes to bytes that were read, each block verified. Nothing staged may be unreadable.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from tests.reliability.faults import NAME, Bench, Scenario, content
from tests.reliability.rows import Row

ADD = Scenario("add while changing", ("git", "add", NAME), edit=9)


def _in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(bytes(64))


def _replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content(10))
    os.replace(other, path)


def _truncated(path: Path) -> None:
    os.truncate(path, 100)


def _removed(path: Path) -> None:
    path.unlink()


def _grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: tuple[Callable[[Path], None], ...] = (
    _in_place,
    _replaced,
    _truncated,
    _removed,
    _grown,
)


def attempt(bench: Bench, change: Callable[[Path], None], delay: float) -> list[str]:
    """Change the file this many seconds after `git add` began; what is wrong afterwards."""
    repo = bench.copy(ADD)
    path = repo / NAME
    with subprocess.Popen(
        ADD.command, cwd=repo, env=dict(bench.environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        time.sleep(delay)
        change(path)
        status = process.wait(120)
    after = path.read_bytes() if path.exists() else None
    wrong = bench.lost(repo)
    blob = bench.run(repo, "git", "rev-parse", f":{NAME}").stdout.decode().strip()
    staged = _staged(repo, blob)
    if status == 0 and staged is None:
        wrong.append(f"{change.__name__}: what was staged cannot be read")
    shown = bench.run(repo, "git", "diff", "--name-only").stdout.decode().split()
    if after is not None and staged != after and NAME not in shown:
        wrong.append(
            f"{change.__name__}: status calls the file clean, and it is not what is staged"
        )
    if path.exists():
        bench.run(repo, "git", "add", NAME)
        blob = bench.run(repo, "git", "rev-parse", f":{NAME}").stdout.decode().strip()
        if _staged(repo, blob) != after:
            wrong.append(f"{change.__name__}: adding again staged something else")
    return wrong


def _staged(repo: Path, blob: str) -> bytes | None:
    repository = Repository.discover(repo)
    made = bytearray()
    try:
        Smudger(parse_manifest(repository.blob(blob)), Blocks.open(repository)).write(made.extend)
    except Exception:
        return None
    return bytes(made)


def measure(scale: float) -> list[Row]:
    """Change the file at random moments of an add; `scale` 1 takes forty of each kind of change."""
    moments = random.Random(5)
    tried, wrong = 0, 0
    with tempfile.TemporaryDirectory(prefix="theta-changing-") as folder:
        bench = Bench(Path(folder).resolve() / "bench")
        begun = time.monotonic()
        bench.run(bench.copy(ADD), *ADD.command)
        usual = time.monotonic() - begun
        for _ in range(max(1, round(40 * scale))):
            for change in CHANGES:
                wrong += bool(attempt(bench, change, moments.random() * usual))
                tried += 1
    return [
        Row(
            "file changed while it is added",
            "written in place, replaced, cut, removed or grown at a random moment of `git add`",
            f"{tried} tried, {wrong} with something unreadable staged or a difference not shown",
        )
    ]
