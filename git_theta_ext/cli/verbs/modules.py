"""`git theta modules`: the modules of each checkpoint, with size, last change, owners, version."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.cli.parts import checkpoints_of, declared
from git_theta_ext.comparison.by_module import ModuleRow, Overview, overview
from git_theta_ext.comparison.history import Blame, History
from git_theta_ext.core.braces import fold
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import FILE

_SHOWN = 10
"""Groups of tensors that are named where they belong to no module, or to several."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `modules`."""
    parser = subparsers.add_parser(
        "modules",
        help="show the modules of each checkpoint, and who answers for them",
        description=f"For each module that {FILE} declares: its tensors, parameters, size and what "
        "it takes in the store; the commit that last changed it, to the bit; the newest tag in "
        "which it is the same; its owners, and if it is frozen. Tensors that belong to no module, "
        "or to several, are listed below. Reads manifests only.",
    )
    parser.add_argument(
        "words", nargs="*", default=[], metavar="[REV] [FILE…]",
        help="a revision (default: HEAD), and checkpoints (default: all that it has)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show them.

    Raises:
        UsageError: no module is declared, or there is no such revision or checkpoint.
    """
    repository = Repository.discover()
    modules = declared(repository)
    revision, names = _split(repository, args.words)
    found = [
        overview(repository, History(repository, revision, path), modules)
        for path in _paths(repository, revision, names, modules)
    ]
    if args.json:
        print(to_json({"revision": revision, "files": [_record(one) for one in found]}))
        return 0
    for number, one in enumerate(found):
        if number:
            print()
        _show(one)
    if not found:
        print(f"no checkpoint of {revision} is one that a module is about")
    return 0


def _split(repository: Repository, words: Sequence[str]) -> tuple[str, list[str]]:
    """The revision and the files; the first word is a revision if it names a commit."""
    if words and repository.resolve(f"{words[0]}^{{commit}}") is not None:
        return words[0], list(words[1:])
    if repository.resolve("HEAD") is None:
        raise UsageError("there is no commit here yet")
    return "HEAD", list(words)


def _paths(
    repository: Repository, revision: str, names: Sequence[str], modules: Modules
) -> list[str]:
    """The checkpoints, from the top; a sharded model by its pattern."""
    known = checkpoints_of(repository, revision)
    if not names:
        return [path for path in known if any(module.is_in(path) for module in modules)]
    wanted = []
    for name in names:
        path = version_typed(repository, f"{revision}:{name}" if ":" in name else name)
        path = path.partition(":")[2]
        found = shards.pattern_of(path) if shards.names_model(path) else path
        if found not in known and shards.model_of(found) not in known:
            raise UsageError(
                f"{path!r} is not a checkpoint that is stored by tensor in {revision}",
                hint=f"git theta ls-files {revision}   lists them",
            )
        wanted.append(found)
    return wanted


def _record(one: Overview) -> dict[str, Any]:
    """The modules of one checkpoint, for `--json`."""
    return {
        "path": one.path,
        "modules": [
            {
                "name": row.module.name,
                "tensors": len(row.names),
                "parameters": row.parameters,
                "bytes": row.nbytes,
                "stored": row.stored,
                "change": _change(row.change),
                "version": row.tag,
                "owners": list(row.module.owners),
                "frozen": row.module.frozen,
            }
            for row in one.rows
        ],
        "unassigned": list(one.unassigned),
        "several": {name: list(found) for name, found in one.several.items()},
    }


def _change(found: Blame | None) -> dict[str, Any] | None:
    if found is None:
        return None
    version = found.version
    return {
        "commit": version.commit,
        "author": version.author,
        "date": version.date,
        "subject": version.subject,
        "certain": found.certain,
    }


def _show(one: Overview) -> None:
    """The table of one checkpoint, and what is wrong with its modules."""
    print(printable(one.path))
    head = ["", "module", "tensors", "parameters", "size", "stored", "last change", "", "",
            "version", "owners", ""]  # fmt: skip
    for line in table([head, *map(_cells, one.rows)]):
        print(line)
    if one.unassigned:
        print(f"  {plural(len(one.unassigned), 'tensor')} in no module:")
        _list(one.unassigned)
    by_modules: dict[tuple[str, ...], list[str]] = {}
    for name, found in one.several.items():
        by_modules.setdefault(found, []).append(name)
    for found, names in by_modules.items():
        print(f"  {plural(len(names), 'tensor')} in several modules ({', '.join(found)}):")
        _list(names)


def _cells(row: ModuleRow) -> list[str]:
    cells = ["", row.module.name, f"{len(row.names):,}", f"{row.parameters:,}"]
    cells += [size(row.nbytes), size(row.stored)]
    if row.change is None:
        cells += ["-", "", ""]
    else:
        version = row.change.version
        cells += [
            ("" if row.change.certain else "^") + version.commit[:9],
            version.date[:10],
            printable(version.subject)[:40],
        ]
    frozen = "frozen" if row.module.frozen else ""
    return [*cells, printable(row.tag or "-"), " ".join(row.module.owners) or "-", frozen]


def _list(names: Sequence[str]) -> None:
    groups = list(fold(names))
    for name, _ in groups[:_SHOWN]:
        print(f"    {printable(name)}")
    left = sum(len(members) for _, members in groups[_SHOWN:])
    if left:
        print(f"    … and {left:,} more")
