"""Run dulwich's LFS server: for each line of stdin, one for that folder; its port is printed.

`run_dulwich.py FOLDER`; the lines are paths below it.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from dulwich.lfs_server import run_lfs_server

for line in sys.stdin:
    folder = Path(sys.argv[1]) / line.strip()
    folder.mkdir(parents=True, exist_ok=True)
    server, _ = run_lfs_server("127.0.0.1", 0, str(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
