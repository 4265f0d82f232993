"""Signatures that `models.toml` asks for: they are verified before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from git_theta_ext.core.errors import SignatureError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.packages.locking.bases import Opened
from git_theta_ext.packages.locking.lock_file import LockedModel
from git_theta_ext.packages.locking.project import Project
from git_theta_ext.packages.locking.requirements import Requirement
from git_theta_ext.packages.release.signing import Trust
from git_theta_ext.packages.release.versions import verify_package


def trust_of(one: Requirement, folder: Path) -> Trust | None:
    """Whose signature an entry asks for; None where it asks for none.

    Args:
        one: the entry.
        folder: of the `models.toml`, from which the paths of keys count.

    Raises:
        UsageError: it names nobody, several kinds, or half of one; or a file that cannot be read.
    """
    if not one.signature:
        return None
    words = dict(one.signature)
    key, authority = words.get("public_key"), words.get("certificates")
    trust = Trust(
        None if key is None else folder / key,
        () if authority is None else (folder / authority,),
        words.get("identity"),
        words.get("issuer"),
    )
    try:
        trust.check()
    except UsageError as error:
        raise UsageError(
            f"{one.where}: {one.name}: whose signature is to be verified?",
            hint="write public_key, or certificates, or identity and issuer",
        ) from error
    return trust


def check_signatures(project: Project, rows: Mapping[str, LockedModel], opened: Opened) -> None:
    """Verify the signature of each model that is to bear one; once for each version and key.

    Raises:
        SignatureError: there is none, it is by somebody else, or something was not signed.
        UsageError: see `trust_of`.
    """
    for one in project.wanted:
        trust = trust_of(one, project.folder)
        if trust is None:
            continue
        row, slot = rows[one.name], f"signature:{one.name}"
        mark = repr((row.commit, row.path, row.tensors, one.signature, _content_of(one, trust)))
        mark = hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()
        if project.state.checked.get(slot) != mark:
            package, files = opened(one.name)
            try:
                verify_package(package, files, trust, tensors=row.tensors)
            except SignatureError as error:
                keys = " and ".join(key for key, _ in one.signature)
                raise SignatureError(
                    f"{one.name}: {error.message}", hint=f"{one.where} asks for it: {keys}"
                ) from error
            project.state.checked[slot] = mark


def _content_of(one: Requirement, trust: Trust) -> list[str]:
    """The hashes of the keys: another key under the same name is asked anew."""
    paths = [*([] if trust.public_key is None else [trust.public_key]), *trust.certificates]
    try:
        return [sha256_of(path) for path in paths]
    except OSError as error:
        raise UsageError(
            f"{one.where}: cannot read {printable(str(error.filename))}: {error.strerror}"
        ) from error
