"""The filter of diffs: Git runs it for `git add -p` and its like, and for pages if it was told to.

Source: git-config(1), `interactive.diffFilter`. It is `git theta diff-filter`, started faster.
"""

from __future__ import annotations

import sys

from git_theta_ext.cli.shown.diff_lines import run


def main() -> int:
    """Filter standard input; the process exit code."""
    try:
        run()
    except OSError:  # the pager was closed
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
