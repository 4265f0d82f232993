"""Where results are kept: a ref whose tree has, for each content, a file for each result.

`refs/theta/evaluations` is this clone's own; `refs/theta/remotes/NAME/evaluations` is what was
fetched from a remote. A file is named by the hash of what it says and never changes, so the trees
can always be united, and reading all of them at once is the union (decision 0019).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError, RepositoryError
from git_theta_ext.core.text import printable
from git_theta_ext.evaluation.records import from_bytes, to_bytes
from git_theta_ext.evaluation.ref_names import REF, REMOTES
from git_theta_ext.evaluation.results import Result
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.transfer.pointer_files import commands

_MESSAGE = b"Keep results of evaluations\n"
_README = b"""Results of evaluations, kept by git-theta for the tensors that were measured.

    git theta scores PATH     shows them
"""
_ATTEMPTS = 20
_ASKED = 400
"""Folders that one `git ls-tree` is asked for: the command line has an end."""
_BATCH_BYTES = 64 << 20


class Kept:
    """The results that a repository holds, and where new ones go."""

    def __init__(self, repository: Repository) -> None:
        """Results that others add while this is at work may not be seen."""
        self._repository = repository
        self._tips = tips(repository)

    def of(
        self, contents: Iterable[str], *, outcomes: bool = False
    ) -> dict[str, tuple[Result, ...]]:
        """The results of some checkpoints, by content, the newest first.

        A file that is no result is passed over with a warning on stderr. Of one content, at most
        `limits.RESULTS` are read.

        Args:
            contents: identities (`evaluation.content`).
            outcomes: load the outcomes of examples too.
        """
        files = self._files(dict.fromkeys(contents))
        wanted = [oid for name, oid in files.items() if outcomes or name.endswith(".json")]
        found: dict[str, list[Result]] = {}
        texts: dict[str, bytes] = {}
        for batch in self._batches(wanted):
            texts.update(self._repository.blobs(batch))
        for name, oid in files.items():
            if not name.endswith(".json") or oid not in texts:
                continue
            beside = files.get(f"{name.removesuffix('.json')}.bin") if outcomes else None
            content = name.split("/")[1]
            result = _read(name, texts[oid], texts.get(beside or ""), content)
            if result is not None:
                found.setdefault(content, []).append(result)
        return {
            content: tuple(sorted(results, key=lambda one: (-one.when, one.by, one.source)))
            for content, results in found.items()
        }

    def add(self, results: Iterable[Result]) -> None:
        """Keep some results; all of them are there when this returns.

        Raises:
            EvaluationError: one is too large; none was kept.
            RepositoryError: Git could not write them.
        """
        contents: dict[str, bytes] = {"README": _README}
        for result in results:
            record, outcomes = to_bytes(result)
            name = hashlib.sha256(record).hexdigest()[:32]
            place = f"{result.content[:2]}/{result.content}/{name}"
            contents[f"{place}.json"] = record
            if outcomes:
                contents[f"{place}.bin"] = outcomes
        if len(contents) > 1:
            advance(self._repository, contents)
            self._tips = tips(self._repository)

    def _files(self, contents: Iterable[str]) -> dict[str, str]:
        """Path and blob of every file of these contents: of each folder, and of none below it.

        The trees may be a server's, so no more is listed than what was asked for.
        """
        folders = [f"{content[:2]}/{content}/" for content in contents]
        found: dict[str, str] = {}
        counts: dict[str, int] = {}
        for tip in self._tips:
            for at in range(0, len(folders), _ASKED):
                for entry in self._repository.tree(tip, *folders[at : at + _ASKED]):
                    folder = os.path.dirname(entry.path)
                    counts[folder] = counts.get(folder, 0) + 1
                    if entry.kind == "blob" and counts[folder] <= 2 * limits.RESULTS:
                        found[entry.path] = entry.oid
        return found

    def _batches(self, oids: Iterable[str]) -> Iterator[list[str]]:
        """The blobs that are small enough, as many at a time as may be held twice."""
        batch: list[str] = []
        held = 0
        for oid, size in self._repository.blob_sizes(oids).items():
            if size > limits.OUTCOMES_BYTES:
                continue
            if batch and held + size > _BATCH_BYTES:
                yield batch
                batch, held = [], 0
            batch.append(oid)
            held += size
        if batch:
            yield batch


def _read(name: str, record: bytes, outcomes: bytes | None, content: str) -> Result | None:
    """A result; None, said on stderr, where it is none, or one of another content."""
    try:
        result = from_bytes(record, outcomes)
        if result.content != content:
            raise FormatError("it is about another checkpoint")
    except FormatError as error:
        print(
            f"git theta: warning: {printable(name)} in {REF} is no result: "
            f"{printable(error.message)}",
            file=sys.stderr,
        )
        return None
    return result


def tips(repository: Repository) -> list[str]:
    """The commits that results are read from: this clone's, and what was fetched.

    Raises:
        RepositoryError: this clone's ref is broken: what it held cannot be told from nothing.
    """
    answer = repository.git("for-each-ref", "--format=%(objectname) %(refname)", REF, REMOTES)
    rows = [line.split(" ", 1) for line in os.fsdecode(answer).splitlines()]
    wanted = [oid for oid, name in rows if name == REF or name.endswith("/evaluations")]
    if all(name != REF for _, name in rows) and (repository.common_dir / REF).exists():
        raise RepositoryError(f"{REF} is broken: its file names no commit")
    return list(dict.fromkeys(wanted))


def advance(repository: Repository, contents: Mapping[str, bytes]) -> None:
    """Add files to this clone's ref; what somebody else adds meanwhile stays.

    Raises:
        RepositoryError: Git could not write them.
    """
    for attempt in range(_ATTEMPTS):
        tip = repository.resolve(REF)
        made = commit_files(repository, contents, tip)
        try:
            repository.git("update-ref", REF, made, tip or "")
            return
        except RepositoryError:
            if attempt == _ATTEMPTS - 1 or repository.resolve(REF) == tip:
                raise


def commit_files(repository: Repository, contents: Mapping[str, bytes], parent: str | None) -> str:
    """The id of a commit with these files besides its parent's, which no ref names.

    Raises:
        RepositoryError: git fast-import failed.
    """
    scratch = f"refs/theta/scratch-{secrets.token_hex(8)}"
    try:
        repository.git(
            "fast-import", "--quiet", "--date-format=raw",
            stdin=commands(scratch, _MESSAGE, contents, parent),
        )  # fmt: skip
        commit = repository.resolve(scratch)
    finally:
        with suppress(RepositoryError):
            repository.git("update-ref", "-d", scratch)
    if commit is None:
        raise RepositoryError("git fast-import made no commit")
    return commit
