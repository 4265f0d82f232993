"""The guide to merging: its table is the code's, its settings are read, its defaults hold."""

from __future__ import annotations

import re
from pathlib import Path

from git_theta_ext.merge.strategies.choice import Setting
from git_theta_ext.merge.strategies.policy import parse_file
from git_theta_ext.merge.strategies.table import TABLE

TEXT = (Path(__file__).parents[3] / "docs" / "merging.md").read_text("utf-8")


def value(setting: Setting) -> str:
    if isinstance(setting, str):
        return setting
    return f"{setting:g}" if isinstance(setting, float) else "equal"


def test_the_table_of_strategies_is_the_codes() -> None:
    rows = []
    for one in TABLE:
        parameters = ", ".join(f"`{p.name}` {value(p.default)}" for p in one.parameters)
        marks = "" if one.needs_base else "no"
        seen = "entry" if one.by_entry else "tensor"
        row = f"| `{one.name}` | {one.summary} | {parameters} | {seen} | {marks} | {one.paper} |"
        rows.append(row.replace("|  |", "| |").replace("|  |", "| |"))
    found = [line for line in TEXT.splitlines() if line.startswith("| `")]
    assert found == rows


def test_the_example_of_settings_is_read() -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None
    found = parse_file(example.group(1).encode())
    assert [rule.choice.strategy for rule in found.rules] == ["conflict", "ties"]
    assert found.evaluate is not None
