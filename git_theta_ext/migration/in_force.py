"""Whether Git would start the right filter for what a migration has made: asked before refs move.

The lines in `.gitattributes` are ours, but not the last word: `.git/info/attributes` has it.
"""

from __future__ import annotations

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.object_pipes import AS_WRITTEN, ObjectPipes
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import refs
from git_theta_ext.migration.found import LFS, MANIFEST, OTHER, Files
from git_theta_ext.migration.refs import Update

_SHOWN = 20


def require_filters(repository: Repository, pipes: ObjectPipes, files: Files, one: Update) -> None:
    """Check that the work tree would have files, and Git what was made of them.

    Args:
        repository: with a work tree.
        pipes: have room for an index.
        files: says what was made.
        one: the move of the branch that is checked out.

    Raises:
        UsageError: Git would start another filter, or none, for some paths; names them.
    """
    changed = refs.changed_files(repository, one).items()
    made = {
        path: files.kind_of_text(oid) for path, oid in changed if pipes.size_of(oid, "blob")
    }  # an empty file is the same to every filter
    said = _said(repository, pipes, one.new, list(made))
    wrong = [
        f"  {printable(path)}: filter={printable(said[path])}"
        for path, kind in made.items()
        if (said[path] if said[path] in (MANIFEST, LFS) else OTHER) != kind
    ]
    if wrong:
        more = [f"  and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise UsageError(
            "\n".join(["Git would start the wrong filter for these:", *wrong[:_SHOWN], *more]),
            hint=".git/info/attributes, or the file of core.attributesFile, overrules "
            ".gitattributes; take its line out, then run the same command again",
        )


def _said(
    repository: Repository, pipes: ObjectPipes, commit: str, paths: list[str]
) -> dict[str, str]:
    """The filters that Git has for paths of a commit, by whatever says so."""
    with pipes.scratch() as index:
        env = {**AS_WRITTEN, "GIT_INDEX_FILE": str(index.resolve())}
        repository.git("read-tree", commit, env=env)
        return repository.attributes("filter", paths, env)
