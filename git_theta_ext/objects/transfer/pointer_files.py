"""LFS pointer files, and commits of any number of them that cost one stream and one pack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]+\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n"
)
POINTER_BYTES = 1024
"""A longer file is no pointer (git-lfs, `docs/spec.md`)."""

_VERSIONS = frozenset({
    b"https://git-lfs.github.com/spec/v1", b"https://hawser.github.com/spec/v1",
    b"http://git-media.io/v/2",
})  # fmt: skip
_OID = re.compile(rb"sha256:([0-9a-f]{64})")
_SIZE = re.compile(rb"[0-9]{1,18}")

_REF = "refs/heads/pointers"
_SHA256_DIGITS = 64


def pointer_text(item: UpdateRef) -> str:
    """The canonical LFS pointer file of an object (git-lfs, `docs/spec.md`)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{item.oid}\nsize {item.size}\n"


def read_pointer(text: bytes) -> UpdateRef | None:
    """The object that a pointer file names; None for any other file (git-lfs, `docs/spec.md`)."""
    match = _POINTER.fullmatch(text) if len(text) <= POINTER_BYTES else None
    return None if match is None else UpdateRef("lfs", match[1].decode(), int(match[2]))


def read_any_pointer(text: bytes) -> tuple[UpdateRef, bool] | None:
    """The object that a pointer names, and whether it has extensions; None for any other file.

    In histories there is all that git-lfs reads, not only what it writes today: line ends of
    Windows, a missing last one, the names that the format had before. A pointer that is taken for
    a plain file would be moved in place of the file that it stands for.

    The object of one with extensions is not the file: their programs make that from it.
    """
    if len(text) > POINTER_BYTES:
        return None
    fields: list[tuple[bytes, bytes]] = []
    for line in text.strip().split(b"\n"):
        key, _, value = line.removesuffix(b"\r").partition(b" ")
        if key:
            fields.append((key, value))
    keys = [key for key, _ in fields]
    if keys[:1] != [b"version"] or keys[-2:] != [b"oid", b"size"] or fields[0][1] not in _VERSIONS:
        return None
    extensions = keys[1:-2]
    oid, nbytes = _OID.fullmatch(fields[-2][1]), _SIZE.fullmatch(fields[-1][1])
    if oid is None or nbytes is None or not all(one.startswith(b"ext-") for one in extensions):
        return None
    return UpdateRef("lfs", oid[1].decode("ascii"), int(nbytes[0])), bool(extensions)


def lfs_sizes(repository: Repository, oids: Sequence[str]) -> dict[str, int]:
    """Those of the blobs that are pointers, and the bytes of the file of each."""
    texts = repository.small_blobs(oids, b"version https://git-lfs", POINTER_BYTES)
    found = ((oid, read_pointer(text)) for oid, text in texts)
    return {oid: pointer.size for oid, pointer in found if pointer is not None}


def pointer_path(item: UpdateRef) -> str:
    """Where the pointer file of an object stands in a tree.

    In a folder of few: `git fast-import` searches a folder from its beginning for every file.
    """
    return f"{item.oid[:2]}/{item.oid}"


def commands(
    ref: str, message: bytes, contents: Mapping[str, bytes], parent: str | None = None
) -> bytes:
    """What `git fast-import` reads to commit files, besides those of a parent.

    Args:
        ref: the full name of the ref that moves.
        message: of the commit.
        contents: the files to commit, by path.
        parent: the id of the parent commit; None: the commit has none.
    """
    return b"".join(
        [
            f"commit {ref}\ncommitter theta <theta@localhost> 0 +0000\n".encode(),
            b"data %d\n%s" % (len(message), message),
            f"from {parent}\n".encode() if parent else b"",
            *(
                b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)
                for path, data in sorted(contents.items())
            ),
        ]
    )


def scratch_commit(
    repository: Repository, folder: Path, items: Iterable[UpdateRef], env: Mapping[str, str]
) -> str:
    """A commit whose tree holds a pointer file for each object, in one pack.

    Args:
        repository: names objects as Git does here, by SHA-1 or SHA-256.
        folder: is made, for a repository that only holds the ref; none of the real one is touched.
        items: the objects.
        env: says in `GIT_OBJECT_DIRECTORY` where the pack goes.

    Raises:
        RepositoryError: git fast-import failed.
        OSError: the folder cannot be made.
    """
    (folder / "refs").mkdir(parents=True)
    (folder / "objects").mkdir()
    files.replace_file(folder / "HEAD", b"ref: refs/heads/none\n")
    for name, value in object_format(sha256=names_by_sha256(repository)):
        repository.git("config", "--file", str(folder / "config"), "--", name, value)
    here = {**env, "GIT_DIR": str(folder), "GIT_COMMON_DIR": str(folder)}
    contents = {pointer_path(item): pointer_text(item).encode("ascii") for item in items}
    repository.git(
        # Git would take a small pack apart again, into a file for each object.
        "-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", "--date-format=raw",
        stdin=commands(_REF, b"pointers\n", contents), env=here,
    )  # fmt: skip
    return repository.git("rev-parse", "--verify", _REF, env=here).decode().strip()


def names_by_sha256(repository: Repository) -> bool:
    """Whether a repository names its objects by SHA-256 instead of SHA-1."""
    empty = repository.git("hash-object", "--stdin", "--no-filters", stdin=b"").strip()
    return len(empty) == _SHA256_DIGITS


def object_format(*, sha256: bool) -> list[tuple[str, str]]:
    """The settings that tell Git how a repository names its objects."""
    if not sha256:
        return [("core.repositoryformatversion", "0")]
    return [("core.repositoryformatversion", "1"), ("extensions.objectformat", "sha256")]
