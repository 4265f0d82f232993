"""Write docs/api-reference.md from the docstrings: python docs/make_api_reference.py"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from git_theta_ext.api import collecting, functions, integrations, keras, lightning
from git_theta_ext.api.handle import Handle, Slice
from git_theta_ext.api.runs.run import Run
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.comparison import compare, measure
from git_theta_ext.core import errors

TARGET = Path(__file__).with_name("api-reference.md")
FUNCTIONS = [
    functions.open, functions.safe_open, functions.load_into, functions.get, functions.commit,
    functions.diff, functions.sync, collecting.collect, lightning.lightning_callback,
    keras.keras_callback,
]  # fmt: skip
CLASSES = [
    Checkpoint, Handle, Slice, compare.Comparison, compare.Change, measure.Measure,
    integrations.CommitCallback, Run, collecting.Collector, collecting.Held,
]  # fmt: skip
WIDTH = 80
SECTIONS = {"Args:": "Parameters", "Raises:": "Errors", "Returns:": "Returns"}
CALLED = {"lightning_callback": "LightningCallback", "keras_callback": "KerasCallback"}
"""Functions that are offered under a name as that of a class, for that is how they are used."""


def reference() -> str:
    """The whole page."""
    lines = [
        "# API reference",
        "",
        "Every function, class and error that a Python program may use, exactly. To learn them,",
        "begin with the [Python API](api.md), or with the [notebook](notebook.ipynb) for Jupyter.",
        "This page is made from the docstrings (`docs/make_api_reference.py`).",
        "",
        "## Functions of `git_theta_ext`",
        "",
    ]
    for function in FUNCTIONS:
        name = CALLED.get(function.__name__, function.__name__)
        lines += _entry(f"### `{name}`", name, function)
    for kind in CLASSES:
        lines += [f"## `{kind.__name__}` (`{kind.__module__}`)", "", *_text(kind), ""]
        for name, member in _members(kind):
            lines += _entry(f"### `{kind.__name__}.{name}`", name, member)
    lines += [
        "## Errors (`git_theta_ext.errors`)",
        "",
        "| class | exit code | when |",
        "|---|---|---|",
    ]
    for error in _errors():
        first = " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())
        lines.append(f"| `{error.__name__}` | {error.exit_code} | {first} |")
    return "\n".join(lines) + "\n"


def _entry(heading: str, name: str, member: Any) -> Iterator[str]:
    yield from (heading, "")
    if callable(member):
        yield from ("```python", _signature(name, member), "```", "")
    yield from (*_text(member), "")


def _signature(name: str, function: Any) -> str:
    """A call as it is written; annotations are text, so every Python shows them alike.

    One that is too long for a line has a line for each parameter.
    """
    found = inspect.signature(function)
    parameters = [
        one if one.annotation is one.empty else one.replace(annotation=_Written(one.annotation))
        for one in found.parameters.values()
    ]
    returned = _Written(found.return_annotation)
    short = f"{name}{found.replace(parameters=parameters, return_annotation=returned)}"
    if len(short) <= WIDTH:
        return short
    inside, _, arrow = short.removeprefix(f"{name}(").rpartition(") -> ")
    lines, depth = [""], 0
    for letter in inside:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and not depth:
            lines.append("")
        else:
            lines[-1] += letter
    return "\n".join([f"{name}(", *(f"    {line.strip()}," for line in lines), f") -> {arrow}"])


def _text(thing: Any) -> list[str]:
    """A docstring; of its sections, each parameter or error is a term with what is said of it."""
    found: list[str] = []
    for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0] in ("Args:", "Raises:", "Returns:"):
            lines = [f"**{SECTIONS[lines[0]]}**", "", *_terms(line[4:] for line in lines[1:])]
        found += [*lines, ""]
    return found[:-1]


def _terms(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a section, as items of a list; a line that is indented goes on."""
    for line in lines:
        name, colon, about = line.partition(": ")
        if colon and re.fullmatch(r"[\w*, ]+", name) and not line.startswith(" "):
            names = ", ".join(f"`{one}`" for one in name.split(", "))
            yield f"- {names}: {about}"
        else:
            yield f"  {line.strip()}" if line.startswith(" ") else line


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class itself defines, in the order of the code."""
    for name, member in vars(kind).items():
        if name.startswith("_") and name != "__getitem__":
            continue
        value = getattr(member, "fget", None) or getattr(member, "func", None)
        if value is not None and inspect.getdoc(value):
            yield name, _Property(inspect.getdoc(value) or "")
        elif inspect.isfunction(member) and inspect.getdoc(member):
            yield name, member


class _Written:
    """An annotation that is shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Property:
    """Something with a docstring that is not called."""

    def __init__(self, text: str) -> None:
        self.__doc__ = text


def _errors() -> list[type[errors.ThetaError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.ThetaError)
    ]


if __name__ == "__main__":
    TARGET.write_text(reference(), "utf-8")
