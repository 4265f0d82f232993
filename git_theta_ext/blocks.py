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
from git_theta_ext.updates.base import Parameters, Values, raw_bytes, values_dtype
from git_theta_ext.updates.chain import decode_chain, specs
from git_theta_ext.updates.choose import Choice, Reference, encode_block, encode_bytes
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

    def read_both(
        self, old_spec: BlockSpec, old: Block, new_spec: BlockSpec, new: Block
    ) -> tuple[Values, Values]:
        """Two versions of a block, each verified; what their chains share is decoded once.

        Both arrays are fresh and writable. Raises what `read` does.
        """
        shared = 0
        while shared < min(len(old.chain), len(new.chain)) and (
            old.chain[shared].oid == new.chain[shared].oid
        ):
            shared += 1
        if not shared:
            return self.read(old_spec, old), self.read(new_spec, new)
        self.ensure([*old.chain, *new.chain[shared:]])
        common, ours, theirs = (
            self._parse(chain)
            for chain in (old.chain[:shared], old.chain[shared:], new.chain[shared:])
        )
        middle = specs(old_spec, [*common, *ours])[shared - 1]
        if middle != specs(new_spec, [*common, *theirs])[shared - 1]:
            return self.read(old_spec, old), self.read(new_spec, new)
        base = self._decode_files(middle, old.chain[:shared], common, False)
        values: list[Values] = []
        for spec, block, files in ((new_spec, new, theirs), (old_spec, old, ours)):
            # The second of the two may write into the base: nobody needs it any more.
            start = base.copy() if not values else base
            found = self._decode_files(spec, block.chain, files, True, start)
            if sha256(found) != block.sha256:
                raise self._blame(block)
            values.append(found)
        return values[1], values[0]

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

    def _decode(self, spec: BlockSpec, chain: Sequence[UpdateRef], whole: bool = True) -> Values:
        return self._decode_files(spec, chain, self._parse(chain), whole)

    def _parse(self, chain: Sequence[UpdateRef]) -> list[Parameters]:
        files = []
        for ref in chain:
            try:
                files.append(parse(self.store.read(ref.oid, ref.size)))
            except CorruptObjectError as error:
                raise CorruptObjectError(f"object {ref.oid}: {error.message}") from error
        return files

    def _decode_files(
        self,
        spec: BlockSpec,
        chain: Sequence[UpdateRef],
        files: Sequence[Parameters],
        whole: bool,
        base: Values | None = None,
    ) -> Values:
        try:
            return decode_chain(spec, files, whole, base)
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


def sha256(values: Values) -> str:
    """The SHA-256 of the raw bytes of values, in hexadecimal."""
    return hashlib.sha256(raw_bytes(values)).hexdigest()


def _bytes_spec(length: int) -> BlockSpec:
    return BlockSpec(DTYPES["U8"], (length,))
