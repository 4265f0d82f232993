"""Web servers on loopback that answer as an attack wants it, and tell what they were asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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


Answer = Callable[[BaseHTTPRequestHandler, Asked], None]


@contextmanager
def serve(answer: Answer, host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve until the block ends; `answer` writes the response to each request."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

        def _handle(self) -> None:
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            site.asked.append(asked)
            self.close_connection = True
            with suppress(OSError):  # whoever is asked too much of hangs up
                answer(self, asked)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments: Any) -> None:
            """Keep quiet."""

    httpd = Server(("127.0.0.1", 0), Handler)
    site.url = f"http://{host}:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def reply(
    handler: BaseHTTPRequestHandler,
    status: int = 200,
    body: bytes | object = b"",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Write a response; anything but bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/vnd.git-lfs+json", "Content-Length": str(len(data))}
    handler.send_response(status)
    for name, value in {**sent, **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


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
