"""HTTP servers in a thread, on loopback: what the servers of the tests have in common."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Handler(BaseHTTPRequestHandler):
    """Reads whole bodies, writes whole answers, and logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""

    def body(self) -> bytes:
        """The body of the request, be it of a given length or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def answer(
        self,
        status: int = 200,
        body: bytes | object = b"",
        headers: Headers = (),
        length: int | None = None,
    ) -> None:
        """Write a response; anything but bytes is sent as JSON. `length` is said to be its length.

        Headers take the place of the two that every answer has.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        present = {name.lower() for name, _ in given}
        usual = {
            "Content-Type": "application/vnd.git-lfs+json",
            "Content-Length": str(len(data) if length is None else length),
        }
        self.send_response(status)
        for name, value in [*given, *usual.items()]:
            if (name, value) in given or name.lower() not in present:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed has closed its connection; everything else is a mistake here."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def listening(handler: type[Handler], host: str = "127.0.0.1") -> Iterator[str]:
    """Serve until the block ends; its URL, without a slash at the end."""
    httpd = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and answers nobody: who asks it, hangs."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
