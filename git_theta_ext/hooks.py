"""The hooks in the repository: put in place, chained with others, taken away again.

A hook that is there already is renamed to `<hook>.theta-chained` and called by ours, with the same
arguments and the same stdin. git-lfs does not install its own beside a hook it does not know, so
ours calls git-lfs where git-lfs has been at work. Only the repository's own hooks folder is ever
written to: where `core.hooksPath` names another, `ensure` says what to add there by hand.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from git_theta_ext import files
from git_theta_ext.repository import Repository

HOOKS = ("pre-push", "post-merge", "post-checkout", "post-rewrite")

_MARK = "# git-theta hook"
_CHAINED = ".theta-chained"

_HEAD = """\
#!/bin/sh
{mark}: put here by `git theta install`, taken away by `git theta uninstall`.
# A hook that was here before is {name}{chained}; it runs first.
theta_python={python}
"""

# The guard: another tool may have chained this very file under a new name, and be chained by it.
_PRE_PUSH = """\
theta_refs=$(cat)
test "$GIT_THETA_IN_PRE_PUSH" = "$*|$theta_refs" && exit 0
export GIT_THETA_IN_PRE_PUSH="$*|$theta_refs"
theta_stdin() {
  test -z "$theta_refs" || printf '%s\\n' "$theta_refs"
}
if test -x "$0.theta-chained"; then
  theta_stdin | "$0.theta-chained" "$@" || exit
elif test -d "$(git rev-parse --git-common-dir)/lfs" && command -v git-lfs >/dev/null 2>&1; then
  theta_stdin | git lfs pre-push "$@" || exit
fi
if ! test -x "$theta_python"; then
  echo >&2 "git theta: error: $theta_python is gone, so the objects of checkpoints cannot be sent."
  echo >&2 "  The push was stopped; nothing is lost. Install git-theta-ext again and type:"
  echo >&2 "  git theta install      (or, to do without it: git theta uninstall, or remove $0)"
  exit 1
fi
theta_stdin | "$theta_python" -P -m git_theta_ext.drivers.pre_push "$@" && exit 0
"$theta_python" -P -c 'import git_theta_ext' 2>/dev/null || {
  echo >&2 "git theta: error: git-theta-ext is not installed in $theta_python any more."
  echo >&2 "  The push was stopped; nothing is lost. Install it again and type: git theta install"
  echo >&2 "  (or, to do without it: git theta uninstall, or remove $0)"
}
exit 1
"""

_POST = """\
test "$GIT_THETA_IN_POST_HOOK" = "{name} $*" && exit 0
export GIT_THETA_IN_POST_HOOK="{name} $*"
theta_status=0
if test -x "$0.theta-chained"; then
  "$0.theta-chained" "$@"
  theta_status=$?
{lfs}fi
if test -x "$theta_python"; then
  "$theta_python" -P -m git_theta_ext.drivers.post_hook {name} "$@" </dev/null
else
  echo >&2 "git theta: warning: $theta_python is gone; type: git theta install"
fi
exit $theta_status
"""

_POST_LFS = """\
elif test -d "$(git rev-parse --git-common-dir)/lfs" && command -v git-lfs >/dev/null 2>&1; then
  git lfs {name} "$@"
  theta_status=$?
"""


def ensure(repository: Repository, python: str) -> list[str]:
    """Put the hooks in place, run by the interpreter `python`; what changed, or is to be done.

    Quick and silent when they are there. A folder that cannot be written is told, not raised.
    """
    folder = hooks_folder(repository)
    if not _is_own(repository, folder):
        return _by_hand(folder, python)
    changes: list[str] = []
    for name in HOOKS:
        try:
            changes += _ensure_one(folder / name, script(name, python))
        except OSError as error:
            changes.append(
                f"cannot write the hook {folder / name}: {error.strerror or error}; without it,"
                " push checkpoints with: git theta push"
            )
    return changes


def remove(repository: Repository) -> list[str]:
    """Take our hooks away and put back those that were there before, unchanged; what was done."""
    folder = hooks_folder(repository)
    if not _is_own(repository, folder):
        return []
    changes: list[str] = []
    for name in HOOKS:
        try:
            changes += _remove_one(folder / name)
        except OSError as error:
            changes.append(f"cannot remove the hook {folder / name}: {error.strerror or error}")
    return changes


def hooks_folder(repository: Repository) -> Path:
    """The folder in which Git looks for hooks (`core.hooksPath`, else `hooks`)."""
    configured = repository.setting("core.hooksPath")
    if configured is None:
        return repository.common_dir / "hooks"
    # Git runs hooks at the top of the work tree, and a relative path counts from there.
    base = repository.work_tree or repository.git_dir
    return Path(os.path.normpath(base / Path(configured).expanduser()))


def script(name: str, python: str) -> str:
    """The text of one of our hooks."""
    head = _HEAD.format(mark=_MARK, name=name, chained=_CHAINED, python=_quoted(python))
    if name == "pre-push":
        return head + _PRE_PUSH
    # git-lfs has hooks for checkout and merge, none for rewrites.
    lfs = "" if name == "post-rewrite" else _POST_LFS.replace("{name}", name)
    return head + _POST.replace("{lfs}", lfs).replace("{name}", name)


def _quoted(python: str) -> str:
    """A path as one word of a shell; Git for Windows' shell takes forward slashes."""
    path = python.replace("\\", "/") if os.name == "nt" else python
    return "'" + path.replace("'", "'\\''") + "'"


def _is_own(repository: Repository, folder: Path) -> bool:
    """Whether the folder belongs to this repository alone: is inside its Git directory."""
    return folder.resolve().is_relative_to(repository.common_dir.resolve())


def _by_hand(folder: Path, python: str) -> list[str]:
    """What to add to hooks that are shared or committed and so not ours to change."""
    lines = []
    for name in HOOKS:
        module = "pre_push" if name == "pre-push" else "post_hook"
        if module.encode() in (_read((folder / name).resolve()) or b""):
            continue
        words = "" if name == "pre-push" else f" {name}"
        lines.append(
            f'  {folder / name}: {_quoted(python)} -P -m git_theta_ext.drivers.{module}{words} "$@"'
        )
    if not lines:
        return []
    first = "core.hooksPath is set, and git theta does not change that folder. Add to each file:"
    return [first, *lines]


def _ensure_one(path: Path, text: str) -> list[str]:
    wanted = text.encode("utf-8", "surrogateescape")
    found = _read(path)
    if found == wanted:
        return []
    if found is not None and not _is_ours(found):
        legacy = path.with_name(f"{path.name}.legacy")  # where the pre-commit tool keeps a hook
        before = _read(legacy)
        if before is not None and _is_ours(before):
            if before == wanted:
                return []
            _write(legacy, wanted)
            return [f"updated {legacy}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if found is None and not os.path.lexists(path):
        _write(path, wanted)
        return [f"installed {path}"]
    if found is not None and _is_ours(found):
        _write(path, wanted)
        return [f"updated {path}"]
    return _chain(path, found, wanted)


def _chain(path: Path, found: bytes | None, wanted: bytes) -> list[str]:
    """Put ours in a foreign hook's place. One chained earlier, if it differs, is kept aside."""
    chained = path.with_name(path.name + _CHAINED)
    changes = []
    if os.path.lexists(chained) and not _same_tool(_read(chained), found):
        aside = path.with_name(f"{path.name}.theta-replaced-{secrets.token_hex(4)}")
        files.move(chained, aside)
        changes.append(f"{path.name} was overwritten: the hook it replaced is kept in {aside}")
    files.move(path, chained)
    _write(path, wanted)
    return [*changes, f"installed {path}; the hook that was there is {chained.name} and runs first"]


def _same_tool(one: bytes | None, other: bytes | None) -> bool:
    """Whether two hooks are equal, or both git-lfs's, of whatever version."""
    if one == other:
        return True
    return one is not None and other is not None and b"git lfs " in one and b"git lfs " in other


def _remove_one(path: Path) -> list[str]:
    for place in (path, path.with_name(f"{path.name}.legacy")):
        found = _read(place)
        if found is None or not _is_ours(found):
            continue
        chained = path.with_name(path.name + _CHAINED)
        if os.path.lexists(chained):
            files.move(chained, place)
            return [f"restored {place}"]
        place.unlink()
        return [f"removed {place}"]
    return []


def _is_ours(content: bytes) -> bool:
    return _MARK.encode() in content[:200]


def _read(path: Path) -> bytes | None:
    """A hook's content, or None where there is no readable file (a link is somebody else's)."""
    try:
        return path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else None
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    """Write an executable file, whole or not at all."""
    files.replace_file(path, content, mode=0o777)
