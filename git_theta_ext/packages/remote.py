"""What a remote has: its refs, which of them a version is, and what Git says where it fails."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from git_theta_ext.core import advice
from git_theta_ext.core.errors import RepositoryError, TransferError, UsageError
from git_theta_ext.core.text import nearest, printable
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import own_environment
from git_theta_ext.packages.cache import VERIFY, Cache
from git_theta_ext.packages.sources import is_ref_name

TAGS, BRANCHES = "refs/tags/", "refs/heads/"
ID = re.compile(r"[0-9a-f]{7,64}")
DIGITS = (40, 64)
"""Of a whole object id, by SHA-1 and by SHA-256."""

_SECRET = re.compile(r"(://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Listing:
    """The refs of a remote: object ids, those that tags lead to, and the branch that HEAD is."""

    oids: dict[str, str] = field(default_factory=dict)
    peeled: dict[str, str] = field(default_factory=dict)
    head: str | None = None

    def commit(self, ref: str) -> str:
        """The commit of a ref."""
        return self.peeled.get(ref, self.oids[ref])


def ask(cache: Cache, url: str) -> Listing:
    """The refs of a remote."""
    place = cache.place(url)
    cache.prepare()
    known = cache.is_whole(url)
    where, env = (place, place) if known else (cache.root, cache.root / "nowhere")
    words = ["ls-remote", "--symref", "--", "origin" if known else url]
    answer = told(url, words, where, own_environment(env))
    return listed(os.fsdecode(answer))


def listed(text: str) -> Listing:
    """What `git ls-remote --symref` printed; names that Git itself would refuse are left out.

    A remote may send anything: something that a command of Git takes for an option, for one.
    """
    found, head = Listing(), None
    for line in text.split("\n"):
        oid, _, ref = line.partition("\t")
        if oid.startswith("ref: "):
            target = oid.removeprefix("ref: ")
            head = target if ref == "HEAD" and target.startswith(BRANCHES) else head
            continue
        name = ref.removesuffix("^{}")
        right = name == "HEAD" or (name.startswith("refs/") and is_ref_name(name))
        if right and len(oid) in DIGITS and ID.fullmatch(oid):
            (found.peeled if name != ref else found.oids)[name] = oid
    return replace(found, head=head if head in found.oids else None)


def told(
    url: str, words: list[str], folder: Path, env: dict[str, str], stdin: bytes | None = None
) -> bytes:
    """What Git says of a remote; its complaints without passwords.

    Args:
        url: of the remote, for messages.
        words: what follows `git`.
        folder: where it runs.
        env: its environment.
        stdin: what it reads; None for nothing.

    Raises:
        TransferError: it fails.
    """
    try:
        return run_git(words, folder, stdin=stdin, env=env)
    except RepositoryError as error:
        said = without_secret(error.message.partition(": ")[2])
        raise TransferError(
            f"{shown(url, None)} could not be fetched: {said}",
            hint=VERIFY
            if f"{folder}{os.sep}objects" in said
            else advice.with_name(
                "does Git reach it? git ls-remote URL", without_secret(url), "URL"
            ),
        ) from error


def find_version(listing: Listing, url: str, version: str | None) -> tuple[str | None, str | None]:
    """The ref and the commit that a version is at the remote; neither for the id of a commit."""
    if version is None or version == "HEAD":
        if "HEAD" not in listing.oids:
            raise UsageError(
                f"{shown(url, None)} has no HEAD, so a version has to be named",
                hint=_versions(listing, None),
            )
        return "HEAD", listing.oids["HEAD"]
    for ref in refs_of(version):
        if ref in listing.oids:
            return ref, listing.commit(ref)
    if ID.fullmatch(version):
        return None, version if len(version) in DIGITS else None
    raise UsageError(
        f"{shown(url, None)} has no version {printable(version)!r}",
        hint=_versions(listing, version),
    )


def _versions(listing: Listing, version: str | None) -> str:
    """What there is, for somebody who named something else."""
    names = [
        ref.removeprefix(kind) for kind in (TAGS, BRANCHES) for ref in listing.oids
        if ref.startswith(kind)
    ]  # fmt: skip
    near = nearest(version, names) if version and names else None
    if near is not None:
        return f"did you mean: @{printable(near)}"
    last = ", ".join(map(printable, names[-10:]))
    return f"it has: {last}" if names else "it has neither branches nor tags"


def refs_of(version: str) -> list[str]:
    """The full names that a version may stand for, in the order in which Git looks."""
    if version.startswith("refs/"):
        return [version]
    return [f"{TAGS}{version}", f"{BRANCHES}{version}", f"refs/{version}"]


def without_secret(url: str) -> str:
    """A URL without a user's name and password."""
    return _SECRET.sub(r"\1", url)


def shown(url: str, version: str | None) -> str:
    """A URL and a version as messages have them, without passwords."""
    return printable(without_secret(url) + ("" if version is None else f"@{version}"))
