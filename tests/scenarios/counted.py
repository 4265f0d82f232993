"""Runs what Git starts, or `git theta`, and counts what it does: `counted.py FILE KIND ...`.

KIND is `theta`, `filter`, `merge` or `pre_push`. Git starts it in place of these, so nothing of the
tests is imported here. A line of JSON is added to FILE at the end.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

counts: Counter[str] = Counter()


def count(owner: Any, name: str, what: str) -> None:
    """Have each call of a function counted."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def counting(*args: Any, **options: Any) -> Any:
        counts[what] += 1
        return real(*args, **options)

    setattr(owner, name, counting)


def main() -> int:
    """Count, run, and tell."""
    path, kind, *arguments = sys.argv[1:]
    count(subprocess.Popen, "__init__", "processes")
    count(threading.Thread, "start", "threads")
    for name in ("stat", "lstat", "open", "mkdir", "replace", "unlink", "fsync"):
        count(os, name, name)
    from git_theta_ext.checkpoints import memo
    from git_theta_ext.core import names
    from git_theta_ext.git import libgit2
    from git_theta_ext.manifest import text as manifest_text
    from git_theta_ext.objects.blocks import Blocks

    count(manifest_text, "_common_entry", "entries parsed")
    count(manifest_text.Parser, "_by_paragraphs", "manifests parsed")
    count(libgit2.Reader, "blob", "blobs read")
    count(libgit2.Reader, "_read_tree", "trees read")
    count(names, "natural_key", "keys of names")
    count(Blocks, "predicted", "recipes carried out")
    count(memo.Memo, "put", "answers kept")
    try:
        if kind == "theta":
            from git_theta_ext.cli.main import main as theta

            return theta(arguments)
        sys.argv[1:] = arguments
        return int(importlib.import_module(f"git_theta_ext.drivers.{kind}").main())
    finally:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    sys.exit(main())
