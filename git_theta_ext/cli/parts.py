"""Options that choose tensors by the module of `.theta.toml` that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from git_theta_ext.checkpoints import modules, shards
from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.git.settings_file import FILE
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.objects.store import reachable

EXAMPLE = f'in {FILE}: [[module]], name = "vision", pattern = "vision_tower.*"'


def add_module(parser: Any, what: str = "only its tensors") -> None:
    """Add `--module NAME`, which may come more than once."""
    parser.add_argument(
        "--module", action="append", default=[], metavar="NAME",
        help=f"a module that {FILE} declares: {what}",
    )  # fmt: skip


def declared(repository: Repository) -> Modules:
    """The modules of the work tree's `.theta.toml`, else HEAD's.

    Raises:
        UsageError: there are none.
    """
    found = modules.read(repository, None)
    if not found:
        raise UsageError(f"{FILE} declares no module", hint=EXAMPLE)
    return found


def checkpoints_of(repository: Repository, revision: str) -> list[str]:
    """The checkpoints of a version that are stored by tensor; a sharded model by its pattern."""
    commit = commit_of(repository, revision)
    files = dict(blobs_of(repository, commit))
    held = {oid for oid, _ in reachable.manifest_texts(repository, files.values())}
    models = (shards.model_of(path) or path for path, oid in files.items() if oid in held)
    return list(dict.fromkeys(models))


def described(tensors: Sequence[str], modules: Sequence[str]) -> str:
    """What was asked for and is not there: `tensor 'x'`, or `tensor of the module vision`."""
    return f"tensor {tensors[0]!r}" if tensors else f"tensor of the module {modules[0]}"


def patterns_of(repository: Repository, names: Sequence[str], path: str | None) -> list[str]:
    """The patterns of some modules, as options that take patterns of tensors have them.

    Args:
        repository: whose `.theta.toml` it is.
        names: of the modules; nothing is read where there are none.
        path: of the checkpoint that they are to be of; None: any.

    Raises:
        UsageError: there is no such module, or it is not about that checkpoint.
    """
    found: list[str] = []
    for name in names:
        module = declared(repository).named(name)
        if path is not None and not module.is_in(path):
            raise UsageError(
                f"the module {name} is not about {path!r}",
                hint=f"{FILE}: path = {', '.join(module.paths)}",
            )
        found += module.patterns
    return found
