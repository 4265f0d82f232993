"""What `git mergetool` does around the tool it starts, and what that leaves for us to do.

It moves the file aside (`$BACKUP`), starts the tool, and then either adds the file and keeps the
backup as `FILE.orig`, or puts the backup back. It can have one tool for all files (`merge.tool`):
what is no checkpoint is handed on to the tool that Git finds when none is configured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from git_theta_ext.checkpoints.shards import names_model, pattern_of
from git_theta_ext.core import files
from git_theta_ext.core.text import printable, size
from git_theta_ext.git.process import run_git, run_in_terminal
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.manifest.model import is_manifest

_MANIFEST_BYTES = 1 << 24
"""A version longer than this is not read to see whether it is a manifest."""


def is_checkpoint(repository: Repository, path: str) -> bool:
    """Whether a path in conflict is ours to merge: tracked, or a manifest on some side."""
    if "theta" in (repository.attribute("filter", path), repository.attribute("merge", path)):
        return True
    entries = repository.index(literal(path))
    if any(_is_manifest(repository, entry.oid) for entry in entries):
        return True
    if not names_model(path):
        return False
    shards = repository.index(f":(top,glob){pattern_of(path)}")
    return any(repository.attribute("filter", one.path) == "theta" for one in shards[:1])


def hand_on(path: str) -> int:
    """Let the tool that Git finds when none is configured merge a file; its exit status."""
    return run_in_terminal(["-c", "merge.tool=", "mergetool", "--", path])


def backup_lines(repository: Repository, path: str, backup: str) -> Sequence[str]:
    """Keep the backup that git mergetool is about to leave from being added; what to say of it.

    It is as large as the checkpoint, is not one by its name, and `git add .` would take it whole.
    Git has no setting by tool for it, and the user's own is not ours to change.

    Raises:
        OSError: Git's list of ignored files cannot be written.
    """
    if not repository.flag("mergetool.keepBackup", True):
        return []
    left = f"{path}.orig"
    try:
        length = size(os.stat(backup).st_size)
    except OSError:
        return []
    ignored = _ignore(repository, left)
    name = printable(left)
    held = "which git add ignores here" if ignored else "which you should not add"
    return [
        f"  {name} will be the file as it was before ({length}), {held}; you can remove it",
        "  (git config mergetool.keepBackup false   leaves none)",
    ]


def _ignore(repository: Repository, path: str) -> bool:
    """Make Git ignore a file in this repository, in its own list; whether it does."""
    if "\n" in path or repository.index(literal(path)):
        return False
    name = os.fsencode(path)
    asked = ["check-ignore", "-z", "--stdin"]
    if run_git(asked, repository.top, stdin=name + b"\0", ok=(0, 1, 128)):
        return True
    line = b"/" + re.sub(rb"([\\*?\[\] ])", rb"\\\1", name)
    place = repository.common_dir / "info" / "exclude"
    before = _read(place)
    if line not in before.splitlines():
        place.parent.mkdir(exist_ok=True)
        gap = b"" if not before or before.endswith(b"\n") else b"\n"
        files.replace_file(place, before + gap + line + b"\n")
    return True


def _read(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return b""


def _is_manifest(repository: Repository, oid: str) -> bool:
    if not repository.blob_size(oid) <= _MANIFEST_BYTES:
        return False
    return is_manifest(repository.blob(oid))
