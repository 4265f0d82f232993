"""Keys that tests sign with."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec


def keys(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """A private key and its public key, as PEM files `NAME.pem` and `NAME.pub`."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    form, plain = pem.PrivateFormat.PKCS8, pem.NoEncryption()
    private.write_bytes(key.private_bytes(pem.Encoding.PEM, form, plain))
    shape = pem.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, shape))
    return private, public
