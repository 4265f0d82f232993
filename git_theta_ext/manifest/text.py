"""The text of a manifest: reading it strictly, and writing the one legal encoding.

`docs/manifest.md` is the normative grammar. The writer matches every line it makes against the
expressions that the reader uses, so nothing is ever written that could not be read. A manifest
has one legal encoding: `manifest_bytes(parse_manifest(text)) == text` for every text that parses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain

from git_theta_ext.core import limits
from git_theta_ext.core.advice import OTHER_VERSION, UPGRADE
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import NaturalKey, natural_key, quote, unquote
from git_theta_ext.core.tensors import DTYPES, INLINE_BYTES, TensorInfo
from git_theta_ext.core.version import VERSION
from git_theta_ext.manifest.chains import HEX, INT, ChainProblem, chain_lines, read_chain
from git_theta_ext.manifest.model import (
    HEADS,
    LATEST,
    MAGIC,
    VERSIONS,
    Block,
    Chain,
    Entry,
    Manifest,
    UpdateRef,
    is_manifest,
)
from git_theta_ext.manifest.rules import MAX_INT, entry_problem

_CONTENT = rf"(?:sha256:({HEX})|inline:((?:[0-9a-f][0-9a-f])*))"
_FORMAT = re.compile(r"format ([a-z0-9][a-z0-9._-]{0,63})")
_SPEC = re.compile(
    rf"  ([A-Z0-9_]+) \[((?:{INT}(?:, {INT})*)?)\]"
    rf"(?: order=({INT}(?:,{INT})*))?(?: {_CONTENT})?"
)
_BLOCK = re.compile(rf"  block ({INT}) {_CONTENT}")
_ENTRY = re.compile(
    rf"tensor ([!#-~](?:[ -~]*[!-~])?)\n  ([A-Z0-9_]+) \[((?:{INT}(?:, {INT})*)?)\]"
    rf" sha256:({HEX})\n((?:  [^\n]*\n?)+)"
)
_MARKER = re.compile(r"^(?:<{7,}|>{7,}|\|{7,}|={7,})(?: .*)?\r?$", re.MULTILINE)
_LAST_LINE = "end"
_Read = tuple[NaturalKey, Entry, int]
"""An entry, where it stands in the order, and the lowest version that can say it."""
_KEPT_ENTRIES = 1 << 15
"""From so many on, what was not asked for again is forgotten; an entry takes about a kilobyte."""


def parse_manifest(text: bytes) -> Manifest:
    """Read a manifest; strict, for there is one legal encoding of each.

    Raises:
        ManifestError: names the line, what was expected and what was found.
    """
    return Parser().parse(text)


class Parser:
    """Reads manifests one after the other; an entry that stood in the last few is not read again.

    The versions of a checkpoint have most lines in common, so a history costs what changed in it.
    """

    def __init__(self) -> None:
        """Nothing has been read."""
        self._known: dict[str, _Read] = {}
        self._older: dict[str, _Read] = {}

    def parse(self, text: bytes) -> Manifest:
        """As `parse_manifest`; entries may be the same objects as in the one before."""
        if len(text) > limits.MANIFEST_BYTES:
            raise ManifestError(
                f"manifest of {len(text)} bytes: the limit is {limits.MANIFEST_BYTES}"
            )
        if text.count(b"\n") > limits.MANIFEST_LINES:
            raise ManifestError(f"manifest has more than {limits.MANIFEST_LINES} lines, the limit")
        # Latin-1 maps every byte to one character, so that a stray byte is reported with its line.
        content = text.decode("latin-1")
        try:
            found = self._by_paragraphs(content)
        except ManifestError:
            found = None
        return found or _read_whole(content)  # which tells what is wrong, and in which line

    def _by_paragraphs(self, content: str) -> Manifest | None:
        """A manifest, entry by entry; None, or any ManifestError, where it is not a legal one."""
        head, *paragraphs = content.split("\n\n")
        if not paragraphs or paragraphs.pop() != f"{_LAST_LINE}\n":
            return None
        if len(self._known) > _KEPT_ENTRIES:
            self._known, self._older = {}, self._known
        first = _Reader(f"{head}\n\n{_LAST_LINE}\n").manifest()
        known, older = self._known, self._older
        entries: list[Entry] = []
        previous: NaturalKey = ((), "")
        for paragraph in paragraphs:
            found = known.get(paragraph)
            if found is None:
                found = older.get(paragraph)
                if found is None:
                    entry = _common_entry(paragraph) or _Reader(f"{paragraph}\n").only_entry()
                    found = natural_key(entry.tensor.name), entry, lowest_version([entry])
                known[paragraph] = found
            key, entry, version = found
            if (key <= previous and entries) or version > first.version:
                return None
            previous = key
            entries.append(entry)
        return Manifest(first.format, first.skeleton, tuple(entries), first.version)


def _common_entry(paragraph: str) -> Entry | None:
    """An entry of the most common form: a bare name, one block, row-major; None of any other."""
    match = _ENTRY.fullmatch(paragraph)
    dtype = None if match is None else DTYPES.get(match[2])
    if match is None or dtype is None:
        return None
    shape = tuple(map(int, match[3].split(", "))) if match[3] else ()
    info = TensorInfo(match[1], dtype, shape)
    lines = match[5].split("\n")
    try:
        links, end = read_chain([*lines, ""], 0, LATEST)
    except ChainProblem:
        return None
    nbytes = info.nbytes
    if nbytes <= INLINE_BYTES or end != len(lines):
        return None
    entry = Entry(info, (Block(nbytes, match[4], links),))
    return None if entry_problem(entry) else entry


def lowest_version(entries: Iterable[Entry], *others: Block) -> int:
    """The lowest version of the manifest that can say how some tensors, or blocks, are rebuilt."""
    blocks = chain((block for entry in entries for block in entry.blocks), others)
    links = (link for block in blocks for link in block.chain)
    return max((1 if isinstance(link, UpdateRef) and link.part is None else 2 for link in links),
               default=1)  # fmt: skip


def _read_whole(content: str) -> Manifest:
    try:
        return _Reader(content).manifest()
    except ManifestError:
        marker = _MARKER.search(content)
        if marker is None:
            raise
        line = content.count("\n", 0, marker.start()) + 1
        raise ManifestError(
            f"line {line}: the manifest has conflict markers from an unfinished merge",
            hint=f"in a merge: git theta resolve FILE\nif it was committed so: {OTHER_VERSION}",
        ) from None


def has_conflict_markers(text: bytes) -> bool:
    """Whether a text merge left its markers in a manifest."""
    return _MARKER.search(text.decode("latin-1")) is not None


def manifest_bytes(manifest: Manifest) -> bytes:
    """The one legal encoding of a manifest.

    Raises:
        ManifestError: it breaks a rule of the grammar (entries out of order, blocks that do
            not fit their tensor, ...), so that it could not be read again.
    """
    version = max(manifest.version, lowest_version(manifest.entries, manifest.skeleton))
    lines = [*HEADS[version].decode().splitlines(), f"format {manifest.format}", "skeleton"]
    if not _FORMAT.fullmatch(lines[-2]):
        raise ManifestError(f"{manifest.format!r} is not the name of a format")
    skeleton = TensorInfo("skeleton", DTYPES["U8"], (manifest.skeleton.nbytes,))
    lines += _spec_lines(skeleton, manifest.skeleton, version)
    previous: NaturalKey | None = None
    for entry in manifest.entries:
        name = entry.tensor.name
        try:
            key, quoted = natural_key(name), quote(name)
            if previous is not None and key <= previous:
                raise ValueError("is not after its predecessor in natural order")
            if problem := entry_problem(entry):
                raise ValueError(problem)
            lines += ("", f"{'opaque' if entry.opaque else 'tensor'} {quoted}")
            lines += _entry_lines(entry, version)
        except ValueError as error:
            raise ManifestError(f"tensor {name!r}: {error}") from None
        previous = key
    lines += ("", _LAST_LINE, "")
    return "\n".join(lines).encode("ascii")


def _digest(blocks: tuple[Block, ...]) -> str:
    return sha256(b"".join(bytes.fromhex(block.sha256) for block in blocks)).hexdigest()


def _content(block: Block) -> str:
    """The last word of a spec or block line."""
    if (block.inline is not None) != (block.nbytes <= INLINE_BYTES):
        raise ManifestError(f"a block of {block.nbytes} bytes is inline if of <= {INLINE_BYTES}")
    if block.inline is None:
        return f"sha256:{block.sha256}"
    if len(block.inline) != block.nbytes or sha256(block.inline).hexdigest() != block.sha256:
        raise ManifestError(f"inline block {block.inline.hex()}: wrong size or SHA-256")
    return f"inline:{block.inline.hex()}"


def _checked(pattern: re.Pattern[str], line: str) -> str:
    if pattern.fullmatch(line) is None:
        raise ManifestError(f"{line.strip()!r} cannot be written in a manifest")
    return line


def _head(info: TensorInfo) -> str:
    order = info.order
    if order is None or order == tuple(range(len(info.shape))):
        return f"  {info.dtype.name} [{', '.join(map(str, info.shape))}]"
    return (
        f"  {info.dtype.name} [{', '.join(map(str, info.shape))}] order={','.join(map(str, order))}"
    )


def _spec_lines(info: TensorInfo, block: Block, version: int) -> Iterator[str]:
    yield _checked(_SPEC, f"{_head(info)} {_content(block)}")
    yield from _chain_lines(block, version)


def _chain_lines(block: Block, version: int) -> Iterator[str]:
    if block.inline is None:
        yield from chain_lines(block.chain, version)
    elif block.chain:
        raise ManifestError("an inline block has no chain")


def _entry_lines(entry: Entry, version: int) -> Iterator[str]:
    info, blocks = entry.tensor, entry.blocks
    if len(blocks) == 1 and (not entry.opaque or blocks[0].inline is not None):
        yield from _spec_lines(info, blocks[0], version)
        return
    whole = f" sha256:{_digest(blocks)}" if entry.opaque else ""
    yield _checked(_SPEC, _head(info) + whole)
    for block in blocks:
        yield _checked(_BLOCK, f"  block {block.nbytes} {_content(block)}")
        yield from _chain_lines(block, version)


class _Reader:
    """A strict reader of one manifest; `at` is the index of the line that comes next."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.at = 0
        self.version = LATEST

    def manifest(self) -> Manifest:
        self._first_lines()
        name = self._match(_FORMAT, "`format NAME`")[1]
        self._literal("skeleton")
        skeleton = self._skeleton()
        entries: list[Entry] = []
        previous: NaturalKey | None = None
        while self._blank_then_entry():
            opaque, name_text = self._heading()
            key = natural_key(name_text)
            if previous is not None and key <= previous:
                expected = f"a name after {quote(previous[1])} in natural order"
                raise self._error(self.at - 1, expected)
            previous = key
            entries.append(self._entry(name_text, opaque=opaque))
        if self.lines[self.at :] != [""]:
            raise self._error(self.at, "one line feed after `end`, then nothing")
        return Manifest(name, skeleton, tuple(entries), self.version)

    def _first_lines(self) -> None:
        """The lines that say what this is, and of which version."""
        first = f"{self.lines[0]}\n".encode("latin-1", "replace")
        known = [number for number in VERSIONS if HEADS[number].startswith(first)]
        if not known:
            stated = first.removeprefix(MAGIC).strip().decode("latin-1")
            newer = is_manifest(first) and not first.endswith(b"\r\n") and int(stated) > LATEST
            error = self._error(0, " or ".join(f"`{MAGIC.decode()}{n}`" for n in VERSIONS))
            error.hint = (
                f"manifest v{stated} came with a newer git-theta-ext; this one ({VERSION}) reads "
                f"up to v{LATEST}; for a newer one: {UPGRADE}"
                if newer
                else "its line ends were changed (text attribute)?"
            )
            raise error
        self.version = known[0]
        for line in HEADS[self.version].decode().splitlines():
            self._literal(line)

    def only_entry(self) -> Entry:
        """The one entry that there is, and nothing else."""
        opaque, name = self._heading()
        entry = self._entry(name, opaque=opaque)
        if self.lines[self.at :] != [""]:
            raise self._error(self.at, "the end of the entry")
        return entry

    def _error(self, at: int, expected: str) -> ManifestError:
        found = repr(self.lines[at][:120]) if at < len(self.lines) else "the end of the text"
        return ManifestError(f"line {at + 1}: expected {expected}, found {found}")

    def _literal(self, expected: str) -> None:
        if self.lines[self.at] != expected:
            raise self._error(self.at, f"`{expected}`")
        self._advance()

    def _advance(self) -> None:
        self.at += 1
        if self.at >= len(self.lines):
            raise self._error(self.at, "more lines")

    def _match(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        match = pattern.fullmatch(self.lines[self.at])
        if match is None:
            raise self._error(self.at, expected)
        self._advance()
        return match

    def _blank_then_entry(self) -> bool:
        """Step over the blank line between entries; False, past `end`, when there are no more."""
        self._literal("")
        if self.lines[self.at] != _LAST_LINE:
            return True
        self._advance()
        return False

    def _heading(self) -> tuple[bool, str]:
        line = self.lines[self.at]
        if line[:7] not in ("tensor ", "opaque "):
            raise self._error(self.at, "`tensor NAME`, `opaque NAME` or `end`")
        try:
            name = unquote(line[7:])
        except (ValueError, RecursionError):
            raise self._error(self.at, "a name, bare or as an ASCII JSON string") from None
        self._advance()
        return line[0] == "o", name

    def _skeleton(self) -> Block:
        """The skeleton is one block, whatever its size."""
        first = self.at
        spec = self._match(_SPEC, "`  U8 [SIZE] CONTENT`")
        info = self._tensor("skeleton", spec, first)
        if info.dtype.name != "U8" or len(info.shape) != 1 or info.nbytes > MAX_INT:
            raise self._error(first, "U8 with one axis")
        return self._block(first, info.nbytes, spec[4], spec[5])

    def _entry(self, name: str, *, opaque: bool) -> Entry:
        """The lines of one entry below its heading."""
        first = self.at
        spec = self._match(_SPEC, "`  DTYPE [SHAPE] CONTENT`")
        info = self._tensor(name, spec, first)
        if info.nbytes <= INLINE_BYTES and spec[5] is None:
            raise self._error(first, f"inline: for {info.nbytes} bytes")
        if spec[5] is not None or (spec[4] is not None and not opaque):
            blocks: tuple[Block, ...] = (self._block(first, info.nbytes, spec[4], spec[5]),)
        else:
            blocks = tuple(self._blocks())
            if opaque and spec[4] != _digest(blocks):
                raise self._error(first, f"sha256:{_digest(blocks)}, the digest of the chunks")
            if not opaque and len(blocks) < 2:
                raise self._error(first, "sha256: or inline: on the line of a single block")
        entry = Entry(info, blocks, opaque)
        if problem := entry_problem(entry):
            raise ManifestError(f"line {first + 1}: {problem}, in {self.lines[first][:120]!r}")
        return entry

    def _tensor(self, name: str, spec: re.Match[str], at: int) -> TensorInfo:
        dtype = DTYPES.get(spec[1])
        if dtype is None:
            raise self._error(at, f"a dtype, one of {', '.join(DTYPES)}")
        shape = tuple(map(int, spec[2].split(", "))) if spec[2] else ()
        order = None
        if spec[3] is not None:
            order = tuple(map(int, spec[3].split(",")))
            if order == tuple(range(len(shape))):
                raise self._error(at, "no order, which is how row-major is written")
        return TensorInfo(name, dtype, shape, order)

    def _blocks(self) -> Iterator[Block]:
        while self.lines[self.at]:
            at = self.at
            match = self._match(_BLOCK, "`  block SIZE CONTENT`")
            yield self._block(at, self._int(at, match[1]), match[2], match[3])

    def _int(self, at: int, text: str) -> int:
        value = int(text)
        if value > MAX_INT:
            raise self._error(at, "numbers below 2^63")
        return value

    def _block(self, at: int, nbytes: int, digest: str | None, inline: str | None) -> Block:
        """The block whose content stands on line `at`, with the chain that follows."""
        if (inline is not None) != (nbytes <= INLINE_BYTES):
            kind = "inline:" if inline is None else "sha256:"
            raise self._error(at, f"{kind} for a block of {nbytes} bytes")
        if inline is not None:
            data = bytes.fromhex(inline)
            if len(data) != nbytes:
                raise self._error(at, f"{nbytes} bytes inline")
            return Block(nbytes, sha256(data).hexdigest(), (), data)
        if digest is None:
            raise self._error(at, "sha256:")
        return Block(nbytes, digest, self._chain())

    def _chain(self) -> Chain:
        try:
            links, self.at = read_chain(self.lines, self.at, self.version)
        except ChainProblem as problem:
            raise self._error(problem.at, problem.expected) from None
        return links
