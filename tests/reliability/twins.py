"""Random Git commands on random checkpoints, in a repository of ours and in a plain one.

    python -m tests.reliability.twins --operations 1000 --seed 7

The twins are given the same commands; plain Git stores whole files, so whatever its work tree holds
is the truth. After every command all files must be equal, and at the end every commit of every
branch too. The first difference stops the run, with the seed and the commands that led to it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from tests.reliability.rows import Row
from tests.scenarios.checkpoints import awkward, safetensors
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

NAMES = [
    "model.safetensors",
    "optimizer.pt",
    "deep/er/b.safetensors",
    "blob.bin",
    "ü 1.safetensors",
]
BRANCHES = ["main", "left", "right"]


class Difference(AssertionError):
    """The twins differ."""


class Twins:
    """The two repositories, and everything that may be done to them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.folder = folder
        self.ours, self.plain = folder / "ours", folder / "plain"
        self.said: list[str] = []
        self.files = 0
        environment = {
            "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(folder / "config"), "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
            "GIT_EDITOR": "true", "GIT_MERGE_AUTOEDIT": "no", "LC_ALL": "C",
        }  # fmt: skip
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_"))}
        self.environment = {**inherited, **environment}
        for path in (self.ours, self.plain):
            path.mkdir()
            self._run(path, "init", "-q", "-b", "main")
        for command in (["install", "--local"], ["track", "*.safetensors", "*.pt", "*.bin"]):
            subprocess.run(
                [sys.executable, "-m", "git_theta_ext.cli.main", *command],
                cwd=self.ours, env=self.environment, check=True, capture_output=True,
            )  # fmt: skip
        (self.plain / ".gitattributes").write_text(
            "*.safetensors binary\n*.pt binary\n*.bin binary\n"
        )
        self.git("add", ".")
        self.git("commit", "-q", "-m", "start")
        for branch in BRANCHES[1:]:
            self.git("branch", branch)

    # -- commands ----------------------------------------------------------------------------------

    def _run(self, path: Path, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            ["git", *arguments], cwd=path, env=self.environment, capture_output=True, check=False,
            timeout=300,
        )  # fmt: skip
        if check and done.returncode:
            raise Difference(
                f"git {' '.join(arguments)} in {path.name} exited with {done.returncode}: "
                f"{done.stderr.decode('utf-8', 'replace')[-2000:]}"
            )
        return done.returncode

    def git(self, *arguments: str, may_fail: bool = False) -> bool:
        """Run a command in both; whether it succeeded, which must be the same."""
        self.said.append("git " + " ".join(arguments))
        codes = [
            self._run(path, *arguments, check=not may_fail) for path in (self.ours, self.plain)
        ]
        if (codes[0] == 0) != (codes[1] == 0):
            raise Difference(f"git {' '.join(arguments)}: exit statuses {codes}")
        return codes[0] == 0

    def write(self, name: str, data: bytes) -> None:
        """Write a file in both."""
        self.said.append(f"write {name}, {len(data)} bytes")
        for path in (self.ours, self.plain):
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.plain / name).read_bytes()
        except OSError:
            return None

    def clean_up(self) -> None:
        """Leave nothing that a switch of branches would refuse to overwrite."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "work")

    # -- checkpoints -------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, np.ndarray]:
        kinds = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64, np.int64]
        tensors: dict[str, np.ndarray] = {}
        for layer in range(self.random.randint(1, 4)):
            shape = (self.random.choice([1, 7, 64, 200]), self.random.choice([1, 33, 128]))
            values = self.numbers.normal(0, 0.02, shape)
            kind = self.random.choice(kinds)
            tensors[f"layer.{layer}.weight"] = (values * (1e6 if kind is np.int64 else 1)).astype(
                kind
            )
        if self.random.random() < 0.2:
            tensors.update(awkward())
        return tensors

    def new_file(self) -> None:
        """A checkpoint that has nothing to do with what was there."""
        name = self.random.choice(NAMES)
        if name.endswith(".pt"):
            self.write(name, _torch_zip(self._tensors(), self.random.randrange(10**6)))
        elif name.endswith(".bin"):
            self.write(name, self.numbers.bytes(self.random.choice([0, 1, 65, 5000, 700_000])))
        else:
            self.write(name, safetensors(self._tensors(), {"step": str(self.random.random())}))

    def changed_file(self) -> None:
        """A few bytes of a file, or a part of its length, are others."""
        name = self.random.choice(NAMES)
        data = self.read(name)
        if not data:
            return
        changed = bytearray(data)
        kind = self.random.random()
        if kind < 0.5:
            for _ in range(self.random.choice([1, 10, 300])):
                changed[self.random.randrange(len(changed))] ^= self.random.choice([1, 128, 255])
        elif kind < 0.8:
            start = self.random.randrange(len(changed))
            part = np.frombuffer(bytes(changed[start:]), np.uint8)
            changed[start:] = (part + 1).astype(np.uint8).tobytes()
        elif kind < 0.9:
            del changed[self.random.randrange(len(changed)) :]
        else:
            changed += self.numbers.bytes(self.random.choice([1, 1000]))
        self.write(name, bytes(changed))

    # -- operations --------------------------------------------------------------------------------

    def commit(self) -> None:
        self.clean_up()

    def amend(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--amend", "--allow-empty", "-m", "amended")

    def commit_path(self) -> None:
        name = self.random.choice(NAMES)
        if self.read(name) is not None:
            self.git("add", "--", name)
            self.git("commit", "-q", "--allow-empty", "-m", "one path", "--", name, may_fail=True)

    def delete(self) -> None:
        self.git("rm", "-q", "-f", "--ignore-unmatch", "--", self.random.choice(NAMES))

    def rename(self) -> None:
        first, second = self.random.sample(NAMES, 2)
        self.git("add", "-A")
        (self.ours / second).parent.mkdir(parents=True, exist_ok=True)
        (self.plain / second).parent.mkdir(parents=True, exist_ok=True)
        self.git("mv", "-f", first, second, may_fail=True)

    def switch(self) -> None:
        self.clean_up()
        self.git("checkout", "-q", self.random.choice(BRANCHES))

    def look_back(self) -> None:
        self.clean_up()
        branch = self.random.choice(BRANCHES)
        if self.git("checkout", "-q", f"{branch}~{self.random.randint(1, 4)}", may_fail=True):
            self.compare()
        self.git("checkout", "-q", branch)

    def old_file(self) -> None:
        self.git("add", "-A")
        revision = f"{self.random.choice(BRANCHES)}~{self.random.randint(0, 3)}"
        self.git("checkout", "-q", revision, "--", self.random.choice(NAMES), may_fail=True)

    def merge(self) -> None:
        """What collides is settled by a strategy of Git's that needs no driver."""
        self.clean_up()
        option = self.random.choice([["-s", "ours"], ["-X", "theirs", "-s", "subtree"]])[:2]
        if option == ["-X", "theirs"]:
            option = ["--ff-only"]
        self.git("merge", "-q", *option, self.random.choice(BRANCHES), may_fail=True)

    def stash(self) -> None:
        self.git("add", "-A")
        self.git("stash", "push", "-q", may_fail=True)
        self.compare()
        self.git("stash", "pop", "-q", "--index", may_fail=True)

    def reset(self) -> None:
        self.git("add", "-A")
        self.git("reset", "-q", "--hard", self.random.choice(["HEAD", "HEAD~1"]), may_fail=True)

    def soft_reset(self) -> None:
        if self.git(
            "reset", "-q", self.random.choice(["--soft", "--mixed"]), "HEAD~1", may_fail=True
        ):
            self.compare()
        self.clean_up()

    def revert(self) -> None:
        self.clean_up()
        if not self.git("revert", "--no-edit", "HEAD", may_fail=True):
            self.git("revert", "--abort", may_fail=True)

    def squash(self) -> None:
        self.clean_up()
        if self.git("reset", "-q", "--soft", "HEAD~2", may_fail=True):
            self.git("commit", "-q", "--allow-empty", "-m", "squashed")

    def pick(self) -> None:
        """The newest commit of another branch, where it applies to the same files."""
        self.clean_up()
        if not self.git("checkout", "-q", self.random.choice(BRANCHES), may_fail=True):
            return
        self.git("cherry-pick", "-X", "theirs", "--allow-empty", "HEAD", may_fail=True)
        self.git("cherry-pick", "--abort", may_fail=True)

    def clone(self) -> None:
        """A clone holds the same bytes."""
        self.clean_up()
        self.said.append("clone")
        for path in (self.ours, self.plain):
            target = self.folder / f"clone-{path.name}"
            self._run(self.folder, "clone", "-q", "--no-checkout", str(path), str(target))
            if path is self.ours:
                subprocess.run(
                    [sys.executable, "-m", "git_theta_ext.cli.main", "install", "--local"],
                    cwd=target, env=self.environment, check=True, capture_output=True,
                )  # fmt: skip
            self._run(target, "checkout", "-q", "HEAD", "--", ".")
        compare(self.folder / "clone-ours", self.folder / "clone-plain")
        for path in (self.ours, self.plain):
            shutil.rmtree(self.folder / f"clone-{path.name}")

    def worktree(self) -> None:
        self.clean_up()
        self.said.append("worktree")
        for path in (self.ours, self.plain):
            tree = self.folder / f"tree-{path.name}"
            self._run(path, "worktree", "add", "-q", "--detach", str(tree), "HEAD")
        compare(self.folder / "tree-ours", self.folder / "tree-plain")
        for path in (self.ours, self.plain):
            tree = self.folder / f"tree-{path.name}"
            self._run(path, "worktree", "remove", "--force", str(tree))

    def housekeeping(self) -> None:
        self.git("gc", "-q", "--prune=now")
        self.said.append("forget the memo")
        shutil.rmtree(self.ours / ".git/theta/memo", ignore_errors=True)

    def touch(self) -> None:
        self.said.append("touch")
        for name in NAMES:
            for path in (self.ours, self.plain):
                if (path / name).exists():
                    os.utime(path / name)

    # -- the run -----------------------------------------------------------------------------------

    def compare(self) -> None:
        """Every file of the work trees, and what `git status` says of them."""
        self.files += compare(self.ours, self.plain)
        states = [
            subprocess.run(
                ["git", "status", "--porcelain", "-z", "--no-renames"],
                cwd=path, env=self.environment, capture_output=True, check=True,
            ).stdout
            for path in (self.ours, self.plain)
        ]  # fmt: skip
        if states[0] != states[1]:
            raise Difference(f"git status: ours {states[0]!r}, plain {states[1]!r}")

    def run(self, operations: int, report: Callable[[int], object] = lambda _: None) -> int:
        """That many operations, compared after each; the number of files compared.

        Raises:
            Difference: the twins differ.
        """
        changes = [self.new_file, self.changed_file, self.changed_file]
        rest = [
            self.commit, self.commit, self.amend, self.commit_path, self.delete, self.rename,
            self.switch, self.switch, self.look_back, self.old_file, self.merge, self.stash,
            self.reset, self.soft_reset, self.revert, self.squash, self.pick, self.clone,
            self.worktree, self.housekeeping, self.touch,
        ]  # fmt: skip
        for number in range(operations):
            operation = self.random.choice(changes if self.random.random() < 0.4 else rest)
            self.said.append(f"-- {number} {operation.__name__}")
            operation()
            self.compare()
            report(number + 1)
        self._compare_history()
        return self.files

    def _compare_history(self) -> None:
        """Every version of every branch, written out afresh."""
        self.clean_up()
        for branch in BRANCHES:
            for back in range(30):
                if not self.git("checkout", "-q", f"{branch}~{back}", may_fail=True):
                    break
                self.compare()


def _torch_zip(tensors: dict[str, np.ndarray], step: int) -> bytes:
    """A state dict of those that are float32, and a step counter, as `torch.save` writes it."""
    values = {name: value for name, value in tensors.items() if value.dtype == np.float32}
    entries = {
        name: tensor(Storage(str(at), count=value.size), value.shape)
        for at, (name, value) in enumerate(values.items())
    }
    return save(
        {"state_dict": state_dict(entries), "global_step": step},
        {str(at): value.tobytes() for at, value in enumerate(values.values())},
    )


def compare(ours: Path, plain: Path) -> int:
    """Compare all files but Git's own; their number.

    Raises:
        Difference: one is missing on a side, or differs.
    """
    found = []
    for top in (ours, plain):
        paths = (path for path in top.rglob("*") if path.is_file())
        names = {
            path.relative_to(top) for path in paths if ".git" not in path.relative_to(top).parts
        }
        found.append(names - {Path(".gitattributes"), Path(".git")})
    if found[0] != found[1]:
        raise Difference(f"files: only on one side: {sorted(found[0] ^ found[1])}")
    for name in found[0]:
        if (ours / name).read_bytes() != (plain / name).read_bytes():
            raise Difference(f"{name} differs")
    return len(found[0])


SEEDS = (21, 22, 23, 24)
OPERATIONS = 2500
"""Of each seed, in the full run."""


def measure(scale: float) -> list[Row]:
    """Run a share of the operations of every seed.

    Raises:
        Difference: the twins differ; the message begins with the seed.
    """
    operations = max(5, round(OPERATIONS * scale))
    files = 0
    for seed in SEEDS:
        with tempfile.TemporaryDirectory(prefix="theta-twins-") as name:
            twins = Twins(Path(name), seed)
            try:
                files += twins.run(operations)
            except Difference as error:
                said = "\n".join(twins.said[-40:])
                raise Difference(f"seed {seed}: {error}\n{said}") from error
    seeds = f"{SEEDS[0]} to {SEEDS[-1]}"
    return [
        Row(
            "random Git commands on random checkpoints",
            f"{operations * len(SEEDS):,} operations (seeds {seeds}) in a repository of ours and "
            "a plain one; every file and `git status` compared after each, all versions at the end",
            f"{files:,} files compared, 0 differences",
        )
    ]


def main() -> int:
    """Run, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory(prefix="theta-twins-") as name:
        twins = Twins(Path(name), seed)
        try:
            files = twins.run(args.operations)
        except Difference as error:
            print("\n".join(twins.said[-40:]))
            print(f"seed {seed}: {error}")
            return 1
    print(f"seed {seed}: {args.operations} operations, {files} files compared, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
