"""Follow tensors that one side renamed and the other trained, so that both meet under one name.

Wrappers put a prefix before every name (`module.`, `_orig_mod.`, `base_model.model.`), or take it
away. A tensor is taken to be one of the base under a new name only if all that vanished on a side
came back that way, each of the same shape, and either the prefix is a wrapper's or some tensor kept
its bytes; or if a single one kept its bytes, and no other has the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.decisions import TIE_BYTES, Side, content_of, entries_of
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


def follow(
    base: Manifest | None, ours: Manifest, theirs: Manifest
) -> tuple[Manifest | None, Manifest, Manifest, dict[Side, Names]]:
    """The three versions, each tensor under the name that the side gave it that renamed it.

    Returns:
        The versions, and for each that calls a tensor by another name now: the name under which it
        stands there, by the new one.
    """
    if base is None:
        return base, ours, theirs, {}
    moves = [renamed(base, side) for side in (ours, theirs)]
    taken = {
        old: new
        for mine, other, side in ((moves[0], moves[1], theirs), (moves[1], moves[0], ours))
        for old, new in mine.items()
        if other.get(old, new) == new and (old in entries_of(side) or new in other.values())
    }
    if not any(_brings(base, side, old, new) for side in (ours, theirs)
               for old, new in taken.items()):  # fmt: skip
        return base, ours, theirs, {}
    followed: dict[Side, Names] = {}
    versions = []
    labels: tuple[Side, ...] = ("base", "ours", "theirs")
    for label, version in zip(labels, (base, ours, theirs), strict=True):
        there = {old: new for old, new in taken.items() if old in entries_of(version)}
        if there:
            followed[label] = {new: old for old, new in there.items()}
        versions.append(_under(version, there))
    return versions[0], versions[1], versions[2], followed


def _brings(base: Manifest, side: Manifest, old: str, new: str) -> bool:
    """Whether a side changed what the other one renamed, or renamed and changed it too."""
    before, now = entries_of(base), entries_of(side)
    found = now.get(old) or now.get(new)
    return found is not None and not _same(before[old], found)


def _under(version: Manifest, names: Names) -> Manifest:
    if not names:
        return version
    entries = [
        replace(entry, tensor=replace(entry.tensor, name=names.get(entry.tensor.name) or
                                      entry.tensor.name))
        for entry in version.entries
    ]  # fmt: skip
    entries.sort(key=lambda entry: natural_key(entry.tensor.name))
    return replace(version, entries=tuple(entries))


def lost_renames(
    old: Mapping[str, Entry], mine: Mapping[str, Entry], yours: Mapping[str, Entry]
) -> Iterator[Group]:
    """Tensors that one side removed and the other changed, with what may be their new names.

    To take the change alone would leave it under a name that nothing reads, if they are.
    """
    for here, there, words in (
        (mine, yours, ("ours", "theirs")),
        (yours, mine, ("theirs", "ours")),
    ):
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
            label = (
                f"{words[0]} removed {gone[0]} and added {new[0]}, {words[1]} changed the former"
            )
            yield Group("renamed", label, (*gone, *new))
