"""Blocks of a file that are not stored yet: where their bytes are, and what they may be made of.

All that Git knows has been asked before. What is left, to hash, to encode and to store, takes the
file and the store alone, so that any process can do it that sees both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.errors import ChangedWhileReadError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats.base import Source
from git_theta_ext.manifest.model import Block
from git_theta_ext.objects.blocks import Blocks

SLICE_BYTES = 96 << 10
"""Read and hashed at once: from here on the C library would map new memory for every read."""


@dataclass(frozen=True, slots=True)
class Unstored:
    """A block to be encoded.

    `name` is its tensor's, `offset` where its bytes are in the file, and `digest` their SHA-256.
    `predecessor` is the block that it is an update of, and `then` what that is; where there is
    none, `guesses` are blocks that may be it. `chunk` says that both are chunks of opaque bytes.
    `instead` is the predecessor, and what it is, where samples say that the block is no
    quantisation of the other.
    """

    name: str
    offset: int
    spec: BlockSpec
    digest: str
    predecessor: Block | None = None
    then: BlockSpec | None = None
    guesses: tuple[Block, ...] = ()
    chunk: bool = False
    instead: tuple[BlockSpec, Block] | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Everything that its encoding depends on, but for what can be had of the guesses."""
        more = (one for one in (self.guesses, self.instead) if one)
        found = (self.then, self.predecessor, *more)
        return (self.digest, self.spec.dtype.name, repr(self.spec.shape), *map(repr, found))

    def store(self, blocks: Blocks, data: bytes) -> Block:
        """Encode its bytes, which are at hand, and store them; errors as for `Blocks.write`."""
        values = np.frombuffer(data, values_dtype(self.spec.dtype))
        predecessor, then = self.predecessor, self.then
        if predecessor is None and self.guesses:
            predecessor, then = blocks.find_kin(self.spec, values, self.guesses), self.spec
        floats = predecessor if self.instead is not None else None
        if floats is not None and then is not None and self.instead is not None:
            made = blocks.quantises(then, floats, self.spec, values)
            then, predecessor = (then, floats) if made else self.instead
        if self.chunk and predecessor is not None:
            return blocks.write_chunk(values, digest=self.digest, predecessor=predecessor)
        return blocks.write(
            self.spec, values, digest=self.digest, predecessor=predecessor, predecessor_spec=then
        )

    def read(self, source: Source) -> bytes:
        """Its bytes, once more.

        Raises:
            ChangedWhileReadError: they are others than were hashed.
        """
        data = source.read(self.offset, self.spec.nbytes)
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise written_to(self.name)
        return data


def written_to(name: str) -> ChangedWhileReadError:
    """The error of a tensor whose bytes became others while they were read."""
    return ChangedWhileReadError(f"{name}: the file was written to while it was read")


def hash_of(source: Source, offset: int, length: int) -> str:
    """The SHA-256 of a range, in hexadecimal, read slice by slice."""
    digest = hashlib.sha256()
    for start in range(offset, offset + length, SLICE_BYTES):
        digest.update(source.read(start, min(SLICE_BYTES, offset + length - start)))
    return digest.hexdigest()
