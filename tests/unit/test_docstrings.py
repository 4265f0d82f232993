"""Long private functions say what they promise, public ones with many arguments what these are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.scenarios.package import name_of, sources

LINES = 15
"""A private function with more lines than this has a docstring."""

ARGUMENTS = 4
"""A public function with so many arguments, `self` and `cls` not counted, has a section on them."""

OF_LIBRARIES = {"cli/github/web.py: _Redirects.redirect_request"}
"""Methods that override one of a library, which documents their arguments."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the package, or a method, with the class that it is in."""

    module: str
    owner: ast.ClassDef | None
    node: ast.FunctionDef | ast.AsyncFunctionDef
    inner: bool

    def __str__(self) -> str:
        owner = f"{self.owner.name}." if self.owner is not None else ""
        return f"{self.module}: {owner}{self.node.name}"

    @property
    def private(self) -> bool:
        """Whether nobody outside of its module calls it by its name."""
        return self.node.name.startswith("_")

    @property
    def lines(self) -> int:
        """From `def` to the last line, without the docstring."""
        length = (self.node.end_lineno or 0) - self.node.lineno + 1
        if not self.docstring:
            return length
        first = self.node.body[0]
        return length - ((first.end_lineno or 0) - first.lineno + 1)

    @property
    def arguments(self) -> list[str]:
        """The names of its arguments, without `self` and `cls`."""
        found = self.node.args
        every = [*found.posonlyargs, *found.args, *found.kwonlyargs, found.vararg, found.kwarg]
        names = [one.arg for one in every if one is not None]
        return names[1:] if self.owner is not None and names[:1] in (["self"], ["cls"]) else names

    @property
    def docstring(self) -> str:
        """Its docstring, or nothing."""
        return ast.get_docstring(self.node) or ""

    @property
    def describes_arguments(self) -> bool:
        """Whether its docstring has a section `Args`, as Google's style has it."""
        return "Args:" in self.docstring.split("\n")


def functions_in(tree: ast.Module, module: str) -> Iterator[Function]:
    """Every function of a module, with those inside classes and other functions."""

    def walk(parent: ast.AST, owner: ast.ClassDef | None, inner: bool) -> Iterator[Function]:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.ClassDef):
                yield from walk(node, node, inner)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(module, owner, node, inner)
                yield from walk(node, None, True)
            else:
                yield from walk(node, owner, inner)

    yield from walk(tree, None, False)


@cache
def functions() -> tuple[Function, ...]:
    """Every function of the package."""
    return tuple(
        one
        for path in sources()
        for one in functions_in(ast.parse(path.read_text("utf-8")), name_of(path))
    )


def bases_of(owner: ast.ClassDef) -> set[str]:
    """The names of the classes that a class names as its own, without their modules."""
    heads = [base.value if isinstance(base, ast.Subscript) else base for base in owner.bases]
    return {ast.unparse(head).rpartition(".")[2] for head in heads}


def documented_elsewhere(one: Function, everything: tuple[Function, ...]) -> bool:
    """Whether a base class, or a protocol that it fits, describes a method's arguments."""
    if one.owner is None:
        return False
    bases = bases_of(one.owner)
    return any(
        other.owner is not None
        and other.owner is not one.owner
        and other.node.name == one.node.name
        and other.arguments == one.arguments
        and other.describes_arguments
        and (other.owner.name in bases or "Protocol" in bases_of(other.owner))
        for other in everything
    )


def silent(everything: tuple[Function, ...]) -> list[str]:
    """Long private functions without a docstring."""
    return [
        str(one) for one in everything if one.private and one.lines > LINES and not one.docstring
    ]


def unexplained(everything: tuple[Function, ...]) -> list[str]:
    """Public functions whose arguments are many and described nowhere."""
    return [
        str(one)
        for one in everything
        if not (one.private or one.inner or str(one) in OF_LIBRARIES)
        and len(one.arguments) >= ARGUMENTS
        and not one.describes_arguments
        and not documented_elsewhere(one, everything)
    ]


def test_long_private_functions_say_what_they_promise() -> None:
    """A reader need not work through twenty lines to learn what they are for."""
    assert silent(functions()) == []


def test_public_functions_say_what_their_arguments_are() -> None:
    """Four arguments and more are not told by their names."""
    assert unexplained(functions()) == []


def test_what_is_excepted_is_there_and_needs_it() -> None:
    """No exception outlives its reason."""
    assert {
        str(one)
        for one in functions()
        if len(one.arguments) >= ARGUMENTS and not one.describes_arguments
    } >= OF_LIBRARIES


LONG = "\n".join(f"    x = {number}" for number in range(LINES))
SAMPLE = f'''
def _long():
{LONG}

def _told():
    """What it promises."""
{LONG}

def public(a, b, *, c, d): ...

def explained(a, b, *, c, **d):
    """What it does.

    Args:
        a, b: numbers.
    """

class Rule(Protocol):
    def told(self, a, b, c, d):
        """What it does.

        Args:
            a: a number.
        """

    def bare(self, a, b, c, d): ...

class Fits:
    def told(self, a, b, c, d): ...

    def other(self, a, b, c, d):
        def within(a, b, c, d): ...

class Unlike:
    def told(self, a, b, c, x): ...

class Child(Fits):
    def other(self, a, b, c, d): ...
'''


def test_the_rules_find_what_breaks_them() -> None:
    """Both rules, on functions that keep and break them."""
    found = tuple(functions_in(ast.parse(SAMPLE), "m"))
    assert silent(found) == ["m: _long"]
    assert unexplained(found) == [
        "m: public",
        "m: Rule.bare",
        "m: Fits.other",
        "m: Unlike.told",
        "m: Child.other",
    ]
