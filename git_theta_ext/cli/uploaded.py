"""Whether a server has the objects that manifests name, without downloading any.

Source: git-lfs, docs/api/batch.md: a `download` request lists an error for each missing object.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence

from git_theta_ext.cli.github import send
from git_theta_ext.errors import TransferError
from git_theta_ext.manifest import UpdateRef

_BATCH = 100
_TYPE = "application/vnd.git-lfs+json"


def missing(url: str, token: str, objects: Iterable[UpdateRef]) -> list[UpdateRef]:
    """Those of some objects that the LFS server does not have, or has in another size.

    Args:
        url: of the LFS server, such as `https://github.com/owner/name.git/info/lfs`.
        token: a token of GitHub's, or an empty text for none.

    Raises:
        TransferError: the server cannot be asked.
    """
    wanted = list({item.oid: item for item in objects}.values())
    absent: list[UpdateRef] = []
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        present = _present(url, token, part)
        absent += [item for item in part if (item.oid, item.size) not in present]
    return absent


def _present(url: str, token: str, part: Sequence[UpdateRef]) -> set[tuple[str, int]]:
    headers = {"Accept": _TYPE}
    if token:
        login = b64encode(f"x-access-token:{token}".encode()).decode("ascii")
        headers["Authorization"] = f"Basic {login}"
    request = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": item.oid, "size": item.size} for item in part],
        "hash_algo": "sha256",
    }
    answer = send("POST", f"{url.rstrip('/')}/objects/batch", request, headers)
    found = answer.get("objects") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise TransferError(f"{url}: the answer to a batch request lists no objects")
    present = set()
    for item in found:
        if isinstance(item, dict) and not item.get("error"):
            oid, length = item.get("oid"), item.get("size")
            if isinstance(oid, str) and isinstance(length, int):
                present.add((oid, length))
    return present
