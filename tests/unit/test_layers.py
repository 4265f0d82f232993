"""The layers of docs/architecture.md: imports point downwards, impure things have rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    {"drivers", "cli", "demo"},
    {
        "checkin", "checkout", "comparison", "merge", "report", "references", "memo", "blocks",
        "bounds", "pruning", "hooks", "hook_scripts", "launch", "left_behind", "received",
        "installation", "integrity", "attributes", "checkpoints", "reader", "writer", "api",
        "beside", "converted", "terminal", "consent", "sharded", "handle", "integrations",
        "adapters", "loading",
    },
    {"paths"},
    {
        "repository", "store", "transport", "lfs", "lfs_watch", "lfsconfig", "endpoints",
        "pointers", "pointer_files", "presence", "locks", "worktree", "outputs", "verified",
    },
    {"git_process", "libgit2", "durable", "memory"},
    {"files"},
    {
        "manifest", "manifest_text", "manifest_rules", "names", "arrays", "globs", "patterns",
        "pytorch", "frameworks", "torch_modules", "formats", "updates", "parallel", "work",
    },
    {"tensors", "errors", "limits", "text", "advice"},
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FRAMEWORKS = {"torch", "h5py", "onnx", "tensorflow", "jax", "matplotlib"}


def sources() -> Iterator[tuple[str, Path]]:
    """Each module of the package with the layer's name that it belongs to."""
    for path in sorted((ROOT / "git_theta_ext").rglob("*.py")):
        relative = path.relative_to(ROOT / "git_theta_ext")
        if relative.parts[0] != "drivers":
            yield relative.parts[0].removesuffix(".py"), path
    for path in sorted((ROOT / "drivers").rglob("*.py")):
        yield "drivers", path


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer() -> None:
    assert {name for name, _ in sources()} - {"__init__"} <= set(RANK)


def test_imports_point_downwards() -> None:
    wrong = []
    for name, path in sources():
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "git_theta_ext" and len(parts) > 1 and name != "__init__":
                target = RANK.get(parts[1])
                if target is not None and target < RANK[name]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


@pytest.mark.parametrize(
    ("modules", "rooms"),
    [
        ({"git", "subprocess"}, {"git_process.py"}),
        ({"pygit2"}, {"libgit2.py"}),
        (FRAMEWORKS | {"mlx"}, {"pytorch.py", "frameworks.py"}),
    ],
)
def test_impure_modules_have_their_rooms(modules: set[str], rooms: set[str]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for _, path in sources()
        for module in imports(path)
        if module.split(".")[0] in modules and path.name not in rooms
    ]
    assert wrong == []


def test_pure_layers_print_nothing_and_read_no_environment() -> None:
    wrong = []
    for name, path in sources():
        if RANK.get(name, 0) < RANK["manifest"]:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Name) and node.id in ("print", "open", "eval", "exec"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.id}")
            if isinstance(node, ast.Attribute) and node.attr == "environ":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} environ")
    assert wrong == []
