"""Every command is given one set of evil names; every byte that it writes is read.

No control character but the line end reaches a stream, whatever the medium; in markdown nobody is
mentioned and nothing is referred to; what is JSON is JSON, and names survive in it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.markdown import reading
from tests.scenarios.repositories import Repo
from tests.scenarios.terminals import on_terminal

CONTROL = (
    "\x1b]8;;http://e.org\x07\x1b[31mX\x1b[1A\r\b\t\x7f\x9b2J\x85\u202e\u2066\u200b\ufeff\u3164"
)
ACTIVE = "@octocat #1 GH-2 o#r#3 <img src=x onerror=y>|`**b**` www.e.org :tada: $x$ ::error::e"
EVIL = f"{CONTROL}\n::error::line\n{ACTIVE}"
FILE = f"m{EVIL}.safetensors".replace("/", "_")
BRANCH = "s\x85\x9b2J\u202e\u200b@octocat#1"
PARTS = {"PATH": FILE, "TENSOR": f"w0{EVIL}", "BRANCH": BRANCH, "EVIL": EVIL, "GONE": f"no{EVIL}"}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="such names cannot be there")


def checkpoint(value: int, **more: float) -> bytes:
    random = np.random.default_rng(0)
    tensors = {f"w{i}{EVIL}": random.normal(0, 1, (32, 32)).astype(np.float32) for i in range(3)}
    for name, add in more.items():
        tensors[f"{name}{EVIL}"] = tensors[f"{name}{EVIL}"] + np.float32(add)
    tensors[f"w2{EVIL}"][0, 0] = value
    return safetensors(tensors, {f"key{EVIL}": f"{EVIL}{value}"})


@pytest.fixture
def hostile(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """Two branches that changed one tensor, everything in it named by somebody evil."""
    monkeypatch.setenv("GIT_AUTHOR_NAME", f"A{CONTROL} @octocat".replace("\n", ""))

    def make() -> None:
        repo.write(FILE, checkpoint(1))
        repo.write(os.fsdecode(b"b\xff\x9b.safetensors"), checkpoint(1))
        repo.commit(f"one {EVIL}")
        repo.git("branch", BRANCH)
        repo.write(FILE, checkpoint(2, w0=1))
        repo.commit(f"two {EVIL}")
        repo.git("checkout", "-q", BRANCH)
        repo.write(FILE, checkpoint(3, w0=2))
        repo.commit(f"three {EVIL}")
        repo.git("checkout", "-q", "main")
        repo.git("config", "remote.origin.url", f"http://127.0.0.1:1/{CONTROL}")
        repo.git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")

    repo.once(make)
    return repo


def wrong(data: bytes, *, colours: bool = False) -> set[str]:
    """What acts on a terminal in some output, or is no text."""
    text = data.decode("utf-8", "surrogateescape")
    if colours:
        text = re.sub(r"\x1b\[(32|31|36|1;31|1|2)?m", "", text.replace("\r\n", "\n"))
    unseen = {"\u3164", "\ufeff"}
    found = {char for char in text if char != "\n" and (not char.isprintable() or char in unseen)}
    return {ascii(char) for char in found}


COMMANDS = """
status; status --json; ls-files; ls-files -s; ls-files --json; ls-files GONE
show PATH; show PATH TENSOR; show PATH GONE; show --json PATH; show GONE; show HEAD:GONE
du; du --json; du PATH; du HEAD~1..HEAD; du GONE
log PATH; log --json PATH; log PATH TENSOR; log GONE
blame PATH; blame --drift PATH; blame --json PATH TENSOR; blame PATH GONE; blame GONE
diff HEAD~1 HEAD; diff --stat HEAD~1 HEAD; diff --name-only HEAD~1 HEAD; diff --spectrum HEAD~1 HEAD
diff --sort name HEAD~1 HEAD; diff --format json HEAD~1 HEAD; diff HEAD BRANCH; diff GONE
diff --format markdown HEAD~1 HEAD; diff --format html HEAD~1 HEAD; diff --tensor GONE HEAD~1 HEAD
diff --no-index PATH GONE; diff --format EVIL; diff --EVIL
cat PATH GONE; cat GONE GONE; export PATH -o out.npz; export PATH -o GONE/x.npz; export GONE -o x.pt
export --tensors GONE PATH -o x.npz
merge BRANCH --plan; merge GONE; merge GONE --plan; merge BRANCH --strategy EVIL
merge BRANCH --strategy average --set EVIL; merge BRANCH --tune EVIL; merge BRANCH HEAD~1 GONE
merge BRANCH --tune; resolve; resolve PATH; resolve GONE; mergetool GONE
stats PATH --with GONE; stats GONE --with GONE; add GONE --update GONE; add PATH --update GONE
fetch; fetch GONE; pull; pull GONE; push; push GONE; fsck; fsck --json; fsck GONE
fsck --remote GONE; prune --dry-run; prune --remote GONE; track EVIL; track; track --json
track --filename PATH; untrack EVIL; untrack GONE; version; version --json
allow; allow --list; allow --revoke EVIL; install --EVIL; uninstall EVIL; EVIL; --EVIL
install --local --skip-smudge; uninstall --local
"""


def commands() -> Iterator[list[str]]:
    for words in COMMANDS.replace("\n", ";").split(";"):
        if words.strip():
            yield [re.sub("|".join(PARTS), lambda m: PARTS[m[0]], w) for w in words.split()]


def test_every_command(hostile: Repo) -> None:
    hostile.write(
        ".theta.toml", f"[merge]\nevaluate = {json.dumps('x {checkpoint}' + EVIL)}\n".encode()
    )
    bad, silent, seen = [], [], 0
    for words in commands():
        done = hostile.run(
            sys.executable, "-m", "git_theta_ext.cli.main", *words, ok=tuple(range(130))
        )
        shown = " ".join(words[:1]) + f" … (exit {done.returncode})"
        bad += [
            f"{words!a}: {found}" for out in (done.stdout, done.stderr) if (found := wrong(out))
        ]
        if not done.stdout + done.stderr and words[0] not in ("diff",):
            silent.append(shown)
        seen += b"octocat" in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr, done.stderr
        if "--json" in words or words[:3] == ["diff", "--format", "json"]:
            assert done.stdout.isascii()
            json.loads(done.stdout or b"{}")
    assert bad == []
    assert silent == []
    assert seen > 45  # the names were there to be shown


def test_names_survive_in_json(hostile: Repo) -> None:
    found = json.loads(hostile.theta("diff", "--format", "json", "HEAD~1", "HEAD"))["files"][0]
    assert found["path"] == FILE
    assert f"w0{EVIL}" in {change["name"] for change in found["changes"]}
    assert {"name": f"metadata.key{EVIL}", "old": f"{EVIL}1", "new": f"{EVIL}2"} in found["outside"]


def test_merging(hostile: Repo) -> None:
    """A conflict, everything that is said of it, and how it is settled."""
    theta = (sys.executable, "-m", "git_theta_ext.cli.main")
    steps: list[tuple[tuple[str, ...], bytes]] = [
        ((*theta, "merge", BRANCH), b""),
        ((*theta, "merge", BRANCH), b""),
        ((*theta, "status"), b""),
        ((*theta, "status", "--json"), b""),
        ((*theta, "resolve", FILE), b""),
        ((*theta, "resolve", FILE, "--strategy", EVIL), b""),
        ((*theta, "resolve", FILE, "--tensor", EVIL, "--strategy", "ours"), b""),
        ((*theta, "mergetool", FILE), f"list\n1 {EVIL}\nquit\n".encode()),
        ((*theta, "resolve", FILE, "--strategy", "average", "--json"), b""),
        ((*theta, "resolve", FILE, "--undo"), b""),
        ((*theta, "resolve", FILE, "--strategy", "average"), b""),
    ]
    for command, typed in steps:
        done = hostile.run(*command, ok=(0, 1, 2, 10, 128), stdin=typed)
        assert not wrong(done.stdout), ascii(command[3:5])
        assert not wrong(done.stderr), ascii(command[3:5])
        assert done.stdout + done.stderr
    hostile.git("checkout", "-q", "-f", "main")
    (hostile.path / FILE).unlink()
    hostile.commit("gone")
    done = hostile.run(*theta, "merge", BRANCH, ok=(1,))
    assert b"modify/delete" in done.stdout
    assert not wrong(done.stdout + done.stderr)


def test_what_git_starts(hostile: Repo) -> None:
    """The drivers and hooks: stderr is ours alone, and so is what git diff prints."""
    for words in (
        ("diff", "HEAD~1", "HEAD"),
        ("show", "--ext-diff", "--format=", "HEAD"),
        ("log", "-p", "--ext-diff", "--format="),
        ("diff", "HEAD~1", BRANCH, "--", FILE),
    ):
        done = hostile.run("git", *words)
        assert b"octocat" in done.stdout
        assert not wrong(done.stdout + done.stderr), words
    manifest = hostile.blob(f"HEAD:{FILE}")
    for content in (manifest, manifest[:-20], b"<<<<<<< x\n" + manifest):
        hostile.write(FILE, content)
        assert not wrong(hostile.run("git", "add", "--", FILE, ok=(0, 1, 128)).stderr.split(
            b"\nfatal: ")[0].split(b"\nerror: ")[0])  # fmt: skip
    hostile.git("checkout", "-q", "-f", "HEAD", "--", ".")
    done = hostile.run("git", "merge", BRANCH, ok=(1,))
    assert b"octocat" in done.stderr
    assert not wrong(done.stderr)
    hostile.git("merge", "--abort")
    done = hostile.run(  # as Git 2.54 starts it, which leaves nothing to the hook's file
        sys.executable, "-m", "git_theta_ext.drivers.pre_push", "--configured", "origin",
        f"http://127.0.0.1:1/{CONTROL}", ok=(1,),
        stdin=f"{EVIL} {EVIL} refs/heads/x {'0' * 40}\n".encode(),
    )  # fmt: skip
    assert done.stderr
    assert not wrong(done.stderr)


def test_a_terminal_sees_our_colours_and_nothing_else(hostile: Repo) -> None:
    theta = (sys.executable, "-m", "git_theta_ext.cli.main")
    for words in (
        (*theta, "diff", "HEAD~1", "HEAD"),
        (*theta, "diff", "--no-index", FILE, f"x{EVIL}"),
        (*theta, "log", FILE),
        ("git", "--no-pager", "diff", "HEAD~1", "HEAD"),
    ):
        written = on_terminal(hostile.path, *words)
        assert not wrong(written, colours=True), ascii(words)
    written = on_terminal(hostile.path, *theta, "diff", "HEAD~1", "HEAD")
    coloured = re.findall(rb"\x1b\[[0-9;]*m", written)
    assert coloured
    # Ours come in pairs: a name's own would not.
    assert len(coloured) == 2 * coloured.count(b"\x1b[m")


def test_markdown_mentions_nobody_and_refers_to_nothing(hostile: Repo) -> None:
    for words in ((), ("--sort", "name")):
        text = hostile.theta("diff", "--format", "markdown", *words, "HEAD~1", "HEAD")
        assert "octocat" in text
        assert not re.search(r"@|#\d|GH-|www|https?:|:tada|\$x|onerror|<(?!/?(details|summary))",
                             reading(text))  # fmt: skip
        assert all(line.count("|") in (0, 4, 7) for line in text.splitlines())


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onerror", "onclick", "onload"}


def test_html_has_no_element_of_a_name(hostile: Repo) -> None:
    text = hostile.theta("diff", "--format", "html", "HEAD~1", "HEAD")
    assert "octocat" in text
    found = _Elements()
    found.feed(text)
    assert not found.tags & {"img", "a", "b0", "iframe", "object", "form"}
    assert text.count("<script") == 2
    for island in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S):
        json.loads(island)


@pytest.mark.parametrize(
    ("config", "environment", "coloured"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"TERM": "dumb"}, False),
        (("-c", "color.ui=false"), {}, False),
        (("-c", "color.ui=never"), {}, False),
        (("-c", "color.diff=false"), {}, False),
        (("-c", "color.ui=always"), {"NO_COLOR": "1"}, True),
    ],
)
def test_colours_on_a_terminal(
    hostile: Repo, config: tuple[str, ...], environment: dict[str, str], coloured: bool
) -> None:
    for words in (("theta", "diff", "HEAD~1", "HEAD"), ("--no-pager", "diff", "HEAD~1", "HEAD")):
        written = on_terminal(hostile.path, "git", *config, *words, env=environment)
        assert b"octocat" in written
        assert (b"\x1b[" in written) is coloured


def test_colours_in_a_pipe_only_where_always(hostile: Repo) -> None:
    assert "\x1b" not in hostile.git("theta", "diff", "HEAD~1", "HEAD")
    assert "\x1b[1m" in hostile.git("-c", "color.ui=always", "theta", "diff", "HEAD~1", "HEAD")
    assert "\x1b[1m" in hostile.git("theta", "diff", "--color", "always", "HEAD~1", "HEAD")
    assert "\x1b" not in hostile.git(
        "-c", "color.ui=always", "theta", "diff", "--color", "never", "HEAD~1", "HEAD"
    )
