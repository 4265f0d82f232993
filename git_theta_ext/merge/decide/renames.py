"""Follow tensors that one side renamed and another trained, so that both meet under one name.

Wrappers put a prefix before every name (`module.`, `_orig_mod.`, `base_model.model.`), or take it
away. A tensor is taken to be one of the base under a new name only if all that vanished on a side
came back that way, each of the same shape, and either the prefix is a wrapper's or some tensor kept
its bytes; or if a single one kept its bytes, and no other has the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.decisions import TIE_BYTES, content_of, entries_of
from git_theta_ext.merge.decide.groups import Group

_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|base_model\.model|base_model|model|_forward_module"
                       r"|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)*")  # fmt: skip
Names = Mapping[str, str]
"""A version's name of a tensor by another version's name of it."""


def renamed(base: Manifest, side: Manifest) -> dict[str, str]:
    """The new names on a side of tensors of the base, by their old ones."""
    old, now = entries_of(base), entries_of(side)
    gone = {name: entry for name, entry in old.items() if name not in now}
    came = {name: entry for name, entry in now.items() if name not in old}
    if not gone or not came:
        return {}
    for before, after in _prefixes(gone, came):
        found = {
            name: after + name.removeprefix(before) for name in gone if name.startswith(before)
        }
        pairs = [(gone[name], came.get(new)) for name, new in found.items()]
        alike = all(new is not None and _alike(entry, new) for entry, new in pairs)
        kept = any(new is not None and _same(entry, new) for entry, new in pairs)
        wrapped = _WRAPPERS.fullmatch(before) and _WRAPPERS.fullmatch(after)
        if len(found) == len(gone) and alike and (kept or wrapped):
            return found
    return _by_content(gone, came)


def _prefixes(gone: Mapping[str, Entry], came: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    """What may have stood before all old names and stands before the new ones now, likely first."""
    first = min(gone, key=natural_key)
    votes: Counter[tuple[str, str]] = Counter()
    for new in came:
        parts = zip(reversed(re.split(r"(?<=\.)", first)), reversed(re.split(r"(?<=\.)", new)),
                    strict=False)  # fmt: skip
        shared = 0
        for a, b in parts:
            if a != b:
                break
            shared += len(a)
        if shared:
            votes[first[: len(first) - shared], new[: len(new) - shared]] = shared
    yield from (pair for pair, _ in votes.most_common(8))


def _alike(a: Entry, b: Entry) -> bool:
    return a.tensor.shape == b.tensor.shape and a.opaque == b.opaque


def _same(a: Entry, b: Entry) -> bool:
    return content_of(a) == content_of(b) and a.tensor.nbytes > 0


def _by_content(gone: Mapping[str, Entry], came: Mapping[str, Entry]) -> dict[str, str]:
    """Large tensors that kept their bytes, where no other has the same."""
    found: dict[tuple[object, ...], list[list[str]]] = {}
    for place, entries in enumerate((gone, came)):
        for name, entry in entries.items():
            if entry.tensor.nbytes >= TIE_BYTES:
                found.setdefault(content_of(entry), [[], []])[place].append(name)
    pairs = (names for names in found.values() if [len(one) for one in names] == [1, 1])
    return {old[0]: new[0] for old, new in pairs}


@dataclass(frozen=True, slots=True)
class Followed:
    """The versions of a checkpoint, with each tensor under its new name where a side renamed it.

    `names` are those of the base, then of each side: for every tensor that stands there under
    another name, that name by the new one. `split` has the tensors that sides renamed differently,
    by their old names, with the new ones; these are not followed.
    """

    base: Manifest | None
    sides: tuple[Manifest, ...]
    names: tuple[Names, ...]
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def follow(base: Manifest | None, sides: Sequence[Manifest]) -> Followed:
    """Find what two or more sides renamed, and have it meet under its new name."""
    nothing: tuple[Names, ...] = ({},) * (1 + len(sides))
    if base is None:
        return Followed(base, tuple(sides), nothing)
    moves = [renamed(base, side) for side in sides]
    new: dict[str, dict[str, None]] = {}
    for move in moves:
        for before, after in move.items():
            new.setdefault(before, {})[after] = None
    split = {before: tuple(names) for before, names in new.items() if len(names) > 1}
    tables = [entries_of(side) for side in sides]
    taken = dict(_taken(new, moves, tables))
    old = entries_of(base)
    if not any(_brings(old, tables, *pair) for pair in taken.items()):
        return Followed(base, tuple(sides), nothing, split)
    there = [
        {after: before for before, after in taken.items() if before in table}
        for table in (old, *tables)
    ]
    versions = [_under(*pair) for pair in zip((base, *sides), there, strict=True)]
    return Followed(versions[0], tuple(versions[1:]), tuple(there), split)


def _taken(
    new: Mapping[str, Mapping[str, None]],
    moves: Sequence[Names],
    tables: Sequence[Mapping[str, Entry]],
) -> Iterator[tuple[str, str]]:
    """The renames, old name and new, that all other sides can follow, and that some has to."""
    targets = Counter(after for names in new.values() for after in names)
    for before, names in new.items():
        after = next(iter(names))
        if len(names) > 1 or targets[after] > 1:
            continue
        others = sum(before in table or before in move
                     for table, move in zip(tables, moves, strict=True))  # fmt: skip
        twice = any(before in table and after in table for table in tables)
        if others > 1 and not twice:
            yield before, after


def _brings(
    old: Mapping[str, Entry], tables: Sequence[Mapping[str, Entry]], before: str, after: str
) -> bool:
    """Whether a side changed what another one renamed, or renamed and changed it too."""
    found = (table.get(before) or table.get(after) for table in tables)
    return any(now is not None and not _same(old[before], now) for now in found)


def split_renames(split: Mapping[str, tuple[str, ...]]) -> Iterator[Group]:
    """What sides renamed differently, as one group: to close it is to choose one side's names."""
    if split:
        first = min(split, key=natural_key)
        label = f"{first} was renamed to {' and to '.join(split[first])}"
        names = dict.fromkeys((first, *split))
        names.update(dict.fromkeys(name for found in split.values() for name in found))
        yield Group("renamed", label, tuple(names))


def _under(version: Manifest, there: Names) -> Manifest:
    if not there:
        return version
    names = {before: after for after, before in there.items()}
    entries = [
        replace(entry, tensor=replace(entry.tensor, name=names.get(entry.tensor.name) or
                                      entry.tensor.name))
        for entry in version.entries
    ]  # fmt: skip
    entries.sort(key=lambda entry: natural_key(entry.tensor.name))
    return replace(version, entries=tuple(entries))


def lost_renames(
    old: Mapping[str, Entry],
    mine: Mapping[str, Entry],
    yours: Mapping[str, Entry],
    labels: tuple[str, str] = ("ours", "theirs"),
) -> Iterator[Group]:
    """Tensors that one side removed and the other changed, with what may be their new names.

    To take the change alone would leave it under a name that nothing reads, if they are.

    Args:
        old, mine, yours: the entries of the base, ours and theirs, by name.
        labels: what the two sides are called.
    """
    for here, there, words in ((mine, yours, labels), (yours, mine, labels[::-1])):
        gone = [
            name for name, entry in old.items()
            if name not in here and name in there and not _same(entry, there[name])
            and entry.tensor.nbytes >= TIE_BYTES
        ]  # fmt: skip
        shapes = {old[name].tensor.shape for name in gone}
        new = [
            name for name, entry in here.items()
            if name not in old and name not in there and entry.tensor.shape in shapes
        ]  # fmt: skip
        came = {here[name].tensor.shape for name in new}
        gone = [name for name in gone if old[name].tensor.shape in came]
        if gone and new:
            label = f"{words[0]} removed {gone[0]} and added {new[0]}, {words[1]} changed {gone[0]}"
            yield Group("renamed", label, (*gone, *new))
