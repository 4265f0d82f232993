"""Which pushes delete what is not here: the hook is not told, so the command line says it."""

from __future__ import annotations

import pytest

from git_theta_ext.drivers.pre_push import mirrors, parse


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git push --mirror origin", True),
        ("git -C there push -q --mir", True),
        ("git push --prune origin +refs/*:refs/*", True),
        ("git push --prune origin refs/heads/*:refs/heads/*", False),
        ("git push origin refs/*:refs/*", False),
        ("git push -- origin main", False),
        ("git push -m", False),
        ("git fetch --mirror", False),
        ("", False),
    ],
)
def test_mirrors(command: str, expected: bool) -> None:
    assert mirrors(command.split()) is expected


def test_lines_name_the_ref_at_the_remote() -> None:
    one, zero = "1" * 40, "0" * 40
    lines = f"HEAD^{{/some words}} {one} refs/heads/a {zero}\n(delete) {zero} refs/tags/b {one}\n"
    created, deleted = parse(lines.encode())
    assert (created.local, created.remote, created.name) == (one, None, "refs/heads/a")
    assert (deleted.local, deleted.remote, deleted.name) == (None, one, "refs/tags/b")
