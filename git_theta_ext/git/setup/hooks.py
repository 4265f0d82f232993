"""The hooks in the repository: put in place, chained with others, taken away again.

A hook that is there already is renamed to `<hook>.theta-chained` and called by ours, with the same
arguments and the same stdin. git-lfs does not install its own beside a hook it does not know, so
ours calls git-lfs where git-lfs has been at work. By itself `ensure` writes to the repository's own
hooks folder only. Where Git looks elsewhere (`core.hooksPath`), `share` writes there when told to;
until then `warnings` says that pushes would leave objects behind, unless Git runs the hooks from
its configuration. The texts of the hooks are in `hook_scripts`.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git import launch
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup.hook_scripts import (
    CHAINED,
    COMMIT_SUMMARY,
    HOOKS,
    by_hand,
    calls_lfs,
    calls_ours,
    friendly_name,
    is_ours,
    script,
    shared_script,
)


def ensure(repository: Repository, python: str, *more: str) -> list[str]:
    """Put the hooks in place, run by the interpreter `python`; what changed, or is to be done.

    Quick and silent when they are there. A folder that cannot be written is told, not raised.
    `more` is what follows the interpreter's path in `launch.python_command`.
    """
    command = [python, *(more or (launch.ISOLATED,))]
    folder = hooks_folder(repository)
    if not _is_own(repository, folder):
        return _by_hand(repository, folder, command)
    changes: list[str] = []
    on_request = [COMMIT_SUMMARY] if is_ours(_read(folder / COMMIT_SUMMARY) or b"") else []
    for name in (*HOOKS, *on_request):
        try:
            changes += _ensure_one(folder / name, script(name, command))
        except OSError as error:
            changes.append(
                f"cannot write the hook {folder / name}: {error.strerror or error}; without it,"
                " push checkpoints with: git theta push"
            )
    return changes


def ensure_summary(repository: Repository, python: Sequence[str]) -> list[str]:
    """Put the hook in place that writes a summary into commit messages; what changed.

    A hook that is there already runs first. `python` is `launch.python_command`'s.

    Raises:
        UsageError: the hooks are in a folder of others, so that it is theirs to call it.
        StoreError: the folder cannot be written.
    """
    folder = hooks_folder(repository)
    if not _is_own(repository, folder):
        raise UsageError(
            f"{_why(repository, folder)} which this hook is not written to",
            hint=f"add this line to {_place_of_scripts(folder)[0] / COMMIT_SUMMARY}:\n"
            f'{launch.shell_command(python)} -m git_theta_ext.cli.main summary --into "$@"',
        )
    path = folder / COMMIT_SUMMARY
    try:
        return _ensure_one(path, script(COMMIT_SUMMARY, python))
    except OSError as error:
        raise StoreError(f"cannot write the hook {path}: {error.strerror or error}") from error


def are_there(repository: Repository) -> bool:
    """Whether the repository's own folder has hooks of ours, of whichever Python."""
    folder = hooks_folder(repository)
    return _is_own(repository, folder) and any(
        is_ours(_read(folder / name) or b"") for name in HOOKS
    )


def share(repository: Repository) -> list[str]:
    """Put the hooks into the folder that `core.hooksPath` names, whosever it is; what changed.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder, by_sh = _place_of_scripts(hooks_folder(repository))
    changes: list[str] = []
    for name in HOOKS:
        try:
            changes += _ensure_one(folder / name, shared_script(name, by_sh=by_sh))
        except OSError as error:
            raise StoreError(
                f"cannot write the hook {folder / name}: {error.strerror or error}",
                hint="without it, push the objects of checkpoints with: git theta push",
            ) from error
    return changes


def remove(repository: Repository) -> list[str]:
    """Take our hooks away and put back those that were there before, unchanged; what was done.

    Those in a folder of others stay, which is said: `unshare` takes them away.
    """
    folder = hooks_folder(repository)
    if _is_own(repository, folder):
        return _remove_all(folder)
    place = _place_of_scripts(folder)[0]
    if any(is_ours(_read(place / name) or b"") for name in HOOKS):
        return [f"the hooks in {place} stay: git theta uninstall --hooks   removes them"]
    return []


def unshare(repository: Repository) -> list[str]:
    """Take away what `share` put into the folder of `core.hooksPath`; what was done."""
    return _remove_all(_place_of_scripts(hooks_folder(repository))[0])


def _remove_all(folder: Path) -> list[str]:
    changes: list[str] = []
    for name in (*HOOKS, COMMIT_SUMMARY):
        try:
            changes += _remove_one(folder / name)
        except OSError as error:
            changes.append(f"cannot remove the hook {folder / name}: {error.strerror or error}")
    return changes


def runs_from_config(repository: Repository, name: str) -> bool:
    """Whether the Git at work here runs our hook of an event from git config.

    Git says so itself (`git hook list`, new with such hooks); an earlier one knows no such command.
    """
    if repository.setting(f"hook.{friendly_name(name)}.command") is None:
        return False
    try:
        listed = repository.git("hook", "list", name, ok=(0, 1))
    except RepositoryError:
        return False
    return friendly_name(name).encode() in listed.splitlines()


def file_calls_lfs(repository: Repository) -> bool:
    """Whether the pre-push hook that is a file has git-lfs upload its files: ours does."""
    path = _place_of_scripts(hooks_folder(repository))[0] / "pre-push"
    content = _read(path.resolve())
    return content is not None and (is_ours(content) or calls_lfs(content))


def warnings(
    repository: Repository, command: Callable[[], Sequence[str]] = launch.current_command
) -> list[str]:
    """What keeps a push from here from sending the objects of checkpoints; empty if nothing does.

    The first line says it, those after it what to type. `command` starts Python.
    """
    folder = hooks_folder(repository)
    place, by_sh = _place_of_scripts(folder)
    path = place / "pre-push"
    own = _is_own(repository, folder)
    content = _read(path.resolve()) or b""
    done = calls_ours("pre-push", content)
    if own and not done:
        done = calls_ours("pre-push", _read(folder / "pre-push.legacy") or b"")
    runs = by_sh or os.name == "nt" or os.access(path, os.X_OK)
    if not own and b"-P -m git_theta_ext" in content:
        return [
            f"{path} starts Python so that files of a work tree could be run",
            f"put this line in the place of the one there:\n{by_hand('pre-push', command())}",
        ]
    if (done and runs) or runs_from_config(repository, "pre-push"):
        return []
    if done:
        return [
            f"{path} is not executable, so Git does not run it, and git push leaves the objects of"
            " checkpoints behind",
            f"chmod +x {launch.shell_word(str(path))}",
        ]
    if own:
        return [
            f"there is no pre-push hook in {folder} that would send the objects of checkpoints",
            "git theta install --local",
        ]
    return _how_to_add(repository, folder, path, command())


def _how_to_add(
    repository: Repository, folder: Path, path: Path, python: Sequence[str]
) -> list[str]:
    """What is wrong and what to type where the hooks of somebody else's folder run."""
    configured = repository.setting(f"hook.{friendly_name('pre-push')}.command") is not None
    newer = ["git theta install   (with Git 2.54 or newer this is enough)"]
    return [
        f"{_why(repository, folder)} and its pre-push hook does not call git theta, so git push"
        " leaves the objects of checkpoints behind",
        *([] if configured else newer),
        "git theta install --hooks   (adds the hooks to that folder; those there run first)",
        f"or add this line to {path}:\n{by_hand('pre-push', python)}",
    ]


def _why(repository: Repository, folder: Path) -> str:
    if repository.setting("core.hooksPath") is not None:
        return f"core.hooksPath is set to {folder},"
    return f"the hooks are in {folder},"


def is_elsewhere(repository: Repository) -> bool:
    """Whether Git looks for hooks in a folder that is not this repository's own."""
    return not _is_own(repository, hooks_folder(repository))


def hooks_folder(repository: Repository) -> Path:
    """The folder in which Git looks for hooks (`core.hooksPath`, else `hooks`)."""
    configured = repository.setting("core.hooksPath")
    if configured is None:
        return repository.common_dir / "hooks"
    # Git runs hooks at the top of the work tree, and a relative path counts from there.
    base = repository.work_tree or repository.git_dir
    try:
        return Path(os.path.normpath(base / Path(configured).expanduser()))
    except RuntimeError as error:
        raise UsageError(
            f"core.hooksPath is {printable(configured)}: there is no such user"
        ) from error


def _is_own(repository: Repository, folder: Path) -> bool:
    """Whether the folder belongs to this repository alone: is inside its Git directory."""
    return folder.resolve().is_relative_to(repository.common_dir.resolve())


def _place_of_scripts(folder: Path) -> tuple[Path, bool]:
    """Where the scripts are that Git's hooks folder leads to, and whether `sh -e` starts them.

    husky 9 keeps its own launchers in `.husky/_`; what people write, and commit, is above it.
    """
    if folder.name == "_" and (folder / "h").is_file():
        return folder.parent, True
    return folder, False


def _by_hand(repository: Repository, folder: Path, python: Sequence[str]) -> list[str]:
    """What to add to hooks that are shared or committed and so not ours to change."""
    place = _place_of_scripts(folder)[0]
    lines = [
        f"  {place / name}: {by_hand(name, python)}"
        for name in HOOKS
        if not calls_ours(name, _read((place / name).resolve()) or b"")
        and not runs_from_config(repository, name)
    ]
    if not lines:
        return []
    first = (
        f"{_why(repository, folder)} and git theta does not change that folder unless told to:"
        " git theta install --hooks. Or add to each file:"
    )
    return [first, *lines]


def _ensure_one(path: Path, text: str) -> list[str]:
    """Have the hook at a path run ours, and keep one that is there; what was done, for the user."""
    wanted = text.encode("utf-8", "surrogateescape")
    found = _read(path)
    if found == wanted:
        return []
    if found is not None and not is_ours(found):
        legacy = path.with_name(f"{path.name}.legacy")  # where the pre-commit tool keeps a hook
        before = _read(legacy)
        if before is not None and is_ours(before):
            if before == wanted:
                return []
            _write(legacy, wanted)
            return [f"updated {legacy}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if found is None and not os.path.lexists(path):
        _write(path, wanted)
        return [f"installed {path}"]
    if found is not None and is_ours(found):
        _write(path, wanted)
        return [f"updated {path}"]
    return _chain(path, found, wanted)


def _chain(path: Path, found: bytes | None, wanted: bytes) -> list[str]:
    """Put ours in a foreign hook's place. One chained earlier, if it differs, is kept aside."""
    chained = path.with_name(path.name + CHAINED)
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
        if found is None or not is_ours(found):
            continue
        chained = path.with_name(path.name + CHAINED)
        if os.path.lexists(chained):
            files.move(chained, place)
            return [f"restored {place}"]
        place.unlink()
        return [f"removed {place}"]
    return []


def _read(path: Path) -> bytes | None:
    """A hook's content, or None where there is no readable file (a link is somebody else's)."""
    try:
        return path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else None
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    """Write an executable file, whole or not at all."""
    files.replace_file(path, content, mode=0o777)
