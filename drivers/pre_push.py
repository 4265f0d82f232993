"""The pre-push hook: every object that the pushed commits need is at the remote before a ref moves.

Git gives the remote's name and URL as arguments and, on stdin, a line for each ref:
`<local ref> <local id> <remote ref> <remote id>` (githooks(5)). What the remote has is judged by
the ids that it reports itself; remote-tracking refs may be stale.

Git 2.54 and newer may start the driver twice for one push, from git config (then the first argument
is `--configured`) and from a file: the file's leaves the work to the other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core import advice
from git_theta_ext.core.errors import (
    ManifestError,
    ProtocolError,
    RepositoryError,
    ThetaError,
    TransferError,
)
from git_theta_ext.core.terminal import harmless_streams
from git_theta_ext.core.text import paragraph, plural, printable
from git_theta_ext.evaluation import travel
from git_theta_ext.git import ancestry
from git_theta_ext.git.crashes import hook as crash_hook
from git_theta_ext.git.repository import Repository, any_commit_here
from git_theta_ext.git.setup import hook_scripts, hooks
from git_theta_ext.objects import left_behind, promised
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer import pointers, transport
from git_theta_ext.objects.transfer.lfs import GUARD


@dataclass(frozen=True, slots=True)
class PushedRef:
    """One line of stdin; ids are None where Git writes zeros (a deletion, a new ref)."""

    local: str | None
    remote: str | None
    name: str = ""
    """The ref at the remote."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the hook; 0 lets Git go on with the push, 1 stops it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    text = sys.stdin.buffer.read()
    if os.environ.get(GUARD):
        return 0
    with harmless_streams():
        return _answer(arguments, text)


def _answer(arguments: list[str], text: bytes) -> int:
    """Let the push go on (0) only if every object that it needs is at the remote."""
    try:
        configured = arguments[:1] == [hook_scripts.CONFIGURED]
        arguments = arguments[int(configured) :]
        if len(arguments) != 2:
            raise ProtocolError("pre-push takes a remote's name and its URL; Git passes them")
        repository = Repository.discover()
        # JGit runs the file, and knows nothing of hooks in git config.
        left = not configured and not ancestry.started_by_another()
        if left and hooks.runs_from_config(repository, "pre-push"):
            return 0
        refs = parse(text)
        others = _others(repository, arguments[0], refs)
        run(repository, arguments[0], arguments[1], refs, others)
        left_behind.remember(
            repository, arguments[0], arguments[1], [ref.local for ref in refs if ref.local]
        )
        if configured:
            _run_lfs(repository, arguments, text)
        _send_results(repository, arguments[0], arguments[1], {ref.name for ref in refs})
        _send_mirrors(repository, arguments[0], arguments[1], refs)
    except ThetaError as error:
        print(f"git theta: error: {paragraph(error.message)}", file=sys.stderr)
        print(
            "  The push was stopped and no ref has moved, because the objects above are not"
            " all at the remote.",
            file=sys.stderr,
        )
        if error.hint:
            print(f"  hint: {paragraph(error.hint, '        ')}", file=sys.stderr)
        return 1
    return 0


def _send_results(repository: Repository, remote: str, url: str, moved: set[str]) -> None:
    """Send the results of evaluations, too; a remote that does not take them stops no push."""
    try:
        if travel.publish(repository, remote, url, moved):
            more = "; git fetch brings those of others from now on"
            more = more if travel.follow(repository, remote) else ""
            print(
                f"git theta: results of evaluations sent to {printable(remote)}{more}",
                file=sys.stderr,
            )
    except RepositoryError as error:
        print(
            f"git theta: warning: results of evaluations were not sent: {paragraph(error.message)}"
            + (f"\n  hint: {error.hint}" if error.hint else ""),
            file=sys.stderr,
        )


def _send_mirrors(repository: Repository, remote: str, url: str, refs: Sequence[PushedRef]) -> None:
    """Bring along the mirrors of branches that are pushed; what becomes of them stops no push."""
    if repository.setting("theta.mirror") is None:
        return
    if {"-n", "--dry-run"} & set(ancestry.command_of(ancestry.git_command() or ())):
        return
    # Only now: most pushes need nothing of it.
    from git_theta_ext.migration.mirrors import sent as sending

    pushed = {ref.name: ref.local for ref in refs}
    try:
        pairs = sending.configured(repository)
    except ThetaError as error:
        _tell_of_mirror(f"no mirror was sent: {error.message}", error.hint)
        return
    for source, target in pairs:
        tip = pushed.get(f"refs/heads/{source}")
        # (A ref that the push itself moves cannot be moved by its hook.)
        if tip is None or f"refs/heads/{target}" in pushed:
            continue
        try:
            sent = sending.send(repository, remote, url, tip, target)
        except ThetaError as error:
            again = f"git theta mirror --push {remote} {source} {target}"
            _tell_of_mirror(f"{target} was not sent: {error.message}", error.hint or again)
            continue
        if sent.pushed:
            count = plural(sent.files, "file")
            print(f"git theta: {printable(target)}, a mirror, sent with {count}", file=sys.stderr)


def _tell_of_mirror(said: str, hint: str | None) -> None:
    print(f"git theta: warning: {paragraph(said)}", file=sys.stderr)
    if hint:
        print(f"  hint: {paragraph(hint, '        ')}", file=sys.stderr)


def parse(text: bytes) -> list[PushedRef]:
    """The lines that Git writes to the hook.

    Raises:
        ProtocolError: a line does not have four fields.
    """
    refs = []
    # Not `splitlines`: a name may have U+2028 in it, or U+0085.
    for line in text.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"):
        if not line:
            continue
        # The first field may be anything that was typed, spaces included (`HEAD^{/some words}`).
        fields = line.rsplit(" ", 3)
        if len(fields) != 4:
            raise ProtocolError(f"pre-push: a line of four fields was expected, not {line!r}")
        refs.append(PushedRef(_id(fields[1]), _id(fields[3]), fields[2]))
    return refs


def _id(field: str) -> str | None:
    return None if set(field) <= {"0"} else field


def _others(repository: Repository, remote: str, refs: Sequence[PushedRef]) -> list[str]:
    """Commits that need not be looked at in a repository that has nothing to do with git-theta.

    From git config of the user, or a folder of hooks for all, it runs for every repository. One
    that holds no store, and whose pushed commits track nothing, got what the remote has from there.
    """
    if (repository.common_dir / "theta").is_dir() or repository.setting("theta.storage"):
        return []
    if repository.git("for-each-ref", "--count=1", "refs/theta/"):
        return []
    listed = repository.git("for-each-ref", "--format=%(objectname)", f"refs/remotes/{remote}/")
    tips = listed.decode().split()
    for oid in [ref.local for ref in refs if ref.local] if tips else []:
        if repository.git(
            "grep", "-l", "-F", "-e", "filter=theta", oid, "--",
            ".gitattributes", "*/.gitattributes", ok=(0, 1, 128),
        ):  # fmt: skip
            return []
    return tips


def _run_lfs(repository: Repository, arguments: list[str], text: bytes) -> None:
    """Have git-lfs upload its files where it is at work and no hook's file has it do so.

    Raises:
        TransferError: it failed.
    """
    at_work = (repository.common_dir / "lfs").is_dir() and (
        repository.common_dir / "theta"
    ).is_dir()
    if at_work and not hooks.file_calls_lfs(repository):
        try:
            repository.git("lfs", "pre-push", *arguments, stdin=text)
        except RepositoryError as error:
            if "is not a git command" not in error.message:
                raise TransferError(error.message) from error


def run(
    repository: Repository,
    remote: str,
    url: str,
    refs: Sequence[PushedRef],
    others: Sequence[str] = (),
) -> None:
    """Upload what these refs need; what the commits `others` need is not looked at.

    Args:
        repository: what is pushed from.
        remote: its name or URL, as Git gives it to hooks.
        url: where Git pushes to.
        refs: what is pushed, with what the remote has there.
        others: full commit ids.

    Raises:
        ThetaError: not every object is at the remote.
    """
    include = [ref.local for ref in refs if ref.local]
    if not include:
        return
    exclude = [*(ref.remote for ref in refs if ref.remote), *others]
    promising = promised.remotes_of(repository)
    # What a partial clone left at this remote is there, with its objects; another gets it now.
    whole = promising not in ([], [remote])
    updates = [ref for ref in refs if ref.local]
    known = all(ref.remote and any_commit_here(repository, [ref.remote]) for ref in updates)
    objects = reachable.objects_in(
        repository, include, exclude, _warn_of_damage, whole=whole and known
    )
    if not known and (objects or whole):
        exclude += advertised(repository, url)
        objects = reachable.objects_in(repository, include, exclude, _warn_of_damage, whole=whole)
    _warn_of_raw_checkpoints(repository, include)
    moved = {ref.name for ref in refs} | _deleted_by_mirror(repository, remote, url)
    if not objects and moved.isdisjoint(pointers.REFS):
        return
    total = sum(item.size for item in objects.values())
    with Progress(f"Uploading {plural(len(objects), 'object')} to {remote}", total) as progress:
        # A remote that knows none of our commits may be a new one in an old one's place; then
        # nothing that was once confirmed counts.
        known = any_commit_here(repository, exclude)
        done = transport.push(
            repository, remote, url, objects.values(), progress=progress, use_cache=known,
            moved_refs=moved,
        )  # fmt: skip
    if done.place and done.count:
        print(f"git theta: {plural(done.count, 'object')} sent to {done.place}", file=sys.stderr)
    if done.warning:
        print(f"git theta: warning: {paragraph(done.warning)}", file=sys.stderr)


def _deleted_by_mirror(repository: Repository, remote: str, url: str) -> set[str]:
    """The refs of pointer files that `git push --mirror` is about to delete.

    Git does not tell the hook of them: they are those that the remote has and this clone has not.
    """
    if not (repository.flag(f"remote.{remote}.mirror") or mirrors(ancestry.git_command() or ())):
        return set()
    try:
        there = repository.git("ls-remote", "--", url, f"{pointers.REF}*").split(b"\n")
    except RepositoryError:
        return set()
    names = {os.fsdecode(line.partition(b"\t")[2]) for line in there if line}
    return {name for name in names if repository.resolve(name) is None}


def mirrors(command: Sequence[str]) -> bool:
    """Whether a `git push ...` deletes every ref that is not here; options may be abbreviated."""
    words = ancestry.command_of(command)
    if words[:1] != ["push"]:
        return False
    everything = any(word.lstrip("+") == "refs/*:refs/*" for word in words)
    return any(
        (len(word) > 2 and "--mirror".startswith(word)) or (everything and word == "--prune")
        for word in words
    )


def _warn_of_damage(oid: str, error: ManifestError) -> None:
    """A blob that only looks like a manifest names no objects and does not stop a push."""
    print(f"git theta: warning: blob {oid}: {paragraph(error.message)}", file=sys.stderr)


def advertised(repository: Repository, url: str) -> list[str]:
    """The ids that the remote reports now; none where it does not answer (the push will tell)."""
    try:
        answer = repository.git("ls-remote", "--", url, env={"GIT_TERMINAL_PROMPT": "0"})
    except RepositoryError:
        return []
    return list(dict.fromkeys(line.split()[0].decode() for line in answer.splitlines() if line))


def _warn_of_raw_checkpoints(repository: Repository, include: Sequence[str]) -> None:
    """Say which tracked files of the current branch are plain blobs; only a courtesy."""
    if repository.work_tree is None or repository.setting("extensions.partialClone"):
        return
    with suppress(RepositoryError):
        if repository.resolve("HEAD") not in include:
            return
        entries = repository.tracked()
        found = {oid for oid, _ in reachable.manifests_in(repository, {e.oid for e in entries})}
        raw = [entry.path for entry in entries if entry.oid not in found]
        if raw:
            print(
                f"git theta: warning: {plural(len(raw), 'tracked file')} committed as a plain blob,"
                f" or by git-lfs, such as {printable(raw[0])};"
                "\n  to store the next version tensor by tensor:"
                f" {advice.with_name(advice.STORE_BY_TENSOR, raw[0])}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    crash_hook.install()
    sys.exit(main())
