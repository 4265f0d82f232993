"""`git theta diff`: what changed in checkpoints, in several forms."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from git_theta_ext.checkpoints import modules as declarations
from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.cli import parts
from git_theta_ext.cli.frame import colours
from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.comparison.division import Divisions, divisions
from git_theta_ext.comparison.files import (
    TWO_VERSIONS,
    Pair,
    changed_checkpoints,
    two_blobs,
    two_files,
)
from git_theta_ext.comparison.named import Version, between
from git_theta_ext.comparison.report import by_module, markdown
from git_theta_ext.comparison.report.records import records
from git_theta_ext.comparison.report.text import Style, render
from git_theta_ext.comparison.spectrum import with_spectra
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import paragraph, printable, to_json
from git_theta_ext.git import near, outputs
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.objects.blocks import Blocks

Found = tuple[str, Comparison]


def add_parser(subparsers: Any) -> None:
    """Add the parser of `diff`."""
    parser = subparsers.add_parser(
        "diff",
        help="show what changed in checkpoints, tensor by tensor",
        description="Compare checkpoints: the index with the work tree, REV with the work tree, "
        "two revisions, two files of revisions (REV:FILE REV:FILE), or two files. Only tensors "
        "that changed are read.",
    )
    parser.add_argument(
        "revisions",
        nargs="*",
        metavar="REV | FILE",
        help="up to two revisions, or A..B; then files",
    )
    parser.add_argument(
        "--cached", "--staged", action="store_true", help="the index, not the work tree"
    )
    parser.add_argument(
        "--no-index", action="store_true", help="compare two files, in a repository or not"
    )
    parser.add_argument("--tensor", action="append", default=[], metavar="GLOB", help="only these")
    parts.add_module(parser, "only its tensors, too")
    parser.add_argument(
        "--by-module", action="store_true", help="the tensors under the names of their modules"
    )
    parser.add_argument(
        "--sort", choices=["name", "change", "size"],
        help="list the tensors by name, or one by one by relative change or by stored size "
        "(default: in groups, the most important first)",
    )  # fmt: skip
    parser.add_argument(
        "--spectrum", action="store_true",
        help="also show the singular values of the matrices that changed most (an estimate if "
        "the update is not low-rank)",
    )  # fmt: skip
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--stat", action="store_true", help="one line for each group of tensors")
    shape.add_argument("--name-only", action="store_true", help="only the names of tensors")
    shape.add_argument(
        "--format", choices=["text", "markdown", "html", "json"], default="text",
        help="markdown fits into a comment on GitHub; html is one file that needs no network",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to stdout")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if anything differs")
    parser.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    asked = _split(args)
    text, differs = compared_as_text(args, asked)
    if args.output:
        outputs.write(args.output, text.encode("utf-8", "backslashreplace"), work_tree())
    else:
        sys.stdout.write(text)
    # As git diff does: two files outside of history are compared with an exit status.
    return 1 if (args.exit_code or asked.kind == "files") and differs else 0


def compared_as_text(args: argparse.Namespace, asked: Asked | None = None) -> tuple[str, bool]:
    """What the arguments of the verb ask for, as one text, and whether anything differs.

    Raises:
        ThetaError: as the verb itself fails.
    """
    asked = asked or _split(args)
    modules = _modules(args)
    found: list[Found] = []
    names: set[str] = set()
    for pair in _pairs(args, asked):
        measured = not args.name_only or args.sort == "change"
        with closing(pair):
            comparison = pair.compare(measured)
            names |= {*comparison.unchanged, *(change.name for change in comparison.changes)}
            wanted = _wanted(args, modules, pair.path if asked.kind == "revisions" else None)
            comparison = _selected(comparison, wanted, args.sort)
            if measured and (args.spectrum or args.format == "html"):
                comparison = with_spectra(comparison, pair.old, pair.new, sketched=args.spectrum)
        if comparison.changes or (comparison.differs and wanted is None):
            found.append((pair.path, comparison))
    _check_tensors(names, args)
    compared = None
    if args.format in ("markdown", "html") and asked.kind == "revisions" and asked.first:
        compared = between(Repository.discover(), asked.first)
    divided = _divisions(args, asked, found)
    return _text(args, found, compared, divided, modules), bool(found)


def page_of(pair: Pair) -> str:
    """The report of one pair as an HTML page; the pair is closed.

    Raises:
        ThetaError: a version cannot be read.
    """
    from git_theta_ext.comparison.report import html

    with closing(pair):
        comparison = with_spectra(pair.compare(), pair.old, pair.new, sketched=False)
    return html.render([(pair.path, comparison)], None, divisions={})


def work_tree() -> Path | None:
    """The top of the work tree that the command was started in; None outside of any."""
    try:
        return Repository.discover().work_tree
    except RepositoryError:
        return None  # two files outside of any repository


def _check_tensors(names: set[str], args: argparse.Namespace) -> None:
    """Where something was compared, a pattern that fits no tensor of it is a mistake.

    Raises:
        UsageError: there is one.
    """
    for pattern in args.tensor if names else ():
        if not patterns.select(names, [pattern]):
            raise UsageError(
                f"no tensor matches {pattern!r}",
                hint=f"git theta diff --name-only{_compared(args)}   lists some",
            )


def _compared(args: argparse.Namespace) -> str:
    """What was compared, to be typed again after a blank."""
    options = {"--cached": args.cached, "--no-index": args.no_index}
    words = [name for name, given in options.items() if given]
    words += [shlex.quote(one) if printable(one) == one else "FILE" for one in args.revisions]
    return "".join(f" {one}" for one in words)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be compared: revisions, limited to paths; or two `blobs`, or two `files`."""

    kind: Literal["revisions", "blobs", "files"]
    first: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def _split(args: argparse.Namespace) -> Asked:
    """Revisions and files; `--` is what argparse leaves of the two."""
    words = list(args.revisions)
    if args.no_index:
        if len(words) != 2:
            raise UsageError("--no-index takes two files and nothing else")
        return Asked("files", tuple(words))
    repository = _repository_for(words)
    if repository is None:
        return Asked("files", tuple(words))
    if len(words) == 2 and all(_is_blob(repository, word) for word in words):
        return Asked("blobs", tuple(words))
    revisions: list[str] = []
    while words and len(revisions) < 2 and _is_revision(repository, words[0]):
        revisions.append(words.pop(0))
    if not revisions and len(words) == 2 and _are_files(repository, words):
        return Asked("files", tuple(words))
    _check_paths(repository, words, revisions)
    return Asked("revisions", tuple(revisions), tuple(words))


def _repository_for(words: list[str]) -> Repository | None:
    """The repository here; None where there is none and two files are to be compared."""
    try:
        return Repository.discover()
    except RepositoryError as error:
        if len(words) == 2 and all(Path(word).is_file() for word in words):
            return None
        raise RepositoryError(
            error.message, hint="outside a repository: git theta diff FILE FILE"
        ) from error


def _is_blob(repository: Repository, word: str) -> bool:
    """Whether a word is `REV:PATH` or `:PATH`, and there is a file."""
    oid = repository.resolve(word) if ":" in word else None
    return oid is not None and bool(repository.blob_sizes([oid]))


def _are_files(repository: Repository, words: list[str]) -> bool:
    """Whether two words are files to be compared with each other, as `git diff A B` takes them.

    They are where one lies outside of the work tree, or is not in the index: of paths in the index
    `git diff` shows how each differs from it.
    """
    if not all(Path(word).is_file() for word in words):
        return False
    top = repository.work_tree
    for word in words:
        place = Path(word).absolute()
        if top is None or not place.resolve().is_relative_to(top.resolve()):
            return True
        if not repository.index(f":(literal){word}"):
            return True
    return False


_FORM = "git theta diff [REV [REV]] FILE"


def _check_paths(repository: Repository, words: list[str], revisions: list[str]) -> None:
    """A word that is neither a revision nor a path that Git has ever seen here is a mistake.

    Raises:
        UsageError: there is one.
    """
    for word in words:
        named = word.partition(":")
        if ":" in word and shards.names_model(named[2]) and repository.resolve(named[0] or "HEAD"):
            raise UsageError(f"{word!r} stands for several files", hint=TWO_VERSIONS)
        if Path(word).exists() or any(char in word for char in "*?["):
            continue
        if ":" in word and not word.startswith(":("):
            there = repository.resolve(word) is not None
            if there and any(":" in one and repository.resolve(one) is None for one in words):
                continue  # the one that is not there is named
            raise UsageError(
                f"{word!r} is one file, to be compared with one of another revision"
                if there
                else f"there is no {word!r} here",
                hint="git theta diff REV:FILE REV:FILE   compares two files of two revisions",
            )
        ends = [
            end.strip(".") for revision in revisions or ["HEAD"] for end in revision.split("..")
        ]
        if not revisions and repository.resolve("HEAD") is None:
            raise unknown(repository, "HEAD")
        if not word.startswith(":(") and not any(
            repository.git("ls-tree", "--name-only", "--end-of-options", end or "HEAD", "--", word)
            for end in ends
        ):
            way = near.hint(repository, ends[0] or "HEAD", word, _FORM)
            raise UsageError(f"{word!r} is neither a revision nor a file", hint=way)


def _is_revision(repository: Repository, word: str) -> bool:
    ends = word.split("..") if ".." in word else [word]
    return all(not end or repository.resolve(f"{end.strip('.')}^{{tree}}") for end in ends)


def _pairs(args: argparse.Namespace, asked: Asked) -> Iterator[Pair]:
    if asked.kind == "revisions":
        yield from changed_checkpoints(
            Repository.discover(), asked.first, asked.paths, cached=args.cached
        )
    elif asked.kind == "blobs":
        yield two_blobs(Repository.discover(), *asked.first)
    else:
        blocks = None
        with suppress(RepositoryError):
            blocks = Blocks.open(Repository.discover())
        yield two_files(Path(asked.first[0]), Path(asked.first[1]), blocks)


def _modules(args: argparse.Namespace) -> Modules:
    """What `.theta.toml` declares, where an option needs it.

    Raises:
        UsageError: it declares no module, or not that one; or the form has no place for modules.
    """
    if args.by_module and (args.name_only or args.format not in ("text", "json")):
        raise UsageError("--by-module is for text and JSON")
    if not args.by_module and not args.module:
        return Modules()
    modules = parts.declared(Repository.discover())
    for name in args.module:
        modules.named(name)
    return modules


def _wanted(args: argparse.Namespace, modules: Modules, path: str | None) -> list[str] | None:
    """The patterns of the tensors of a checkpoint that are shown; None: all."""
    if not args.tensor and not args.module:
        return None
    chosen = [modules.named(name) for name in args.module]
    of_modules = [
        pattern for one in chosen if path is None or one.is_in(path) for pattern in one.patterns
    ]
    return [*args.tensor, *of_modules]


def _selected(comparison: Comparison, wanted: list[str] | None, order: str) -> Comparison:
    changes = list(comparison.changes)
    if wanted is not None:
        names = set(patterns.select([change.name for change in changes], wanted))
        changes = [change for change in changes if change.name in names]
        told = tuple(one for one in comparison.quantised if one.parts & names)
        comparison = replace(comparison, quantised=told)
    if order == "change":
        changes.sort(key=_moved, reverse=True)
    elif order == "size":
        changes.sort(key=lambda change: -change.stored)
    return replace(comparison, changes=tuple(changes))


def _moved(change: Change) -> float:
    if change.measure is None:
        return float("inf")
    return change.measure.relative if change.measure.relative is not None else float("inf")


def _divisions(args: argparse.Namespace, asked: Asked, found: list[Found]) -> Divisions:
    """For a report, the modules of checkpoints, as the first of the revisions declares them."""
    whole = args.format in ("markdown", "html") and not (args.tensor or args.module)
    if not whole or asked.kind != "revisions":
        return {}
    first = (asked.first[0].partition("..")[0] or "HEAD") if asked.first else None
    try:
        return divisions(found, declarations.read(Repository.discover(), first))
    except UsageError as error:
        said = paragraph(f"warning: the report is not by modules: {error.message}")
        print(said, file=sys.stderr)
        return {}


def _text(
    args: argparse.Namespace,
    found: list[Found],
    compared: tuple[Version, Version] | None,
    divided: Divisions,
    modules: Modules,
) -> str:
    """The whole output in the form that the options ask for."""
    if args.name_only:
        lines = [
            f"{printable(path)}: {printable(change.name)}"
            for path, one in found
            for change in one.changes
        ]
        return "".join(f"{line}\n" for line in lines)
    if args.format == "json":
        files = [records(path, one) for path, one in found]
        if args.by_module:
            for record, (path, one) in zip(files, found, strict=True):
                record["modules"] = by_module.records(path, one, modules)
        return to_json({"files": files}) + "\n"
    if args.format == "markdown":
        return markdown.render(found, between=compared, divisions=divided)
    if args.format == "html":
        from git_theta_ext.comparison.report import html

        return html.render(found, compared, divisions=divided)
    style = _style(args)
    whole = args.sort in (None, "name")
    options = {"brief": args.stat, "grouped": whole, "by_name": args.sort == "name"}
    return "".join(
        f"{line}\n"
        for path, one in found
        for line in (
            by_module.lines(path, one, modules, style, options)
            if args.by_module
            else render(path, one, style, **options)
        )
    )


def _style(args: argparse.Namespace) -> Style:
    colour = colours.decide(args.color, to_file=bool(args.output))
    encoding = "utf8" if args.output else (sys.stdout.encoding or "")
    return Style(colour, encoding.lower().replace("-", "") == "utf8")
