"""What an archive says besides its tensors: its members' pickles, and all else that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.archives import stored, tar
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.layout.skeleton import Skeleton
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.pickles.contents import Contents, DescribedFile, Leaves, contents_of
from git_theta_ext.formats.torch import zipped

_HEAD_BYTES = 512


def contents(container: str, skeleton: Skeleton, lengths: Mapping[str, int]) -> Contents:
    """Members that `torch.save` wrote by their values, others by what of them is no tensor's.

    When a member was written, by whom, and what else stands in the archive's own headers counts
    for nothing.

    Args:
        container: `tar` or `zip`.
        skeleton: the structure of the file.
        lengths: bytes of each tensor, by name.

    Raises:
        FormatError: the archive is damaged.
    """
    file = DescribedFile(skeleton, lengths)
    leaves: Leaves = {}
    files: dict[str, bytes] = {}
    for member in _members(container, file):
        stop = member.offset + member.length
        found = _archive(PartSource(file, member.offset, stop))
        if found is None:
            files[member.name] = file.literals(member.offset, stop)
            continue
        label = member.name.removeprefix("./")
        leaves |= {(f"{label}, {path[0]}", *path[1:]): leaf for path, leaf in found.leaves.items()}
        files |= {f"{label}, {name}": data for name, data in found.files.items()}
    return Contents(leaves, files)


def _members(container: str, source: Source) -> Iterator[tar.Member]:
    return tar.members(source) if container == tar.NAME else stored.members(source)


def _archive(source: Source) -> Contents | None:
    """The contents of what `torch.save` wrote; None of another file."""
    if not zipped.sniff(source.read(0, min(_HEAD_BYTES, source.size)), source):
        return None
    try:
        return contents_of(source)
    except FormatError:
        return None
