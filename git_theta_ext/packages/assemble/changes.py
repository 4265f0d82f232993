"""What became of a checkpoint's tensors when it was assembled anew: from manifests alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from git_theta_ext.core.text import plural, size
from git_theta_ext.manifest.model import Entry, Manifest, UpdateRef
from git_theta_ext.packages.assemble.locked import digest_of


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of tensors that changed, came, or went; `renamed` are new names of those that went.

    `stored` is what the objects take that the version before does not name, in bytes.
    """

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: Mapping[str, str]
    stored: int
    is_first: bool

    def words(self) -> str:
        """A sentence for a reader."""
        if self.is_first:
            return f"a new checkpoint; {size(self.stored)} in objects"
        parts = [
            f"{plural(len(names), 'tensor')} {what}"
            for names, what in (
                (self.changed, "changed"), (self.added, "added"), (self.removed, "removed"),
                (self.renamed, "renamed"),
            )
            if names
        ]  # fmt: skip
        return f"{', '.join(parts) or 'no tensor changed'}; {size(self.stored)} in new objects"

    def record(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "changed": list(self.changed), "added": list(self.added),
            "removed": list(self.removed), "renamed": dict(self.renamed), "stored": self.stored,
        }  # fmt: skip


def changes(before: Manifest | None, after: Manifest) -> Changes:
    """What is in one version and not in the other."""
    old = {} if before is None else before.by_name()
    new = after.by_name()
    changed = tuple(
        name for name in new if name in old and digest_of(old[name]) != digest_of(new[name])
    )
    gone: dict[str, list[str]] = {}
    for name, entry in old.items():
        if name not in new:
            gone.setdefault(digest_of(entry), []).append(name)
    added, renamed = [], {}
    for name, entry in new.items():
        if name in old:
            continue
        known = gone.get(digest_of(entry))
        if known:
            renamed[known.pop(0)] = name
        else:
            added.append(name)
    removed = tuple(name for names in gone.values() for name in names)
    there = set() if before is None else {ref.oid for ref in before.objects()}
    objects: dict[str, UpdateRef] = {ref.oid: ref for ref in after.objects()}
    stored = sum(ref.size for oid, ref in objects.items() if oid not in there)
    return Changes(changed, tuple(added), removed, renamed, stored, before is None)


def differing(wanted: Mapping[str, Entry], found: Mapping[str, Entry]) -> list[str]:
    """Sentences on tensors that are not what they should be."""
    return [
        *(f"{name} is not there" for name in wanted if name not in found),
        *(f"{name} should not be there" for name in found if name not in wanted),
        *(
            f"{name} has other values"
            for name, entry in wanted.items()
            if name in found and digest_of(entry) != digest_of(found[name])
        ),
    ]
