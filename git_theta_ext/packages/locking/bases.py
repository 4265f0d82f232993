"""Whether an adapter was made on the base that is locked: by content, not by name.

What it was made on is said by `theta_base.json` beside it (`packages.base_file`), or by the
`theta.lock` of its own repository, in which the base was locked when it was trained.
"""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.packages.base_file import FILE, BaseRecord, parse_base
from git_theta_ext.packages.fetched import Package, fetch_blobs
from git_theta_ext.packages.files import PackageFile, files_of
from git_theta_ext.packages.identity import identity_of, tensors_of
from git_theta_ext.packages.locking.contents import Models, models_of
from git_theta_ext.packages.locking.lock_file import LockedModel, parse_lock
from git_theta_ext.packages.locking.project import Project
from git_theta_ext.packages.locking.requirements import LOCK, Requirement
from git_theta_ext.packages.remote import without_secret

_NAMED = 10
"""Tensors that an error names."""

Opened = Callable[[str], tuple[Package, Sequence[PackageFile]]]
"""The package of an entry, by its name, and its files."""
Elsewhere = Callable[[str, str], Package]
"""The package of a URL and a commit."""


class BaseError(ThetaError):
    """An adapter was not made on the base that it is put together with."""


def check_bases(
    project: Project, rows: Mapping[str, LockedModel], opened: Opened, elsewhere: Elsewhere
) -> None:
    """Check every adapter whose base is locked, too; once for each pair of versions.

    Args:
        project: its entries, and what was found right before.
        rows: what is locked now, by name.
        opened: opens the package of an entry.
        elsewhere: opens one that is not locked here.

    Raises:
        BaseError: an adapter was made on another base; names the tensors that differ.
        ThetaError: what it was made on cannot be read.
    """
    known = project.state.checked
    for slot in [one for one in known if one.partition(":")[2] not in rows]:
        del known[slot]
    for one in project.wanted:
        row = rows[one.name]
        told = not row.files or any(posixpath.basename(file.path) == FILE for file in row.files)
        if one.base is None and not told:
            continue
        others = [one.base] if one.base is not None else sorted(set(rows) - {one.name})
        mark = " ".join(f"{name}:{rows[name].commit}:{rows[name].path}" for name in others)
        mark = f"{row.commit}:{row.path} {mark}"
        slot = f"base:{one.name}"
        if known.get(slot) != mark:
            _check(project, one, rows, opened, elsewhere)
            known[slot] = mark


def _check(
    project: Project,
    one: Requirement,
    rows: Mapping[str, LockedModel],
    opened: Opened,
    elsewhere: Elsewhere,
) -> None:
    """Check one adapter; what is none, and names no base, is none."""
    package, _ = opened(one.name)
    records = list(_records(package, rows[one.name].path))
    if one.base is not None and not records:
        records = list(_locked_there(package, project, one.base))
    if one.base is not None and not records:
        raise BaseError(
            f"{one.name} {printable(rows[one.name].label)} does not say on which base it was made: "
            f"there is neither a {FILE} beside it, nor {one.base} in a {LOCK} of its repository",
            hint="those who publish it say so with: git theta release --adapter BASE@VERSION; "
            f"to do without the check, leave out base = {one.base!r}",
        )
    for record in records:
        base = one.base or _base_of(project, record, rows, one.name)
        if base is not None:
            urls = [project.url(rows[base])]
            urls += [record.url] if record.url is not None and _is_far(record.url) else []
            then = functools.partial(_tensors_elsewhere, record, urls, elsewhere)
            _compare(one.name, rows[base], record, models_of(*opened(base)), then)


def _records(package: Package, path: str | None) -> Iterator[BaseRecord]:
    """What the files beside an adapter say."""
    entries = package.repository.tree(package.commit, recursive=True)
    if path is not None and any(entry.path == path for entry in entries):
        path = posixpath.dirname(path) or None
    found = [
        entry
        for entry in entries
        if posixpath.basename(entry.path) == FILE
        and (path is None or entry.path.startswith(f"{path}/"))
    ]
    fetch_blobs(package.repository, package.url, [one.oid for one in found], [package.commit])
    for entry in found:
        where = f"{printable(entry.path)} of {package}"
        yield parse_base(package.repository.blob(entry.oid), where)


def _locked_there(package: Package, project: Project, base: str) -> Iterator[BaseRecord]:
    """What the lock at the top of an adapter's own repository says of its base."""
    oid = package.repository.blob_at(package.commit, LOCK)
    if oid is None:
        return
    fetch_blobs(package.repository, package.url, [oid], [package.commit])
    try:
        there = parse_lock(package.repository.blob(oid))
    except UsageError as error:
        raise UsageError(f"that of {package}: {error.message}") from error
    url = next(project.url(one) for one in project.wanted if one.name == base)
    for name, row in there.items():
        if name == base or row.url == url:
            for path, identity in row.content:
                yield BaseRecord(row.url, row.label, row.commit, path, identity)


def _base_of(
    project: Project, record: BaseRecord, rows: Mapping[str, LockedModel], adapter: str
) -> str | None:
    """The entry that is the base which a record names, by what it is or by where it is."""
    others = [one for one in project.wanted if one.name != adapter]
    for one in others:
        if record.identity in dict(rows[one.name].content).values():
            return one.name
    named = [one.name for one in others if record.url and _plain(record.url) in _urls(project, one)]
    return named[0] if named else None


def _urls(project: Project, one: Requirement) -> set[str]:
    return {_plain(one.url), _plain(project.url(one))}


def _plain(url: str) -> str:
    return without_secret(url).rstrip("/").removesuffix(".git")


def _compare(
    adapter: str,
    base: LockedModel,
    record: BaseRecord,
    models: Models,
    tensors: Callable[[], Mapping[str, str]],
) -> None:
    """Refuse a base that is not the recorded one: every tensor of that must be in it, as it was."""
    if record.identity in map(identity_of, models.values()):
        return
    then = record.tensors or tensors()
    tables = [tensors_of(parts) for parts in models.values()]
    now = max(tables, key=lambda table: len(table.keys() & then.keys()), default={})
    differ = [name for name, digest in then.items() if now.get(name) != digest]
    if then and not differ:
        return
    lines = [
        f"{adapter} was made on another base than the one that is locked:",
        f"it was made on {printable(without_secret(record.label))}, and {base.name} is locked at "
        f"{printable(base.label)}",
    ]
    if then:
        named = ", ".join(map(printable, differ[:_NAMED]))
        more = f" and {len(differ) - _NAMED:,} more" if len(differ) > _NAMED else ""
        verb = "differs or is missing" if len(differ) == 1 else "differ or are missing"
        lines.append(f"{len(differ):,} of {plural(len(then), 'tensor')} {verb}: {named}{more}")
    raise BaseError(
        "\n".join(lines),
        hint=f"let {base.name} be the version that it was made on, or take a version of {adapter} "
        f"that fits: git theta update {adapter} {base.name}",
    )


def _tensors_elsewhere(
    record: BaseRecord, urls: Sequence[str], elsewhere: Elsewhere
) -> Mapping[str, str]:
    """The tensors of a recorded base by itself, to name those that differ; none if it is gone."""
    for url in urls if record.commit is not None else ():
        with suppress(ThetaError):
            package = elsewhere(url, record.commit or "")
            models = models_of(package, files_of(package, None))
            if record.path in models:
                return tensors_of(models[record.path or ""])
    return {}


def _is_far(url: str) -> bool:
    """Whether a URL means the same here as where it was written."""
    return "://" in url or os.path.isabs(url)
