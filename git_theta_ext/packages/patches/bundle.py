"""The lines before the pack of a bundle, and what a patch says of itself.

A patch is a bundle that `git bundle verify` and `git fetch` take. Beside HEAD and its branch it
has one ref, `refs/theta/patch`: a commit whose files are a description of the patch, the manifests
of the version that the update is made from, and the objects that the receiver lacks.

Source: gitformat-bundle(5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError

REF = "refs/theta/patch"
DESCRIPTION = "description"
"""The file of that ref's commit which says what the patch is."""
VERSION = 1

_SIGNATURES = {b"# v2 git bundle": 2, b"# v3 git bundle": 3}
_OID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})")
_BRANCH = re.compile(r"refs/heads/[!-~\x80-\U0010ffff]{1,1000}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = {"sha1": 40, "sha256": 64}


def is_bundle(head: bytes) -> bool:
    """Whether a file that begins so may be a bundle."""
    return head.partition(b"\n")[0] in _SIGNATURES


@dataclass(frozen=True, slots=True)
class Header:
    """The lines of a bundle: commits that the receiver must have, with their subjects, and refs."""

    algorithm: str
    prerequisites: tuple[tuple[str, str], ...]
    refs: tuple[tuple[str, str], ...]

    def text(self) -> bytes:
        """The lines, the empty one at their end included."""
        first = "# v2 git bundle\n"
        if self.algorithm != "sha1":
            first = f"# v3 git bundle\n@object-format={self.algorithm}\n"
        needed = "".join(f"-{oid} {subject}\n" for oid, subject in self.prerequisites)
        refs = "".join(f"{oid} {name}\n" for name, oid in self.refs)
        return f"{first}{needed}{refs}\n".encode("utf-8", "surrogateescape")

    def at(self, ref: str) -> str:
        """What a ref names; empty where there is none."""
        return dict(self.refs).get(ref, "")


def read_header(file: IO[bytes]) -> tuple[Header, int]:
    """The lines of a bundle, and where its pack begins.

    Raises:
        FormatError: it is no bundle, or no patch: then it has other refs.
    """
    file.seek(0)
    head = file.read(limits.PATCH_HEAD_BYTES)
    text, end, _ = head.partition(b"\n\n")
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    if not end or not is_bundle(head):
        raise FormatError("it does not begin as a bundle of Git does")
    lines.pop(0)
    algorithm = "sha1"
    while lines and lines[0].startswith("@"):
        name, _, value = lines.pop(0)[1:].partition("=")
        if name != "object-format" or value not in _DIGITS:
            raise FormatError(f"it asks for {name!r}, which is not known here")
        algorithm = value
    prerequisites, refs = [], []
    for line in lines:
        oid, _, rest = line.removeprefix("-").partition(" ")
        if not _OID.fullmatch(oid) or len(oid) != _DIGITS[algorithm]:
            raise FormatError(f"{line[:80]!r} names no object")
        if line.startswith("-"):
            prerequisites.append((oid, rest))
        else:
            refs.append((rest, oid))
    return _checked(Header(algorithm, tuple(prerequisites), tuple(refs))), len(text) + 2


def _checked(header: Header) -> Header:
    """The lines of a patch: its own refs, and no other."""
    names = [name for name, _ in header.refs]
    if REF not in names:
        raise FormatError(
            "it is a bundle, but no patch of git theta",
            hint="git fetch FILE   takes what is in a bundle",
        )
    branches = [name for name in names if name not in ("HEAD", REF)]
    if len(names) != len(set(names)) or len(branches) > 1 or "HEAD" not in names:
        raise FormatError(f"it has the refs {', '.join(names[:5])}; a patch has one branch")
    for name in branches:
        if not _BRANCH.fullmatch(name) or ".." in name or header.at(name) != header.at("HEAD"):
            raise FormatError(f"it has the ref {name!r}, which no patch has")
    return header


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that differs between the two versions: its blobs, where they are manifests or not.

    `was` is its name before, where it has another one; `base` and `new` are empty where it is not
    there. `checkpoint` says that one of them is a manifest.
    """

    path: str
    was: str
    mode: str
    base: str
    new: str
    checkpoint: bool


@dataclass(frozen=True, slots=True)
class Description:
    """What a patch says of itself.

    `base` and `tip` are the commits of the two versions; `structures` are skeletons, by the SHA-256
    of their bytes, that lie in it plain, for receivers whose models come from elsewhere.
    """

    base: str
    tip: str
    files: tuple[Changed, ...]
    structures: tuple[str, ...] = ()

    def text(self) -> bytes:
        """As it is stored: JSON on one line a file."""
        rows = ",\n".join(json.dumps(asdict(one), sort_keys=True) for one in self.files)
        rest = {"version": VERSION, "base": self.base, "tip": self.tip,
                "structures": list(self.structures)}  # fmt: skip
        return f'{json.dumps(rest, sort_keys=True)[:-1]}, "files": [\n{rows}\n]}}\n'.encode()

    @classmethod
    def parse(cls, text: bytes) -> Description:
        """Read it strictly.

        Raises:
            FormatError: it is none, or one of a newer version.
        """
        try:
            found = json.loads(text)
            version = found["version"]
            if version != VERSION:
                raise FormatError(f"it is a patch of version {version!r}; this program reads 1")
            files = tuple(_changed(one) for one in _listed(found["files"]))
            structures = tuple(_matching(_SHA256, one) for one in _listed(found["structures"]))
            return cls(_matching(_OID, found["base"]), _matching(_OID, found["tip"]), files,
                       structures)  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"what it says of itself is damaged: {error!r}") from error


def _listed(value: Any) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > limits.PATCH_FILES:
        raise ValueError("a list that is none, or too long")
    return value


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{str(value)[:80]!r} names no object")
    return value


def _changed(row: dict[str, Any]) -> Changed:
    found = Changed(**row)
    texts = (found.path, found.was, found.mode)
    if not all(isinstance(text, str) for text in texts) or not isinstance(found.checkpoint, bool):
        raise ValueError("a file that is described by no texts")
    for oid in (found.base, found.new):
        if oid != "":
            _matching(_OID, oid)
    return found
