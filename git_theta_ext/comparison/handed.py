"""Two files that Git hands to a diff driver or a difftool: temporary, of the work tree, or none."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from git_theta_ext.checkpoints.versions import Side, open_side
from git_theta_ext.comparison.files import Pair
from git_theta_ext.core.errors import RepositoryError, ThetaError
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks

NOTHING = ("/dev/null", "nul", "NUL")
"""What Git names where there is no file on one side."""


def handed(path: str, old_file: str, new_file: str) -> Pair:
    """The two versions of a checkpoint, to be closed; each file is a manifest or a checkpoint.

    Args:
        path: what they are versions of.
        old_file, new_file: where they are, or one of `NOTHING`.

    Raises:
        ThetaError: one of them cannot be read, or is neither.
    """
    old = _side(old_file)
    try:
        return Pair(path, old, _side(new_file))
    except BaseException:
        if old is not None:
            old.close()
        raise


def _side(name: str) -> Side | None:
    if name in NOTHING:
        return None
    try:
        return open_side(Path(name), _blocks())
    except OSError as error:
        raise ThetaError(f"cannot read {name}: {error.strerror}") from error


@cache
def _blocks() -> Blocks | None:
    """The store of the repository; None outside one, as for `git diff --no-index`."""
    try:
        return Blocks.open(Repository.discover())
    except RepositoryError:
        return None
