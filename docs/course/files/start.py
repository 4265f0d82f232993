"""Make the repository with which an exercise begins, in this folder: python start.py"""

import subprocess
import sys

for command in (
    ["git", "init", "-q", "-b", "main"],
    ["git", "theta", "install", "--local"],
    ["git", "theta", "track", "*.safetensors", "*.pt"],
    [sys.executable, "data.py"],
    [sys.executable, "train.py", "2"],
    ["git", "add", "."],
    ["git", "commit", "-q", "-m", "Start"],
    ["git", "tag", "v1.0"],
):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
print("on branch main: a model that answers both questions, tagged v1.0")
