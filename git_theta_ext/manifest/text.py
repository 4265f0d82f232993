"""The text of a manifest: reading it strictly, and writing the one legal encoding.

`docs/manifest.md` is the normative grammar. The writer matches every line it makes against the
expressions that the reader uses, so nothing is ever written that could not be read. A manifest
has one legal encoding: `manifest_bytes(parse_manifest(text)) == text` for every text that parses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256

from git_theta_ext.core import limits
from git_theta_ext.core.advice import OTHER_VERSION
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import NaturalKey, natural_key, quote, unquote
from git_theta_ext.core.tensors import DTYPES, INLINE_BYTES, TensorInfo
from git_theta_ext.manifest.model import FIRST_LINE, Block, Entry, Manifest, UpdateRef
from git_theta_ext.manifest.rules import MAX_INT, entry_problem

_INT = "(?:0|[1-9][0-9]{0,18})"
_HEX = "[0-9a-f]{64}"
_CONTENT = rf"(?:sha256:({_HEX})|inline:((?:[0-9a-f][0-9a-f])*))"
_FORMAT = re.compile(r"format ([a-z0-9][a-z0-9._-]{0,63})")
_SPEC = re.compile(
    rf"  ([A-Z0-9_]+) \[((?:{_INT}(?:, {_INT})*)?)\]"
    rf"(?: order=({_INT}(?:,{_INT})*))?(?: {_CONTENT})?"
)
_BLOCK = re.compile(rf"  block ({_INT}) {_CONTENT}")
_CHAIN = re.compile(
    rf"  ((?!block )[a-z][a-z0-9-]{{0,31}}) sha256:({_HEX}) ({_INT})"
    r"((?: [a-z][a-z0-9_-]{0,31}=[!-~]+)*)"
)
_ENTRY = re.compile(
    rf"tensor ([!#-~](?:[ -~]*[!-~])?)\n  ([A-Z0-9_]+) \[((?:{_INT}(?:, {_INT})*)?)\]"
    rf" sha256:({_HEX})((?:\n  (?!block )[a-z][a-z0-9-]{{0,31}} sha256:{_HEX} {_INT}"
    r"(?: [a-z][a-z0-9_-]{0,31}=[!-~]+)*)+)"
)
_MARKER = re.compile(r"^(?:<{7,}|>{7,}|\|{7,}|={7,})(?: .*)?\r?$", re.MULTILINE)
_LAST_LINE = "end"
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
        self._known: dict[str, tuple[NaturalKey, Entry]] = {}
        self._older: dict[str, tuple[NaturalKey, Entry]] = {}

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
        known, older = self._known, self._older
        entries: list[Entry] = []
        previous: NaturalKey = ((), "")
        for paragraph in paragraphs:
            found = known.get(paragraph)
            if found is None:
                found = older.get(paragraph)
                if found is None:
                    entry = _common_entry(paragraph) or _Reader(f"{paragraph}\n").only_entry()
                    found = natural_key(entry.tensor.name), entry
                known[paragraph] = found
            key, entry = found
            if key <= previous and entries:
                return None
            previous = key
            entries.append(entry)
        first = _Reader(f"{head}\n\n{_LAST_LINE}\n").manifest()
        return Manifest(first.format, first.skeleton, tuple(entries))


def _common_entry(paragraph: str) -> Entry | None:
    """An entry of the most common form: a bare name, one block, row-major; None of any other."""
    match = _ENTRY.fullmatch(paragraph)
    dtype = None if match is None else DTYPES.get(match[2])
    if match is None or dtype is None:
        return None
    shape = tuple(map(int, match[3].split(", "))) if match[3] else ()
    info = TensorInfo(match[1], dtype, shape)
    chain = []
    for one in _CHAIN.finditer(match[5]):
        remarks = _info(one[4]) if one[4] else ()
        size = int(one[3])
        if size > MAX_INT or len(dict(remarks)) != len(remarks):
            return None
        chain.append(UpdateRef(one[1], one[2], size, remarks))
    nbytes = info.nbytes
    if nbytes <= INLINE_BYTES or len(chain) > limits.CHAIN_LENGTH:
        return None
    entry = Entry(info, (Block(nbytes, match[4], tuple(chain)),))
    return None if entry_problem(entry) else entry


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
    lines = [FIRST_LINE[:-1].decode(), f"format {manifest.format}", "skeleton"]
    if not _FORMAT.fullmatch(lines[1]):
        raise ManifestError(f"{manifest.format!r} is not the name of a format")
    skeleton = TensorInfo("skeleton", DTYPES["U8"], (manifest.skeleton.nbytes,))
    lines += _spec_lines(skeleton, manifest.skeleton)
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
            lines += _entry_lines(entry)
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


def _spec_lines(info: TensorInfo, block: Block) -> Iterator[str]:
    yield _checked(_SPEC, f"{_head(info)} {_content(block)}")
    yield from _chain_lines(block)


def _chain_lines(block: Block) -> Iterator[str]:
    if (block.inline is None) != (0 < len(block.chain) <= limits.CHAIN_LENGTH):
        raise ManifestError(f"a chain of {len(block.chain)} parameter files does not rebuild it")
    for ref in block.chain:
        info = "".join(f" {key}={value}" for key, value in ref.info)
        line = _checked(_CHAIN, f"  {ref.kind} sha256:{ref.oid} {ref.size}{info}")
        if ref.info and (_info(info) != ref.info or len(dict(ref.info)) != len(ref.info)):
            raise ManifestError(f"remarks{info!r} cannot be written in a manifest")
        if ref.size > MAX_INT:
            raise ManifestError(f"object {ref.oid}: a size of {ref.size} is past the limit")
        yield line


def _info(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((word.partition("=")[0], word.partition("=")[2]) for word in text.split())


def _entry_lines(entry: Entry) -> Iterator[str]:
    info, blocks = entry.tensor, entry.blocks
    if len(blocks) == 1 and (not entry.opaque or blocks[0].inline is not None):
        yield from _spec_lines(info, blocks[0])
        return
    whole = f" sha256:{_digest(blocks)}" if entry.opaque else ""
    yield _checked(_SPEC, _head(info) + whole)
    for block in blocks:
        yield _checked(_BLOCK, f"  block {block.nbytes} {_content(block)}")
        yield from _chain_lines(block)


class _Reader:
    """A strict reader of one manifest; `at` is the index of the line that comes next."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.at = 0

    def manifest(self) -> Manifest:
        try:
            self._literal(FIRST_LINE[:-1].decode())
        except ManifestError as error:
            error.hint = "made by a newer version, or its line ends were changed (text attribute)?"
            raise
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
        return Manifest(name, skeleton, tuple(entries))

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

    def _chain(self) -> tuple[UpdateRef, ...]:
        refs: list[UpdateRef] = []
        while match := _CHAIN.fullmatch(self.lines[self.at]):
            info = _info(match[4]) if match[4] else ()
            if len(dict(info)) != len(info):
                raise self._error(self.at, "each remark once")
            size = int(match[3])
            if size > MAX_INT:
                raise self._error(self.at, "numbers below 2^63")
            refs.append(UpdateRef(match[1], match[2], size, info))
            self._advance()
        if not refs or len(refs) > limits.CHAIN_LENGTH:
            raise self._error(self.at, f"1 to {limits.CHAIN_LENGTH} lines `  KIND sha256:OID SIZE`")
        return tuple(refs)
