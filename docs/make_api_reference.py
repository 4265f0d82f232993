"""Write docs/api-reference.md from the docstrings: python docs/make_api_reference.py"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
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
CALLED = {"lightning_callback": "LightningCallback", "keras_callback": "KerasCallback"}
"""Functions that are offered under a name as that of a class, for that is how they are used."""


def reference() -> str:
    """The whole page."""
    lines = [
        "# API reference",
        "",
        "Made from the docstrings by `docs/make_api_reference.py`; a test keeps it up to date.",
        "Examples stand in [api.md](api.md) and in the [notebook](notebook.ipynb).",
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
        yield from ("```python", f"{name}{_signature(member)}", "```", "")
    yield from (*_text(member), "")


def _signature(function: Any) -> str:
    """Parameters as they are written; annotations are text, so every Python shows them alike."""
    found = inspect.signature(function)
    parameters = [
        one if one.annotation is one.empty else one.replace(annotation=_Written(one.annotation))
        for one in found.parameters.values()
    ]
    return str(
        found.replace(parameters=parameters, return_annotation=_Written(found.return_annotation))
    )


def _text(thing: Any) -> list[str]:
    """A docstring, its sections as code so that their indentation shows."""
    found: list[str] = []
    for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0] in ("Args:", "Raises:", "Returns:"):
            lines = [f"**{lines[0]}**", "", "```text", *(line[4:] for line in lines[1:]), "```"]
        found += [*lines, ""]
    return found[:-1]


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
