"""A version of a model into a folder, or a part of it into a file: what `git theta get` does.

What is there already is told by this module alone: it is what most gets come to.
"""

from __future__ import annotations

import os
from pathlib import Path

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import Package, fetch
from git_theta_ext.packages.sources import Source
from git_theta_ext.packages.standing import Record
from git_theta_ext.packages.values import AS_IT_IS, Got, How, Target, Watch

__all__ = ["Watch", "get"]


def get(
    cache: Cache,
    source: Source,
    output: Path | None = None,
    how: How = AS_IT_IS,
    watch: Watch | None = None,
) -> Got:
    """Have a version in a folder, or one file of it as a file.

    Args:
        cache: where it is fetched to.
        source: what is wanted.
        output: the folder; or the file, where the source's path is that of one file. By default the
            folder of the repository's name, in the current one.
        how: see there.
        watch: shows how far it is.

    Raises:
        UsageError: there is no such version or path, or files there are others; see `How.force`.
        SignatureError: something was not signed, or by somebody else; nothing was written.
        TransferError, MissingObjectError, StoreError.
    """
    folder = output if output is not None else Path(source.folder)
    if os.path.realpath(folder) == os.path.realpath(source.url):
        raise UsageError(
            f"{printable(str(folder))} is the repository itself, which is not written into",
            hint="name another folder: -o FOLDER",
        )
    with cache.using():
        package = fetch(cache, source.url, source.version, offline=how.offline, refresh=how.refresh)
        what = repr((source.url, source.path, how.wanted))
        known = None if how.trust else _quickly(cache, package, source, output, what)
        if known is not None:
            return known
        from git_theta_ext.packages import unpacking  # NumPy and more, which takes its time

        request = unpacking.Request(source, output, how, what)
        return unpacking.unpack(cache, package, request, watch)


def _quickly(
    cache: Cache, package: Package, source: Source, output: Path | None, what: str
) -> Got | None:
    """What stands there whole and as it was written, without a look at the package's files."""
    folder = output if output is not None else Path(source.folder)
    both = [Target(folder)]
    if output is not None and not output.is_dir():
        both.insert(0, Target(output.parent, output.name))
    for target in both:
        record = Record.read(cache.root, target.folder, f"{what}{target.name or ''}")
        right = record.commit == package.commit and record.files
        if right and all(record.unchanged(target.folder, name) for name in record.files):
            return Got(package, target.path, record.listed())
    return None
