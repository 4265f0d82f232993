"""An LFS server in a thread, and objects to move about."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LfsServer:
    """What the server holds, what it was asked, and where it is."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.refuse_uploads = 0
        self.url = ""

    def batches(self) -> list[tuple[str, str]]:
        """The requests of the batch API."""
        return [request for request in self.requests if request[1].endswith("/objects/batch")]


@contextmanager
def lfs_server() -> Iterator[LfsServer]:
    """Serve the batch API with the basic transfer adapter, and check uploads as hosts do."""
    state = LfsServer()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}/lfs"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def _handler(state: LfsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

        def _body(self) -> bytes:
            state.requests.append((self.command, self.path))
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.git-lfs+json")
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self._body()
            if not self.path.endswith("/objects/batch"):
                self._answer(404, b'{"message": "not here"}')
                return
            request = json.loads(body)
            rows = [self._row(request["operation"], item) for item in request["objects"]]
            self._answer(200, json.dumps({"transfer": "basic", "objects": rows}).encode())

        def _row(self, operation: str, item: dict[str, object]) -> dict[str, object]:
            oid = str(item["oid"])
            row: dict[str, object] = {"oid": oid, "size": item["size"]}
            action = {"href": f"{state.url}/store/{oid}"}
            if operation == "download" and oid not in state.objects:
                row["error"] = {"code": 404, "message": "Object does not exist"}
            elif operation == "download" or oid not in state.objects:
                row["actions"] = {operation: action}
            return row

        def do_GET(self) -> None:
            self._body()
            found = state.objects.get(self.path.rsplit("/", 1)[1])
            self._answer(404 if found is None else 200, found or b"")

        def do_PUT(self) -> None:
            body, oid = self._body(), self.path.rsplit("/", 1)[1]
            if state.refuse_uploads:
                self._answer(state.refuse_uploads, b'{"message": "the quota is used up"}')
            elif hashlib.sha256(body).hexdigest() != oid:
                self._answer(422, b'{"message": "wrong hash"}')
            else:
                state.objects[oid] = body
                self._answer(200)

    return Handler
