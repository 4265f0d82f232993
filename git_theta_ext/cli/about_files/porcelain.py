"""`git theta status --porcelain`: one line a tracked file, in a format that does not change."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from git_theta_ext.cli import stored_whole
from git_theta_ext.git.attributes import quote

_STORED = {
    "manifest": "T",
    "damaged manifest": "D",
    stored_whole.LFS: "L",
    stored_whole.PLAIN: "W",
    "empty": "E",
}
_THERE = {
    "checkpoint": "C",
    "manifest": "M",
    "git-lfs pointer": "L",
    "absent": "-",
    "unreadable": "?",
}


def lines(rows: Iterable[Mapping[str, Any]], *, nul: bool) -> bytes:
    """The lines of the files; the format is in `docs/commands/status.md`.

    Args:
        rows: the files, as `git theta status --json` has them.
        nul: NUL ends each line and paths are as they are; else a line feed, and odd paths quoted.
    """
    end = b"\0" if nul else b"\n"
    return b"".join(_line(row, nul=nul) + end for row in rows)


def _line(row: Mapping[str, Any], *, nul: bool) -> bytes:
    state = "U" if row["conflict"] else "S" if row["staged"] else "."
    fields = [
        state + ("M" if row["modified"] and not row["conflict"] else "."),
        _STORED[row["stored_as"]] + _THERE[row["work_tree"]],
        str(row.get("missing_objects", 0)),
        str(len(row["open"])),
        row["path"] if nul else quote(row["path"]),
    ]
    return os.fsencode(" ".join(fields))
