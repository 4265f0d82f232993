"""The part of YAML that is read says what PyYAML says, or is refused; nothing is misread."""

from __future__ import annotations

import string
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core.errors import FormatError
from git_theta_ext.evaluation.readers.yaml_subset import parse

WORDS = st.sampled_from(
    ["Common", "(French)", "a: b", "#", "x#y", "- z", "it's", '"q"', "é", "[1]", "{a}", "null",
     "true", "yes", "0x1f", "2024-01-01", "&a", "*b", "!c", "%", "@", "`", "|", ">", "?", "~",
     "20.0 ± 1.2", "'", '"', "\\"]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(WORDS, max_size=25).map(" ".join), st.text(string.printable, max_size=12)
)
LEAVES = st.one_of(
    TEXTS, st.integers(-1000, 1000), st.booleans(), st.none(), st.floats(-10, 10).map(float)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(VALUES, st.sampled_from([None, False, True]), st.sampled_from([40, 80, 1000]))
def test_as_pyyaml_or_refused(value: Any, flow: bool | None, width: int) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, width=width, allow_unicode=True)
    try:
        found = parse(text.removesuffix("...\n"))
    except FormatError:
        return
    assert found == value


def test_what_is_common_is_read() -> None:
    text = (
        "---\na:   # a comment\n- 1\n-   b: x y\n    c: 'it''s'\n- - [1, {k: v}, \"\\u00e9\"]\n"
        "d: >-\n  one\n  two\n\ne: |\n  x\n   y\nf: long\n  text\ng:\nh: 1e-3\n"
    )
    assert parse(text) == {
        "a": [1, {"b": "x y", "c": "it's"}, [[1, {"k": "v"}, "é"]]], "d": "one two",
        "e": "x\n y\n", "f": "long text", "g": None, "h": 0.001,
    }  # fmt: skip
    assert parse("") is None


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\n", "a: *x\n", "a: !!python/object:os.system 1\n", "a: 1\na: 2\n", "\ta: 1\n",
        "a: 1\n---\nb: 2\n", "a: 'x\n", 'a: "\\q"\n', "a: [1\n", "a: [1 2] x\n", "- " * 40 + "x\n",
        "a: " + "[" * 40 + "]" * 40, "a: 1\n  b: 2\n", "a:\n  - 1\n c: 2\n", 'a: {"x": "y\n',
        "a: 'b' c\n", "? a\n: b\n", "? a: b\n",
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_line(text: str) -> None:
    with pytest.raises(FormatError, match=r"line \d+: "):
        parse(text)
