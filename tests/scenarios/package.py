"""The package's own source: its modules, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "git_theta_ext"


@dataclass(frozen=True, slots=True)
class Import:
    """`module` imports `name` of `target`; modules are named without the package."""

    module: str
    target: str
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name} of {self.target}"


def sources() -> list[Path]:
    """Every module of the package; `drivers/` is a part of it."""
    folders = (ROOT / PACKAGE, ROOT / "drivers")
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def name_of(path: Path) -> str:
    """The path of a module from the package's folder, with `/`."""
    base = ROOT / PACKAGE
    return path.relative_to(base if base in path.parents else ROOT).as_posix()


def dotted(path: Path) -> str:
    """The name of a module without the package's; "" for the package itself."""
    parts = name_of(path).removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> Mapping[str, Path]:
    """Every module by its dotted name."""
    return {dotted(path): path for path in sources()}


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one of the package's modules by another, at any depth."""
    return tuple(one for name, path in modules().items() for one in _imports(name, path))


def _imports(module: str, path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, _, rest = alias.name.partition(".")
                if top == PACKAGE and rest and rest in modules():
                    yield Import(module, rest, rest.rpartition(".")[2], node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            top, _, rest = node.module.partition(".")
            if top != PACKAGE:
                continue
            for alias in node.names:
                inner = f"{rest}.{alias.name}".lstrip(".")
                target = inner if inner in modules() else rest
                if target not in ("", module):
                    yield Import(module, target, alias.name, node.lineno)


def foreign_imports(path: Path) -> Iterator[str]:
    """Every module that a file imports from anywhere, by its dotted name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
