"""Run giftless on a free port of this machine, which is printed: `run_giftless.py FOLDER`."""

from __future__ import annotations

import os
import sys

from giftless.app import init_app
from giftless.auth.identity import DefaultIdentity, Identity, Permission
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *arguments: object) -> None:
        """Keep quiet."""


def known(request: object) -> Identity:
    """The user whose password the proxy before us has checked."""
    del request
    user = DefaultIdentity(name="ada", id="ada", email="ada@example.org")
    user.allow(permissions=Permission.all())
    return user


os.chdir(sys.argv[1])  # giftless reads a file .env where it is started
settings = {
    "LEGACY_ENDPOINTS": False,
    "AUTH_PROVIDERS": ["__main__:known"],
    "TRANSFER_ADAPTERS": {"basic": {"options": {"storage_options": {"path": sys.argv[1]}}}},
}
server = make_server(
    "127.0.0.1", 0, init_app(additional_config=settings), threaded=True, request_handler=Quiet
)
print(server.server_port, flush=True)
server.serve_forever()
