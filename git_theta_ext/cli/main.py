"""`git theta VERB`: find the verb, import its module and no other, run it, report errors.

Each verb is a module with two functions: `add_parser(subparsers)` adds its argparse parser and
sets the default `run`; `run(args)` does the work and returns the exit code.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from git_theta_ext.cli.frame import answers, manual, options
from git_theta_ext.cli.frame.pager import paged
from git_theta_ext.core.errors import StoreError, ThetaError, UsageError
from git_theta_ext.core.terminal import harmless_streams, open_streams
from git_theta_ext.core.text import nearest, paragraph, printable
from git_theta_ext.core.version import VERSION
from git_theta_ext.git.crashes import hook as crash_hook
from git_theta_ext.git.process import absolute_places

VERBS: dict[str, tuple[str, str]] = {
    "install": ("install", "set up Git to use git-theta for tracked checkpoints"),
    "uninstall": ("uninstall", "remove what install set up"),
    "track": ("track", "track checkpoints by pattern, or list the tracked patterns"),
    "untrack": ("untrack", "stop tracking a pattern"),
    "add": ("add", "add checkpoints by a cluster, or apply an adapter to a committed one"),
    "status": ("status", "show the setup and the state of every tracked checkpoint"),
    "check-files": (
        "check_files",
        "refuse staged checkpoints that are raw, truncated, untracked, too large or hold NaN",
    ),
    "env": ("env", "show the folders, servers, settings and variables in force here"),
    "logs": ("logs", "list, show or remove the logs of errors in git-theta itself"),
    "ls-files": ("ls_files", "list tracked checkpoints in the index or a revision"),
    "diff": ("diff", "show what changed in checkpoints, tensor by tensor"),
    "diff-filter": (
        "diff_filter",
        "make the lines of manifests readable in a diff that Git writes",
    ),
    "summary": ("summary", "say what changed in a few lines, for a commit message"),
    "review": ("review", "open the report of what changed in the browser"),
    "log": ("log", "show the commits that changed a checkpoint, or some of its tensors"),
    "blame": ("blame", "show which commit last changed each tensor of a checkpoint"),
    "modules": ("modules", "show the modules of each checkpoint, and who answers for them"),
    "show": ("show", "show a version of a checkpoint, one of its tensors, a merge, or a patch"),
    "du": ("du", "show what each version and tensor takes in the store"),
    "cat": ("cat", "write one tensor to standard output as .npy"),
    "export": ("export", "write tensors of a version to a file, or a commit as an adapter"),
    "get": ("get", "get a version of somebody's model, whole or in part, without a clone"),
    "cache": ("cache", "show, check and empty the cache of models of other repositories"),
    "release": ("release", "write a version as a folder that loads without git-theta"),
    "sign": ("sign", "sign a version of a model, or verify its signature"),
    "sync": ("sync", "have the models of models.toml as theta.lock says"),
    "update": ("update", "move theta.lock to the newest versions that models.toml allows"),
    "outdated": ("outdated", "show which models of theta.lock have newer versions"),
    "assemble": ("assemble", "build a checkpoint of parts of other versions and repositories"),
    "format-patch": ("format_patch", "write commits, with the objects that they need, to one file"),
    "am": ("am", "take the commits of a patch"),
    "apply": ("apply", "add the update of a patch to a model of the same origin, or take it back"),
    "merge": ("merge", "merge a branch with a strategy, show the plan, or find the best merge"),
    "restore": ("restore", "take some tensors of a checkpoint from another version"),
    "resolve": ("resolve", "settle what a merge left open in a checkpoint"),
    "mergetool": ("mergetool", "settle what a merge left open, in the terminal"),
    "evaluate": ("evaluate", "measure versions of a checkpoint, and keep the results"),
    "scores": ("scores", "show every version of a checkpoint with its scores"),
    "allow": ("allow", "allow the evaluation commands that this repository names"),
    "check": ("check", "check an update by the gates of its base"),
    "stats": ("stats", "what the Fisher and RegMean merges need, measured or from an optimizer"),
    "fetch": ("fetch", "download missing objects from the remote"),
    "pull": ("pull", "download missing objects and write the checkpoints"),
    "push": ("push", "upload objects to the remote"),
    "checkout": ("checkout", "write checkpoints from the objects that are here"),
    "lock": ("locks", "lock a file at the Git LFS server, so that nobody else pushes it"),
    "locks": ("locks", "list the locks of the Git LFS server"),
    "unlock": ("locks", "give back the lock of a file"),
    "pointer": (
        "pointer",
        "show, compare or check the manifest of a file",
    ),
    "receive-check": ("receive_check", "as a server's hook: refuse pushes without their objects"),
    "fsck": ("fsck", "check that every object is here and right"),
    "prune": ("prune", "remove local objects that the remote has"),
    "repack": ("repack", "join the small objects that many commits scattered"),
    "migrate": ("migrate", "move a history in from git-lfs, plain Git and others, or back out"),
    "import-dvc": ("import_dvc", "rewrite history: checkpoints that DVC tracks become manifests"),
    "import-hf": ("import_hf", "make commits and branches of a model in the Hugging Face cache"),
    "mirror": ("mirror", "keep a branch of git-lfs files beside one of manifests"),
    "demo": ("demo", "show everything at work on a small model, in a temporary folder"),
    "completion": ("completion", "print what completes git theta commands in bash, zsh or fish"),
    "version": ("version", "show the versions of git-theta-ext and of what it uses"),
}
"""Verb -> module of `git_theta_ext.cli.verbs`, help. Imported only when the verb is used."""

_HEADINGS = {
    "install": "set up, and see what is here",
    "diff": "look at versions",
    "get": "use, lock and release models",
    "format-patch": "send and take updates as files",
    "merge": "merge, and take parts back",
    "evaluate": "measure, and judge updates",
    "fetch": "move objects",
    "fsck": "look after the store",
    "migrate": "move in and out",
    "demo": "about this program",
}
"""What the overview puts above a verb and those that follow it."""

_NOT_REMINDING = {
    "cache",
    "completion",
    "demo",
    "diff-filter",
    "get",
    "install",
    "receive-check",
    "uninstall",
    "version",
}

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_INTERRUPTED = 130
_BROKEN_PIPE = 141
"""Exit codes of a shell for SIGINT and SIGPIPE."""

_NOT_WRITTEN = (errno.EFBIG, errno.EIO)
"""Of a write that fails for what is outside of this program: such an error names no file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one `git theta` command; the exit code. `argv` has no program name."""
    if argv is None:
        crash_hook.install()
    arguments = list(sys.argv[1:] if argv is None else argv)
    absolute_places()
    open_streams()
    _survive_any_character(sys.stdout)
    _survive_any_character(sys.stderr)
    with harmless_streams():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    """The exit status of a command; our errors, Ctrl-C and a closed pipe give no traceback."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        _remind(arguments)
        return code
    except ThetaError as error:
        return _failed(arguments, error)
    except KeyboardInterrupt:
        print("git theta: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        _print_no_more()
        return _BROKEN_PIPE
    except OSError as error:
        # It may be what the output goes to: then it names no file.
        if error.errno in _FULL:
            where = f" for {printable(str(error.filename))}" if error.filename else ""
            failed = StoreError(f"no space is left on the disk{where}")
        elif error.errno in _NOT_WRITTEN and error.filename is None:
            failed = StoreError(f"the output cannot be written: {error.strerror}")
        else:
            raise
        _print_no_more()
        return _failed(arguments, failed)


def _failed(arguments: list[str], error: ThetaError) -> int:
    """Report an error, as JSON too where that was asked for; its exit status."""
    if options.names_json(arguments) and options.nothing_said():
        print(options.failure(error))
    report(error)
    return error.exit_code


def _print_no_more() -> None:
    """Python flushes stdout once more at exit; where that cannot work, give it somewhere to."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _remind(arguments: list[str]) -> None:
    """Say which push has left objects behind, unless this command is about other things."""
    verb = arguments[0] if arguments else ""
    if verb not in VERBS or verb in _NOT_REMINDING or {"-h", "--help"} & set(arguments):
        return
    from git_theta_ext.git.repository import Repository
    from git_theta_ext.objects.reminders import tell_of_left_behind

    with suppress(ThetaError, OSError):
        tell_of_left_behind(Repository.discover())


def report(error: ThetaError) -> None:
    """Print an error and its hint on stderr, control characters of names escaped."""
    print(f"git theta: error: {paragraph(error.message)}", file=sys.stderr)
    if error.hint is not None:
        print(f"  hint: {paragraph(error.hint, '        ')}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    """Run the verb that the arguments name, and import no other; its exit status."""
    if not arguments:
        print(_overview(), file=sys.stderr)
        return UsageError.exit_code
    verb = arguments[0]
    if verb == "-h" or arguments == ["help"]:
        print(_overview())
        return 0
    if verb in ("help", "--help"):
        return _manual(arguments[1] if arguments[1:] else "")
    if verb in ("-V", "--version"):
        print(f"git-theta-ext {VERSION}")
        return 0
    parser, own = parser_of(verb)
    parser.json = own.json = options.names_json(arguments)
    if "--help" in arguments[: arguments.index("--") if "--" in arguments else None]:
        return _manual(verb)
    try:
        args, unknown = parser.parse_known_args(arguments)
        if unknown:  # the verb's own parser says so, with the verb's usage
            own.refuse(unknown, arguments)
    except SystemExit as stop:  # argparse has printed its message, or the help
        return stop.code if isinstance(stop.code, int) else 0
    options.heed(verb, args)
    if getattr(args, "as_json", False):
        return answers.told(lambda: int(args.run(args)))
    with paged(verb if not options.asks_for_json(args) else ""):
        return options.ended(int(args.run(args)))


def parser_of(verb: str) -> tuple[options.Parser, options.Parser]:
    """The parser of `git theta` with this verb only, and the verb's own.

    Raises:
        UsageError: there is no such verb; names the one that was likely meant.
    """
    module = importlib.import_module(f"git_theta_ext.cli.verbs.{_module_of(verb)}")
    parser = options.Parser(prog="git theta", allow_abbrev=False)
    subparsers = parser.add_subparsers(metavar="VERB")
    module.add_parser(subparsers)
    own = subparsers.choices[verb]
    options.complete(verb, own)
    return parser, own


def _manual(topic: str) -> int:
    """Show the manual page of a verb or another topic; where there is none, the help of `-h`."""
    if topic not in manual.TOPICS and topic:
        _module_of(topic)
    if not manual.show(manual.page_of(topic)):
        print(parser_of(topic)[1].format_help() if topic in VERBS else _overview())
    return 0


def _module_of(verb: str) -> str:
    if verb in VERBS:
        return VERBS[verb][0]
    if verb.startswith("-"):
        raise UsageError(f"unknown option {printable(verb)}", hint="git theta -h")
    near = nearest(verb, VERBS)
    raise UsageError(
        f"{printable(verb)!r} is not a git theta command",
        hint="git theta -h   lists the commands"
        if near is None
        else f"did you mean: git theta {near}",
    )


def _overview() -> str:
    """The usage, and a line on each command."""
    width = max(map(len, VERBS))
    lines: list[str] = []
    for name, (_, text) in VERBS.items():
        if name in _HEADINGS:
            lines += ["", _HEADINGS[name]] if lines else [_HEADINGS[name]]
        lines.append(f"  {name:<{width}}  {text}")
    return "\n".join(
        [
            "usage: git theta [-h] [--version] VERB ...",
            "",
            "Git for machine-learning models: checkpoints versioned tensor by tensor, to the byte.",
            "",
            *lines,
            "",
            "git theta VERB -h     shows the options of a command.",
            "git theta help VERB   shows its manual page, with the exit codes.",
            "Everyday work needs none of them: git add, commit, diff, merge, push do it.",
        ]
    )


def _survive_any_character(stream: TextIO) -> None:
    """Escape what the terminal's encoding cannot show, instead of failing on it."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
