"""The report of a check for programs: JSON, JUnit's XML, annotations of a GitHub workflow."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from git_theta_ext.comparison.named import Version as Commit
from git_theta_ext.core.text import annotation, annotation_property, printable
from git_theta_ext.evaluation.gates.check import Report
from git_theta_ext.evaluation.gates.ownership import Touched
from git_theta_ext.evaluation.gates.verdict import Row
from git_theta_ext.evaluation.gates.words import WORD, conclusion, remarks
from git_theta_ext.git.settings_file import FILE


def as_json(report: Report) -> dict[str, Any]:
    """Plain data; every key is documented in `docs/commands/check.md`."""
    return {
        "code": report.code,
        "conclusion": conclusion(report),
        "old": _commit(report.old),
        "new": _commit(report.new),
        "rules": _commit(report.rules),
        "gates": report.gates,
        "changed": list(report.changed),
        "notes": list(report.notes),
        "rows": [_row(row) for row in report.rows],
        "modules": [_touched(one) for one in report.touched],
        "owners": list(report.owners),
    }


def _touched(one: Touched) -> dict[str, Any]:
    """A module that the update changes, and in which checkpoint."""
    part = one.part
    return {
        "module": part.module.name,
        "owners": list(part.module.owners),
        "frozen": part.module.frozen,
        "path": one.path,
        "tensors": part.tensors,
        "changed": part.names,
    }


def _commit(one: Commit | None) -> dict[str, str] | None:
    if one is None:
        return None
    return {"oid": one.oid, "subject": one.subject, "author": one.author, "date": one.date}


def _row(row: Row) -> dict[str, Any]:
    """What one gate said; what was not measured, or not compared, is None."""
    found = row.difference
    limits = row.limits or (None, None)
    return {
        "gate": row.gate.name,
        "path": row.path,
        "subject": row.subject,
        "verdict": row.verdict,
        "reasons": list(row.reasons),
        "against": row.against or None,
        "before": row.before,
        "after": row.after,
        "difference": None if found is None else found.value,
        "low": _finite(limits[0]),
        "high": _finite(limits[1]),
        "confidence": row.gate.confidence,
        "p": row.p,
        "test": None if found is None else found.how,
        "examples": None if found is None else found.examples,
        "higher_is_better": row.higher_is_better,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def junit(report: Report) -> str:
    """A suite of JUnit's XML with one case a row: refused is a failure, undecided an error."""
    verdicts = [row.verdict for row in report.rows]
    suite = ET.Element(
        "testsuite",
        name="git theta check",
        tests=str(len(verdicts)),
        failures=str(verdicts.count("refused")),
        errors=str(verdicts.count("unmeasured") + verdicts.count("incomparable")),
    )
    for row in report.rows:
        case = ET.SubElement(
            suite, "testcase", classname=printable(row.path), name=printable(_name(row))
        )
        said = "\n".join(printable(one) for one in remarks(row))
        if row.verdict == "accepted":
            ET.SubElement(case, "system-out").text = said
        else:
            kind = "failure" if row.verdict == "refused" else "error"
            first = printable(row.reasons[0]) if row.reasons else WORD[row.verdict]
            ET.SubElement(case, kind, message=first, type=row.verdict).text = said
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, "unicode") + "\n"


def workflow_commands(report: Report) -> Iterator[str]:
    """Workflow commands, one for each row that does not accept, then the verdict."""
    for row in report.rows:
        if row.verdict != "accepted":
            said = "; ".join([f"{_name(row)}: {WORD[row.verdict]}", *row.reasons])
            yield f"::error file={annotation_property(row.path)}::{annotation(said)}"
    if report.changed_modules:
        yield f"::warning file={FILE}::{annotation(report.changed_modules)}"
    if report.owners:
        said = f"To ask: {', '.join(report.owners)}"
        yield f"::notice::{annotation(said)}"
    yield f"::notice::{annotation(conclusion(report))}"


def _name(row: Row) -> str:
    against = f" against {row.against}" if row.against not in ("", "base") else ""
    return f"{row.name}{against}"
