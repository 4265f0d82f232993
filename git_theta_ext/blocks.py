"""Blocks in and out of the store: rebuild one from its chain, verified, or encode and store one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from git_theta_ext.errors import CorruptObjectError, ThetaError, UnknownUpdateError
from git_theta_ext.manifest import Block, UpdateRef
from git_theta_ext.store import Store
from git_theta_ext.tensors import DTYPES, INLINE_BYTES, BlockSpec
from git_theta_ext.updates.base import Encoded, Values, raw_bytes, values_dtype
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.choose import CONVERTING, Choice, Reference, encode_block, encode_bytes
from git_theta_ext.updates.parameter_file import parse

if TYPE_CHECKING:
    from git_theta_ext.repository import Repository

Fetch = Callable[[Iterable[UpdateRef]], None]
"""Brings objects into the store, in one batch, or raises MissingObjectError."""


class Blocks:
    """Reads and writes blocks; safe to use from several threads."""

    def __init__(self, store: Store, fetch: Fetch | None = None) -> None:
        """`fetch` brings objects that are not in the store; without it they are errors."""
        self.store = store
        self._fetch = fetch

    @classmethod
    def open(cls, repository: Repository) -> Blocks:
        """The blocks of a repository; missing objects are fetched from its remotes."""

        def fetch(objects: Iterable[UpdateRef]) -> None:
            from git_theta_ext import transport

            transport.fetch(repository, objects)

        return cls(repository.store, fetch)

    def ensure(self, objects: Iterable[UpdateRef]) -> None:
        """Have all these objects in the store; what is missing is fetched in one batch.

        Raises:
            MissingObjectError, TransferError: they cannot be had.
        """
        missing = {ref.oid: ref for ref in objects if not self.store.has(ref.oid, ref.size)}
        if missing and self._fetch is not None:
            self._fetch(missing.values())

    def read(self, spec: BlockSpec, block: Block) -> Values:
        """The raw bits of a block's elements, rebuilt and verified; a fresh writable array.

        Raises:
            MissingObjectError: an object of its chain is nowhere.
            CorruptObjectError: the bytes do not have the SHA-256 that the manifest promises.
        """
        if block.inline is not None:
            return np.frombuffer(block.inline, values_dtype(spec.dtype)).copy()
        self.ensure(block.chain)
        values = self._decode(spec, block.chain)
        if sha256(values) != block.sha256:
            raise self._blame(block)
        return values

    def read_together(
        self, spec: BlockSpec, blocks: Sequence[Block]
    ) -> tuple[list[Values], Values | None, tuple[UpdateRef, ...]]:
        """The raw bits of several versions of one block; what they have in common is decoded once.

        Returns:
            The values of each, not to be written to, for two may share one array; what the
            beginning that all chains share stands for, and that beginning: None and empty where
            there is none of this spec.

        Raises:
            MissingObjectError, CorruptObjectError: as `read`.
        """
        self.ensure(ref for block in blocks for ref in block.chain)
        shared = _shared([block.chain for block in blocks])
        head = self._decode(spec, shared, whole=False) if shared else None
        if head is None or head.nbytes != spec.nbytes or _converts(blocks, len(shared)):
            return [self.read(spec, block) for block in blocks], None, ()
        rests = [block.chain[len(shared) :] for block in blocks]
        # A distance is added to every value, so a wrong head cannot give a right successor.
        proven = any(rest and all(ref.kind == "delta" for ref in rest) for rest in rests)
        found = []
        for block, rest in zip(blocks, rests, strict=True):
            values = self._decode(spec, rest, values=head.copy()) if rest else head
            if (rest or not proven) and sha256(values) != block.sha256:
                raise self._blame(block)
            found.append(values)
        return found, head, shared

    def read_bytes(self, block: Block) -> bytes:
        """The content of a block of plain bytes, such as a skeleton."""
        return self.read(_bytes_spec(block.nbytes), block).tobytes()

    def write(
        self,
        spec: BlockSpec,
        values: Values,
        *,
        digest: str | None = None,
        reference: Block | None = None,
        reference_spec: BlockSpec | None = None,
    ) -> Block:
        """Encode a block, against a predecessor if there is one, and store it.

        Args:
            spec: what the block is.
            values: the raw bits of its elements, flat.
            digest: the SHA-256 of their bytes, where it is known already.
            reference: the predecessor.
            reference_spec: what that is, if it is of another dtype or shape.
        """
        digest = digest or sha256(values)
        if spec.nbytes <= INLINE_BYTES:
            return Block(spec.nbytes, digest, (), values.tobytes())
        choice = encode_block(spec, values, self._reference(reference_spec or spec, reference))
        return Block(spec.nbytes, digest, self._store(choice, reference))

    def append(
        self, spec: BlockSpec, digest: str, chain: tuple[UpdateRef, ...], encoded: Encoded
    ) -> Block:
        """Store an update that the caller has encoded, behind a chain; the block that it makes.

        Args:
            spec: what the block is.
            digest: the SHA-256 of its bytes.
            chain: what the update was encoded against; empty for a dense one.
            encoded: the update.
        """
        oid, size = self.store.put(encoded.pieces)
        return Block(
            spec.nbytes, digest, (*chain, UpdateRef(encoded.kind, oid, size, encoded.info))
        )

    def write_bytes(self, data: bytes, *, reference: Block | None = None) -> Block:
        """Encode and store plain bytes, such as a skeleton, against an earlier version of them."""
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= INLINE_BYTES:
            return Block(len(data), digest, (), data)
        spec = _bytes_spec(0 if reference is None else reference.nbytes)
        choice = encode_bytes(data, self._reference(spec, reference))
        return Block(len(data), digest, self._store(choice, reference))

    def _reference(self, spec: BlockSpec, block: Block | None) -> Reference | None:
        if block is None or not block.chain:
            return None

        def rebuild(count: int) -> Values:
            if count == len(block.chain):
                return self.read(spec, block)
            self.ensure(block.chain[:count])
            return self._decode(spec, block.chain[:count], whole=False)

        return Reference(block.chain, spec, rebuild)

    def _store(self, choice: Choice, reference: Block | None) -> tuple[UpdateRef, ...]:
        oid, size = self.store.put(choice.encoded.pieces)
        kept = reference.chain[: choice.keep] if reference is not None else ()
        return (*kept, UpdateRef(choice.encoded.kind, oid, size, choice.encoded.info))

    def _decode(
        self,
        spec: BlockSpec,
        chain: Sequence[UpdateRef],
        whole: bool = True,
        values: Values | None = None,
    ) -> Values:
        files = []
        for ref in chain:
            try:
                files.append(parse(self.store.read(ref.oid, ref.size)))
            except CorruptObjectError as error:
                raise CorruptObjectError(f"object {ref.oid}: {error.message}") from error
        try:
            return decode_chain(spec, files, whole, values)
        except UnknownUpdateError:
            raise
        except ThetaError as error:
            names = ", ".join(ref.oid for ref in chain)
            raise CorruptObjectError(f"objects {names}: {error.message}") from error

    def _blame(self, block: Block) -> CorruptObjectError:
        """Say which object of a chain is damaged, or that the manifest's promise is wrong."""
        for ref in block.chain:
            try:
                self.store.verify(ref.oid, ref.size)
            except CorruptObjectError as error:
                return error
        return CorruptObjectError(
            f"the chain of {block.chain[-1].oid} decodes to other bytes than the manifest promises "
            f"(sha256:{block.sha256})",
            hint="the manifest was edited or written by another program; restore it from a commit",
        )


def _shared(chains: Sequence[tuple[UpdateRef, ...]]) -> tuple[UpdateRef, ...]:
    """The longest beginning that all chains have."""
    first = min(chains, key=len)
    for length, ref in enumerate(first):
        if any(chain[length] != ref for chain in chains):
            return first[:length]
    return first


def _converts(blocks: Sequence[Block], length: int) -> bool:
    """Whether an update behind the first `length` ones changes what the block is."""
    return any(ref.kind in CONVERTING for block in blocks for ref in block.chain[length:])


def sha256(values: Values) -> str:
    """The SHA-256 of the raw bytes of values, in hexadecimal."""
    return hashlib.sha256(raw_bytes(values)).hexdigest()


def _bytes_spec(length: int) -> BlockSpec:
    return BlockSpec(DTYPES["U8"], (length,))
