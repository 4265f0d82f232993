"""Git's trees and blobs, listed."""

from __future__ import annotations

import os

from git_theta_ext.git.repository import Repository


def blobs_of(repository: Repository, revision: str) -> list[tuple[str, str]]:
    """The path, from the top, and blob of every regular file of a revision, in Git's order."""
    answer = repository.git("ls-tree", "-r", "-z", "--full-tree", revision)
    rows = []
    for line in answer.split(b"\0")[:-1]:
        fields, path = line.split(b"\t", 1)
        mode, _, oid = fields.decode("ascii").split()
        if mode.startswith("100"):
            rows.append((os.fsdecode(path), oid))
    return rows
