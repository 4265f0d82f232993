"""The rooms of docs/architecture.md: imports run one way, impure things have their modules."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping

import pytest

from tests.scenarios.package import (
    PACKAGE,
    ROOT,
    Import,
    foreign_imports,
    imports,
    modules,
    name_of,
    sources,
)

ORDER = [
    {"core"},
    {"manifest"},
    {"formats", "updates", "git"},
    {"objects"},
    {"checkpoints"},
    {"comparison", "merge"},
    {"evaluation"},
    {"packages", "migration"},
    {"api"},
    {"cli"},
    {"drivers"},
]
"""From the bottom up: a room may import those of lines before its own, and no other."""

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FRAMEWORKS = {"torch", "h5py", "onnx", "tensorflow", "jax", "matplotlib", "mlx"}
MANY_ALIKE = {"formats", "updates", "cli.verbs"}
"""Rooms whose modules are all of one kind, so that their number does not matter."""


def room_of(module: str) -> str:
    """The topmost folder that a module is in."""
    return module.partition(".")[0]


def folder_of(module: str) -> str:
    """The folder of a module inside its room; a module at the top of its room is its own."""
    return module.rpartition(".")[0] if module.count(".") > 1 else module


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that lead back to the first of them; empty where there is no circle."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(arrows.get(name, ())):
            if found := walk(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, []))), [])


def wrong_way(one: Import) -> bool:
    ours, theirs = room_of(one.module), room_of(one.target)
    return bool(one.module) and ours != theirs and RANK[theirs] >= RANK[ours]


def test_at_the_top_are_rooms_and_nothing_else() -> None:
    assert {room_of(module) for module in modules()} - {""} == set(RANK)
    assert {path.name for path in (ROOT / PACKAGE).glob("*.py")} == {"__init__.py"}


def test_imports_run_down_the_order_of_rooms() -> None:
    """`MODULE:LINE imports NAME of OTHER`: move what it needs to a room below, or itself up."""
    assert [str(one) for one in imports() if wrong_way(one)] == []


@pytest.mark.parametrize("node", [str, folder_of], ids=["modules", "folders"])
def test_no_circle(node: Callable[[str], str]) -> None:
    """Each line is imported by the one before; any arrow that is cut mends it."""
    arrows: dict[str, set[str]] = {}
    for one in imports():
        if node(one.module) != node(one.target):
            arrows.setdefault(node(one.module), set()).add(node(one.target))
    assert circle(arrows) == []


def test_a_circle_is_seen() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"]}) == []


def test_no_private_name_is_imported() -> None:
    """A name with an underscore is its module's own; what others need gets a public one."""
    assert [str(one) for one in imports() if one.name.startswith("_")] == []


def test_no_room_is_crowded() -> None:
    held: dict[str, int] = {}
    for module, path in modules().items():
        if path.name == "__init__.py":
            continue
        folder = module.rpartition(".")[0]
        held[folder] = held.get(folder, 0) + 1
    crowded = {folder: count for folder, count in held.items() if count > 17}
    assert set(crowded) <= MANY_ALIKE, crowded


@pytest.mark.parametrize(
    ("foreign", "own"),
    [
        ({"git", "subprocess"}, {"git/process.py"}),
        ({"pygit2"}, {"git/libgit2.py"}),
        (FRAMEWORKS, {"core/pytorch.py", "core/frameworks/convert.py"}),
    ],
)
def test_impure_modules_have_their_places(foreign: set[str], own: set[str]) -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in sources()
        for module in foreign_imports(path)
        if module.split(".")[0] in foreign and name_of(path) not in own
    ]
    assert wrong == []


PURE = ("manifest", "formats", "updates")
IMPURE_OF_CORE = {"core.files", "core.terminal", "core.parallel"}


def test_pure_rooms_print_nothing_and_read_no_environment() -> None:
    wrong = []
    for module, path in modules().items():
        if room_of(module) not in PURE and (room_of(module) != "core" or module in IMPURE_OF_CORE):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Name) and node.id in ("print", "open", "eval", "exec"):
                wrong.append(f"{name_of(path)}:{node.lineno} {node.id}")
            if isinstance(node, ast.Attribute) and node.attr == "environ":
                wrong.append(f"{name_of(path)}:{node.lineno} environ")
    assert wrong == []


def test_tests_share_scenarios_and_nothing_of_another_test() -> None:
    """What several need is in `tests/scenarios`, `tests/servers` or a fixture of a conftest."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for top in ("tests", "benchmarks")
        for path in sorted((ROOT / top).rglob("*.py"))
        for module in foreign_imports(path)
        if any(part == "conftest" or part.startswith("test_") for part in module.split("."))
    ]
    assert wrong == []
