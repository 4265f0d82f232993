"""Models whose tensors mean something only with all others: trees, vectors of a dictionary.

Trees of an ensemble are grown one after the other: each corrects those before it, or was drawn with
them. The rows of a fastText model are words of its dictionary. Such tensors are one value to a
merge as soon as more than their numbers changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from git_theta_ext.formats.fasttext import DICTIONARY
from git_theta_ext.manifest.model import Entry

_TREES = ("estimators_", "_predictors", "tree_")
"""Attributes of scikit-learn's estimators below which `nodes` are those of trees."""


def models(
    entries: Mapping[str, Entry], changed: Set[str], formats: Set[str]
) -> Iterator[tuple[str, set[str]]]:
    """What a model of such tensors is called in messages, and all its tensors.

    Args:
        entries: every tensor of any version, by name.
        changed: those that some side changed.
        formats: the containers of the versions.
    """
    if "fasttext" in formats and DICTIONARY in changed:
        yield "the dictionary and the vectors of its words", set(entries)
    if "pickle" not in formats:
        return
    found = {_model_of(name) for name, entry in entries.items() if entry.opaque}
    names: dict[str, set[str]] = {one: set() for one in found if one is not None}
    lengths = sorted({len(prefix) for prefix in names})
    for name in entries:
        prefix = next((name[:length] for length in lengths if name[:length] in names), None)
        if prefix is not None:
            names[prefix].add(name)
    for prefix, below in names.items():
        yield f"the trees of {prefix[:-1]}" if prefix else "the trees", below


def _model_of(name: str) -> str | None:
    """What stands before the trees whose nodes these are, with a dot at its end, if at all."""
    keys = name.split(".")
    first = next((at for at, key in enumerate(keys) if key in _TREES), None)
    if first is None or keys[-1] != "nodes":
        return None
    return "".join(f"{key}." for key in keys[:first])
