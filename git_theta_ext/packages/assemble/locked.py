"""The lock of a recipe, `recipe.lock` beside `recipe.toml`: what its parts were when it was built.

It says of each part the commit that its version was, and of each tensor which part gave it, made of
which tensors there. As in a manifest there is no hash of all and no date, so that Git merges the
locks of two branches that moved different parts. `docs/assembling.md` has the grammar.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import quote, unquote
from git_theta_ext.manifest.model import Entry
from git_theta_ext.packages.assemble.tables import Table, document, rows_of

MAGIC = b"# git-theta recipe lock v1\n"
"""How a lock begins: what tells it from those of other programs."""
_REST = "# Written by git theta assemble. What moves it: git theta help assemble\n"
_LIST = re.compile(rb"^tensors = \[\n((?:  \[.*\],\n)*)\]\n", re.MULTILINE)
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class LockedTensor:
    """A tensor that a part gave: what it was (`digest_of`), and the tensors that it is made of."""

    digest: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockedPart:
    """What a part was.

    Attributes:
        name, source: as the recipe says it.
        url: of the repository, without a version; empty for this one.
        version: what was asked for, such as a tag; None: what HEAD was.
        ref: the full name of the ref that it was; None where it was none.
        commit: the commit's id.
        path: of the checkpoint in that repository.
        manifest: the id of the blob that stood there; None for a model in shards.
        tensors: what it gave, by the name in the result.
    """

    name: str
    source: str
    url: str
    version: str | None
    ref: str | None
    commit: str
    path: str
    manifest: str | None = None
    tensors: Mapping[str, LockedTensor] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Where it is from, for a reader: the URL and the version, or the revision alone."""
        version = self.version or self.commit[:9]
        return f"{self.url}@{version}" if self.url else version


@dataclass(frozen=True, slots=True)
class Lock:
    """The parts of an assembled checkpoint, whose path counts from the folder of the recipe."""

    path: str
    parts: tuple[LockedPart, ...]

    def part(self, name: str) -> LockedPart | None:
        """The part of a name, if there is one."""
        return next((one for one in self.parts if one.name == name), None)

    def giver(self, name: str) -> tuple[LockedPart, LockedTensor] | None:
        """The part that gave a tensor; None where none did, or two are said to have."""
        found = [(part, one) for part in self.parts if (one := part.tensors.get(name)) is not None]
        return found[0] if len(found) == 1 else None


def lock_of(recipe: str) -> str:
    """The path of a recipe's lock: the same with another ending."""
    return posixpath.splitext(recipe)[0] + ".lock"


def recipe_of(lock: str) -> str:
    """The path of the recipe that a lock is of."""
    return posixpath.splitext(lock)[0] + ".toml"


def digest_of(entry: Entry) -> str:
    """A short hash of what a tensor is, whatever its name and however it is stored."""
    tensor = entry.tensor
    facts = [tensor.dtype.name, tensor.shape, tensor.order]
    text = json.dumps([*facts, [block.sha256 for block in entry.blocks]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def lock_bytes(lock: Lock) -> bytes:
    """The text of a lock; that of equal ones is equal."""
    lines = [f"path = {_string(lock.path)}"]
    for part in lock.parts:
        lines += ["", "[[part]]"]
        facts = {
            "name": part.name, "from": part.source, "url": part.url, "version": part.version,
            "ref": part.ref, "commit": part.commit, "path": part.path, "manifest": part.manifest,
        }  # fmt: skip
        lines += [f"{key} = {_string(text)}" for key, text in facts.items() if text is not None]
        lines.append("tensors = [")
        lines += [f"  {_row(name, one)}," for name, one in part.tensors.items()]
        lines.append("]")
    return MAGIC + (_REST + "\n".join(lines) + "\n").encode()


def _row(name: str, one: LockedTensor) -> str:
    """A tensor as a list: its name, its hash, and its sources unless it is one of the same name."""
    words = [quote(name), one.digest]
    if one.sources != (name,):
        words += map(quote, one.sources)
    return "[" + ", ".join(map(_string, words)) + "]"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse(data: bytes, file: str) -> Lock:
    """What a lock says.

    Args:
        data: its bytes.
        file: what messages call it.

    Raises:
        UsageError: it is none of ours, or damaged.
    """
    if not data.startswith(MAGIC):
        raise UsageError(
            f"{file} is no lock of a recipe that this version can read",
            hint="remove it, then lock the parts anew: git theta assemble RECIPE",
        )
    if len(data) > limits.RECIPE_LOCK_BYTES:
        raise UsageError(f"{file} is larger than {limits.RECIPE_LOCK_BYTES} bytes")
    lists: list[bytes] = []

    def taken(match: re.Match[bytes]) -> bytes:
        lists.append(match[1])
        return b"tensors = %d\n" % (len(lists) - 1)

    # The lists of tensors are JSON, too, which is read a hundred times as fast.
    rest = _LIST.sub(taken, data)
    found = Table(document(rest, file, ("path", "part")), file)
    tables = rows_of(found.values, "part", rest, file)
    if len(tables) > limits.RECIPE_PARTS:
        raise found.error(f"at most {limits.RECIPE_PARTS} [[part]]")
    parts = tuple(_part(table, lists) for table in tables)
    return Lock(found.needed("path", '"model.safetensors"'), parts)


def _part(table: Table, lists: Sequence[bytes]) -> LockedPart:
    """One `[[part]]`; UsageError where a key is missing, unknown or of the wrong kind."""
    table.refuse_unknown(
        ("name", "from", "url", "version", "ref", "commit", "path", "manifest", "tensors")
    )
    commit, manifest = table.needed("commit", '"..."'), table.text("manifest")
    for oid in (commit, manifest):
        if oid is not None and not _OID.fullmatch(oid):
            raise table.error(f"{oid[:80]!r} is no id of an object")
    url = table.values.get("url", "")
    if not isinstance(url, str):
        raise table.error("url is a text")
    return LockedPart(
        table.needed("name", '"base"'), table.needed("from", '"..."'), url, table.text("version"),
        table.text("ref"), commit, table.needed("path", '"model.safetensors"'), manifest,
        _tensors(table, lists),
    )  # fmt: skip


def _tensors(table: Table, lists: Sequence[bytes]) -> dict[str, LockedTensor]:
    """The tensors of a part, by name; UsageError where a row is none that is written."""
    number = table.values.get("tensors")
    if type(number) is not int or not 0 <= number < len(lists):
        raise table.error("tensors is not written as this program writes it")
    try:
        rows = json.loads(b"[" + lists[number].rstrip(b",\n") + b"]")
    except (ValueError, RecursionError) as error:
        raise table.error(f"tensors: {error}") from error
    if len(rows) > limits.RECIPE_TENSORS:
        raise table.error(f"tensors has more than {limits.RECIPE_TENSORS} rows")
    found: dict[str, LockedTensor] = {}
    for row in rows:
        texts = isinstance(row, list) and len(row) > 1 and all(isinstance(one, str) for one in row)
        if not texts or not _DIGEST.fullmatch(row[1]):
            raise table.error(f"tensors: {str(row)[:80]} is no name with a hash")
        try:
            name, *sources = [unquote(row[0]), *map(unquote, row[2:])]
        except ValueError as error:
            raise table.error(f"tensors: {error}") from error
        found[name] = LockedTensor(row[1], tuple(sources) or (name,))
    return found


def merged(
    base: Lock | None, ours: Lock | None, theirs: Lock | None, sources: Mapping[str, str]
) -> dict[str, LockedPart]:
    """What parts are locked to where two branches locked them: by part, as a merge of texts.

    A part counts as a side has it that locked it for what the recipe says now, or changed it.

    Args:
        base, ours, theirs: the three versions of the lock, as far as there are some.
        sources: the parts of the merged recipe: where they are from, by name.

    Raises:
        UsageError: both sides locked a part to different commits.
    """
    found: dict[str, LockedPart] = {}
    for name, source in sources.items():
        old, mine, yours = (_locked(one, name, source) for one in (base, ours, theirs))
        if mine is None or yours is None:
            chosen = mine or yours
        elif yours.commit in (mine.commit, None if old is None else old.commit):
            chosen = mine
        elif old is not None and mine.commit == old.commit:
            chosen = yours
        else:
            raise UsageError(
                f"the two sides of the merge locked {name} to different commits of {source}: "
                f"{mine.commit[:9]} and {yours.commit[:9]}",
                hint=f"git theta assemble RECIPE --update {name}   takes what it is now",
            )
        if chosen is not None:
            found[name] = chosen
    return found


def _locked(lock: Lock | None, name: str, source: str) -> LockedPart | None:
    one = None if lock is None else lock.part(name)
    return one if one is not None and one.source == source else None


def with_tensors(
    parts: Sequence[LockedPart], tensors: Iterable[tuple[int, str, LockedTensor]]
) -> tuple[LockedPart, ...]:
    """Parts with what each gave: the number of the part, the name in the result, and what it is."""
    held: list[dict[str, LockedTensor]] = [{} for _ in parts]
    for number, name, one in tensors:
        held[number][name] = one
    return tuple(replace(part, tensors=its) for part, its in zip(parts, held, strict=True))
