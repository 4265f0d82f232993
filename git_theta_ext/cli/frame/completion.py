"""Completion in bash, zsh and fish: `git theta <TAB>`.

The scripts (`completion.bash` and its like, beside this module) name the commands. The options of a
command they ask for when they are wanted, by `git theta completion --of VERB`, once in each shell:
so they cannot be out of date, and a shell starts as quickly as before. A wheel installs them where
these shells look.

In a line that `--of` prints there are, parted by `|`: an option, or nothing for words without one;
`=` if a value follows it; the values that it may have, parted by blanks; what it is for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files

PLACES = {
    "bash": "share/bash-completion/completions/git-theta",
    "zsh": "share/zsh/site-functions/_git-theta",
    "fish": "share/fish/vendor_completions.d/git-theta.fish",
}
"""Where a wheel puts each, below the prefix."""


def script(shell: str, verbs: Mapping[str, str], topics: Iterable[str]) -> str:
    """The script for a shell.

    Args:
        shell: `bash`, `zsh` or `fish`.
        verbs: the commands, and what each does.
        topics: what else has a page.
    """
    words = " ".join(verbs)
    if shell == "zsh":
        lines = [f"    '{name}:{_quoted(text)}'" for name, text in verbs.items()]
    else:
        lines = [
            f"    complete -c $program -f -n '__git_theta_at verb' -a {name} -d '{_quoted(text)}'"
            for name, text in verbs.items()
        ]
    text = files(__package__).joinpath(f"completion.{shell}").read_text("utf-8")
    text = text.replace("@VERBS@", "\n".join(lines)).replace("@WORDS@", words)
    return text.replace("@TOPICS@", " ".join(topics))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The lines about each option of a command, and the words that it may have without one."""
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        takes = action.nargs != 0
        allowed = " ".join(map(str, action.choices or ()))
        text = " ".join((action.help or "").split()).replace("%%", "%")
        if not action.option_strings:
            if allowed:
                yield f"|=|{allowed}|{text}"
            if isinstance(action, argparse._SubParsersAction):
                for mode in action.choices.values():
                    yield from options(mode)
            continue
        for name in sorted(action.option_strings, key=len, reverse=True):
            yield f"{name}|{'=' if takes else ''}|{allowed}|{text}"


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")
