"""Evaluations and gates of .theta.toml: strict, and errors name the line."""

from __future__ import annotations

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.evaluation.config import Config, Evaluation, Gate, parse
from git_theta_ext.merge.strategies.policy import parse_file

TEXT = b"""
[merge]
strategy = "average"

[[evaluation]]
name = "glue"
path = "model.safetensors"   # which checkpoints it is for
command = "python evaluate.py {checkpoint} --out '{results}'"
timeout = 3600
examples = "eval/glue.jsonl"

[[gate]]
evaluation = "glue"
task = "rte"
metric = "acc"
min = 0.70
max_drop = 0.01
against = "parents"

[[gate]]
name = "small"
max_stored = "20 MB"
new_nan = false
"""
E = b'[[evaluation]]\nname = "e"\ncommand = "run {checkpoint}"\n'


def test_a_whole_file() -> None:
    command = "python evaluate.py {checkpoint} --out '{results}'"
    assert parse(TEXT) == Config(
        (Evaluation("glue", command, ("model.safetensors",), 3600, ("eval/glue.jsonl",)),),
        (
            Gate("glue/rte/acc", "glue", "rte", "acc", min=0.7, max_drop=0.01, against="parents"),
            Gate("small", max_stored=20_000_000, new_nan=False),
        ),
    )
    assert str(parse_file(TEXT).defaults[0][1]) == "average"
    assert parse(b"") == Config()


def test_what_is_run_makes_the_definition() -> None:
    one = Evaluation("glue", "python  evaluate.py {checkpoint}")
    assert one.words == ("python", "evaluate.py", "{checkpoint}")
    assert one.definition == Evaluation("g", "python evaluate.py '{checkpoint}'").definition
    assert one.definition != Evaluation("glue", "python evaluate.py {checkpoint} -q").definition


def test_which_checkpoints_it_is_for() -> None:
    assert Evaluation("e", "run {checkpoint}").is_for("any/model.pt")
    assert Evaluation("e", "run {checkpoint}", ("models/*",)).is_for("models/a.pt")
    assert not Evaluation("e", "run {checkpoint}", ("models/*",)).is_for("other/a.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[[evaluaton]]\n", "unknown table 'evaluaton'; known: merge, rebase, evaluation, gate"),
        (b"[evaluation]\nname = 'e'\n", r"write \[\[evaluation\]\], with two brackets"),
        (E + b"tiemout = 3\n", r"line 4: \[\[evaluation\]\] number 1: unknown key 'tiemout'\n.*"
         r"did you mean timeout\?"),
        (b"[[evaluation]]\ncommand = 'run {checkpoint}'\n", "line 1: .* it has no name"),
        (b"[[evaluation]]\nname = 'a b'\n", "line 2: .* is no name"),
        (b"[[evaluation]]\nname = 'a'\n", "it has no command"),
        (b"[[evaluation]]\nname = 'a'\ncommand = 'run'\n", "does not name what to measure"),
        (b"[[evaluation]]\nname = 'a'\ncommand = 'run {checkpont}'\n", "not name what to measure"),
        (b"[[evaluation]]\nname = 'a'\ncommand = 'x {rev} {checkpoint} {oid}'\n",
         "unknown place {oid}"),
        (b"[[evaluation]]\nname = 'a'\ncommand = \"x 'y {checkpoint}\"\n", "No closing quotation"),
        (E + b"timeout = 0\n", "seconds above 0"),
        (E + b"timeout = nan\n", "timeout is a number from 0 on, not nan"),
        (E + b"timeout = true\n", "not True"),
        (E + b"examples = [3]\n", "a text or a list of texts"),
        (E + E, r"line 4: \[\[evaluation\]\] number 2: there is a \[\[evaluation\]\] 'e' already"),
        (E + b"[[gate]]\nevaluation = 'f'\nmin = 1\n", "line 5: .*no evaluation 'f'\n.*: e$"),
        (E + b"[[gate]]\nevaluation = 'e'\n", "it has no rule"),
        (E + b"[[gate]]\nevaluation = 'e'\nmax_dorp = 1\n", "did you mean max_drop"),
        (E + b"[[gate]]\nevaluation = 'e'\nmax_drop = -1\n", "from 0 on, not -1"),
        (E + b"[[gate]]\nevaluation = 'e'\nmin = 0\nconfidence = 95\n", "below 1, not 95"),
        (E + b"[[gate]]\nevaluation = 'e'\nmin = 0\nagainst = 'main'\n", "tag:NAME, not 'main'"),
        (b"[[gate]]\nmin = 0\n", "min needs an evaluation"),
        (b"[[gate]]\nmax_stored = '20 XB'\n", "a number of bytes"),
        (b"[[gate]]\nnew_nan = 0\n", "true or false"),
        (b"[[gate]]\nmax_stored = 1\n" * 1001, "at most 1000"),
    ],
)  # fmt: skip
def test_errors_name_the_place(text: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}") as caught:
        parse(text)
    assert ".theta.toml" in str(caught.value)
