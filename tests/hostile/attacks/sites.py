"""Web servers on loopback that answer as an attack wants it, and tell what they were asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.servers.listening import Handler, listening


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects of a batch request."""
        found: list[dict[str, Any]] = json.loads(self.body)["objects"]
        return found

    @property
    def secret(self) -> str | None:
        """The credential that it carries."""
        return self.headers.get("Authorization")


@dataclass
class Site:
    """Where a server is, and what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def secrets(self) -> list[str]:
        """All credentials that it was sent."""
        return [one.secret for one in self.asked if one.secret is not None]

    @property
    def batches(self) -> list[Asked]:
        """The requests of the batch API."""
        return [one for one in self.asked if one.path.endswith("/objects/batch")]


Answer = Callable[[Handler, Asked], None]


@contextmanager
def serve(answer: Answer, host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve until the block ends; `answer` writes the response to each request."""
    site = Site()

    class SiteHandler(Handler):
        timeout = 30

        def _handle(self) -> None:
            asked = Asked(self.command, self.path, dict(self.headers), self.body())
            site.asked.append(asked)
            self.close_connection = True
            with suppress(OSError):  # whoever is asked too much of hangs up
                answer(self, asked)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

    with listening(SiteHandler, host) as site.url:
        yield site


def offers(objects: list[dict[str, Any]], url: str, **action: object) -> dict[str, object]:
    """The answer of a batch that has everything, below a URL."""
    rows = [
        {
            "oid": one["oid"], "size": one["size"],
            "actions": {"download": {"href": f"{url}/{one['oid']}", **action}},
        }
        for one in objects
    ]  # fmt: skip
    return {"transfer": "basic", "objects": rows}


def batch(handler: Handler, asked: Asked, site: Site) -> bool:
    """Answer a batch as if everything were there; whether it was one."""
    if asked.path.endswith("/objects/batch"):
        handler.answer(200, offers(asked.objects, site.url))
        return True
    return False
