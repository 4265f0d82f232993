"""The audit of dependencies says what it found, and says it when it could not ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
FAKE = """#!/bin/sh
# A Python whose venv is this script again, and whose pip_audit answers as it is told.
case "$*" in
  *" venv "*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
  *" pip install "*) exit "${PIP_STATUS:-0}" ;;
  *pip_audit*)
    while [ "$1" != --output ]; do shift; done
    if [ -z "$ANSWER" ]; then echo "no route to the database" >&2; else echo "$ANSWER" > "$2"; fi
    exit 1 ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def audit(tmp_path: Path, answer: object, **extra: str) -> subprocess.CompletedProcess[str]:
    fake = tmp_path / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    text = "" if answer is None else json.dumps({"dependencies": answer})
    env = {"PYTHON": str(fake), "REAL_PYTHON": sys.executable, "ANSWER": text, **extra}
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    return subprocess.run(
        [bash, str(TOP / ".ci/audit")], env={**os.environ, **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_nothing_is_known(tmp_path: Path) -> None:
    done = audit(tmp_path, [{"name": "numpy", "version": "2", "vulns": []}])
    assert done.returncode == 0
    assert "requirements/run.txt: 1 packages, 0 advisories" in done.stdout
    assert "NOT AUDITED" not in done.stderr


def test_something_is_known(tmp_path: Path) -> None:
    known = {"id": "CVE-2026-5917", "fix_versions": ["1.21.0"]}
    done = audit(tmp_path, [{"name": "pygit2", "version": "1.14", "vulns": [known]}])
    assert done.returncode == 1
    assert "pygit2 1.14: CVE-2026-5917, fixed in 1.21.0" in done.stdout


@pytest.mark.parametrize("answer", [None, [], [{"name": "x", "skip_reason": "unknown"}]])
def test_what_was_not_asked_is_said(tmp_path: Path, answer: object) -> None:
    done = audit(tmp_path, answer)
    assert done.returncode == 75
    assert "NOT AUDITED: requirements/run.txt" in done.stderr
    assert "0 advisories" not in done.stdout


def test_without_the_auditor(tmp_path: Path) -> None:
    done = audit(tmp_path, None, PIP_STATUS="1")
    assert done.returncode == 75
    assert "NOT AUDITED: pip-audit could not be installed" in done.stderr
