"""The models that a package holds: their checkpoints, however these are cut into files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from git_theta_ext.checkpoints import shards
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.packages.fetched import Package
from git_theta_ext.packages.files import PackageFile
from git_theta_ext.packages.identity import identity_of
from git_theta_ext.packages.placing import needs_of

Models = Mapping[str, Sequence[Manifest]]
"""Manifests by the path of a checkpoint in its repository, or the pattern of its shards."""


def models_of(package: Package, files: Iterable[PackageFile]) -> Models:
    """The models among the files of a package.

    Raises:
        ManifestError: a manifest is damaged.
    """
    checkpoints = [file for file in files if file.kind == "checkpoint"]
    manifests = needs_of(package.repository, checkpoints).manifests
    found: dict[str, list[Manifest]] = {}
    for file in checkpoints:
        path = shards.model_of(file.path) or file.path
        found.setdefault(path, []).append(manifests[file.blob])
    return found


def identities(models: Models) -> tuple[tuple[str, str], ...]:
    """The path and the identity of each model, by path."""
    return tuple((path, identity_of(models[path])) for path in sorted(models))
