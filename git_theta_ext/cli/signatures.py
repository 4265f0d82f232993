"""Options about signatures: with what is signed, and whose signature is believed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.release.signing import Signer, Trust


def add_signer(parser: Any) -> None:
    """Add `--private-key` and the certificates that go with it."""
    parser.add_argument(
        "--private-key", type=Path, metavar="KEY",
        help="sign with this key (PEM, elliptic curve); without one, by Sigstore",
    )  # fmt: skip
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the certificate of the key (PEM)"
    )
    parser.add_argument(
        "--certificate-chain", type=Path, action="append", default=[], metavar="FILE",
        help="certificates between that one and a trusted one; may be given more than once",
    )  # fmt: skip


def signer_of(args: argparse.Namespace) -> Signer:
    """With what is signed.

    Raises:
        UsageError: a certificate without a key.
    """
    if args.private_key is None and (args.certificate or args.certificate_chain):
        raise UsageError("a certificate belongs to a key", hint="add --private-key KEY")
    if args.certificate_chain and not args.certificate:
        raise UsageError("--certificate-chain leads from a certificate", hint="add --certificate")
    return Signer(args.private_key, args.certificate, tuple(args.certificate_chain))


def signs(args: argparse.Namespace) -> bool:
    """Whether any option about signing was given."""
    return bool(args.private_key or args.certificate or args.certificate_chain)


def add_trust(parser: Any) -> None:
    """Add `--public-key`, `--certificates`, `--identity` and `--issuer`."""
    parser.add_argument(
        "--public-key", type=Path, metavar="KEY",
        help="verify: the signature must be by this key (PEM, elliptic curve)",
    )  # fmt: skip
    parser.add_argument(
        "--certificates", type=Path, action="append", default=[], metavar="FILE",
        help="verify: by a certificate of these authorities (PEM)",
    )  # fmt: skip
    parser.add_argument(
        "--identity", metavar="ID", help="verify: by this identity of Sigstore, such as an address"
    )
    parser.add_argument("--issuer", metavar="URL", help="verify: who vouches for the identity")


def trust_of(args: argparse.Namespace) -> Trust | None:
    """Whose signature is believed; None where no option says so.

    Raises:
        UsageError: several kinds are given, or half of one.
    """
    found = Trust(args.public_key, tuple(args.certificates), args.identity, args.issuer)
    if found == Trust():
        return None
    found.check()
    return found
