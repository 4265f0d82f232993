"""`git add -p`, diffs of merges, pages and difftool show tensors; what is staged stays Git's."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.merges import QUERY, VALUE
from tests.scenarios.repositories import Repo
from tests.scenarios.terminals import on_terminal

LONG = re.compile("[0-9a-f]{64}")
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


def asked(repo: Repo, *command: str, answers: bytes = b"q\n") -> str:
    """What a command that asks shows on a terminal."""
    return on_terminal(repo.path, "git", *command, answers=answers).decode("utf-8", "replace")


def test_git_add_p_shows_tensors_and_stages_what_git_has(edited: Repo) -> None:
    shown = asked(edited, "add", "-p", NAME, answers=b"y\nn\n")
    assert f"  {QUERY}: F32 [64, 64]  " in shown
    assert f" {QUERY}\x1b[m" in shown  # heads its hunk
    assert "change=" in shown
    assert not LONG.search(shown)
    staged = parse_manifest(edited.blob(f":{NAME}")).by_name()
    before = parse_manifest(edited.blob(f"HEAD:{NAME}")).by_name()
    assert {name for name in before if staged[name] != before[name]} == {QUERY}
    edited.theta("fsck")

    odd = [asked(edited, *own, "add", "-p", "--", "*.txt")
           for own in ((), ("-c", "interactive.diffFilter=cat"))]  # fmt: skip
    assert odd[0] == odd[1]
    assert "a" * 64 in odd[0]
    for command in ("reset", "checkout", "stash"):
        shown = asked(edited, command, "-p", "--", NAME)
        assert ".weight: F32 [64, 64]  " in shown
        assert not LONG.search(shown)

    setting = edited.git("config", "interactive.diffFilter").strip()
    gone = setting.replace(Path(sys.executable).name, "gone")
    assert gone != setting
    shown = asked(edited, "-c", f"interactive.diffFilter={gone}", "add", "-p", NAME, answers=b"y\n")
    assert LONG.search(shown)
    assert parse_manifest(edited.blob(f":{NAME}")).by_name()[VALUE] != before[VALUE]


def paged(repo: Repo, command: str) -> str:
    """What a line of a shell shows on a terminal, through a pager that ends by itself."""
    return on_terminal(repo.path, "sh", "-c", f"unset GIT_PAGER; {command}").decode()


def plain(text: str) -> str:
    """A text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_merges_are_shown_by_tensor(collided: Repo) -> None:
    collided.theta("install", "--pager")
    collided.run("git", "merge", "-q", "side", ok=(1,))
    collided.write(NAME, safetensors({**BASE, QUERY: changed(BASE[QUERY], seed=9)}))
    conflict = plain(paged(collided, "git diff"))
    assert f"@@@ {QUERY}\r\n" in conflict
    assert f"++  {QUERY}: F32 [64, 64]  " in conflict
    assert not LONG.search(conflict)
    collided.git("merge", "--abort")
    collided.theta("merge", "side", "--strategy", "average")
    for command in ("git show", "git log -p --cc -1", "git -c core.pager='sed s/^//' show"):
        shown = plain(paged(collided, command))
        assert f"++  {QUERY}: merge average of ours, theirs recipe=1" in shown
        assert not LONG.search(shown)
    whole = collided.git("show", "--no-ext-diff", "--first-parent", "-m", "--format=")
    assert LONG.search(whole)  # as ever where nobody pages
    patch = "git show --no-ext-diff --first-parent -m --format= "
    paged(collided, f"{patch} --output=one.patch; {patch} > two.patch")
    assert {(collided.path / f"{one}.patch").read_text() for one in ("one", "two")} == {whole}
    merged = collided.blob(f"HEAD:{NAME}")
    collided.git("reset", "-q", "--hard", "HEAD^1")
    collided.git("apply", "--index", "one.patch")
    assert collided.blob(f":{NAME}") == merged


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


def test_a_filter_of_ones_own_stays(edited: Repo) -> None:
    ours = edited.git("config", "interactive.diffFilter")
    assert "diff_filter || cat; }" in ours
    assert "removed interactive.diffFilter" in edited.theta("uninstall", "--local")
    # Whoever had another one before is told how both work together.
    mine = "sed 's/^/mine:/'"
    edited.git("config", "--global", "interactive.diffFilter", mine)
    edited.git("config", "--global", "pager.log", "false")
    edited.git("config", "--global", "pager.show", "less -R")
    said = edited.theta("install", "--pager")
    assert "pager.log is yours and stays: false" in said
    kept = [edited.git("config", f"{name}").strip() for name in
            ("interactive.diffFilter", "pager.log", "pager.show")]  # fmt: skip
    assert kept == [mine, "false", "less -R"]
    for line in said.splitlines():
        if line.startswith("  git config"):
            edited.run("sh", "-c", line)
    assert edited.git("config", "pager.show").strip() == "git theta diff-filter | less -R"
    shown = asked(edited, "add", "-p", NAME)
    assert "mine:" in shown
    assert f"  {QUERY}: F32 [64, 64]  " in shown
    assert "yours" not in edited.theta("install")
    said = edited.theta("uninstall")
    assert "interactive.diffFilter still starts git theta diff-filter" in said
    assert "removed pager.diff" in said
    asks = on_terminal(edited.path, "git", "theta", "diff-filter").decode()
    command = only(asks.replace("\r\n", "\n"))
    assert "  F32 [64, 64]  " in do(edited, command)


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
