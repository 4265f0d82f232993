"""The section of a model card that says which version this is: pure text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.core.text import markdown_code, markdown_text

BEGIN = "<!-- git-theta release: begin (written by git theta release; do not edit) -->"
END = "<!-- git-theta release: end -->"


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One score: `name` as people call it, `value` as it is shown."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the section says.

    `changes` sum up what changed since `previous`, each with the model that it is about, if there
    are several; `made` is how the weights were written, as words of ours and what they are about.
    `notes`, of our words too, stand below the scores.
    """

    version: str | None
    commit: str
    date: str
    base: str | None
    previous: str | None
    changes: tuple[tuple[str, str], ...]
    made: tuple[tuple[str, str], ...]
    scores: tuple[ScoreLine, ...]
    notes: tuple[str, ...]


def section(facts: Facts) -> str:
    """The section in Markdown, between its markers, with a line feed at the end."""
    title = facts.version or facts.commit[:9]
    lines = [BEGIN, "", f"## Version {markdown_code(title)}", ""]
    lines.append(f"- commit: {markdown_code(facts.commit)}, {facts.date}")
    if facts.base is not None:
        lines.append(f"- base: {markdown_code(facts.base)}")
    lines += [f"- {words}: {markdown_code(what)}" for words, what in facts.made]
    since = "" if facts.previous is None else f" since {markdown_code(facts.previous)}"
    lines += [
        f"- changed{since}: {f'{markdown_code(path)}: ' if path else ''}{text}"
        for path, text in facts.changes
    ]
    if facts.scores:
        lines += ["", "| metric | score |", "|---|---:|"]
        lines += [
            f"| {markdown_text(one.name)} | {one.value.replace('*', chr(92) + '*')} |"
            for one in facts.scores
        ]
    if facts.notes:
        lines += ["", *facts.notes]
    return "\n".join([*lines, "", END, ""])


def renewed(card: str, new: str) -> str:
    """A model card with the section in it: in the place of the old one, else at the end.

    Args:
        card: the text, which may be empty.
        new: the section.
    """
    start, stop = card.find(BEGIN), card.find(END)
    if 0 <= start < stop:
        rest = card[stop + len(END) :].removeprefix("\n")
        return card[:start] + new + rest
    if not card.strip():
        return new
    return f"{card.rstrip()}\n\n{new}"


def sums(files: Sequence[tuple[str, str]]) -> bytes:
    """A file that `sha256sum -c` reads: pairs of SHA-256 and path, in the order of the paths.

    A name with a backslash or a line end is written as GNU coreutils do.
    """
    lines = []
    for digest, path in sorted(files, key=lambda pair: pair[1]):
        name = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{chr(92) if name != path else ''}{digest}  {name}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")
