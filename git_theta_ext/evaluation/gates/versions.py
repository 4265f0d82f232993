"""What a check looks at: checkpoints in commits, by the identity of what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from git_theta_ext.checkpoints import shards
from git_theta_ext.comparison.files import Pair
from git_theta_ext.evaluation.config import Evaluation
from git_theta_ext.evaluation.content import Identities, content_of
from git_theta_ext.evaluation.gates.rules import Version
from git_theta_ext.evaluation.measure import uses_folder
from git_theta_ext.evaluation.targets import Target, Targets, hash_of_beside
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import MAGIC, MAX_BYTES
from git_theta_ext.manifest.text import Parser

MOST = 1_000
"""Versions of a checkpoint that are looked at for the best one, the newest first."""


class Versions:
    """The versions of checkpoints in commits; each is identified once."""

    def __init__(self, repository: Repository) -> None:
        """Nothing is read yet."""
        self._repository = repository
        self._contents: dict[tuple[str, str], str | None] = {}
        self._blobs: dict[str, str] = {}
        self._identities = Identities()
        self._parser = Parser()
        self._targets = Targets(repository)
        self._at: dict[str, dict[str, Target]] = {}

    def note(self, base: str, new: str, pair: Pair) -> None:
        """Take over the identities of a pair's sides, which were read anyway."""
        if shards.names_model(pair.path):
            return
        for commit, path, side in (
            (base, pair.renamed_from or pair.path, pair.old),
            (new, pair.path, pair.new),
        ):
            found = None if side is None else content_of([side.manifest])
            self._contents.setdefault((commit, path), found)

    def version(
        self, label: str, commit: str, paths: Sequence[str], evaluation: Evaluation
    ) -> Version:
        """A version of a checkpoint.

        Args:
            label: what reports call it.
            commit: the commit, or the empty tree.
            paths: where it may stand; the first that the commit has counts.
            evaluation: tells whether the files beside it count.

        Raises:
            ManifestError: its manifest is damaged.
        """
        found = [(path, self.content(commit, path)) for path in paths]
        path, content = next((one for one in found if one[1] is not None), (paths[0], None))
        is_commit = self._repository.resolve(f"{commit}^{{commit}}") is not None
        beside = None
        if content is not None and uses_folder(evaluation):
            target = self.targets(commit).get(path)
            beside = None if target is None else hash_of_beside(self._repository, target)
        return Version(label, commit if is_commit else "", content, beside=beside)

    def history(self, commit: str, path: str, evaluation: Evaluation) -> list[Version]:
        """The versions of a checkpoint up to a commit, the newest first; at most `MOST`."""
        answer = self._repository.git(
            "log", f"-{MOST}", "--format=%H", commit, "--", pathspec(path), ok=(0, 128)
        )
        found = (self.version("best", one, [path], evaluation) for one in answer.decode().split())
        return [one for one in found if one.content is not None]

    def targets(self, commit: str) -> Mapping[str, Target]:
        """The checkpoints of a commit by path; those of several files by their pattern."""
        if commit not in self._at:
            is_commit = self._repository.resolve(f"{commit}^{{commit}}") is not None
            found = self._targets.of(commit) if is_commit else []
            self._at[commit] = {shards.model_of(one.files[0][0]) or one.path: one for one in found}
        return self._at[commit]

    def content(self, commit: str, path: str) -> str | None:
        """The identity of a checkpoint's tensors in a commit.

        Returns:
            None where it is not there; "" where it is not stored tensor by tensor.

        Raises:
            ManifestError: its manifest is damaged.
        """
        key = (commit, path)
        if key not in self._contents:
            self._contents[key] = self._read(commit, path)
        return self._contents[key]

    def _read(self, commit: str, path: str) -> str | None:
        if shards.names_model(path):
            model = shards.find(self._repository, commit, path)
            return None if model is None else content_of(model.parts)
        oid = self._repository.blob_at(commit, path)
        if oid is None:
            return None
        if oid not in self._blobs:
            found = next(self._repository.small_blobs([oid], MAGIC, MAX_BYTES), None)
            manifest = None if found is None else self._parser.parse(found[1])
            self._blobs[oid] = "" if manifest is None else self._identities.of([manifest])
        return self._blobs[oid]


def pathspec(path: str) -> str:
    """The pathspec of a checkpoint, or of all files of a model."""
    return shards.pathspec_of(path) if shards.names_model(path) else f":(top,literal){path}"
