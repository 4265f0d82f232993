"""The base of an adapter that is released: found by what the user typed, named by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages import sources
from git_theta_ext.packages.base_file import BaseRecord, base_text
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import fetch
from git_theta_ext.packages.identity import identity_of, tensors_of
from git_theta_ext.packages.release.chosen import SeveralModelsError, choose
from git_theta_ext.packages.release.write import Base
from git_theta_ext.packages.remote import without_secret


@dataclass(frozen=True, slots=True)
class Pinned:
    """A model whose version is known to the commit: where it is, and how people call it."""

    url: str
    version: str
    commit: str
    path: str | None


def base_of(
    repository: Repository, text: str, pinned: Callable[[Repository, str], Pinned | None]
) -> Base:
    """The base that `--adapter` names.

    Args:
        repository: that of the adapter.
        text: `URL@VERSION[:PATH]`, the `NAME[@VERSION]` of a model that is locked here, or
            `REV[:PATH]` of this repository. A PATH is needed where a version has several
            checkpoints.
        pinned: finds what is locked here under a name.

    Raises:
        UsageError: there is no such version, or not one checkpoint in it; or another one is locked.
        TransferError: it cannot be fetched.
    """
    if sources.is_source(text):
        source = sources.parse(text)
        package = fetch(Cache.open(), source.url, source.version)
        where = without_secret(source.url), source.version
        return _described(package.repository, package.commit, source.path, where, text)
    locked = pinned(repository, text)
    if locked is not None:
        package = fetch(Cache.open(), locked.url, None, commit=locked.commit)
        where = without_secret(locked.url), locked.version
        return _described(package.repository, package.commit, locked.path, where, text)
    revision, _, path = text.partition(":")
    commit = repository.resolve(f"{revision}^{{commit}}")
    if commit is None:
        raise UsageError(
            f"{printable(text)!r} is neither a version of this repository nor URL@VERSION",
            hint=f"write {sources.FORM}",
        )
    url = repository.setting("remote.origin.url")
    here: tuple[str | None, str | None] = (None if url is None else without_secret(url), revision)
    return _described(repository, commit, path or None, here, text)


def _described(
    repository: Repository,
    commit: str,
    path: str | None,
    where: tuple[str | None, str | None],
    text: str,
) -> Base:
    """The one model of a commit, as the file that names a base says it; `text` is what was typed.

    Raises:
        UsageError: there are none, or several.
    """
    typed = text if path is None else text.removesuffix(f":{path}")
    try:
        found = choose(repository, commit, path, text).weights
    except SeveralModelsError as error:
        what = advice.word(f"{typed}:{error.names[0]}")
        message = f"{printable(text)}: {error.message}"
        raise UsageError(message, hint=f"say which one: --adapter {what}") from error
    if len(found) != 1:
        raise UsageError(
            f"{printable(text)} has {len(found)} models that may be the base",
            hint=f"name its checkpoint: {typed}:PATH",
        )
    (model,) = found
    blobs = {name: repository.blob_at(commit, name) or "" for name, _ in model.parts}
    record = BaseRecord(
        *where, commit, model.path, identity_of(model.manifests), blobs,
        tensors_of(model.manifests),
    )  # fmt: skip
    return Base(record.label, base_text(record))
