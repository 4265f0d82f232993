"""Patterns of `.gitattributes` without Git, against what `git check-attr` says of them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from git_theta_ext.git.attributes import lines, quote
from git_theta_ext.migration.attribute_patterns import filter_of, matches

PATTERNS = [
    "*.pt", "a/*.pt", "a/**/b.pt", "**/b.pt", "a/**", "/b.pt", "m[0-9].pt", "m[!0-9].pt",
    "\\*.pt", "a?b", "*", "**", "a**b/c", "a/**b", "[[:digit:]]*", "x[]a]y", "a\\[b", "a/b/*",
    "*a*b*", "**/a/**", "[a-", "foo/**/", "m[^a]*", "a b.pt", "[a-c]*", "é*", "x[\\]]y",
]  # fmt: skip
PATHS = [
    "a.pt", "a/a.pt", "a/b.pt", "a/x/b.pt", "a/x/y/b.pt", "b.pt", "x/b.pt", "m1.pt", "mm.pt",
    "*.pt", "a/b", "axb", "a", "a/b/c", "axxb/c", "ax/yb/c", "1x", "xay", "x]y", "a[b", "q/a/z",
    "a/q/ab", "m/.pt", "foo/x/", "[a-", "m^a", "a b.pt", "é.pt", "ba",
]  # fmt: skip


def test_as_git_has_it(tmp_path: Path, sealed: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    rows = [f"{quote(pattern)} p{number}" for number, pattern in enumerate(PATTERNS)]
    (tmp_path / ".gitattributes").write_text("\n".join(rows) + "\n", "utf-8")
    answer = subprocess.run(
        ["git", "check-attr", "-z", "--all", "--stdin"],
        input="\0".join(PATHS).encode(), cwd=tmp_path, capture_output=True, check=True,
    ).stdout.decode().split("\0")[:-1]  # fmt: skip
    said = {(path, int(name[1:])) for path, name in zip(answer[::3], answer[1::3], strict=True)}
    ours = {(path, number) for path in PATHS for number, pattern in enumerate(PATTERNS)
            if matches(pattern, path)}  # fmt: skip
    assert ours == said


def test_the_last_line_that_matches_counts() -> None:
    top = lines(b"*.pt filter=lfs\n/kept.pt !filter\n")
    below = lines(b"x.pt filter=theta\n* -filter\n*.pt filter=other\n")
    assert filter_of("a.pt", [("", top)]) == "lfs"
    assert filter_of("kept.pt", [("", top)]) == ""
    assert filter_of("sub/x.pt", [("", top), ("sub", below)]) == "other"
    assert filter_of("x.bin", [("", top)]) is None
    assert filter_of("sub/x.bin", [("", top), ("sub", below)]) == ""
    assert filter_of("x", [("", lines(b"x big\n"))], {"big": "lfs"}) == "lfs"


def test_a_pattern_that_means_harm_takes_no_time() -> None:
    begun = time.process_time()
    assert not matches("*a" * 200 + "b", "a" * 2000)
    assert time.process_time() - begun < 5
