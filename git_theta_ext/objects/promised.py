"""What a partial clone lacks: Git's objects that it left at a remote, which promised to have them.

Git fetches one of these when a command reads it (gitpartial(5), "partial-clone"). Whoever lists a
history must not take what is left out for what does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from git_theta_ext.core import advice
from git_theta_ext.core.errors import RepositoryError, TransferError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.repository import Repository

_FETCH = (
    "-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "--no-tags",
    "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin",
)  # fmt: skip
"""As Git itself asks for objects by their names; of a tree the folders in it come along."""


def listed(
    repository: Repository, request: Iterable[str], options: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """What `git rev-list --objects` reaches: the objects that are here, and those that are not.

    No remote is asked, and what only a tree that is not here names is in neither list.

    Args:
        repository: any, bare ones too.
        request: full object ids, some with `^` before them; those that are not here are ignored.
        options: more of rev-list's, such as `--all`.
    """
    answer = repository.git(
        "rev-list", "--objects", "--no-object-names", "--ignore-missing", "--missing=print",
        *options, "--stdin", stdin="".join(f"{one}\n" for one in request).encode(),
    )  # fmt: skip
    here: list[str] = []
    absent: list[str] = []
    for line in answer.decode("ascii").split():
        (absent if line.startswith("?") else here).append(line.removeprefix("?"))
    if absent:
        # The index names this one for a file whose content is yet to be added.
        empty = repository.git("hash-object", "-t", "blob", "--stdin").decode().strip()
        absent = [oid for oid in absent if oid != empty]
    return here, absent


def all_listed(
    repository: Repository, request: Iterable[str], options: Sequence[str] = ()
) -> list[str]:
    """As the first of `listed`, after what is not here was fetched; for nothing else is it asked.

    Raises:
        TransferError: no remote gives it.
    """
    wanted = list(request)
    here, absent = listed(repository, wanted, options)
    while absent:
        bring(repository, absent)
        before = set(absent)
        here, absent = listed(repository, wanted, options)
        if not before.isdisjoint(absent):
            raise TransferError(
                f"{plural(len(absent), 'object')} of Git that are not here were not given by any"
                " remote that promised them",
                hint="git fsck",
            )
    return here


def bring(repository: Repository, oids: Sequence[str]) -> None:
    """Fetch objects of Git from the remotes that promised them, all at once from each.

    Raises:
        TransferError: a remote cannot be reached, none promised anything, or none may be asked.
    """
    what = f"{plural(len(oids), 'object')} of Git that are not here"
    if repository.offline:
        raise TransferError(f"{what} were not fetched: no remote is asked (offline)")
    request = "".join(f"{oid}\n" for oid in oids).encode()
    failed = TransferError(f"{what} were promised by no remote", hint="git fsck")
    for remote in remotes_of(repository):
        try:
            repository.git(*_FETCH, "--", remote, stdin=request)
            return
        except RepositoryError as error:
            failed = TransferError(
                f"{what} were not given by {printable(remote)}: {error.message}",
                hint=advice.with_name("does Git reach it? git ls-remote URL", remote, "URL"),
            )
    raise failed


def remotes_of(repository: Repository) -> list[str]:
    """The remotes that promised what is not here; none in a whole clone."""
    answer = repository.git(
        "config", "-z", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$",
        ok=(0, 1),
    )  # fmt: skip
    found: dict[str, None] = {}
    for item in answer.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        name, _, value = item.partition("\n")
        if name == "extensions.partialclone":
            found[value] = None
        elif repository.flag(name):
            found[re.sub(r"^remote\.(.*)\.promisor$", r"\1", name, flags=re.DOTALL)] = None
    return list(found)
