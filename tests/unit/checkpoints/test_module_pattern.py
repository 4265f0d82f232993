"""Patterns for names of modules: as `re` has them, but in bounded time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.checkpoints.adapters.module_pattern import Patterns, matches
from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError

REFUSED = [
    "(", ")", "a)", "[", "*", "a**", "a{2}{3}", "\\", r"(a)\1", "(?=a)", "(?P<n>a)", "a{",
    "(" * 30 + ")" * 30, "[b-a]",
]  # fmt: skip
SLOW = [
    "(a+)+", "(a|a)*", "(a|a)" * 40, ".*" * 60, "a?" * 60 + "a" * 60,
    "(((a{1,99}){1,99}){1,99}){1,99}",
]  # fmt: skip
MODULE = "model.layers.12.self_attn.q_proj"


def as_peft(pattern: str, module: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "proj",
        "self_attn.q_proj",
        r"self_attn\.q_proj",
        r"layers\.\d+\..*",
        "[qk]_proj",
        "q_proj|v_proj",
        r"layers\.(1|12)\.self_attn\.(q|v)_proj",
        r".*\.q_proj",
        "^q_proj",
        r"^model\.layers\.1.\.self_attn\.q_proj$",
        "[^v]_proj",
        r"\w{1}_proj",
        r"\w{3,}",
        "q_proj?",
        "(?:self_attn.)?q_proj",
        "",
        "q.*?j",
        r"layers\.\d{1,2}.+",
        "model",
        "x*",
        "[a-q]+_[a-z]+",
    ],
)
def test_what_peft_would_match_matches(pattern: str) -> None:
    assert matches(pattern, MODULE) == as_peft(pattern, MODULE)


PARTS = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "(a|b)", "(ab)", "(a|)", "c"])
SIGNS = st.sampled_from(["", "*", "+", "?", "{2}", "{1,2}", "{0,}", "|"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(PARTS, SIGNS), max_size=5), st.text("abc.", max_size=7))
def test_random_patterns_match_as_re_has_it(parts: list[tuple[str, str]], module: str) -> None:
    pattern = "".join(part + sign for part, sign in parts)
    assert matches(pattern, module) == as_peft(pattern, module)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "a)",
        "[",
        "*",
        "a**",
        "a{2}{3}",
        "\\",
        r"(a)\1",
        "(?=a)",
        "(?P<n>a)",
        "a{",
        "(" * 30 + ")" * 30,
        "[b-a]",
    ],
)
def test_what_is_not_known_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        matches(pattern, MODULE)


@pytest.mark.parametrize("pattern", SLOW)
def test_no_pattern_takes_long(pattern: str) -> None:
    start = time.thread_time()
    try:
        found = matches(pattern + "b", "a" * 80)
    except UsageError as error:
        found = "too long" not in error.message
    assert not found
    assert time.thread_time() - start < 2


def test_many_patterns_and_many_modules_are_bounded() -> None:
    """Five thousand patterns of a small config, or slow ones, are an error within seconds."""
    with pytest.raises(UsageError, match="5000 patterns"):
        Patterns([f"q{n}" for n in range(5000)])
    with pytest.raises(UsageError, match=r"pattern 2 .* 300 characters"):
        Patterns(["q", "x" * 300])
    start = time.thread_time()
    slow = Patterns([f"(a?a?a?a?){{9}}{n}" for n in range(limits.ADAPTER_PATTERNS)])
    modules = [f"model.layers.{number}." + "a" * 60 for number in range(10_000)]
    with pytest.raises(UsageError, match="take too long"):
        [slow.first(module) for module in modules]
    assert time.thread_time() - start < 30


def test_a_pattern_for_each_module_is_within_the_bounds() -> None:
    modules = [f"model.layers.{n}.self_attn.{part}_proj" for n in range(64) for part in "qkvo"]
    patterns = Patterns([re.escape(module) for module in modules])
    assert [patterns.first(module) for module in modules] == list(range(len(modules)))
