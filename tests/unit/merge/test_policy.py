"""Reading .theta.toml and choices: strict, with errors that name the place."""

from __future__ import annotations

import time

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.policy import Policy, Rule, parse_choice, parse_file

TEXT = b"""
[merge]
strategy = "average"
weights = [1, 0.5]
evaluate = "python eval.py {checkpoint}"

[[merge.tensor]]
pattern = "embedding.*"
strategy = "conflict"

[[merge.tensor]]
pattern = ["encoder.*", "*.bias"]
path = "models/*"
strategy = "ties"
density = 0.2

[rebase]
strategy = "ours"
"""


def test_a_whole_file() -> None:
    found = parse_file(TEXT)
    assert found.evaluate == "python eval.py {checkpoint}"
    assert dict(found.defaults) == {
        "merge": Choice("average", (("weights", (1.0, 0.5)),)),
        "rebase": Choice("ours"),
    }
    assert found.rules == (
        Rule(("embedding.*",), (), CONFLICT),
        Rule(("encoder.*", "*.bias"), ("models/*",), Choice("ties", (("density", 0.2),))),
    )


def test_the_first_rule_that_matches_counts() -> None:
    policy = Policy(Choice("average"), parse_file(TEXT).rules)
    names = ("embedding.weight", "encoder.0.weight", "head.bias", "Encoder.0")
    assert [policy.choose(name).strategy for name in names] == [
        "conflict", "ties", "ties", "average",
    ]  # fmt: skip


def test_choices_as_text_come_back() -> None:
    for text in ("average", "ties,density=0.2", "average,weights=0.7:0.3"):
        assert str(parse_choice(text, "here")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[merge", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"[mrege]\n", "unknown table 'mrege'; known: merge, rebase"),
        (b"merge = 3\n", "merge is a table, not 3"),
        (b"[merge]\nevaluate = 3\n", "evaluate is a command in quotes, not 3"),
        (b"[merge]\ndensity = 0.2\n", "it has no strategy"),
        (b'[merge]\nstrateg = "ties"\n', "it has no strategy \\(only 'strateg'\\), such as"),
        (b'[merge]\nstrategy = "ties"\ndensty = 0.2\n', "has no parameter 'densty'"),
        (b'[merge]\nstrategy = "ties"\ndensity = "x"\n', "density is a number or a list"),
        (b'[merge]\nstrategy = "ties"\ndensity = true\n', "density is a number or a list"),
        (b'[merge]\nstrategy = "ties"\ndensity = 2\n', "density takes a number from 0 to 1"),
        (b'[merge.tensor]\nstrategy = "ours"\n', "two brackets"),
        (b'[[merge.tensor]]\nstrategy = "ours"\n', "number 1: it has no pattern"),
        (b'[[merge.tensor]]\npattern = 3\nstrategy = "ours"\n', "a pattern or a list"),
        (b'[rebase]\nstrategy = "reaply"\n', r"\[rebase\]: unknown merge strategy 'reaply'"),
        (b"#" * (2 << 20), "is larger than"),
    ],
)
def test_mistakes_name_their_place(text: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_file(text)


@pytest.mark.parametrize("text", ["ties,density", "ties,=2", "ties,density=0.2,density=0.3"])
def test_mistakes_in_a_choice(text: str) -> None:
    with pytest.raises(UsageError, match="GIT_THETA_MERGE"):
        parse_choice(text, "GIT_THETA_MERGE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[merge.tensor]]\npattern = [' + ",".join(f'"*[!a]x{n}"' for n in range(40_000))
         + ']\nstrategy = "average"\n', "pattern .*40000 patterns; at most"),
        ("".join(f'[[merge.tensor]]\npattern="*x{n}"\nstrategy="ours"\n' for n in range(10_001)),
         "pattern .*10001 patterns; at most"),
        ('[[merge.tensor]]\npattern="' + "*a" * 200_000 + '"\nstrategy="ours"\n',
         "pattern 1 .* 400000 characters"),
        ('[[merge.tensor]]\npattern="*"\npath="' + "x" * 400_000 + '"\nstrategy="ours"\n',
         "path .*400000 characters"),
    ],
)  # fmt: skip
def test_patterns_past_a_bound_are_refused_soon(text: str, message: str) -> None:
    start = time.thread_time()
    with pytest.raises(UsageError, match=message) as found:
        parse_file(text.encode())
    assert ".theta.toml" in found.value.message
    assert time.thread_time() - start < 5
