"""Merges are told by tensor, and `git difftool` opens the report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.merges import QUERY, VALUE
from tests.scenarios.repositories import Repo

ODD = b"odd \xc3\xb6\xff.txt"
LINES = f"tensor a\r\n  dense sha256:{'a' * 64} 12\r\n"
BASE = model()
EDITED = {QUERY: changed(BASE[QUERY]), VALUE: changed(BASE[VALUE])}


@pytest.fixture
def edited(repo: Repo) -> Repo:
    """A commit, and in the work tree two tensors and a text with other bytes."""

    def make() -> None:
        repo.write(NAME, safetensors(BASE))
        (repo.path / os.fsdecode(ODD)).write_bytes(LINES.encode() + b"\xff\n")
        repo.commit()

    repo.once(make)
    repo.write(NAME, safetensors({**BASE, **EDITED}))
    (repo.path / os.fsdecode(ODD)).write_bytes(b"\x1b[7m" + LINES.encode() + b"\xfe\n")
    return repo


def test_a_merge_is_told_tensor_by_tensor(apart: Repo) -> None:
    apart.git("merge", "-q", "-m", "both", "side")
    own = {**BASE, QUERY: changed(BASE[QUERY], seed=9), "more": BASE[QUERY]}
    apart.write(NAME, safetensors({name: own[name] for name in own if name != "step"}))
    apart.git("commit", "-q", "-a", "--amend", "-m", "a merge of its own")
    shown = apart.theta("show", "HEAD")
    rows = json.loads(apart.theta("show", "HEAD", "--json"))
    assert [one["commit"] for one in rows["sides"]] == apart.git("rev-parse", "HEAD^@").split()
    found = {one["name"]: (one["as"], one["removed"]) for one in rows["files"][0]["tensors"]}
    assert found[QUERY] == ([], False)
    assert found["more"] == ([], False)
    assert "of its own" in shown
    assert QUERY in shown
    (line,) = [one for one in apart.theta("show", "HEAD", QUERY).splitlines() if QUERY in one]
    assert line.split()[:3] == ["of", "its", "own"]
    log = apart.theta("log", "-p", "-n", "1", NAME, QUERY)
    assert line in [one.removeprefix("    ") for one in log.splitlines()]
    assert "cos" in log  # and the numbers, compared with the first parent
    apart.git("reset", "-q", "--hard", "HEAD^1")
    apart.git("merge", "-q", "-s", "ours", "-m", "not theirs", "side")
    assert f"\n{NAME}  the file is as in ours\n" in apart.theta("show", "HEAD")
    (row,) = json.loads(apart.theta("show", "HEAD", "--json"))["files"]
    assert row["as"] == ["ours"]
    apart.git("reset", "-q", "--hard", "HEAD^1")
    hint = only(apart.run("git", "theta", "show", "HEAD", ok=(2,)).stderr.decode())
    assert "1 of" in do(apart, hint)


def test_difftool_opens_the_report(edited: Repo) -> None:
    edited.write("notes.txt", b"one\n")
    edited.git("add", "-N", "notes.txt")
    edited.git("config", "browser.page.cmd", "cp -t .")
    edited.git("config", "web.browser", "page")
    tool = ("difftool", "-y", "--tool=theta")
    said = edited.git(*tool, "HEAD")
    (page,) = edited.path.glob("review-*.html")
    assert QUERY in page.read_text("utf-8")
    assert f"Wrote {edited.path / '.git/theta' / page.name}\n" in said
    assert "+one\n" in said  # a text is shown as Git shows it
    edited.git("config", "browser.page.cmd", "false")
    where = f"{edited.path}/.git/theta/{page.name}"
    Path(where).unlink()
    said = edited.git(*tool, "HEAD", "--", NAME)
    assert "No browser could be started" in said
    assert QUERY in Path(where).read_text("utf-8")
    done = edited.run("git", *tool, "--dir-diff", "HEAD", ok=(0, 1, 2))
    assert b"leave out --dir-diff" in done.stderr
