"""`git theta lock`, `locks` and `unlock`: file locking, which is git-lfs's and its server's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from git_theta_ext.core.errors import TransferError, UsageError
from git_theta_ext.core.text import from_program, printable, to_json
from git_theta_ext.git.process import run_git, run_in_terminal, run_program
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.transfer import endpoints

_ABOUT = (
    "Locks are kept by the Git LFS server of the remote and handed to git-lfs as they are: they "
    "work for every path, whoever stores the file. "
)


def add_parser(subparsers: Any) -> None:
    """Add the parsers of `lock`, `locks` and `unlock`."""
    lock = subparsers.add_parser(
        "lock",
        help="lock a file at the Git LFS server, so that nobody else pushes it",
        description=_ABOUT + "While a file is locked, a push of it by somebody else is refused, "
        "where the server verifies locks.",
    )
    lock.add_argument("paths", nargs="+", metavar="PATH", help="files of the work tree")
    locks = subparsers.add_parser(
        "locks", help="list the locks of the Git LFS server", description=_ABOUT + "List them."
    )
    locks.add_argument("-p", "--path", metavar="PATH", help="only the lock of this file")
    locks.add_argument("-i", "--id", metavar="ID", help="only the lock with this id")
    locks.add_argument("-l", "--limit", type=int, metavar="N", help="no more than so many")
    for name, text in (
        ("local", "our own locks, as they are known here: the server is not asked"),
        ("cached", "all locks, as the server last gave them: it is not asked"),
        ("verify", "have the server say which are ours"),
    ):
        locks.add_argument(f"--{name}", action="store_true", help=text)
    unlock = subparsers.add_parser(
        "unlock",
        help="give back the lock of a file",
        description=_ABOUT + "Give locks back. A file that was changed keeps its lock.",
    )
    unlock.add_argument("paths", nargs="*", metavar="PATH", help="files of the work tree")
    unlock.add_argument("-i", "--id", metavar="ID", help="the lock with this id")
    unlock.add_argument(
        "-f", "--force", action="store_true", help="even if it is somebody else's, or changed"
    )
    for verb, parser in (("lock", lock), ("locks", locks), ("unlock", unlock)):
        parser.add_argument("-r", "--remote", metavar="NAME", help="default: as for git theta push")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run, verb=verb)


def run(args: argparse.Namespace) -> int:
    """Hand the command to git-lfs; its exit status.

    Raises:
        UsageError: nothing says which file, or there is no remote.
        TransferError: git-lfs is not installed, or the remote keeps no locks.
    """
    if args.verb == "unlock" and bool(args.paths) == (args.id is not None):
        raise UsageError("say which lock: a PATH, or --id ID")
    repository = Repository.discover()
    words = [] if _stays_here(args) else _server(repository, args.remote)
    run_git(["lfs", "version"], repository.cwd)
    # One by one: git-lfs takes several paths only since 3.5.
    paths: list[str | None] = getattr(args, "paths", []) or [None]
    options = list(_options(args))
    commands = [
        [*words, "lfs", args.verb, *options, *([] if path is None else ["--", path])]
        for path in paths
    ]
    if args.json or (args.quiet and args.verb != "locks"):
        answer = to_json(_answer(repository, args, commands))
        if args.json:
            print(answer)
        return 0
    for command in commands:
        if run_in_terminal(command) != 0:
            return TransferError.exit_code
    return 0


def _answer(
    repository: Repository, args: argparse.Namespace, commands: Iterable[Sequence[str]]
) -> dict[str, Any]:
    """What git-lfs answers to all of the commands, in one form for every version of it.

    Raises:
        TransferError: it refused one; those before it were carried out, and the message names them.
    """
    given = getattr(args, "paths", [])
    rows: list[dict[str, Any]] = []
    for number, command in enumerate(commands):
        status, output, errors = run_program(["git", *command], repository.cwd)
        answer = _parsed(output)
        if status != 0:
            reasons = [one.get("reason") for one in answer if isinstance(one, dict)]
            said = from_program(errors).strip() or "; ".join(filter(None, reasons))
            before = ", ".join(map(printable, given[:number]))
            done = f"\n{args.verb}ed before that: {before}" if before else ""
            raise TransferError(f"{said or 'git-lfs refused it'}{done}")
        rows += [] if args.verb == "unlock" else _rows(args, answer)
    if args.verb == "unlock":
        return {"unlocked": [{"path": path, "id": None} for path in given]
                or [{"path": None, "id": args.id}]}  # fmt: skip
    return {"locks": rows}


def _parsed(output: bytes) -> list[Any]:
    """What git-lfs printed: a list, or pairs of whose locks they are and a list; [] if neither."""
    try:
        found = json.loads(output)
    except ValueError:
        return []
    if isinstance(found, dict) and "path" not in found:
        return list(found.items())
    return found if isinstance(found, list) else [found]


def _rows(args: argparse.Namespace, answer: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """A record of each lock; `ours` is None where the server was not asked whose it is."""
    for one in answer:
        if isinstance(one, tuple):
            yield from (_row(lock, one[0] == "ours") for lock in one[1] or ())
        else:
            yield _row(one, True if args.verb == "lock" or args.local else None)


def _row(lock: dict[str, Any], ours: bool | None) -> dict[str, Any]:
    owner = lock.get("owner") or {}
    return {"path": lock.get("path"), "id": lock.get("id"), "owner": owner.get("name"),
            "locked_at": lock.get("locked_at"), "ours": ours}  # fmt: skip


def _stays_here(args: argparse.Namespace) -> bool:
    return args.verb == "locks" and bool(args.local or args.cached)


def _server(repository: Repository, named: str | None) -> Sequence[str]:
    """The setting by which git-lfs asks the server that objects are sent to, and no other.

    git-lfs would also go where any branch's `.lfsconfig` says.
    """
    remote = named or endpoints.default_remote(repository)
    if remote is None:
        raise UsageError("this repository has no remote that could keep locks")
    url = endpoints.remote_url(repository, remote, push=True)
    endpoint = endpoints.for_push(repository, remote, url)
    if endpoint.folder is not None:
        raise TransferError(f"{endpoint.remote} is a folder ({endpoint}), which keeps no locks")
    server = endpoint.url
    if endpoint.setting is None and server.startswith(("http://", "https://")):
        # As git-lfs makes the server's URL of a remote's.
        server = server.removesuffix("/")
        server += "/info/lfs" if server.endswith(".git") else ".git/info/lfs"
    return ["-c", f"lfs.url={server}", "-c", f"lfs.pushurl={server}"]


def _options(args: argparse.Namespace) -> Sequence[str]:
    """The options that were given, as git-lfs takes them."""
    given = vars(args)
    words = [f"--{name}" for name in ("json", "local", "cached", "verify", "force")
             if given.get(name)]  # fmt: skip
    for name in ("remote", "path", "id", "limit"):
        if given.get(name) is not None:
            words.append(f"--{name}={given[name]}")
    return words
