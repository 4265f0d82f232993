"""Diffs with their manifests made readable: line for line, and everything else byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.comparison.report.hunks import Hunks

A, B, C = "a" * 64, "b" * 64, "c" * 64
HEADER = b"\x1b[1mdiff --git a/m.st b/m.st\x1b[m\n\x1b[1mindex 1234567..89abcde 100644\x1b[m\n"
COLOURED = (
    HEADER
    + f"""\x1b[1m--- a/m.st\x1b[m
\x1b[1m+++ b/m.st\x1b[m
\x1b[36m@@ -7,5 +7,6 @@\x1b[m \x1b[mskeleton\x1b[m
   dense sha256:{C} 874535[874198:874535]\x1b[m
 \x1b[m
 tensor layer.0.weight\x1b[m
\x1b[31m-  F32 [256, 256] sha256:{A}\x1b[m
\x1b[32m+\x1b[m\x1b[32m  F32 [256, 256] sha256:{B}\x1b[m
\x1b[32m+\x1b[m\x1b[32m  low-rank sha256:{C} 6975[184:3741] rank=1 change=2%\x1b[m
\x1b[36m@@ -21,1 +22,3 @@\x1b[m \x1b[mtensor layer.2.weight\x1b[m
\x1b[31m-  dense sha256:{A} 12\x1b[m
\x1b[32m+\x1b[mtensor new
\x1b[32m+\x1b[m  U8 [100] sha256:{B}
\\ No newline at end of file
""".encode()
)
SHOWN = (
    HEADER
    + b"""\x1b[1m--- a/m.st\x1b[m
\x1b[1m+++ b/m.st\x1b[m
\x1b[36m@@ -7,5 +7,6 @@\x1b[m \x1b[mlayer.0.weight\x1b[m
   dense  stored in 337 B  ccccccc+874198\x1b[m
 \x1b[m
 tensor layer.0.weight\x1b[m
\x1b[31m-  layer.0.weight: F32 [256, 256]  aaaaaaa\x1b[m
\x1b[32m+\x1b[m\x1b[32m  layer.0.weight: F32 [256, 256]  bbbbbbb\x1b[m
\x1b[32m+\x1b[m\x1b[32m  layer.0.weight: low-rank  rank=1 change=2%  \
stored in 3.6 kB  ccccccc+184\x1b[m
\x1b[36m@@ -21,1 +22,3 @@\x1b[m \x1b[mlayer.2.weight and 1 more\x1b[m
\x1b[31m-  layer.2.weight: dense  stored in 12 B  aaaaaaa\x1b[m
\x1b[32m+\x1b[mtensor new
\x1b[32m+\x1b[m  U8 [100]  bbbbbbb
\\ No newline at end of file
"""
)
COMBINED = f"""diff --cc m.st
index 1,2..3
--- a/m.st
+++ b/m.st
@@@ -1,3 -1,3 +1,4 @@@ tensor {"x" * 73}
- -  dense sha256:{A} 12
 -  F32 [1000] sha256:{A}
++  F32 [1000] sha256:{B}
++  merge average of ours, theirs recipe=1
""".replace("- -", "--").encode()
OTHER = (
    b'diff --git "a/o\\303\\266 \\n.txt" "b/o\\303\\266 \\n.txt"\nindex 1..2\n@@ -1,2 +1,2 @@\n'
    b"-one\r\n+\xff\xfe two\x1b[7m\r\n one\x00\n\\ No newline at end of file\n"
    + f"diff --git a/doc b/doc\nindex 3..4\n@@ -1 +1 @@ tensor a\n-  dense sha256:{A} 12\n".encode()
)


def asked(blobs: Sequence[str]) -> bool:
    return list(blobs) in (["1234567", "89abcde"], ["1", "2", "3"])


def shown(data: bytes, *cuts: int, tells: object = asked) -> bytes:
    hunks = Hunks(tells)  # type: ignore[arg-type]
    edges = [0, *sorted(cuts), len(data)]
    pieces = [hunks.feed(data[a:b]) for a, b in pairwise(edges)]
    return b"".join(pieces) + hunks.end()


def test_tensors_are_named_and_ids_are_short() -> None:
    assert shown(COLOURED) == SHOWN
    assert shown(OTHER + COLOURED + OTHER) == OTHER + SHOWN + OTHER


def test_a_combined_diff() -> None:
    lines = shown(COMBINED).decode().splitlines()
    name = "x" * 73 + "…"  # as long as Git has it
    assert lines[4:] == [
        f"@@@ -1,3 -1,3 +1,4 @@@ {name}",
        f"--  {name}: dense  stored in 12 B  aaaaaaa",
        f" -  {name}: F32 [1000]  aaaaaaa",
        f"++  {name}: F32 [1000]  bbbbbbb",
        f"++  {name}: merge average of ours, theirs recipe=1",
    ]


@given(st.lists(st.integers(0, len(COLOURED + COMBINED + OTHER)), max_size=6))
def test_pieces_of_any_length(cuts: list[int]) -> None:
    whole = COLOURED + COMBINED + OTHER
    assert shown(whole, *cuts) == SHOWN + shown(COMBINED) + OTHER


@given(st.data())
def test_what_is_damaged_keeps_its_lines(data: st.DataObject) -> None:
    whole = COLOURED + COMBINED
    at = data.draw(st.integers(0, len(whole)))
    put = data.draw(
        st.sampled_from([b"", b"\n", b"@@", b"\x1b[", b"\x00", b"\xff", b"diff --git "])
    )
    damaged = whole[:at] + put + whole[at + data.draw(st.integers(0, 40)) :]
    assert shown(damaged).count(b"\n") == damaged.count(b"\n")


def test_what_is_no_manifest_or_not_known_is_passed_on() -> None:
    def fails(blobs: Sequence[str]) -> bool:
        raise OSError

    hostile = HEADER + b"@@ -1 +1 @@\n+" + b"\x1b[m" * 20_000 + b"  x\n"
    for whole in (COLOURED, COMBINED, OTHER, hostile, COLOURED[:-1], b"", b"\n", b"@@ -1 +1 @@"):
        assert shown(whole, 300, tells=lambda blobs: False) == whole
        assert shown(whole, tells=fails) == whole
    assert shown(hostile) == hostile


def test_a_diff_is_not_held() -> None:
    hunks = Hunks(asked)
    line = f"+  dense sha256:{A} 12\n".encode()
    out = hunks.feed(HEADER + b"@@ -1 +1,9000 @@\n+tensor a\n" + line * 2_000)
    assert out.count(b"\n") > 1_900
    assert b"@@ -1 +1,9000 @@ a and more\n" in out
    assert len(hunks.feed(line)) < len(line)
    other = Hunks(asked)
    for _ in range(3):
        assert other.feed(b"x" * 70_000) == b"x" * 70_000
    begun = HEADER + b"@@ -1 +1,9000 @@\n" + b"+tensor a\n" * 9_000
    assert len(other.feed(b"\n" + begun)) > len(begun) - 70_000


def test_a_new_file_is_known_by_its_first_line() -> None:
    begun = "diff --git a/m b/m\nindex 0..7\n@@ -0,0 +1,3 @@\n"
    text = f"{begun}+git-theta manifest v2\n+tensor a\n+  U8 [65] sha256:{A}\n"
    out = shown(text.encode(), tells=lambda blobs: False).decode()
    assert out == text.replace(f"sha256:{A}", " aaaaaaa").replace("@@\n", "@@ a\n")
    later = text.replace("+1,3", "+2,3").encode()
    assert shown(later, tells=lambda blobs: False) == later


@pytest.mark.parametrize("entry", ["tensor a.b", "opaque content", "skeleton"])
def test_a_heading_without_colours(entry: str) -> None:
    text = (
        f"diff --git a/m b/m\nindex 1234567..89abcde\n@@ -3 +3 @@ {entry}\n-  U8 [65] sha256:{A}\n"
    )
    name = entry.removeprefix("tensor ").removeprefix("opaque ")
    assert shown(text.encode()).decode().splitlines()[2] == f"@@ -3 +3 @@ {name}"
