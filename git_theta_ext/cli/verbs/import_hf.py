"""`git theta import-hf`: a model of the Hugging Face cache becomes commits and branches."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from git_theta_ext.cli.migrating import options
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.found import Files
from git_theta_ext.migration.importing import Importing
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.others import hub
from git_theta_ext.migration.selection import Selection


def add_parser(subparsers: Any) -> None:
    """Add the parser of `import-hf`."""
    parser = subparsers.add_parser(
        "import-hf",
        help="make commits and branches of a model in the Hugging Face cache",
        description="Each snapshot of the folder becomes a commit, the oldest download first, and "
        "each ref a branch. Run again, only new snapshots are added. Work tree and other branches "
        "stay as they are.",
    )
    parser.add_argument("folder", metavar="DIR", help="such as .../hub/models--org--name")
    parser.add_argument(
        "--prefix", default="hf/", help="what the names of the branches begin with (hf/)"
    )
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say which snapshots are new"
    )
    parser.add_argument("--verbose", action="store_true", help="name each version that is stored")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; the exit status."""
    repository = Repository.discover()
    model = hub.Model(Path(args.folder))
    made = hub.known(repository, args.prefix, model)
    fresh = [
        one
        for one in model.snapshots()
        if one.commit not in made or hub.lacks(repository, made[one.commit], model, one)
    ]
    wanted = model.refs()
    if args.dry_run:
        _show(args, model, fresh, [], wanted)
        return 0
    ours = set(made.values())
    hub.updates(repository, args.prefix, wanted, made, ours)  # refused before anything is stored
    options.install_here(repository, quiet=args.json)
    with steps.pipes_of(repository) as pipes:
        journal = Journal(place(repository, "hub", str(model.folder.resolve())), pipes)
        if journal.goes_on:
            steps.require_objects(repository, pipes, journal)

        def tell(name: str, count: int) -> None:
            if args.verbose and not args.json:
                print(f"  {printable(name)}  {size(count)}", flush=True)

        found = Files(pipes, Selection(), LfsFiles(repository))
        importing = Importing(repository, found, journal, tell)
        try:
            committing = hub.Committing(repository, importing, model)
            tip = next(reversed(made.values()), None)
            for one in fresh:
                tip = made[one.commit] = committing.commit(one, tip)
            ours.update(made.values())
            updates = hub.updates(repository, args.prefix, wanted, made, ours)
            if updates:
                refs.move(repository, updates, f"git theta import-hf {model.name}")
            journal.close(done=True)
        finally:
            journal.close()
            importing.close()
    _show(args, model, fresh, updates, {k: v for k, v in wanted.items() if v not in made})
    if updates and not args.json and repository.resolve("HEAD") is None:
        branch = printable(updates[0].ref.removeprefix("refs/heads/"))
        print(f"  nothing is checked out yet: git switch {branch}")
    return 0


def _show(
    args: argparse.Namespace,
    model: hub.Model,
    fresh: list[hub.Snapshot],
    updates: list[refs.Update],
    lacking: dict[str, str],
) -> None:
    """Say what was done, or, of a dry run, what would be."""
    if args.json:
        rows = [{"ref": one.ref, "to": one.new} for one in updates]
        print(to_json({"dry_run": args.dry_run, "model": model.name,
                       "snapshots": [one.commit for one in fresh], "refs": rows}))  # fmt: skip
        return
    if args.dry_run:
        print(f"{printable(model.name)}: {plural(len(fresh), 'new snapshot')}")
        for one in fresh:
            print(f"  {one.commit}")
        print("Nothing was changed (dry run)")
        return
    print(f"{printable(model.name)}: {plural(len(fresh), 'snapshot')} committed")
    for update in updates:
        print(f"  {printable(update.ref.removeprefix('refs/heads/'))}  {update.new[:10]}")
    for name, commit in lacking.items():
        print(f"  {printable(name)} names {commit[:10]}, of which no snapshot is here: left out")
