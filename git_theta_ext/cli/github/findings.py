"""What a report on a workflow's event found, and how a remark is shown: as markdown, in its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.division import Divisions
from git_theta_ext.comparison.named import Version
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import markdown_text

_NOTE_CHARS = 600
_MAX_NOTES = 20
_NOTES_CHARS = 30_000


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that a reader must know before the tensors; `fatal` if it must stop the merge."""

    text: str
    fatal: bool


@dataclass(slots=True)
class Findings:
    """All that is reported.

    `objects` says what their check came to, `verdict` what the gates did, whose table is `gates`;
    `results` is the path of a file with what was measured, `commands` are for the runner; `code` is
    the exit code. `divisions` has the modules of checkpoints, as the base declares them.
    """

    between: tuple[Version, Version] | None = None
    found: list[tuple[str, Comparison]] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    objects: str = "skipped"
    verdict: str = "skipped"
    gates: str = ""
    results: str = ""
    commands: list[str] = field(default_factory=list)
    code: int = 0
    divisions: Divisions = field(default_factory=dict)

    def warn(self, text: str, code: int = 0) -> None:
        """Note something; with a `code`, something that must stop the merge."""
        self.warnings.append(Warn(text, code != 0))
        self.code = self.code or code


def note(warning: Warn) -> str:
    """A remark as a line of markdown."""
    text = warning.text.replace("\n", " ")
    shown = text if len(text) <= _NOTE_CHARS else f"{text[:_NOTE_CHARS]}…"
    return f"{'❌' if warning.fatal else '⚠️'} {markdown_text(shown)}"


def notes(warnings: Sequence[Warn]) -> list[str]:
    """The remarks that a report begins with, what stops the merge first; the rest is counted.

    Names in them, escaped, may take fifteen times their length. Together they leave half of a
    comment to the tensors, so that nobody's names keep a report from being taken.
    """
    found: list[str] = []
    left = _NOTES_CHARS
    for warning in sorted(warnings, key=lambda one: not one.fatal):
        line = note(warning)
        left -= len(line)
        if len(found) == _MAX_NOTES or left < 0:
            break
        found.append(line)
    if len(found) < len(warnings):
        found.append(f"… and {len(warnings) - len(found):,} more remarks")
    return found


def failure(error: ThetaError) -> str:
    """An error that left no report."""
    return f"### Checkpoints\n\n{note(Warn(error.message, True))}\n"
