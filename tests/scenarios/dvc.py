"""What `dvc add` of DVC 3 writes: a `.dvc` file, and the bytes in the cache by their MD5."""

from __future__ import annotations

import hashlib
import json

from tests.scenarios.repositories import Repo

DVC = """outs:
- md5: {md5}
  size: {size}
  hash: md5
  path: {name}
"""
FOLDER = """outs:
- md5: {md5}
  size: {size}
  nfiles: {count}
  hash: md5
  path: {name}
"""


def _cached(repo: Repo, data: bytes, ending: str = "") -> str:
    """Put a file into the cache as DVC 3 does; its MD5."""
    md5 = hashlib.md5(data).hexdigest() + ending
    repo.write(f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}", data)
    return md5


def dvc_add(repo: Repo, name: str, data: bytes | dict[str, bytes]) -> None:
    """What `dvc add` of DVC 3 writes for a file, or for a folder of files by their names."""
    if isinstance(data, bytes):
        text = DVC.format(md5=_cached(repo, data), size=len(data), name=name)
        repo.write(name, data)
    else:
        rows = [{"md5": _cached(repo, one), "relpath": path} for path, one in sorted(data.items())]
        for path, one in data.items():
            repo.write(f"{name}/{path}", one)
        size = sum(map(len, data.values()))
        md5 = _cached(repo, json.dumps(rows).encode(), ".dir")
        text = FOLDER.format(md5=md5, size=size, count=len(rows), name=name)
    repo.write(f"{name}.dvc", text.encode())
