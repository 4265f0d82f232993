"""The one tree of exceptions: each class carries its exit code, each message says what to do next.

Everything that can go wrong for a reason outside the program (a damaged file, a missing object, a
full disk, a merge conflict) is a subclass of `ThetaError`. Anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class ThetaError(Exception):
    """Base of every error that a user can see; `exit_code` is what the process returns for it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """`message` says what, where, expected and found; `hint` says what to type next."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class UsageError(ThetaError):
    """The command line, a setting or an environment variable is not usable."""

    exit_code = 2


class FormatError(ThetaError):
    """A file claims to be of a known container but its structure is not one that can be split.

    Never fatal when adding a file: the caller falls back to the opaque format.
    """

    exit_code = 3


class BoundError(FormatError):
    """A file is past a limit of what is read of its structure, so it is kept as opaque bytes.

    Unlike other reasons for that it is told: the file may well be whole.
    """


class ManifestError(ThetaError):
    """A manifest is damaged, edited by hand, or carries conflict markers; names the line."""

    exit_code = 4


class CorruptObjectError(ThetaError):
    """A stored object, or what it decodes to, does not have the bytes that its hash promises."""

    exit_code = 5


class MissingObjectError(ThetaError):
    """An object is neither in the local store nor could it be fetched."""

    exit_code = 6


class UnknownUpdateError(ThetaError):
    """A parameter file is of a kind of update that no installed module can decode."""

    exit_code = 7


class ChangedWhileReadError(ThetaError):
    """A checkpoint changed, shrank or grew while it was being added."""

    exit_code = 8


class TransferError(ThetaError):
    """Objects could not be sent to, or had from, a remote."""

    exit_code = 9


class RepositoryError(ThetaError):
    """Git could not do what was asked, or there is no repository here, or no work tree."""

    exit_code = 10


class StoreError(ThetaError):
    """The local store, a file or the output cannot be written or read (full disk, permissions)."""

    exit_code = 11


class ProtocolError(ThetaError):
    """Git, or whoever started a driver, sent something that the protocol does not allow."""

    exit_code = 12


class ClusterError(ThetaError):
    """The machines that the work was sent to are not there, or cannot do it."""

    exit_code = 13


class EvaluationError(ThetaError):
    """An evaluation failed, took too long, or gave no result that can be read."""

    exit_code = 14


class SignatureError(ThetaError):
    """A signature is not of these files, not by this key, or not there."""

    exit_code = 15
