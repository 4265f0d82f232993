"""Documents that a reader follows: files are written, commands run, the output is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.scenarios.repositories import Repo

_STEP = re.compile(
    r"^`(?P<name>[\w./-]+)` [^`]*?\n\n```(?:python|toml)\n(?P<content>.*?)```"
    r"|^    (?P<line>(?:git|python|cd|cmp|cp) [^\n]*)$"
    r"|^```text\n(?P<shown>.*?)```",
    re.M | re.S,
)
_VARIES = re.compile(r"Δ[ ▁-█]*|[0-9a-f]{7,}|-?\d[\d,.]*(?:e[+-]?\d+)?|\b[kM]?B\b|(?<=# )k\b")


class Step(NamedTuple):
    """One thing that a reader does or sees; what does not belong to it is empty."""

    name: str
    """A file to write, and its content."""
    content: str
    line: str
    """A command, with its exit status."""
    status: int
    shown: str
    """What the document says that the last command prints."""


def steps(text: str) -> Iterator[Step]:
    """A document's steps in their order. A number in a command's remark is its exit status."""
    for found in _STEP.finditer(text):
        line, _, remark = (found["line"] or "").partition("    # ")
        yield Step(
            found["name"] or "",
            found["content"] or "",
            line.strip(),
            int(remark) if remark.strip().isdigit() else 0,
            found["shown"] or "",
        )


def _alike(line: str) -> str:
    """A line without what differs between machines: numbers, ids, the shape of a histogram."""
    return " ".join(_VARIES.sub("#", line).split())


def _was_printed(line: str, printed: list[str]) -> bool:
    """If a line was printed; one with an ellipsis stands for all that begin and end like it."""
    begin, dots, end = _alike(line).partition("…")
    return any(
        one.startswith(begin) and one.endswith(end) if dots else one == begin for one in printed
    )


def play(document: Path, top: Repo, every: list[tuple[str, str]] | None = None) -> dict[str, str]:
    """Do all that a document says, in the folder `top`; what each command printed.

    Fails where a command exits otherwise, or where the document shows a line that was not printed.
    A command that is run twice has its last answer; `every` is given all of them in their order.
    """
    here, said, last = top, dict[str, str](), ""
    for step in steps(document.read_text("utf-8")):
        if step.name:
            # A name with a folder is said from where the reader began.
            (top if "/" in step.name else here).write(step.name, step.content.encode())
        elif step.line.startswith("cd "):
            here = Repo((here.path / step.line.removeprefix("cd ")).resolve())
        elif step.line:
            done = here.run("sh", "-c", step.line, ok=(step.status,))
            last = said[step.line] = (done.stdout + done.stderr).decode("utf-8", "replace")
            if every is not None:
                every.append((step.line, last))
        else:
            printed = [_alike(line) for line in last.splitlines()]
            shown = [line for line in step.shown.splitlines() if line.strip() not in ("", "…")]
            lacking = [line for line in shown if not _was_printed(line, printed)]
            assert not lacking, f"{document.name} shows\n" + "\n".join(lacking) + f"\nnot\n{last}"
    return said
