"""Signatures of OpenSSF Model Signing: made, and read back. Nothing else imports `model_signing`.

https://github.com/sigstore/model-transparency: a Sigstore bundle with an in-toto statement that
lists the SHA-256 of files. We hash the files ourselves, on their way to the disk, so the package is
given, and gives back, names and hashes: that way a part of what was signed can be verified.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import SignatureError, StoreError, UsageError
from git_theta_ext.core.text import printable

EXTRA = "python -I -m pip install 'git-theta-ext[sign]'"
_METHOD = "files"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Signer:
    """With what is signed: a key, a key and its certificate, or, without them, Sigstore.

    `chain` are certificates between that one and one that is trusted. Sigstore takes the identity
    that the machine has (as in a workflow of GitHub), or opens a browser.
    """

    private_key: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signature is believed: one kind of the three.

    `public_key` is a PEM file of an elliptic curve; `certificates` are PEM files of authorities;
    `identity` and `issuer` are what Sigstore knows a signer by.
    """

    public_key: Path | None = None
    certificates: tuple[Path, ...] = ()
    identity: str | None = None
    issuer: str | None = None

    def check(self) -> None:
        """Refuse what says not whom to trust.

        Raises:
            UsageError: it names none of the three, several, or half of one.
        """
        kinds = [self.public_key, self.certificates, self.identity or self.issuer]
        if sum(map(bool, kinds)) != 1:
            raise UsageError(
                "say whose signature is to be verified",
                hint="add --public-key KEY, or --certificates FILE, or --identity ID --issuer URL",
            )
        if bool(self.identity) != bool(self.issuer):
            raise UsageError("--identity and --issuer belong together")


@dataclass(frozen=True, slots=True)
class _Digest:
    """A digest as `model_signing` has it."""

    algorithm: str
    digest_value: bytes

    @property
    def digest_hex(self) -> str:
        return self.digest_value.hex()


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """The package, silent on standard output, which is for the answers of our commands.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import model_signing
            import model_signing.manifest
            import model_signing.signing
            import model_signing.verifying

            yield model_signing
    except ImportError as error:
        raise UsageError(
            f"signatures need the package model-signing, which is not here: {error}", hint=EXTRA
        ) from error


def sign(hashes: Mapping[str, str], name: str, signer: Signer, ignored: str) -> bytes:
    """Sign files by their hashes.

    Args:
        hashes: the SHA-256 of each file by its path, with slashes.
        name: what the model is called; informative.
        signer: with what.
        ignored: the file that the signature is kept in, which verifiers are told to pass over.

    Returns:
        The signature as a file.

    Raises:
        UsageError: the package, or a key, is not there or of a kind that cannot sign.
        SignatureError: Sigstore gave no signature.
    """
    with _library() as package, tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        target = Path(folder) / "signature"
        try:
            config = _configured(package.signing.Config(), signer)
            config.set_hashing_config(_Given(package.manifest, hashes, name, ignored))
            config.sign(folder, target)
        except OSError as error:
            raise UsageError(f"cannot sign: {error}") from error
        except Exception as error:  # of the package and of those that it uses; there are many
            if signer.private_key is not None:
                raise UsageError(f"cannot sign: {_words(error)}") from error
            raise SignatureError(
                f"Sigstore gave no signature: {_words(error)}",
                hint="it needs the network and an identity; a key of your own needs neither: "
                "--private-key KEY",
            ) from error
        return files.read_whole(target)


def check(signer: Signer) -> None:
    """Find out whether a key can sign, before hours of work are done; Sigstore is not asked.

    Raises:
        UsageError: it cannot, or the package is not there.
    """
    if signer.private_key is None:
        with _library():
            return
    sign({"nothing": "0" * 64}, "nothing", signer, "nothing.sig")


def _configured(config: Any, signer: Signer) -> Any:
    if signer.private_key is None:
        return config.use_sigstore_signer(use_ambient_credentials=True)
    if signer.certificate is None:
        return config.use_elliptic_key_signer(private_key=signer.private_key)
    return config.use_certificate_signer(
        private_key=signer.private_key,
        signing_certificate=signer.certificate,
        certificate_chain=list(signer.chain),
    )


class _Given:
    """What hashes a model for `model_signing`: the hashes are known."""

    def __init__(self, kinds: Any, hashes: Mapping[str, str], name: str, ignored: str) -> None:
        self._kinds, self._hashes, self._name, self._ignored = kinds, hashes, name, ignored

    def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
        """The manifest that is signed."""
        how = self._kinds.SerializationType.from_args(
            {"method": _METHOD, "hash_type": "sha256", "allow_symlinks": False,
             "ignore_paths": [self._ignored]}
        )  # fmt: skip
        items = [
            self._kinds.FileManifestItem(
                path=PurePosixPath(path), digest=_Digest("sha256", bytes.fromhex(digest))
            )
            for path, digest in self._hashes.items()
        ]
        return self._kinds.Manifest(self._name, items, how)


def signed(signature: bytes, trust: Trust, shown: str) -> dict[str, str]:
    """What a signature is of, once it is verified: the SHA-256 of each file by its path.

    Args:
        signature: the file.
        trust: whose signature is believed.
        shown: what messages call the file.

    Raises:
        UsageError: the package is not there, or a key cannot be read.
        SignatureError: it is not by whom is trusted, damaged, or does not list SHA-256 of files.
    """
    trust.check()
    if len(signature) > limits.TENSORS_FILE_BYTES:
        raise SignatureError(f"{shown}: more than {limits.TENSORS_FILE_BYTES} bytes")
    with _library() as package, tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        place = Path(folder) / "signature"
        files.replace_file(place, signature)
        seen = Seen()
        try:
            config = _trusting(package.verifying.Config(), trust)
        except Exception as error:
            raise UsageError(f"cannot verify: {_words(error)}") from error
        try:
            config.set_hashing_config(seen).verify(folder, place)
        except OSError as error:
            raise StoreError(f"cannot verify {shown}: {error}") from error
        except Exception as error:  # a signature is anybody's: it fails in every way there is
            raise SignatureError(
                f"{shown} is not a signature by {_who(trust)}: {_words(error)}"
            ) from error
        return seen.hashes(shown)


def _trusting(config: Any, trust: Trust) -> Any:
    if trust.public_key is not None:
        return config.use_elliptic_key_verifier(public_key=trust.public_key)
    if trust.certificates:
        return config.use_certificate_verifier(certificate_chain=list(trust.certificates))
    return config.use_sigstore_verifier(identity=trust.identity, oidc_issuer=trust.issuer)


def _who(trust: Trust) -> str:
    if trust.public_key is not None:
        return f"the key {printable(str(trust.public_key))}"
    return "a certificate of these authorities" if trust.certificates else str(trust.identity)


def _words(error: Exception) -> str:
    """What an error of the package says to a person."""
    if isinstance(error, AttributeError | TypeError) and "Password" not in str(error):
        return "the key or the signature is of another kind"
    return printable(str(error).strip() or type(error).__name__)


class Seen:
    """Stands where `model_signing` hashes files to compare them with what was signed.

    It is compared with the manifest of the signature once that is verified, keeps it, and is equal.
    What was signed is compared with files by who asked.
    """

    def __init__(self) -> None:
        self._found: Any = None

    def hash(self, model_path: object, *, files_to_hash: object = None) -> Seen:
        return self

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Nothing is looked at, so nothing is ignored."""

    def __ne__(self, other: object) -> bool:
        self._found = other
        return False

    def __eq__(self, other: object) -> bool:
        return not self != other

    __hash__ = None  # type: ignore[assignment]

    def hashes(self, shown: str) -> dict[str, str]:
        """The SHA-256 of each file that was signed.

        Raises:
            SignatureError: it lists other things.
        """
        if self._found is None:
            raise SignatureError(f"{shown}: this version of model-signing verified nothing")
        how = self._found.serialization_type
        rows = list(self._found.resource_descriptors())
        digests = {str(row.identifier): str(row.digest.digest_hex) for row in rows}
        plain = how.get("method") == _METHOD and all(
            row.digest.algorithm == "sha256" and _SHA256.fullmatch(row.digest.digest_hex)
            for row in rows
        )
        if not plain or not digests:
            raise SignatureError(
                f"{shown} does not list the SHA-256 of files: it was made with other settings",
                hint="verify the folder with model_signing verify",
            )
        return digests
