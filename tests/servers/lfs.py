"""An LFS server in a thread, and what it was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.listening import Handler, listening


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
    with listening(_handler(state)) as url:
        state.url = f"{url}/lfs"
        yield state


def _handler(state: LfsServer) -> type[Handler]:
    class LfsHandler(Handler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            state.requests.append((self.command, self.path))
            return self.body()

        def _answer(self, status: int, body: bytes = b"") -> None:
            self.answer(status, body, {"Retry-After": "1"} if status == 429 else {})

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

    return LfsHandler
