"""`.gitattributes` is edited line by line; whatever else it holds stays as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.errors import UsageError
from git_theta_ext.git import attributes

_OURS = b"filter=theta diff=theta merge=theta -text"
_patterns = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1
).filter(lambda text: not text.startswith(("!", "[attr]")) and not text.endswith("/"))
_usable = _patterns.filter(lambda text: ".." not in text.split("/"))
_contents = st.lists(
    st.sampled_from(
        [
            b"*.pt filter=lfs -text",
            b"# note",
            b"",
            b'"a b" text',
            b"\xff\xfe x",
            b"[attr]m filter=theta",
        ]
    )
).map(b"\n".join)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"*.pt " + _OURS + b"\n"),
        (b"*.txt text\n", b"*.txt text\n*.pt " + _OURS + b"\n"),
        (b"*.txt text", b"*.txt text\n*.pt " + _OURS + b"\n"),
        (b"*.txt text\r\n", b"*.txt text\r\n*.pt " + _OURS + b"\r\n"),
        (b"\xef\xbb\xbf", b"\xef\xbb\xbf*.pt " + _OURS + b"\n"),
        (
            b"*.pt filter=lfs diff=lfs merge=lfs -text\n",
            b"*.pt filter=lfs diff=lfs merge=lfs -text\n*.pt " + _OURS + b"\n",
        ),
        (b"*.pt " + _OURS + b"\n", b"*.pt " + _OURS + b"\n"),
        (
            b"*.pt " + _OURS + b"\n*.pt -filter\n",
            b"*.pt " + _OURS + b"\n*.pt -filter\n*.pt " + _OURS + b"\n",
        ),
    ],
)
def test_a_pattern_is_added_once_at_the_end(before: bytes, after: bytes) -> None:
    assert attributes.add(before, "*.pt") == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"*.pt " + _OURS, b""),
        (b"a text\r\n*.pt " + _OURS + b"\r\nb text\r\n", b"a text\r\nb text\r\n"),
        (b"*.pt " + _OURS + b" lockable\r\nb text\n", b"*.pt lockable\r\nb text\n"),
        (b"\xef\xbb\xbf*.pt " + _OURS + b"\nb text", b"\xef\xbb\xbfb text"),
        (b"*.pt filter=lfs -text\n", b"*.pt filter=lfs -text\n"),
        (b"#*.pt filter=theta\n", b"#*.pt filter=theta\n"),
    ],
)
def test_a_pattern_is_removed_and_nothing_else(before: bytes, after: bytes) -> None:
    assert attributes.remove(before, "*.pt") == after


@given(_contents, _usable)
def test_adding_is_idempotent_and_removing_undoes_it(content: bytes, pattern: str) -> None:
    once = attributes.add(content, pattern)
    assert pattern in attributes.tracked(once)
    assert attributes.add(once, pattern) == once
    assert once.startswith(content)
    assert attributes.remove(once, pattern).rstrip(b"\n") == content.rstrip(b"\n")


@given(_usable)
def test_a_quoted_pattern_is_read_back(pattern: str) -> None:
    line = attributes.parse_line((attributes.quote(pattern) + " text").encode())
    assert line == attributes.Line(pattern, ("text",))


@pytest.mark.parametrize("pattern", ["", "!x", "[attr]x", "folder/", "../x", "a/../b", "a\0b"])
def test_what_could_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        attributes.add(b"", pattern)


@pytest.mark.parametrize(
    "name", ["plain.pt", "a b.pt", "#x", '"q"', "tab\there", "back\\slash", "[v2]*?.pt", "é.pt"]
)
def test_git_itself_reads_the_line_as_it_was_meant(name: str, sealed: Path, tmp_path: Path) -> None:
    content = attributes.add(b"", attributes.literal(name))
    (tmp_path / ".gitattributes").write_bytes(content)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    answer = subprocess.run(
        ["git", "check-attr", "-z", "--stdin", "filter", "text"],
        cwd=tmp_path,
        input=name.encode() + b"\0other.pt\0",
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    assert answer[2::3] == [b"theta", b"unset", b"unspecified", b"unspecified"]


def test_the_filter_of_a_line_is_the_last_that_it_sets() -> None:
    filters = [
        line.filter for line in attributes.lines(b"a filter=x filter=theta\nb -filter\nc text")
    ]
    assert filters == ["theta", "", None]


def test_a_word_further_on_that_sets_another_filter_counts() -> None:
    ours = b"*.pt filter=theta diff=theta merge=theta -text"
    assert attributes.add(ours + b"\n", "*.pt") == ours + b"\n"
    for further in (b" filter=lfs", b" filter=theta\0", b" -filter", b" text"):
        added = attributes.add(ours + further + b"\n", "*.pt")
        assert attributes.tracked(added) == ["*.pt"]
        assert added.endswith(b"\n" + ours + b"\n")


def test_lines_that_git_passes_over_track_nothing() -> None:
    long = b"x" * 2035 + b" filter=theta\n"
    assert attributes.tracked(long + b"*.pt filter=theta\n") == ["*.pt"]
    with pytest.raises(UsageError, match="Git passes over lines"):
        attributes.add(b"", "x" * 400_000)


def test_macros_stand_for_the_filter_that_they_set() -> None:
    text = (
        b"[attr]big filter=lfs -text\n[attr]huge big\n[attr]plain -filter\n[attr]x text\n*.a big\n"
    )
    found = attributes.macros(text)
    assert found == {"big": "lfs", "huge": "lfs", "plain": ""}
    words = {"*.a huge": "lfs", "*.a huge plain": "", "*.a plain filter=b": "b", "*.a -big x": None}
    for line, wanted in words.items():
        (parsed,) = attributes.lines(line.encode())
        assert parsed.filter_with(found) == wanted
