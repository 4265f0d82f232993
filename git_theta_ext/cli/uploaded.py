"""What a Git LFS server has of the objects that manifests name, and those that a report reads.

Source: git-lfs, docs/api/batch.md: a `download` request lists an error for each missing object, and
for every other one where it lies. git-lfs is not asked to do it: it would follow the settings of
the checkout, `.lfsconfig` among them, and so a pull request.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

from git_theta_ext.cli.github import RefusedError, receive, send
from git_theta_ext.errors import TransferError
from git_theta_ext.manifest import UpdateRef

_BATCH = 100
_TYPE = "application/vnd.git-lfs+json"
_GONE = (404, 410)


class Server:
    """One LFS server, which is asked nothing more after it has refused or failed once."""

    def __init__(self, url: str, token: str) -> None:
        """`url` is such as `https://github.com/owner/name.git/info/lfs`; `token` may be empty.

        Raises:
            TransferError: it is no URL of HTTP.
        """
        if not url.startswith(("https://", "http://")):
            raise TransferError(f"{url} is not the URL of a server that speaks HTTP")
        self.url = url.rstrip("/")
        self._login = ""
        if token:
            login = b64encode(f"x-access-token:{token}".encode()).decode("ascii")
            self._login = f"Basic {login}"
        self._places: dict[str, dict[str, Any]] = {}
        self.trouble: str | None = None
        """What it answered when it refused."""

    def missing(self, objects: Iterable[UpdateRef]) -> list[UpdateRef]:
        """Those of some objects that it does not have, or has in another size.

        Raises:
            TransferError: it does not answer, or refused to before.
        """
        wanted = list({item.oid: item for item in objects}.values())
        absent: list[UpdateRef] = []
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            present = self._present(part)
            absent += [item for item in part if (item.oid, item.size) not in present]
        return absent

    def download(self, item: UpdateRef) -> bytes | None:
        """The bytes of an object that was asked about, verified; None where they are not to be had.

        Raises:
            TransferError: it does not answer, or refused to before.
        """
        place = self._places.get(item.oid)
        if place is None:
            return None
        headers = {str(name): str(value) for name, value in place["header"].items()}
        if self._login and place["href"].startswith(_origin(self.url) + "/"):
            headers.setdefault("Authorization", self._login)
        try:
            data = self._once(lambda: receive(place["href"], headers, item.size))
        except RefusedError as error:
            if error.status in _GONE:
                return None
            raise
        return data if hashlib.sha256(data).hexdigest() == item.oid else None

    def _once(self, call: Any) -> Any:
        if self.trouble is not None:
            raise TransferError(self.trouble)
        try:
            return call()
        except TransferError as error:
            if not (isinstance(error, RefusedError) and error.status in _GONE):
                self.trouble = error.message
            raise

    def _present(self, part: Sequence[UpdateRef]) -> set[tuple[str, int]]:
        headers = {"Accept": _TYPE}
        if self._login:
            headers["Authorization"] = self._login
        request = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": item.oid, "size": item.size} for item in part],
            "hash_algo": "sha256",
        }
        target = f"{self.url}/objects/batch"
        try:
            answer = self._once(lambda: send("POST", target, request, headers))
        except TransferError as error:
            self.trouble = error.message
            raise
        found = answer.get("objects") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            self.trouble = f"{self.url}: the answer to a batch request lists no objects"
            raise TransferError(self.trouble)
        present = set()
        for item in found:
            if isinstance(item, dict) and not item.get("error"):
                oid, length = item.get("oid"), item.get("size")
                if isinstance(oid, str) and isinstance(length, int):
                    present.add((oid, length))
                    self._note(oid, item)
        return present

    def _note(self, oid: str, item: dict[str, Any]) -> None:
        """Keep where an object lies, if that is a place on the web."""
        actions = item.get("actions")
        place = actions.get("download") if isinstance(actions, dict) else None
        href = place.get("href") if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(href, str):
            header = place.get("header")
            if href.startswith(("https://", "http://")):
                self._places[oid] = {
                    "href": href, "header": header if isinstance(header, dict) else {}
                }  # fmt: skip


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])
