"""The configuration tracked beside an adapter: in each version of a merge, and in its result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG
from git_theta_ext.core import files, limits
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.merge.decide.scaling import SETTLE, Configs, Scalings, Text, Unknown

FindHeads = Callable[[], Heads | None]


@dataclass(frozen=True, slots=True)
class Grown:
    """The settings of a merge before a growing rank changed them, and after."""

    before: bytes
    after: bytes


def scalings_ahead(
    repository: Repository, path: str, heads: FindHeads, *, writable: bool = False
) -> Scalings:
    """The settings beside a checkpoint in a merge whose result Git has not written yet.

    Args:
        repository: where the commits are.
        path: of the checkpoint, from the top.
        heads: finds the commits; None where Git does not tell which are merged.
        writable: whether a verb that may write the settings, too, is going to merge.
    """

    def load() -> Configs:
        versions = _versions(repository, path, heads())
        return Configs.parse(versions, _merged(repository, config_path(path), versions))

    return Scalings(load, writable=writable)


def scalings_under_way(
    repository: Repository, path: str, heads: FindHeads, grown: Grown | None = None
) -> Scalings:
    """As `scalings_ahead`, where the result's settings stand in the index, merged or staged.

    Args:
        repository: where the merge is under way.
        path: of the checkpoint, from the top of the work tree.
        heads: finds the commits; None if Git does not tell which are merged.
        grown: the settings before and after a growing rank changed them.
    """

    def load() -> Configs:
        result = result_text(repository, path)
        if grown is not None and result == grown.after:
            result = grown.before
        return Configs.parse(_versions(repository, path, heads()), result)

    return Scalings(load, writable=True)


def result_text(repository: Repository, path: str) -> Text:
    """The settings beside a checkpoint as the index has them."""
    stages = {one.stage: one.oid for one in repository.index(literal(config_path(path)))}
    if not stages:
        return None
    if 0 not in stages:
        return Unknown(f"{CONFIG} is in conflict: {SETTLE}")
    return _text(repository, stages[0])


def config_path(path: str) -> str:
    """Where the configuration of an adapter stands: beside its file."""
    return str(PurePosixPath(path).with_name(CONFIG))


def _versions(repository: Repository, path: str, heads: Heads | None) -> list[Text]:
    beside = config_path(path)
    if heads is None:
        there = repository.resolve("HEAD") and repository.blob_at("HEAD", beside)
        lost = Unknown(f"Git does not say which commits are merged, so {CONFIG} cannot be read")
        return [lost] * 3 if there else [None] * 3
    commits = (heads.ours, heads.theirs, heads.base)
    oids = [repository.blob_at(one, beside) if one else None for one in commits]
    texts = [None if oid is None else _text(repository, oid) for oid in oids]
    if any(repository.blob_at(one, beside) != oids[2] for one in heads.further):
        texts[2] = Unknown(f"the branches have several common ancestors, and {CONFIG} differs")
    return texts


def _text(repository: Repository, oid: str) -> Text:
    if repository.blob_size(oid) > limits.ADAPTER_CONFIG_BYTES:
        return Unknown(f"{CONFIG} is larger than {limits.ADAPTER_CONFIG_BYTES:,} bytes")
    return repository.blob(oid)


def _merged(repository: Repository, path: str, versions: Sequence[Text]) -> Text:
    """What Git will make of the configuration; unknown where it is going to be a conflict."""
    ours, theirs, base = versions
    if theirs in (ours, base):
        return ours
    if ours == base:
        return theirs
    clash = Unknown(f"both sides changed {CONFIG}: {SETTLE}")
    if not isinstance(ours, bytes) or not isinstance(theirs, bytes) or not isinstance(base, bytes):
        return clash
    own = repository.attribute("merge", path) not in ("unspecified", "set", "text")
    if own or repository.setting("merge.default"):
        return clash
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        names = [os.path.join(folder, name) for name in ("ours", "base", "theirs")]
        for name, text in zip(names, (ours, base, theirs), strict=True):
            files.replace_file(name, text)
        status, output, _ = run_program(["git", "merge-file", "-p", "-q", *names], repository.cwd)
    return clash if status else output
