"""`--json` of verbs that do something: what they say, line by line, and the facts behind it.

Such a verb prints for people, and states its facts beside that: `fact("files", names)`. With
`--json` both come as one document when it is done. Verbs that answer a question print their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from git_theta_ext.core.terminal import HarmlessStream
from git_theta_ext.core.text import to_json

_facts: dict[str, Any] = {}


def fact(name: str, value: Any) -> None:
    """State something that the command found or did; JSON has it under this name."""
    _facts[name] = value


def told(run: Callable[[], int]) -> int:
    """Run a command whose lines are collected, and print the document; its exit status.

    An error goes through: nothing is printed then, and whoever reports it says it as JSON.
    """
    _facts.clear()
    stream = sys.stdout
    if not isinstance(stream, HarmlessStream):
        return run()
    kept: list[str] = []
    stream.kept = kept
    try:
        code = run()
    finally:
        stream.kept = None
    lines = "".join(kept).splitlines()
    print(to_json({"exit_code": code, **_facts, "lines": lines}))
    return code
