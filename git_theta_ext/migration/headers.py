"""Commits and tags as Git writes them: their names of other objects replaced, all else kept.

Authors, dates, encodings, signatures and unknown lines stay byte for byte. A signature no longer
fits then, as after `git lfs migrate`, and fits again when the history is moved back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from git_theta_ext.core.errors import RepositoryError


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: the ids of its tree and parents, and the bytes that follow them."""

    tree: str
    parents: tuple[str, ...]
    rest: bytes

    def to_bytes(self) -> bytes:
        """The commit as Git stores it."""
        parents = "".join(f"parent {one}\n" for one in self.parents)
        return f"tree {self.tree}\n{parents}".encode() + self.rest


def parse_commit(data: bytes) -> Commit:
    """A commit from its bytes.

    Raises:
        RepositoryError: it does not begin as commits do.
    """
    head, feed, rest = data.partition(b"\n")
    if not head.startswith(b"tree ") or not feed:
        raise RepositoryError("a commit of this repository is damaged")
    parents = []
    while rest.startswith(b"parent "):
        line, _, rest = rest.partition(b"\n")
        parents.append(line[7:].decode("ascii", "replace"))
    return Commit(head[5:].decode("ascii", "replace"), tuple(parents), rest)


def moved_tag(data: bytes, moved: Mapping[str, str]) -> tuple[str, bytes]:
    """An annotated tag that names what became of its object; and what it named before.

    Raises:
        RepositoryError: it does not begin as tags do.
    """
    head, feed, rest = data.partition(b"\n")
    if not head.startswith(b"object ") or not feed:
        raise RepositoryError("a tag of this repository is damaged")
    old = head[7:].decode("ascii", "replace")
    return old, b"object " + moved.get(old, old).encode() + b"\n" + rest
