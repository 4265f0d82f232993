"""The modules of merge import each other one way round, and only what is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOM = Path(__file__).parents[3] / "git_theta_ext/merge"
PREFIX = "git_theta_ext.merge"


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """What a module imports of the room, at any depth: the other module, and the name if any."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PREFIX:
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PREFIX}."):
            module = str(node.module).removeprefix(f"{PREFIX}.")
            yield from ((module, alias.name) for alias in node.names)


MODULES = {path.stem: path for path in sorted(ROOM.glob("*.py")) if path.stem != "__init__"}


def test_there_is_no_circle() -> None:
    left = {name: {other for other, _ in imports(path)} for name, path in MODULES.items()}
    assert any("plan" in others for others in left.values())
    while left:
        free = [name for name, others in left.items() if not others & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_no_private_name_is_imported() -> None:
    wrong = [
        f"{name} imports {other}.{what}"
        for name, path in MODULES.items()
        for other, what in imports(path)
        if what.startswith("_")
    ]
    assert wrong == []
