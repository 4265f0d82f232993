"""Symbolic links that match a tracked pattern: Git stores where they lead, and no checkpoint.

A folder of the Hugging Face cache is made of them: its snapshots link to files elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from git_theta_ext.cli.whole import with_filter
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import is_link

_LINK = "120000"


def tracked(repository: Repository) -> list[str]:
    """The paths, from the top, of links of the work tree that a tracked pattern matches.

    Git itself does not look into folders of untracked files where it is asked for an attribute.
    """
    names = [entry.path for entry in repository.index(":(top)") if entry.mode == _LINK]
    others = repository.git(
        "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", ":(top)"
    )
    names += [os.fsdecode(name) for name in others.split(b"\0")[:-1]]
    links = dict.fromkeys(name for name in names if is_link(repository.top / name))
    return sorted(with_filter(repository, list(links)))


def sentences(repository: Repository, found: Sequence[str]) -> list[str]:
    """What such links mean, and what to type; nothing where there are none."""
    if not found:
        return []
    way = "cp -L FILE FILE.whole && mv FILE.whole FILE && git add FILE"
    lines = [
        f"{plural(len(found), 'symbolic link')}, such as {printable(found[0])}: Git stores where a "
        "link leads, not the checkpoint that is there.",
        f"  to store the checkpoint: {advise(repository, way, found[0])}",
    ]
    if len(found) > 1:
        lines.append("  (a whole folder: cp -rL FOLDER COPY   makes files of all links in it)")
    return lines
