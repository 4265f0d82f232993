"""The post-checkout, post-merge and post-rewrite hooks: no manifest stays in a checkpoint's place.

Octopus merges and `git merge -s resolve` write the merged blob itself into the work tree, exit
with 0, and `git status` says clean. So after Git has changed the work tree, look at the tracked
paths and write the checkpoints.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.terminal import harmless_streams
from git_theta_ext.core.text import paragraph
from git_theta_ext.git.crashes import hook as crash_hook
from git_theta_ext.git.repository import Repository, skips_smudge
from git_theta_ext.git.setup import hook_scripts, hooks
from git_theta_ext.manifest.model import HEAD_BYTES, MAX_BYTES, SHORTEST, is_manifest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the hook. Git does not stop for its failures: they are told, with the way to go on."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with harmless_streams():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    """Write the checkpoints that a checkout left as manifests, unless the user switched it off."""
    try:
        repository = Repository.discover()
        if repository.work_tree is None or skips_smudge(repository, os.environ):
            return 0
        # Started by a file, though Git 2.54 or newer has started it from git config, too.
        if arguments[:1] != [hook_scripts.CONFIGURED] and any(
            hooks.runs_from_config(repository, name) for name in arguments[:1]
        ):
            return 0
        if not repository.setting("filter.theta.process"):
            return 0  # it is switched off here: Git would take what is written for a change
        paths = manifests_left(repository)
        if paths:
            from git_theta_ext.checkpoints.placed import write_checkpoints

            write_checkpoints(repository, paths)
    except ThetaError as error:
        print(
            f"git theta: error: {paragraph(error.message)}\n"
            "  Manifests were left in place of checkpoints. To write the checkpoints, type:"
            " git theta pull",
            file=sys.stderr,
        )
        return error.exit_code
    return 0


def manifests_left(repository: Repository) -> list[str]:
    """The tracked paths, from the top, at which the work tree holds a manifest."""
    merged = (entry for entry in repository.tracked() if entry.stage == 0)
    return [entry.path for entry in merged if _is_manifest(repository.top / entry.path)]


def _is_manifest(path: Path) -> bool:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or not SHORTEST <= found.st_size <= MAX_BYTES:
            return False
        with path.open("rb") as file:
            return is_manifest(file.read(HEAD_BYTES))
    except OSError:
        return False


if __name__ == "__main__":
    crash_hook.install()
    sys.exit(main())
