"""What a user of the SSH host may do: `ssh_shell.py URL AUTHORIZATION OBJECTS`, a forced command.

Git's two services; `git-lfs-authenticate`, which hands out the LFS endpoint and a header for it
(git-lfs, docs/api/server-discovery.md), unless there is a file `no-lfs` in the repository; and
`git-lfs-transfer`, where there is a file `pure-ssh`.
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
    url, authorization, objects = sys.argv[1:]
    words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    if len(words) == 2 and words[0] in SERVICES:
        os.execvp("git", ["git", words[0].removeprefix("git-"), words[1]])
    path = Path(words[1] if len(words) > 1 else "")
    repo = f"{path.parent.name}/{path.stem}"
    if len(words) == 3 and words[0] == "git-lfs-transfer" and (path / "pure-ssh").exists():
        sys.path.insert(0, str(Path(__file__).parent))
        from lfs_transfer import Session

        os.environ["LFS_OPERATION"] = words[2]
        Session(Path(objects) / repo, sys.stdin.buffer, sys.stdout.buffer).run()
        return 0
    if len(words) == 3 and words[0] == "git-lfs-authenticate":
        if (path / "no-lfs").exists():
            print("you have no access to LFS", file=sys.stderr)
            return 1
        answer = {"href": f"{url}/lfs/{repo}", "header": {"Authorization": authorization}}
        print(json.dumps({**answer, "expires_in": 600}))
        return 0
    print(f"not allowed: {' '.join(words)}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main())
