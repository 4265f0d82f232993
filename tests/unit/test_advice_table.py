"""No text suggests a command that no test runs: `tests/scenarios/advice_table.py` has them all."""

from __future__ import annotations

import ast
from functools import cache

from tests.scenarios.advice_table import NAMED, NOT_RUN, RUN
from tests.scenarios.suggestions import ROOT, suggestions

FOUND = suggestions()


def test_every_suggestion_is_in_the_table() -> None:
    """A new one needs a test that takes it out of the message and runs it, named in `RUN`."""
    lacking = [
        (module, line)
        for module, lines in FOUND.items()
        for line in lines
        if line not in RUN.get(module, {})
        and line not in NAMED.get(module, [])
        and line not in NOT_RUN
    ]
    assert lacking == []


def test_the_table_has_nothing_that_is_gone() -> None:
    gone = [(module, line) for table in (RUN, NAMED) for module, lines in table.items()
            for line in lines if line not in FOUND.get(module, [])]  # fmt: skip
    gone += [("", line) for line in NOT_RUN if not any(line in one for one in FOUND.values())]
    assert gone == []


@cache
def defined_in(name: str) -> set[str]:
    """The tests of a file."""
    tree = ast.parse((ROOT / f"tests/git/{name}.py").read_text("utf-8"))
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def test_the_tests_that_it_names_are_there() -> None:
    for lines in RUN.values():
        for test in lines.values():
            file, _, name = test.partition(".")
            assert name in defined_in(file), test


def test_the_collector_sees_parts_of_f_strings_and_sums() -> None:
    from tests.scenarios.suggestions import _texts

    text = 'raise E(f"x {name}: git theta {verb} it", hint="or " + "git add " + path)'
    assert list(_texts(ast.parse(text))) == ["x {name}: git theta {verb} it", "or git add {…}"]


def test_the_collector_looks_into_the_calls_of_a_sum() -> None:
    from tests.scenarios.suggestions import _texts

    assert list(_texts(ast.parse('f("git add FILE") + " takes it"'))) == [
        "{…} takes it",
        "git add FILE",
    ]
