"""Verification: a folder, some files, or some tensors, against what was signed.

A signature lists the SHA-256 of files. One of them, `theta_tensors.json`, lists the hashes of
tensors: so a part of a checkpoint can be verified without the rest of it.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import SignatureError, UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.packages.release.chosen import SIGNATURE, TENSORS
from git_theta_ext.packages.release.signing import Trust, signed
from git_theta_ext.packages.release.tensors_file import Table, TensorHash, from_bytes, hash_of

GITS = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
"""At the top of a folder, these belong to Git and its host: `model_signing` passes over them."""
_NAMED = 5
"""Files that a message names."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a verified signature is of: files by their paths, and their tensors, if it lists them.

    `shown` is what messages call the signature.
    """

    shown: str
    hashes: Mapping[str, str]
    tensors: Table

    def check_files(self, found: Mapping[str, str]) -> None:
        """Compare files with what was signed.

        Args:
            found: the SHA-256 of each file by its path, from the folder that was signed. Further
                files that were signed may be lacking.

        Raises:
            SignatureError: a file was not signed, or is another one; it names them.
        """
        wrong = [path for path, digest in found.items() if self.hashes.get(path) != digest]
        if wrong:
            unsigned = [path for path in wrong if path not in self.hashes]
            what = "was not signed" if unsigned else "is not what was signed"
            raise SignatureError(f"{_some(unsigned or wrong)} {what}, by {self.shown}")

    def check_manifest(
        self, path: str, manifest: Manifest, names: Collection[str] | None = None
    ) -> None:
        """Compare a checkpoint with what was signed, by its manifest: no object is read.

        Whoever reads its blocks afterwards verifies them by the hashes that are compared here.

        Args:
            path: of the checkpoint, from the folder that was signed.
            manifest: of it.
            names: tensors that are wanted; None is the whole file.

        Raises:
            SignatureError: the signature lists no tensors of that file, or one is another.
        """
        listed = self.tensors.get(path)
        if listed is None:
            raise SignatureError(
                f"{self.shown} does not list the tensors of {printable(path)}: only all of it can "
                "be verified",
                hint="take all of it, or ask for a signature by git theta sign",
            )
        found = hashes_of(manifest, names)
        wrong = [name for name, one in found.items() if listed.tensors.get(name) != one]
        if names is None:
            wrong += [name for name in listed.tensors if name not in found]
        if wrong:
            raise SignatureError(
                f"{_some(wrong)} of {printable(path)}: not what was signed, by {self.shown}"
            )
        if listed.structure not in (None, manifest.skeleton.sha256):
            raise SignatureError(
                f"the structure of {printable(path)} is not what was signed, by {self.shown}"
            )


def _some(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    more = f" and {len(shown) - _NAMED:,} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more


def hashes_of(manifest: Manifest, names: Collection[str] | None = None) -> dict[str, TensorHash]:
    """What the tensors of a checkpoint are, from its manifest: nothing is read.

    Args:
        manifest: of a file; whoever reads its blocks verifies them by the same hashes.
        names: of the tensors; None is all of them.
    """
    entries = manifest.by_name()
    return {
        name: hash_of(entries[name].tensor, tuple(one.sha256 for one in entries[name].blocks))
        for name in (entries if names is None else names)
    }


def verified(signature: bytes, tensors: bytes | None, trust: Trust, shown: str) -> Signed:
    """A signature, once it is verified, with what it says of tensors.

    Args:
        signature: the file.
        tensors: the `theta_tensors.json` that stands beside it, if there is one.
        trust: whose signature is believed.
        shown: what messages call the signature.

    Raises:
        UsageError: `model-signing` is not installed, or a key cannot be read.
        SignatureError: it is not by whom is trusted, or the list of tensors is not what was signed.
    """
    found = Signed(shown, signed(signature, trust, shown), {})
    if tensors is None or TENSORS not in found.hashes:
        return found
    found.check_files({TENSORS: hashlib.sha256(tensors).hexdigest()})
    return Signed(shown, found.hashes, from_bytes(tensors, TENSORS))


def verify_folder(folder: Path, trust: Trust, signature: Path | None = None) -> Signed:
    """Verify all files of a folder: each was signed, is what was signed, and none is lacking.

    Args:
        folder: a release, or any other folder that was signed.
        trust: whose signature is believed.
        signature: the file; by default the folder's `model.sig`.

    Raises:
        UsageError, SignatureError: see `verified`; files differ, lack, or were not signed.
    """
    place = folder / SIGNATURE if signature is None else signature
    text, _ = read_beside(place)
    tensors = _read(folder / TENSORS)
    found = verified(text, tensors, trust, printable(str(place)))
    here = dict(_files(folder, place))
    found.check_files({path: sha256_of(folder / path) for path in here})
    lacking = [path for path in found.hashes if path not in here]
    if lacking:
        raise SignatureError(f"{_some(lacking)}: signed, by {found.shown}, and not there")
    return found


def read_beside(signature: Path) -> tuple[bytes, bytes | None]:
    """A signature of this machine, and the list of tensors beside it, if there is one.

    Raises:
        SignatureError: it is not there.
        UsageError: it cannot be read.
    """
    text = _read(signature)
    if text is None:
        raise SignatureError(f"there is no signature {printable(str(signature))}")
    return text, _read(signature.parent / TENSORS)


def _read(path: Path) -> bytes | None:
    try:
        with files.plain(path, follow=True) as file:
            return file.read(limits.TENSORS_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _files(folder: Path, signature: Path) -> Iterable[tuple[str, Path]]:
    """The files of a folder by their paths, without the signature and what is Git's.

    Raises:
        SignatureError: there is a link, which may lead to other bytes tomorrow.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    for here, folders, names in os.walk(folder, onerror=_unreadable):
        top = Path(here) == folder
        folders[:] = sorted(name for name in folders if not (top and name in GITS))
        for name in [*sorted(names), *folders]:
            path = Path(here) / name
            shown = posixpath.join(*path.relative_to(folder).parts)
            if path.is_symlink():
                raise SignatureError(f"{printable(shown)} is a link, which no signature covers")
            if name in names and path != signature and not (top and name in GITS):
                yield shown, path


def _unreadable(error: OSError) -> None:
    raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def count(found: Signed) -> str:
    """How much was verified, for a reader."""
    tensors = sum(len(one.tensors) for one in found.tensors.values())
    listed = f", {plural(tensors, 'tensor')}" if tensors else ""
    return f"{plural(len(found.hashes), 'file')}{listed}"
