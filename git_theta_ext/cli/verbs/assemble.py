"""`git theta assemble RECIPE`: a checkpoint, put together of parts of others."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.braces import fold
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.paths import advise, from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.packages.assemble.assembly import EVERY, Assembly, prepare
from git_theta_ext.packages.assemble.changes import Changes
from git_theta_ext.packages.assemble.check import differences
from git_theta_ext.packages.assemble.parts import Opener
from git_theta_ext.packages.assemble.update import Done, carry_out
from git_theta_ext.packages.remote import without_secret


def add_parser(subparsers: Any) -> None:
    """Add the parser of `assemble`."""
    parser = subparsers.add_parser(
        "assemble",
        help="build a checkpoint of parts of other versions and repositories",
        description="Build the checkpoint that a recipe names, of tensors of other versions and "
        "other repositories, and add it, not commit it. Parts are locked to commits in a lock "
        "beside the recipe. Objects of the parts are used as they are: nothing is encoded anew "
        "but what is cast, stacked or split.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a file such as recipe.toml")
    parser.add_argument(
        "--dry-run", "-n", action="store_true",
        help="say which tensors would come from where; build nothing",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="store_true",
        help="only see whether the checkpoint is what the recipe says; exit status 1 if not",
    )  # fmt: skip
    parser.add_argument(
        "--update", metavar="PART", nargs="*", default=None,
        help="first move these parts (all, if none is named) to what their versions are now",
    )  # fmt: skip
    parser.add_argument(
        "--locked", action="store_true",
        help="fail where a part is not locked, or a tag is not what it was",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="ask no remote")
    parser.add_argument("--force", "-f", action="store_true", help="write over what no commit has")
    parser.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run, answers=lambda args: args.check)


def run(args: argparse.Namespace) -> int:
    """Assemble; 0, or with `--check` 1 where the checkpoint is another one.

    Raises:
        UsageError: the recipe is not usable, or something would be lost.
        ThetaError: a part is not to be had, or something cannot be written.
    """
    repository = Repository.discover()
    if args.locked and args.update is not None:
        raise UsageError("--locked moves no part: leave out --update")
    if args.check and (args.dry_run or args.update is not None or args.force):
        raise UsageError("--check changes nothing: leave out --dry-run, --update and --force")
    repository.offline = args.offline
    path = from_top(repository, args.recipe)
    moved = None if args.update is None else args.update or EVERY
    with Opener(
        repository, (repository.top / path).parent, offline=args.offline,
        refresh=args.update is not None, fixed=args.locked,
    ) as opener:  # fmt: skip
        assembly = prepare(repository, path, opener, moved=moved, must_be_locked=args.locked)
        return _run(repository, assembly, args)


def _run(repository: Repository, assembly: Assembly, args: argparse.Namespace) -> int:
    """Check, say what would be done, or do it."""
    if args.check:
        return _check(assembly, args)
    if args.dry_run:
        report(assembly, None, args)
        return 0
    installation.require(repository)
    needed = assembly.task.wanted().values()
    made = sum(one.info.nbytes for one in assembly.plan.values() if not one.is_plain)
    total = made + sum(ref.size for refs in needed for ref in refs.values())
    with Progress("Assembling", 0 if args.quiet else total) as progress:
        done = carry_out(assembly, force=args.force, advance=progress)
    report(assembly, done, args)
    return 0


def _check(assembly: Assembly, args: argparse.Namespace) -> int:
    """Say what is not as the recipe has it; 1 if anything."""
    found = differences(assembly)
    if args.json:
        print(to_json({"path": assembly.path, "differences": found}))
    elif not args.quiet:
        recipe = printable(assembly.recipe_path)
        if not found:
            print(f"{printable(assembly.path)} is what {recipe} makes")
        else:
            print(f"{printable(assembly.path)} is not what {recipe} makes:")
            for line in found[:20]:
                print(f"  {printable(line)}")
            if len(found) > 20:
                print(f"  and {len(found) - 20:,} more")
            words = "to build it: git theta assemble RECIPE"
            print(advise(assembly.repository, words, assembly.recipe_path, "RECIPE"))
    return 1 if found else 0


def report(assembly: Assembly, done: Done | None, args: argparse.Namespace) -> None:
    """Tell what was built, or would be, of which parts.

    Args:
        assembly: what a recipe makes.
        done: what became of it; None where nothing was built.
        args: with `dry_run`, `quiet` and `json`.
    """
    if args.quiet and not args.json:
        return
    nbytes = sum(one.info.nbytes for one in assembly.plan.values())
    parts = [_part(assembly, number) for number in range(len(assembly.parts))]
    if args.json:
        record: dict[str, Any] = {
            "path": assembly.path, "recipe": assembly.recipe_path, "bytes": nbytes,
            "tensors": len(assembly.plan), "parts": parts,
        }  # fmt: skip
        if args.dry_run:
            record["plan"] = [
                {"name": name, "part": assembly.parts[one.part].part.name,
                 "dtype": one.info.dtype.name, "shape": list(one.info.shape),
                 "from": list(one.sources), "made": not one.is_plain}
                for name, one in assembly.plan.items()
            ]  # fmt: skip
        if done is not None:
            record["brought"] = {"objects": done.built.objects, "bytes": done.built.nbytes}
            record["changes"] = done.changes.record()
        print(to_json(record))
        return
    verb = "would have" if args.dry_run else "has"
    print(
        f"{printable(assembly.path)} {verb} {plural(len(assembly.plan), 'tensor')}, {size(nbytes)}:"
    )
    for line in table([_cells(part) for part in parts]):
        print(f"  {line}")
    if args.dry_run:
        for line in table([_planned(assembly, name) for name in assembly.plan]):
            print(f"  {line}")
    if done is None:
        return
    if done.built.objects:
        print(f"  {plural(done.built.objects, 'object')} brought, {size(done.built.nbytes)}")
    print(f"  {done.changes.words()}")
    for line in _changed(done.changes):
        print(f"    {line}")
    print("  added, with its recipe and lock; git commit records it")


_SHOWN = 10
"""Lines on tensors that are others now."""


def _changed(found: Changes) -> list[str]:
    """Which tensors are others now, those alike on one line; none of a new checkpoint."""
    if found.is_first:
        return []
    kinds = (("~", found.changed), ("+", found.added), ("-", found.removed))
    lines = [(f"{sign} {name}", len(of)) for sign, names in kinds for name, of in fold(names)]
    lines += [(f"> {old} -> {new}", 1) for old, new in found.renamed.items()]
    shown = [printable(line) for line, _ in lines[:_SHOWN]]
    left = sum(count for _, count in lines[_SHOWN:])
    return [*shown, f"… and {left:,} more"] if left else shown


def _part(assembly: Assembly, number: int) -> dict[str, Any]:
    """A part as a record, which the text is made from, too."""
    one = assembly.parts[number].locked
    given = [each for each in assembly.plan.values() if each.part == number]
    before = None if assembly.lock is None else assembly.lock.part(one.name)
    return {
        "name": one.name, "from": without_secret(one.source),
        "url": without_secret(one.url), "version": one.version,
        "ref": one.ref, "commit": one.commit, "path": one.path, "tensors": len(given),
        "made": sum(not each.is_plain for each in given),
        "was": before.commit if before is not None and before.commit != one.commit else None,
    }  # fmt: skip


def _cells(part: dict[str, Any]) -> list[str]:
    moved = f"{part['was'][:9]} -> " if part["was"] else ""
    made = f", {part['made']:,} of them cast, stacked or split" if part["made"] else ""
    return [
        part["name"], printable(part["version"] or "HEAD"), f"{moved}{part['commit'][:9]}",
        f"{plural(part['tensors'], 'tensor')}{made}",
    ]  # fmt: skip


def _planned(assembly: Assembly, name: str) -> list[str]:
    one = assembly.plan[name]
    part = assembly.parts[one.part].part.name
    first, *others = one.sources
    more = f" and {len(others):,} more" if others else ""
    source = "" if one.sources == (name,) else f" {printable(first)}{more}"
    shape = f"{one.info.dtype.name} {list(one.info.shape)}"
    return [printable(name), shape, f"{part}{'' if not source else ':'}{source}"]
