"""`models.toml`: the models that a project needs, where they are, and where to put them.

A pure function of the file's bytes. `docs/locking.md` has the grammar.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.text import nearest, printable
from git_theta_ext.git.settings_file import Rows, Table, tables
from git_theta_ext.git.work_tree import parts_of
from git_theta_ext.packages.locking.versions import is_constraint, parse_constraint

FILE = "models.toml"
LOCK = "theta.lock"
STATE = ".theta-sync"
"""A folder beside them: what was written, so that it can be told from what somebody changed."""

SIGNATURE_KEYS = ("identity", "issuer", "public_key", "certificates")
"""Whose signature a model must bear."""

_KEYS = (
    "name", "url", "version", "path", "tensors", "into", "base", "alone", *SIGNATURE_KEYS,
)  # fmt: skip
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One `[[model]]`.

    Attributes:
        name: of letters, digits and `._+-`; what commands and messages call it.
        url: anything that Git takes; a relative path counts from the folder of `models.toml`.
        version: a tag, a branch, a commit, or a constraint; None: what the remote's HEAD is.
        path: a checkpoint or a folder in that repository; None: everything.
        tensors: patterns of the tensors that are wanted; empty: all.
        into: the folder to put it into, from that of `models.toml`, with slashes.
        base: the name of the model that this one, an adapter, must have been made on.
        alone: its version is chosen without regard to other entries of the same repository.
        signature: whose signature it must bear: pairs of `SIGNATURE_KEYS` and values.
        where: what messages call the entry: the file, and its line.
    """

    name: str
    url: str
    version: str | None = None
    path: str | None = None
    tensors: tuple[str, ...] = ()
    into: str = ""
    base: str | None = None
    alone: bool = False
    signature: tuple[tuple[str, str], ...] = ()
    where: str = FILE


def parse(data: bytes) -> tuple[Requirement, ...]:
    """The models that a `models.toml` asks for, in its order.

    Raises:
        UsageError: it is not usable; names the entry, and the line where that can be told.
    """
    rows = Rows(tables(data, FILE, ("model",)), "model", data, FILE)
    if len(rows.rows) > limits.MODELS:
        raise UsageError(f"{FILE}: {len(rows.rows)} [[model]]; at most {limits.MODELS}")
    found = tuple(_requirement(rows, number) for number in range(len(rows.rows)))
    _refuse_collisions(found)
    _check_bases(found)
    return found


def _requirement(rows: Rows, number: int) -> Requirement:
    """One entry; UsageError where a key is missing, unknown or of the wrong kind."""
    rows.refuse_unknown(number, _KEYS)
    table = Table(rows, number)
    name, url = table.name("base"), table.text("url")
    if url is None:
        raise table.error(
            None, f'{name} has no url, such as url = "https://host/org/model" or "../model"'
        )
    _check_url(rows.where(number, "url"), url)
    version, path = table.text("version"), table.text("path")
    if version is not None:
        _check_version(rows.where(number, "version"), version)
    if path is not None:
        path = path.rstrip("/")
        _check_path(rows.where(number, "path"), "path", path)
    into = (table.text("into") or name).removeprefix("./").rstrip("/")
    _check_path(rows.where(number, "into"), "into", into)
    signature = [(key, value) for key in SIGNATURE_KEYS if (value := table.text(key)) is not None]
    where = rows.where(number).partition(": [[")[0]
    return Requirement(
        name, url, version, path, table.texts("tensors"), into, table.text("base"),
        table.flag("alone", False), tuple(signature), where,
    )  # fmt: skip


def _check_url(where: str, url: str) -> None:
    """Git must not take it for an option, nor for a program to run (`ext::sh -c …`)."""
    if url.startswith("-") or _UNSAFE.search(url.replace("\\", "/")):
        raise UsageError(f"{where}: {url!r} is no url")
    if re.match(r"[A-Za-z0-9+.-]+::", url):
        raise UsageError(
            f"{where}: {url!r} names a helper program of Git, which is not started",
            hint="https://…, ssh://…, HOST:PATH and paths are taken",
        )


def _check_version(where: str, version: str) -> None:
    if version.startswith("-") or _UNSAFE.search(version):
        raise UsageError(f"{where}: {version!r} is no version")
    if is_constraint(version):
        try:
            parse_constraint(version)
        except UsageError as error:
            raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
    elif re.search(r"[\s~^:?*\[]", version):
        raise UsageError(
            f"{where}: {version!r} is neither a tag, a branch, a commit nor a constraint",
            hint="constraints are written as ^1.2, ~1.2.3, 1.*, or >=1.2,<2",
        )


def _check_path(where: str, key: str, path: str) -> None:
    """Refuse what leaves the folder, or leads into `.git`, as Git does."""
    if _UNSAFE.search(path):
        raise UsageError(f"{where}: {key} = {path!r}: write folders with / between them")
    try:
        parts = parts_of(path)
    except StoreError as error:
        said = error.message.replace(": it is not written", "")
        said = said.replace("inside the work tree", f"inside the folder of {FILE}")
        raise UsageError(f"{where}: {key} = {said}") from error
    if key == "into" and _folded(parts[0]) in (FILE, LOCK, STATE):
        raise UsageError(
            f"{where}: into = {printable(path)}: {printable(parts[0])} has its own use"
        )


def _folded(text: str) -> str:
    """How a file system that knows no case, or composes letters, sees a name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _refuse_collisions(found: tuple[Requirement, ...]) -> None:
    """Refuse two models of one name, or whose folders are one or lie in each other."""
    names: dict[str, Requirement] = {}
    folders: list[tuple[tuple[str, ...], Requirement]] = []
    for one in found:
        other = names.setdefault(_folded(one.name), one)
        if other is not one:
            raise UsageError(
                f"{one.where}: there is a model {other.name!r} already ({other.where})",
                hint="give each a name of its own",
            )
        folders.append((tuple(map(_folded, one.into.split("/"))), one))
    for (parts, one), (below, other) in _neighbours(folders):
        if below[: len(parts)] == parts:
            how = "both go" if parts == below else "go"
            raise UsageError(
                f"{other.where}: {one.name} and {other.name} {how} into {printable(one.into)}"
                f"{'' if parts == below else f' and {printable(other.into)}, which lies in it'}",
                hint='give each a folder of its own: into = "…"',
            )


def _neighbours(
    folders: list[tuple[tuple[str, ...], Requirement]],
) -> Iterator[tuple[tuple[tuple[str, ...], Requirement], tuple[tuple[str, ...], Requirement]]]:
    """Each folder with the next one in order: what lies in a folder comes right after it."""
    ordered = sorted(folders, key=lambda pair: pair[0])
    return itertools.pairwise(ordered)


def _check_bases(found: tuple[Requirement, ...]) -> None:
    names = [one.name for one in found]
    for one in found:
        if one.base is None:
            continue
        if one.base == one.name:
            raise UsageError(f"{one.where}: {one.name} cannot be its own base")
        if one.base not in names:
            near = nearest(one.base, names)
            raise UsageError(
                f"{one.where}: base = {one.base!r}: there is no model of this name",
                hint=f"did you mean {near}?" if near else f"there are: {', '.join(names)}",
            )
