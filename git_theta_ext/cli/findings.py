"""What a report on a workflow's event found, and how a remark is shown: as markdown, in its log."""

from __future__ import annotations

from dataclasses import dataclass, field

from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.versions import Version
from git_theta_ext.errors import ThetaError
from git_theta_ext.text import markdown_text


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
    text = warning.text[:2000].replace("\n", " ")
    return f"{'❌' if warning.fatal else '⚠️'} {markdown_text(text)}"


def failure(error: ThetaError) -> str:
    """An error that left no report."""
    return f"### Checkpoints\n\n{note(Warn(error.message, True))}\n"
