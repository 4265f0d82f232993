"""What a report on a workflow's event found, and how a remark is shown: as markdown, in its log."""

from __future__ import annotations

from dataclasses import dataclass, field

from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.versions import Version
from git_theta_ext.errors import ThetaError
from git_theta_ext.text import printable


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that a reader must know before the tensors; `fatal` if it must stop the merge."""

    text: str
    fatal: bool


@dataclass(slots=True)
class Findings:
    """All that is reported: `objects` says what their check came to, `code` is the exit code."""

    between: tuple[Version, Version] | None = None
    found: list[tuple[str, Comparison]] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    objects: str = "skipped"
    code: int = 0

    def warn(self, text: str, code: int = 0) -> None:
        """Note something; with a `code`, something that must stop the merge."""
        self.warnings.append(Warn(text, code != 0))
        self.code = self.code or code


def note(warning: Warn) -> str:
    """A remark as a line of markdown."""
    return f"{'❌' if warning.fatal else '⚠️'} {plain(warning.text[:2000])}"


def failure(error: ThetaError) -> str:
    """An error that left no report."""
    return f"### Checkpoints\n\n{note(Warn(error.message, True))}\n"


def plain(text: str) -> str:
    """A text in which Markdown, HTML and mentions have no meaning."""
    found = []
    for char in printable(text.replace("\n", " ")):
        if char.isalnum() or char in " ,;()-/%…":
            found.append(char)
        else:
            # Mentions and references are looked for once entities are read: a blank of no width
            # after their sign keeps them from being found.
            found.append(f"&#{ord(char)};" + ("&#8203;" if char in "@#" else ""))
    return "".join(found)


def line(text: str) -> str:
    """A text for one line of a workflow command, which it cannot end."""
    return printable(text.replace("\n", " ")).replace("%", "%25")
