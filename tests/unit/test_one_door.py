"""Files are written through `core.files`, `git.work_tree`, `git.outputs`, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.package import name_of, sources

DOOR = "core/files.py"
METHODS = {
    "write_bytes", "write_text", "touch", "symlink_to", "hardlink_to", "rename", "save_file",
    "save", "savez", "savez_compressed", "savefig", "tofile", "memmap", "open_memmap",
}  # fmt: skip
"""Whatever they are methods of: paths, or libraries that write to a path."""

FUNCTIONS = {
    "os": {"replace", "rename", "renames", "link", "symlink", "truncate", "mkfifo", "mknod"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "copymode", "copystat"},
    "tempfile": {"mkstemp", "NamedTemporaryFile", "mktemp", "TemporaryFile"},
}
ALLOWED = {
    # A store of objects: `Blocks.write_bytes` puts bytes, through `Store`, which uses the door.
    ("merge/combine/skeleton.py", "blocks.write_bytes"),
    ("merge/branches/cutting.py", "blocks.write_bytes"),
    ("checkpoints/clean.py", "task.blocks.write_bytes"),
    ("packages/assemble/carry_out.py", "blocks.write_bytes"),
    ("packages/patches/apply.py", "blocks.write_bytes"),
    # Into a file that the door has opened.
    ("core/pytorch.py", "_torch().save"),
    # Into memory, for stdout.
    ("cli/verbs/cat.py", "np.save"),
}


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a file, with what is called as it is written."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def mode_of(call: ast.Call, position: int) -> str:
    """The mode that a file is opened with; what is not written out counts as writing."""
    words = {keyword.arg: keyword.value for keyword in call.keywords}
    mode = words.get("mode") or (call.args[position] if len(call.args) > position else None)
    if mode is None:
        return "r"
    return mode.value if isinstance(mode, ast.Constant) and isinstance(mode.value, str) else "w"


def writes(call: ast.Call, called: str) -> bool:
    """Whether a call writes a file, or gives one a name, by itself."""
    owner, _, name = called.rpartition(".")
    if name in FUNCTIONS.get(owner, set()):
        return True
    if called == "os.open":
        return not (call.args and ast.unparse(call.args[0]) == "os.devnull")
    if called in ("open", "io.open", "codecs.open"):
        return bool(set(mode_of(call, 1)) & set("wax+"))
    if name == "open" and owner and call.args and isinstance(call.args[0], ast.Constant):
        text = call.args[0].value
        return isinstance(text, str) and len(text) <= 3 and bool(set(text) & set("wax+"))
    if name == "open" and any(keyword.arg == "mode" for keyword in call.keywords):
        return bool(set(mode_of(call, 9)) & set("wax+"))
    if name == "replace" and owner and len(call.args) == 1 and not call.keywords:
        return True  # of a path: a text has two, a dataclass has keywords
    return name in METHODS and bool(owner)


def found_in(path: Path, name: str) -> list[str]:
    return [
        f"{name}:{call.lineno} {called}"
        for call, called in calls(path)
        if writes(call, called) and (name, called) not in ALLOWED
    ]


def test_nothing_else_writes_files() -> None:
    wrong = []
    for path in sources():
        name = name_of(path)
        if name != DOOR:
            wrong += found_in(path, name)
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "path.write_bytes(b'')", "path.write_text('x', 'utf-8')", "open(name, 'w')",
        "open(name, mode='ab')", "open(name, how)", "path.open('xb')", "path.open('r+b')",
        "path.open(mode='w')", "os.open(path, flags)", "os.replace(a, b)", "os.rename(a, b)",
        "a.rename(b)", "a.replace(b)", "shutil.copyfile(a, b)", "shutil.move(a, b)",
        "tempfile.mkstemp()", "tempfile.NamedTemporaryFile('wb')", "path.touch()",
        "os.link(a, b)", "np.savez(path, a=a)", "save_file.save_file(a, path)",
    ],
)  # fmt: skip
def test_the_ways_to_write_are_known(tmp_path: Path, line: str) -> None:
    (tmp_path / "module.py").write_text(line)
    assert found_in(tmp_path / "module.py", "module.py") != []


@pytest.mark.parametrize(
    "line",
    [
        "open(name)", "open(name, 'rb')", "path.open('rb')", "text.replace('a', 'b')",
        "replace(state, open=1)", "Blocks.open(repository)", "os.open(os.devnull, os.O_WRONLY)",
    ],
)  # fmt: skip
def test_reading_is_not_writing(tmp_path: Path, line: str) -> None:
    (tmp_path / "module.py").write_text(line)
    assert found_in(tmp_path / "module.py", "module.py") == []


def test_what_is_allowed_is_still_there() -> None:
    there = {(name_of(path), called) for path in sources() for _, called in calls(path)}
    assert there >= ALLOWED
