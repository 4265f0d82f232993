"""The merge driver: Git runs it with `%O %A %B %L %P` when both sides changed a checkpoint.

Source: gitattributes(5), "Defining a custom merge driver". `%O`, `%A` and `%B` hold manifests (`%O`
may be empty); the result is written over `%A`. Exit 0: merged; 1: conflicts; 2: failed, `%A` as it
was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from git_theta_ext.blocks import Blocks
from git_theta_ext.errors import ManifestError, ThetaError
from git_theta_ext.manifest import Manifest, is_manifest
from git_theta_ext.merge.apply import Merged, merge
from git_theta_ext.merge.explain import conflict_lines
from git_theta_ext.report.text import shown
from git_theta_ext.repository import Repository

_FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Merge as Git asks; the process exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 5:
        print("git-theta-merge is started by Git; see: git theta help install", file=sys.stderr)
        return _FAILED
    base, ours, theirs, _, path = arguments
    try:
        merged = _merge(Path(base), Path(ours), Path(theirs))
        temporary = Path(f"{ours}.theta")
        temporary.write_bytes(merged.manifest.to_bytes())
        os.replace(temporary, ours)
    except (ThetaError, OSError) as error:
        print(f"git-theta: {shown(path)}: cannot merge: {error}", file=sys.stderr)
        return _FAILED
    if not merged.open:
        return 0
    print("\n".join(conflict_lines(shown(path), merged)), file=sys.stderr)
    return 1


def _merge(base: Path, ours: Path, theirs: Path) -> Merged:
    blocks = Blocks.open(Repository.discover())
    manifests = [_read(path) for path in (base, ours, theirs)]
    if manifests[1] is None or manifests[2] is None:
        raise ManifestError("a side is empty")
    return merge(manifests[0], manifests[1], manifests[2], blocks)


def _read(path: Path) -> Manifest | None:
    data = path.read_bytes()
    if data and not is_manifest(data):
        raise ManifestError(
            "a side holds a raw checkpoint, committed without git-theta-ext",
            hint="on that branch: git add --renormalize FILE && git commit",
        )
    return Manifest.parse(data) if data else None


if __name__ == "__main__":
    sys.exit(main())
