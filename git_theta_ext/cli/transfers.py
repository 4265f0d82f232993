"""What `git theta fetch`, `pull` and `push` share: arguments, and which manifests are meant."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.text import paragraph, printable
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import LISTED
from git_theta_ext.objects.transfer import endpoints

_DAY = 86_400


def split_remote(repository: Repository, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The remote, if the first word names one (or is a URL), and the other words."""
    if not words:
        return None, []
    first = words[0]
    remotes = lines_of(repository.git("remote"))
    if first in remotes or ("/" in first and repository.resolve(first) is None):
        return first, list(words[1:])
    return None, list(words)


def remote_for_push(repository: Repository, named: str | None) -> str:
    """The remote to push to: the one named, else the one that Git would choose.

    Raises:
        UsageError: there is none.
    """
    remote = named or repository.setting("remote.pushDefault")
    remote = remote or endpoints.default_remote(repository)
    if remote is None:
        raise UsageError("this repository has no remote", hint="git remote add origin URL")
    return remote


def commits(repository: Repository, revisions: Sequence[str], *, every: bool) -> list[str]:
    """The object ids of revisions, or of everything that a ref names and HEAD.

    Raises:
        UsageError: a revision is not one.
    """
    if every:
        answer = repository.git("for-each-ref", "--format=%(objectname)").decode()
        head = repository.resolve("HEAD")
        return list(dict.fromkeys([*answer.split(), *([head] if head else [])]))
    found = []
    for revision in revisions:
        oid = repository.resolve(revision)
        if oid is None:
            raise _unknown(revision)
        found.append(oid)
    return found


def trees(repository: Repository, revisions: Sequence[str]) -> list[str]:
    """The tree of each revision: what a checkout of it would write, without its history.

    Raises:
        UsageError: a revision is not one, or names a blob.
    """
    found = []
    for revision in revisions:
        if (tree := repository.resolve(f"{revision}^{{tree}}")) is None:
            raise _unknown(revision)
        found.append(tree)
    return found


def recent(repository: Repository, remote: str | None) -> list[str]:
    """The trees of what is recent, by the settings that `git lfs fetch --recent` goes by.

    These are the tips of branches and tags of the last `lfs.fetchrecentrefsdays` days (7), those of
    the remote as well unless `lfs.fetchrecentremoterefs` is false, and of each tip, as of HEAD's,
    the commits of the `lfs.fetchrecentcommitsdays` days before it (0: the tip alone).

    Raises:
        UsageError: a setting is no number of days.
    """
    newest = int(time.time()) - _days(repository, "lfs.fetchrecentrefsdays", 7) * _DAY
    spaces = ["refs/heads", "refs/tags"]
    remote = remote or endpoints.default_remote(repository)
    if remote is not None and repository.setting("lfs.fetchrecentremoterefs") != "false":
        spaces.append(f"refs/remotes/{remote}")
    answer = repository.git("for-each-ref", "--format=%(objectname)", *spaces).decode()
    tips = dict.fromkeys(answer.split())
    head = repository.resolve("HEAD")
    before = _days(repository, "lfs.fetchrecentcommitsdays", 0) * _DAY
    found: dict[str, None] = {}
    for tip in dict.fromkeys([*([head] if head else []), *tips]):
        shown = repository.git("log", "-1", "--format=%ct %T", tip, ok=(0, 128)).split()
        if len(shown) != 2 or (tip != head and int(shown[0]) < newest):
            continue  # a tag of something else than a commit, or an old one
        found[shown[1].decode()] = None
        if before:
            since = f"--since={int(shown[0]) - before}"
            found.update(dict.fromkeys(
                repository.git("log", "--format=%T", since, tip).decode().split()
            ))  # fmt: skip
    return list(found)


def _days(repository: Repository, name: str, default: int) -> int:
    value = repository.setting(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit():
        raise UsageError(f"{name} is {printable(value)}: a number of days was expected")
    return int(value)


def _unknown(word: str) -> UsageError:
    if word == "HEAD":
        return UsageError("there is no commit here yet")
    return UsageError(f"{printable(word)} is neither a remote nor a revision here", hint=LISTED)


def warn_of_damage(oid: str, error: ManifestError) -> None:
    """Say that a blob begins like a manifest and is none; it names no objects."""
    message = paragraph(error.message)
    print(f"git theta: warning: blob {oid}: {message}", file=sys.stderr)


def source(places: Sequence[str]) -> str:
    """Where objects came from, as the end of a sentence; empty for git-lfs's folder here."""
    return f" from {', '.join(map(printable, places))}" if places else ""
