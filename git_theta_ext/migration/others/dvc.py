"""Files that DVC tracks: `NAME.dvc` in Git, the bytes in a cache by their MD5.

Sources: dvc.org/doc/user-guide/project-structure (dvc-files, internal-files), DVC 2 and 3. An MD5
tells files apart that nobody made to be alike; every file is hashed before it is taken.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from git_theta_ext import formats
from git_theta_ext.core import files
from git_theta_ext.core.errors import (
    CorruptObjectError,
    FormatError,
    MissingObjectError,
    StoreError,
    UsageError,
)
from git_theta_ext.core.text import printable
from git_theta_ext.evaluation.readers import yaml_subset
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.object_pipes import ObjectPipes, folder_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import WorkTree, parts_of
from git_theta_ext.migration.found import walk
from git_theta_ext.migration.importing import Importing
from git_theta_ext.migration.rewrite import Contents
from git_theta_ext.migration.selection import Selection

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_POINTER_BYTES = 1 << 16
_LISTING_BYTES = 64 << 20
_PLAIN_BYTES = 50 << 20
"""Files of a tracked folder that are no checkpoints become blobs, up to so many bytes together."""


@dataclass(frozen=True, slots=True)
class Out:
    """One output of a `.dvc` file: its name beside that, and the MD5 of a file or of a listing."""

    name: str
    md5: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an output: its path from the folder of the `.dvc` file, and its MD5."""

    path: str
    md5: str


def outs_of(text: bytes) -> list[Out]:
    """The outputs of a `.dvc` file that lie beside it in a cache; none where it is no such file."""
    try:
        found: Any = yaml_subset.parse(text.decode("utf-8"))
    except (FormatError, UnicodeDecodeError):
        return []
    rows = found.get("outs") if isinstance(found, dict) else None
    if not isinstance(rows, list) or found.get("wdir", ".") != ".":
        return []
    made = []
    for row in rows:
        if not isinstance(row, dict) or row.get("cache") is False:
            return []
        name, md5 = row.get("path"), row.get("md5")
        if not isinstance(name, str) or not isinstance(md5, str) or not _MD5.fullmatch(md5):
            return []
        if "/" in name or not _is_plain(name):
            return []
        made.append(Out(name, md5))
    return made


def _is_plain(path: str) -> bool:
    try:
        return bool(parts_of(path)) and "\0" not in path
    except StoreError:
        return False


class Cache:
    """The folders in which DVC keeps files by their MD5."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Nothing is read before it is asked for."""
        self._folders = folders

    @classmethod
    def of(cls, repository: Repository, named: Path | None = None) -> Cache:
        """That of a repository: the folder named, `cache.dir` of its settings, `.dvc/cache`."""
        top = repository.work_tree or repository.git_dir
        projects = [top / ".dvc"]
        if repository.work_tree is not None:  # `dvc init --subdir` makes one in a folder
            inside = repository.index(":(top,glob)*/**/.dvc/config")
            projects += [(top / one.path).parent for one in inside]
        found = [] if named is None else [named]
        for project in projects:
            for name in ("config.local", "config"):
                parser = configparser.ConfigParser(interpolation=None, strict=False)
                with suppress(OSError, configparser.Error, UnicodeDecodeError):
                    parser.read_string(files.read_whole(project / name).decode("utf-8"))
                    folder = parser.get("cache", "dir", fallback="")
                    found += [project / folder] if folder else []
            found.append(project / "cache")
        return cls(found)

    def find(self, md5: str) -> Path | None:
        """The file of an MD5; the layouts of DVC 3 and of DVC 2 are looked for."""
        for folder in self._folders:
            for place in (folder / "files" / "md5", folder):
                path = place / md5[:2] / md5[2:]
                if path.is_file():
                    return path
        return None

    @contextmanager
    def opened(self, path: str, md5: str) -> Iterator[Path]:
        """A file that was hashed.

        Raises:
            MissingObjectError: it is not there.
            CorruptObjectError: its MD5 is another one.
        """
        found = self.find(md5)
        if found is None:
            raise MissingObjectError(f"{printable(path)}: {md5} is not in the cache of DVC")
        digests = md5s_of(found)
        if md5[:32] not in digests:
            raise CorruptObjectError(f"{found} is damaged: its MD5 is {digests[0]}")
        yield found

    def members(self, out: Out) -> list[Member] | None:
        """The files of an output; None where the listing of a folder is not there.

        Raises:
            FormatError: the listing is none.
            CorruptObjectError: it is damaged.
        """
        if not out.is_folder:
            return [Member(out.name, out.md5)]
        if self.find(out.md5) is None:
            return None
        with self.opened(out.name, out.md5) as path:
            if path.stat().st_size > _LISTING_BYTES:
                raise FormatError(f"{path} is longer than a listing of DVC")
            rows: Any = json.loads(files.read_whole(path))
        found = []
        for row in rows if isinstance(rows, list) else [None]:
            name = row.get("relpath") if isinstance(row, dict) else None
            md5 = row.get("md5") if isinstance(row, dict) else None
            if not (isinstance(name, str) and isinstance(md5, str) and _is_plain(name)):
                raise FormatError(f"{path} is no listing of DVC")
            if not _MD5.fullmatch(md5) or md5.endswith(".dir"):
                raise FormatError(f"{path} is no listing of DVC")
            found.append(Member(f"{out.name}/{name}", md5))
        if _clash(one.path for one in found):
            raise FormatError(f"{path} is no listing of DVC: two files would be in one place")
        return found


def _clash(paths: Iterable[str]) -> bool:
    """Whether two files have one path, or one of them that of a folder with another in it."""
    ordered = sorted(path.split("/") for path in paths)
    return any(two[: len(one)] == one for one, two in pairwise(ordered))


def md5s_of(path: Path) -> tuple[str, str]:
    """The MD5 of a file, and that which DVC 2 gives a text: of its lines with the ends of Unix.

    It did so by pieces of 1 MiB. Source: dvc_data.hashfile.hash of DVC 2.58.
    """
    plain, unix = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    for piece in files.pieces_of(path):
        plain.update(piece)
        unix.update(piece.replace(b"\r\n", b"\n"))
    return plain.hexdigest(), unix.hexdigest()


def require_unchanged(repository: Repository, tracked: Iterable[Tracked]) -> None:
    """Refuse where a file that DVC put into the work tree, and Git ignores, was changed since.

    Raises:
        UsageError: names it; it would be lost.
    """
    if repository.work_tree is None:
        return
    tree = WorkTree(repository.top)
    for one in tracked:
        folder = one.path.rpartition("/")[0]
        for member in one.members:
            path = f"{folder}/{member.path}" if folder else member.path
            if not tree.has_file(path):
                continue
            if member.md5 not in md5s_of(repository.top / path):
                raise UsageError(
                    f"{printable(path)} is not what {printable(one.path)} names: it would be lost",
                    hint="record it by dvc commit, or bring it back by dvc checkout",
                )


@dataclass(frozen=True, slots=True)
class Tracked:
    """A `.dvc` file of a history: which files it stands for, or that some are missing.

    `why` says why it stays as it is; the empty string: it does not.
    """

    path: str
    oid: str
    members: tuple[Member, ...]
    nbytes: int
    missing: tuple[Member, ...]
    why: str = ""


class Looking:
    """Looks at `.dvc` files."""

    def __init__(self, pipes: ObjectPipes, cache: Cache, selection: Selection) -> None:
        """Nothing is read before it is asked for."""
        self._pipes, self.cache, self.selection = pipes, cache, selection

    def all_of(self, commits: Sequence[str]) -> Iterator[Tracked]:
        """The `.dvc` files of a history, each version once."""
        for path, oid in walk(self._pipes, commits, lambda name: name.endswith(".dvc")):
            found = self.look(path, oid)
            if found is not None:
                yield found

    def look(self, path: str, oid: str) -> Tracked | None:
        """What a `.dvc` file stands for; None where it is none, or stands for no checkpoint."""
        stated = self._pipes.size(oid)
        if stated is None or stated[1] > _POINTER_BYTES:
            return None
        outs = outs_of(self._pipes.read(oid, "blob"))
        folder = path.rpartition("/")[0]
        members: list[Member] = []
        missing: list[Member] = []
        for out in outs:
            below = self.cache.members(out)
            if below is None:
                missing.append(Member(out.name, out.md5))
            members += below or []
        missing += [one for one in members if self.cache.find(one.md5) is None]
        if not outs or not (missing or any(self.is_meant(folder, one) for one in members)):
            return None
        plain = sum(self._size(one) for one in members if not self.is_meant(folder, one))
        why = f"{plain} bytes in it are no checkpoints" if plain > _PLAIN_BYTES else ""
        total = sum(self._size(one) for one in members)
        return Tracked(path, oid, tuple(members), total, tuple(missing), why)

    def _size(self, one: Member) -> int:
        path = self.cache.find(one.md5)
        return 0 if path is None else path.stat().st_size

    def is_meant(self, folder: str, one: Member) -> bool:
        """Whether a file becomes a manifest: by its name, or by what it is."""
        path = f"{folder}/{one.path}" if folder else one.path
        if not self.selection.names(path):
            return False
        found = self.cache.find(one.md5)
        if found is None or not found.stat().st_size:
            return False
        if not self.selection.by_content(path):
            return True
        with FileSource(found) as source:
            return formats.sniff(source) != opaque.NAME


class ImportingDvc:
    """A converter: see `rewrite.Converter`."""

    def __init__(self, importing: Importing, looking: Looking) -> None:
        """`importing` stores files, and tracks them in `.gitattributes`."""
        self._importing, self._looking = importing, looking
        self.begin = importing.begin
        self.top = importing.top

    def folder(self, contents: Contents) -> None:
        """See `rewrite.Converter`."""
        for name, item in list(contents.items.items()):
            if not item.is_file or not name.endswith(b".dvc"):
                continue
            found = self._looking.look(contents.path_of(name), item.oid)
            if found is None or found.why or found.missing:
                continue
            tops = {one.path.split("/")[0] for one in found.members}
            _require_free(contents, tops)
            self._replace(contents, found)
            del contents.items[name]
            self._ignore_no_longer(contents, tops)
        if contents.path:
            self._importing.track_below(contents)

    def _replace(self, contents: Contents, found: Tracked) -> None:
        """Put the files that a `.dvc` file stands for into its folder."""
        blobs: dict[str, str] = {}
        for one in found.members:
            path = contents.path_of(os.fsencode(one.path))
            cache = self._looking.cache
            if self._looking.is_meant(contents.path, one):
                key = f"md5 {one.md5} {path}"
                blobs[one.path] = self._importing.stored(key, path, cache.opened(path, one.md5))
                contents.moved.append(path)
            else:
                with cache.opened(path, one.md5) as file:
                    blobs[one.path] = self._importing.pipes.write_file("blob", file)
        for item in folder_of(self._importing.pipes, blobs):
            contents.items[item.name] = item

    def _ignore_no_longer(self, contents: Contents, tops: set[str]) -> None:
        """Take the lines out of `.gitignore` that DVC put there."""
        item = contents.items.get(b".gitignore")
        if item is None or not item.is_file:
            return
        ours = {b"/" + os.fsencode(top) for top in tops}
        text = self._importing.pipes.read(item.oid, "blob")
        kept = b"".join(
            line for line in text.splitlines(keepends=True) if line.rstrip(b"\r\n") not in ours
        )
        if kept:
            oid = self._importing.pipes.write("blob", kept)
            contents.items[b".gitignore"] = item._replace(oid=oid)
        else:
            del contents.items[b".gitignore"]


def _require_free(contents: Contents, names: Iterable[str]) -> None:
    """Refuse where Git has files of names that DVC tracks, too.

    Raises:
        UsageError: names one.
    """
    for name in sorted(names):
        if os.fsencode(name) in contents.items:
            path = contents.path_of(os.fsencode(name))
            raise UsageError(
                f"{printable(path)} is tracked by DVC and by Git in one commit",
                hint="leave it as it is: --exclude PATTERN",
            )
