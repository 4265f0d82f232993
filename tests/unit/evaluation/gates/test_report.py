"""The report of a check: every row is told, in a comment that fits, and names in it do nothing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

from git_theta_ext.checkpoints.modules import Module
from git_theta_ext.comparison.division import Part
from git_theta_ext.evaluation.config import Gate
from git_theta_ext.evaluation.gates import machines, words
from git_theta_ext.evaluation.gates.check import Report
from git_theta_ext.evaluation.gates.compare import compare
from git_theta_ext.evaluation.gates.ownership import Touched
from git_theta_ext.evaluation.gates.plot import MOST, bars
from git_theta_ext.evaluation.gates.verdict import Row
from tests.scenarios.gates import score

FOUND = compare(score(800), score(780))
LIMITS = FOUND.test.limits(0.95)
HOSTILE = "@all | ![x](http://x) ::error::\x1b[2J<b>\n```"


def row(verdict: Any, name: str = "glue/rte/acc", **more: Any) -> Row:
    fields = {
        "reasons": ("it dropped",), "against": "base", "before": 0.8, "after": 0.78,
        "difference": FOUND, "limits": LIMITS, "p": 0.01, **more,
    }  # fmt: skip
    return Row(Gate(name), "model.safetensors", "rte/acc", verdict, **fields)


def report(*rows: Row, **more: Any) -> Report:
    fields = {"gates": len(rows), "changed": ("model.safetensors",), **more}
    return Report(rows, None, None, None, **fields)


def test_the_conclusion() -> None:
    said = [
        words.conclusion(report(*rows))
        for rows in (
            (),
            (row("accepted"),),
            (row("accepted"), row("refused"), row("unmeasured")),
            (row("accepted"), row("incomparable")),
        )
    ]
    assert said == [
        "There is no gate: nothing was judged.",
        "Accepted: 1 judgement, none refuses.",
        "Refused: 1 of 3 judgements.",
        "Not decided: 1 of 2 judgements could not be made.",
    ]
    for more, said in (({}, "gate"), ({"modules": 1}, "gate or module")):
        assert f"no {said} is for what changed" in words.conclusion(report(gates=2, **more))
    assert "no module is for what changed" in words.conclusion(report(gates=0, modules=1))


def test_owners_are_named_and_nobody_is_notified() -> None:
    def touched(name: str, *owners: str) -> Touched:
        return Touched("m", Part(Module(name, ("*",), owners), (), ("x",), 3))

    many = [touched(f"m{at}", "@a", f"@o{at}") for at in range(20)]
    found = words.markdown(report(row("accepted"), touched=(*many, touched("alone"))))
    (line,) = [one for one in found.splitlines() if "To ask" in one]
    assert "</code>, 15 more), <code>&#64;<!-- -->o0</code> (<code>m0</code>), " in line
    assert line.endswith("and 9 more owners, nobody is named for <code>alone</code>")
    assert "@" not in found
    shown = words.text(report(touched=(many[0], replace(many[1], path="n"))))
    assert "m0, m   @a, @o0  1 of 3 tensors" in shown
    assert "to ask: @a, @o0, @o1\n" in shown


def test_names_in_it_do_nothing() -> None:
    found = report(row("refused", HOSTILE, reasons=(HOSTILE,), against=HOSTILE), notes=(HOSTILE,))
    text = words.text(found)
    assert "\x1b" not in text
    assert "\\x1b[2J" in text
    comment = words.markdown(found)
    assert not any(one in comment for one in ("@all", "](", "<b>", "\x1b", "http://"))
    table = [line for line in comment.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in table] == [8, 8, 8]
    (command, _) = machines.workflow_commands(found)
    assert command.startswith("::error file=model.safetensors::")
    assert not {"\n", "\r", "\x1b"} & set(command)
    (case,) = ET.fromstring(machines.junit(found))
    assert "\\x1b[2J" in case.attrib["name"]
    assert machines.as_json(found)["rows"][0]["gate"] == HOSTILE


def test_checkpoints_are_named_where_there_are_several() -> None:
    other = replace(row("refused"), path="b.safetensors")
    for shown in (words.text, words.markdown):
        assert "b.safetensors" in shown(report(row("accepted"), other))
        assert "b.safetensors" not in shown(report(other))


def test_a_comment_that_fits_keeps_what_refuses() -> None:
    rows = [row("accepted", f"glue/t{number}") for number in range(2000)]
    found = words.markdown(report(*rows, row("refused", "glue/bad")), 5000)
    assert len(found) <= 5000
    assert "glue&#47;bad" in found or "glue/bad" in found
    assert "more rows" in found


def test_what_is_not_known_is_null() -> None:
    lone = row("unmeasured", difference=None, limits=None, before=None, p=None)
    endless = row("accepted", limits=(float("-inf"), float("inf")))
    first, second = machines.as_json(report(lone, endless))["rows"]
    assert (first["before"], first["difference"], first["low"], first["p"]) == (None,) * 4
    assert (second["low"], second["high"]) == (None, None)
    assert "inf" not in words.text(report(endless))
    suite = ET.fromstring(machines.junit(report(lone, endless, row("refused"))))
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["3", "1", "1"]


def test_the_picture() -> None:
    assert bars([0.5, 0.5, None, 0.9, 0.7]) == "▁▁·█▄"
    assert bars([0.5, 0.5]) == "▄▄"
    assert bars([None, 0.5]) == bars([]) == ""
    assert len(bars([float(n) for n in range(100)])) == MOST
