"""`theta.lock`: what was got for `models.toml`, to the byte. Read strictly, and written in one way.

Each model is a paragraph and each file a line, both in order, so that a diff shows what moved and
Git merges what two people moved. Whatever differs from what would be written is refused: an edit by
hand, or a merge that went wrong, is never half believed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.work_tree import parts_of
from git_theta_ext.packages.locking.requirements import LOCK, Requirement

VERSION = 1
HEAD = f"""\
# What git theta sync got for models.toml. Commit it; git theta update moves it.
version = {VERSION}
"""
ANOTHER_LOCK = (
    "git checkout HEAD -- theta.lock   takes the committed one; or remove it: git theta sync then "
    "locks the newest versions that are allowed"
)
"""What to do where the lock itself is wrong."""

_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MARKERS = re.compile(rb"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file that was written.

    Attributes:
        path: from the folder of the model, with slashes.
        blob: Git's id of what is committed: for a checkpoint, its manifest; None where it is no
            one file's, as with `tensors`.
        size, sha256: of the file itself.
    """

    path: str
    blob: str | None
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LockedModel:
    """What was got for one entry.

    Attributes:
        name, url, version, path, tensors, into: as the entry of `models.toml` had them.
        ref: full name of the ref at the remote; None where a commit was asked for.
        commit: its id.
        content: the identity of each checkpoint (`packages.identity`) by its path in the
            repository; all shards of a model are one, under their pattern.
        files: all that were written, by path.
    """

    name: str
    url: str
    version: str | None
    path: str | None
    tensors: tuple[str, ...]
    into: str
    ref: str | None
    commit: str
    content: tuple[tuple[str, str], ...] = ()
    files: tuple[LockedFile, ...] = ()

    def is_of(self, wanted: Requirement) -> bool:
        """Whether it still is what an entry asks for, in the same place."""
        return self.is_version_of(wanted) and (self.path, self.tensors, self.into) == (
            wanted.path, wanted.tensors, wanted.into,
        )  # fmt: skip

    def is_version_of(self, wanted: Requirement) -> bool:
        """Whether it was resolved for the same version of the same repository."""
        return (self.url, self.version) == (wanted.url, wanted.version)

    @property
    def label(self) -> str:
        """What people call the version: `v1.2`, or `main (1a2b3c4d5e)`."""
        return label(self.ref, self.commit)


def label(ref: str | None, commit: str) -> str:
    """What people call a version: a tag by its name, a branch with its commit."""
    if ref is None:
        return commit[:10]
    if ref.startswith("refs/tags/"):
        return ref.removeprefix("refs/tags/")
    return f"{ref.removeprefix('refs/heads/')} ({commit[:10]})"


def lock_text(models: Iterable[LockedModel]) -> bytes:
    """The one text of these models.

    Raises:
        UsageError: a name in it is not Unicode, which no TOML can hold.
    """
    lines = [HEAD]
    for model in sorted(models, key=lambda one: one.name):
        lines.append("\n".join(["[[model]]", *_pairs(model), ""]))
    try:
        return "\n".join(lines).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{LOCK} cannot hold a name that is not UTF-8: {printable(str(error.object)[:200])}"
        ) from error


def _pairs(model: LockedModel) -> Iterator[str]:
    """The lines of a model after its heading."""
    yield f"name = {quoted(model.name)}"
    yield f"url = {quoted(model.url)}"
    for key in ("version", "path"):
        value = getattr(model, key)
        if value is not None:
            yield f"{key} = {quoted(value)}"
    if model.tensors:
        yield f"tensors = [{', '.join(map(quoted, model.tensors))}]"
    yield f"into = {quoted(model.into)}"
    if model.ref is not None:
        yield f"ref = {quoted(model.ref)}"
    yield f"commit = {quoted(model.commit)}"
    if model.content:
        yield "content = ["
        for path, identity in sorted(model.content):
            yield f"  {{ path = {quoted(path)}, identity = {quoted(identity)} }},"
        yield "]"
    yield "files = ["
    for file in sorted(model.files, key=lambda one: one.path):
        blob = "" if file.blob is None else f" blob = {quoted(file.blob)},"
        yield (
            f"  {{ path = {quoted(file.path)},{blob} size = {file.size}, "
            f"sha256 = {quoted(file.sha256)} }},"
        )
    yield "]"


def quoted(text: str) -> str:
    """A text as a string of TOML, on one line; what nobody can see in it is escaped."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_character, text))}"'


def _character(char: str) -> str:
    if char in ('"', "\\"):
        return f"\\{char}"
    if printable(char) == char or "\ud800" <= char <= "\udfff":
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# -- reading ---------------------------------------------------------------------------------------


def parse_lock(data: bytes) -> dict[str, LockedModel]:
    """The models of a `theta.lock`, by name.

    Line ends of Windows, which Git may have made of it, are taken.

    Raises:
        UsageError: it is not what `lock_text` writes; says what is wrong with it.
    """
    if len(data) > limits.LOCK_BYTES:
        raise UsageError(f"{LOCK} is larger than {limits.LOCK_BYTES} bytes")
    if _MARKERS.search(data):
        raise UsageError(
            f"{LOCK} has conflict markers",
            hint="settle models.toml, then: git checkout --theirs theta.lock && git theta sync",
        )
    text = data.replace(b"\r\n", b"\n")
    if not text.startswith(HEAD.encode()):
        _refuse_version(text)
    document = _document(text)
    rows = document.get("model", [])
    if not isinstance(rows, list) or len(rows) > limits.MODELS:
        raise _damaged(f"it has no list of at most {limits.MODELS} models")
    models = {}
    for row in rows:
        model = _model(row)
        models[model.name] = model
    if sum(len(model.files) for model in models.values()) > limits.LOCKED_FILES:
        raise _damaged(f"it names more than {limits.LOCKED_FILES} files")
    if lock_text(models.values()) != text:
        raise _damaged("it is not as git theta writes it")
    return models


def _document(text: bytes) -> Mapping[str, Any]:
    """Its tables; each line is looked at first, for TOML can be made to take long."""
    for line in text.split(b"\n"):
        if line and not _LINE.fullmatch(line):
            raise _damaged(f"this line is not understood: {line[:200]!r}")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _damaged(f"it is not TOML: {error}") from error


_LINE = re.compile(rb'#.*|\[\[model\]\]|\]|[a-z]+ = (?:[0-9]+|".*"|\[.*)|  \{ .* \},')


def _refuse_version(text: bytes) -> None:
    found = re.match(rb"#[^\n]*\nversion = ([0-9]{1,9})\n", text)
    if found and int(found[1]) > VERSION:
        raise UsageError(
            f"{LOCK} is of version {int(found[1])}, and this program reads version {VERSION}",
            hint="pip install --upgrade git-theta-ext",
        )
    raise _damaged("its first lines are not as git theta writes them")


def _model(row: object) -> LockedModel:
    """A model of its table; UsageError where a value is missing, or of the wrong kind."""
    if not isinstance(row, dict):
        raise _damaged("a model is no table")
    taken = _Taken(row)
    model = LockedModel(
        taken.text("name"), taken.text("url"), taken.text_or_none("version"),
        taken.text_or_none("path"), taken.texts("tensors"), taken.place("into"),
        taken.text_or_none("ref"), taken.matching("commit", _HEX),
        tuple(
            (one.text("path"), one.matching("identity", _SHA256)) for one in taken.rows("content")
        ),
        tuple(
            LockedFile(
                one.place("path"),
                one.matching("blob", _HEX) if one.has("blob") else None,
                one.number("size"),
                one.matching("sha256", _SHA256),
            )
            for one in taken.rows("files")
        ),
    )  # fmt: skip
    if len({file.path for file in model.files}) != len(model.files):
        raise _damaged(f"{model.name} has a file twice")
    return model


class _Taken:
    """A table whose values are taken out by kind; others are found by the text being written."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def has(self, key: str) -> bool:
        return key in self._row

    def text_or_none(self, key: str) -> str | None:
        value = self._row.get(key)
        if value is not None and not isinstance(value, str):
            raise _damaged(f"{key} is no text")
        return value

    def text(self, key: str) -> str:
        value = self.text_or_none(key)
        if value is None:
            raise _damaged(f"a model or a file has no {key}")
        return value

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.text(key)
        if not pattern.fullmatch(value):
            raise _damaged(f"{key} = {value[:100]!r} is no hash")
        return value

    def place(self, key: str) -> str:
        """A path that stays inside its folder: what it names is written, and removed."""
        value = self.text(key)
        try:
            parts_of(value)
        except StoreError as error:
            raise _damaged(f"{key} = {error.message}") from error
        return value

    def number(self, key: str) -> int:
        value = self._row.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _damaged(f"{key} is no number of bytes")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise _damaged(f"{key} is no list of texts")
        return tuple(value)

    def rows(self, key: str) -> list[_Taken]:
        value = self._row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise _damaged(f"{key} is no list of tables")
        return [_Taken(one) for one in value]


def _damaged(why: str) -> UsageError:
    return UsageError(
        f"{LOCK} cannot be read: {why}",
        hint=ANOTHER_LOCK,
    )
