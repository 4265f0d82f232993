"""What a user of the SSH host may do: `ssh_shell.py URL AUTHORIZATION`, a forced command.

Git's two services, and `git-lfs-authenticate`, which hands out the LFS endpoint and a header for it
(git-lfs, docs/api/server-discovery.md). A file `no-lfs` in the repository makes that one fail.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

SERVICES = ("git-upload-pack", "git-receive-pack")


def main() -> int:
    """Run the command that the client asked for."""
    url, authorization = sys.argv[1:]
    words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    if len(words) == 2 and words[0] in SERVICES:
        os.execvp("git", ["git", words[0].removeprefix("git-"), words[1]])
    if len(words) == 3 and words[0] == "git-lfs-authenticate":
        path = Path(words[1])
        if (path / "no-lfs").exists():
            print("you have no access to LFS", file=sys.stderr)
            return 1
        repo = f"{path.parent.name}/{path.stem}"
        answer = {"href": f"{url}/lfs/{repo}", "header": {"Authorization": authorization}}
        print(json.dumps({**answer, "expires_in": 600}))
        return 0
    print(f"not allowed: {' '.join(words)}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main())
