"""What a Git LFS server has of the objects that manifests name, and those that a report reads.

Source: git-lfs, docs/api/batch.md: a `download` request lists an error for each missing object, and
for every other one where it lies. git-lfs is not asked to do it: it would follow the settings of
the checkout, `.lfsconfig` among them, and so a pull request.

A server may lie. So among what it is asked about are objects of names made up by chance, which
nobody has; and what is downloaded is verified.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

from git_theta_ext.cli.github import web
from git_theta_ext.cli.github.github import send
from git_theta_ext.cli.github.web import RefusedError
from git_theta_ext.core.errors import TransferError
from git_theta_ext.manifest.model import UpdateRef

_BATCH = 100
_TYPE = "application/vnd.git-lfs+json"
_MAX_ANSWER = 2 << 20
"""Bytes of the answer about a hundred objects: signed links take a few hundred kilobytes."""
_GONE = (404, 410)


class Server:
    """One LFS server, which is asked nothing more after it has refused or failed once."""

    def __init__(self, url: str, token: str) -> None:
        """`url` is such as `https://github.com/owner/name.git/info/lfs`; `token` may be empty.

        A user and password in the URL are sent in place of the token, and not shown.

        Raises:
            TransferError: it is no URL of HTTP.
        """
        if not url.startswith(("https://", "http://")):
            raise TransferError(f"{web.shown(url)} is not the URL of a server that speaks HTTP")
        scheme, _, rest = url.partition("://")
        place, slash, path = rest.partition("/")
        user, _, place = place.rpartition("@")
        self.url = f"{scheme}://{place}{slash}{path}".rstrip("/")
        login = unquote(user) if user else f"x-access-token:{token}" if token else ""
        self._login = f"Basic {b64encode(login.encode()).decode('ascii')}" if login else ""
        self._places: dict[str, dict[str, Any]] = {}
        self.trouble: str | None = None
        """What it answered when it refused."""
        self.damaged: set[str] = set()
        """The ids of objects under whose name it has something else."""
        self.lies = False
        """Whether it says of objects that were made up that it has them."""

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
            data: bytes = self._once(
                lambda: web.read("GET", place["href"], None, headers, item.size + 1)
            )
        except RefusedError as error:
            if error.status in _GONE:
                return None
            raise
        if hashlib.sha256(data).hexdigest() != item.oid:
            self.damaged.add(item.oid)
            return None
        return data

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
        """The objects that the server says it has, with the lengths it gives; notes a false yes."""
        headers = {"Accept": _TYPE}
        if self._login:
            headers["Authorization"] = self._login
        made_up = UpdateRef("dense", secrets.token_hex(32), secrets.choice(part).size)
        asked = {item.oid: item for item in [*part, made_up]}
        request = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": oid, "size": asked[oid].size} for oid in sorted(asked)],
            "hash_algo": "sha256",
        }
        target = f"{self.url}/objects/batch"
        try:
            answer = self._once(lambda: send("POST", target, request, headers, _MAX_ANSWER))
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
                # Of nothing else it was asked: what it says may be of any length.
                if isinstance(oid, str) and oid in asked and isinstance(length, int):
                    present.add((oid, length))
                    self._note(oid, item)
        self.lies = self.lies or any(oid == made_up.oid for oid, _ in present)
        return present

    def _note(self, oid: str, item: dict[str, Any]) -> None:
        """Keep where an object lies, if that is a place on the web."""
        actions = item.get("actions")
        place = actions.get("download") if isinstance(actions, dict) else None
        href = place.get("href") if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(href, str):
            header = place.get("header")
            web_place = href.startswith(("https://", "http://"))
            if web_place and not web.leads_inside(href, self.url):
                self._places[oid] = {
                    "href": href, "header": header if isinstance(header, dict) else {}
                }  # fmt: skip


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])
