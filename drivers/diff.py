"""The diff driver: Git runs it for each changed checkpoint, instead of its own text diff.

Source: git(1), "GIT_EXTERNAL_DIFF". Each side is a temporary file, the work-tree file, or
`/dev/null`; it holds a manifest (then only changed tensors are read, from the store) or a
checkpoint. The driver always exits 0 when it could say something: Git stops at anything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing

from git_theta_ext.cli.frame import colours
from git_theta_ext.comparison.compare import compare
from git_theta_ext.comparison.handed import handed
from git_theta_ext.comparison.report.text import Style, render
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.terminal import BOLD, harmless_streams
from git_theta_ext.core.text import paragraph, printable
from git_theta_ext.git.crashes import hook as crash_hook
from git_theta_ext.git.process import git_program

_SEVEN = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison that Git asks for; the process exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    with harmless_streams():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    """Answer one call by Git or its difftool; a closed pager is no error."""
    try:
        if len(arguments) == 1:
            print(f"* Unmerged path {printable(arguments[0])}")
        elif os.environ.get("GIT_EXTERNAL_DIFF", "").startswith("git-difftool--helper"):
            return _start_tool(arguments)
        elif len(arguments) >= _SEVEN:
            _show(arguments)
        else:
            print("git-theta-diff is started by Git; see: git theta help install", file=sys.stderr)
            return 2
        sys.stdout.flush()
    except BrokenPipeError:
        # The pager was closed: nobody reads on, and Python must not complain of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ThetaError as error:
        print(f"git-theta: {printable(arguments[0])}: {paragraph(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def _start_tool(arguments: Sequence[str]) -> int:
    """Go on with `git difftool`, which Git would pass over for a path that has a driver."""
    return os.spawnv(os.P_WAIT, git_program(), ["git", "difftool--helper", *arguments])


def _show(arguments: Sequence[str]) -> None:
    path, old_file, _, _, new_file, _, _ = arguments[:_SEVEN]
    new_path = arguments[_SEVEN] if len(arguments) > _SEVEN else path
    colour = colours.decide()
    # Git, too, leaves out the slash of a path that begins with one.
    header = f"diff --git a/{printable(path.lstrip('/'))} b/{printable(new_path.lstrip('/'))}"
    print(Style(colour).paint(BOLD, header))
    with closing(handed(new_path, old_file, new_file)) as pair:
        comparison = compare(pair.old, pair.new)
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    for line in render(new_path, comparison, Style(colour, unicode)):
        print(line)


if __name__ == "__main__":
    crash_hook.install()
    sys.exit(main())
