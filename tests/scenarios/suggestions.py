"""Every line of our own text, in the source and the documents, that suggests a command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(
    r"\bgit (?:theta |lfs )?(?:[a-z]|-[a-z]|\{)|\bpip install\b"
    r"|(?:^|[ :])(?:cp|rm|chmod|mv) [-+A-Z{]"
)
_OURS = re.compile(r"\bgit theta: ")


def _texts(node: ast.AST) -> Iterator[str]:
    """The strings of a tree, expressions in braces; not those that document something."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    text = _text(node)
    if text is not None:
        yield text
    if text is None or isinstance(node, ast.BinOp):
        # Of a sum, only what is no text itself: a call in it may have texts of its own.
        for child in ast.iter_child_nodes(node):
            if text is None or _text(child) is None:
                yield from _texts(child)


def _text(node: ast.AST) -> str | None:
    """A string as the program would make it, as far as it stands in the source."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value)
            if isinstance(part, ast.Constant)
            else f"{{{ast.unparse(getattr(part, 'value', part))}}}"
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_text(node.left), _text(node.right)]
        if any(side is not None for side in sides):
            return "".join("{…}" if side is None else side for side in sides)
    return None


def suggestions() -> dict[str, list[str]]:
    """Module -> the lines of its texts that name a command, blanks made one."""
    found = {}
    for top in ("git_theta_ext", "drivers"):
        for path in sorted((ROOT / top).rglob("*.py")):
            lines = [
                " ".join(line.split())
                for text in _texts(ast.parse(path.read_text("utf-8")))
                for line in text.splitlines()
                if _COMMAND.search(_OURS.sub("", line))
            ]
            if lines:
                found[path.relative_to(ROOT).as_posix()] = list(dict.fromkeys(lines))
    return found
