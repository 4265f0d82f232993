"""Lines in `.gitattributes` are added so that taking them out leaves what was there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git import attributes
from git_theta_ext.git.object_pipes import Item, parse_tree, tree_bytes
from git_theta_ext.migration.headers import moved_tag, parse_commit
from git_theta_ext.migration.selection import Selection
from git_theta_ext.migration.tracking import LFS, left_to_lfs, with_lines, without_lines

ROWS = st.lists(
    st.sampled_from(["*.bin filter=lfs -text", "# words", "", "*.pt text", "a b", "* -text"]),
    max_size=4,
)
CONTENTS = st.one_of(
    st.none(),
    st.builds(
        lambda rows, end, last: (end.join(rows) + (end if last else "")).encode(),
        ROWS,
        st.sampled_from(["\n", "\r\n"]),
        st.booleans(),
    ),
)


PATTERNS = st.lists(st.sampled_from(["*.pt", "/a b.bin", "x/*.ckpt"]), min_size=1, unique=True)


@given(CONTENTS, PATTERNS, st.booleans())
def test_out_again(content: bytes | None, patterns: list[str], kept: bool) -> None:
    made = with_lines(content, patterns, [("/kept.pt", LFS)] if kept else [])
    assert made is not None
    assert set(attributes.tracked(made)) >= set(patterns)
    assert without_lines(made) == (content, patterns)
    assert with_lines(made, patterns, []) == made


def test_what_was_not_ours_stays() -> None:
    text = b"*.pt filter=theta diff=theta merge=theta -text\n*.md text\n"
    assert without_lines(text) == (b"*.md text\n", ["*.pt"])
    assert without_lines(b"*.md text") == (b"*.md text", [])


def test_commits_and_tags_keep_every_other_byte() -> None:
    data = (b"tree aa\nparent bb\nparent cc\nauthor A <a> 0 +0000\ngpgsig -----BEGIN\n  x\n"
            b"odd header\n\n\xff words\n")  # fmt: skip
    commit = parse_commit(data)
    assert (commit.tree, commit.parents) == ("aa", ("bb", "cc"))
    assert commit.to_bytes() == data
    tag = b"object aa\ntype commit\n\nwords\n-----BEGIN PGP\n"
    assert moved_tag(tag, {"aa": "bb"}) == ("aa", b"object bb" + tag[9:])
    with pytest.raises(RepositoryError):
        parse_commit(b"no commit")


@pytest.mark.parametrize("digits", [40, 64])
def test_trees_in_the_order_of_git(digits: int) -> None:
    oid = "ab" * (digits // 2)
    rows = [Item(b"100644", b"a.b", oid), Item(b"40000", b"a", oid), Item(b"160000", b"a0", oid)]
    data = tree_bytes(rows)
    assert [one.name for one in parse_tree(data, digits)] == [b"a.b", b"a", b"a0"]
    assert tree_bytes(parse_tree(data, digits)) == data
    with pytest.raises(RepositoryError):
        parse_tree(data[:-1], digits)


def test_which_files_are_meant() -> None:
    every = Selection()
    assert every.names("a/b.safetensors")
    assert every.names("pytorch_model.bin")
    assert every.by_content("pytorch_model.bin")
    assert not every.names("a.py")
    assert every.patterns("x/a.pt") == ("*.pt",)
    assert every.patterns("x/a.bin") == ("/x/a.bin",)
    some = Selection(("*.bin", "m/*"), ("m/no.*",))
    assert (some.names("m/x"), some.names("m/no.x"), some.names("x.pt")) == (True, False, False)
    assert some.patterns("m/x.bin") == ("*.bin", "m/*")
    assert not some.names("m/.gitattributes")


def test_patterns_of_checkpoints_that_git_lfs_goes_on_to_track() -> None:
    lines = [
        "*.pt filter=lfs -text",
        "*.png filter=lfs",
        "*.gguf filter=lfs",
        "*.gguf filter=theta",
    ]
    lines += ["a/*.onnx filter=lfs", "*.onnx filter=theta", "b/*.npz filter=lfs", "*.npz -filter"]
    assert left_to_lfs("\n".join(lines).encode()) == ["*.pt", "b/*.npz"]
