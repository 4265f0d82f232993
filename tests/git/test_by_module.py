"""`git theta modules`, and `log`, `blame`, `du` and `diff` by module."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.sharded import PATTERN, arrays, trained
from tests.scenarios.sharded import write as write_shards

NAME = "model.safetensors"
LOW, HIGH = "encoder.layer.0.attention.query.weight", "encoder.layer.2.attention.value.weight"
RULES = b"""
[[module]]
name = "low"
pattern = "encoder.layer.0.*"
owners = ["@low-team", "@org/eyes"]

[[module]]
name = "high"
pattern = "encoder.layer.{1..2}.*"
frozen = true
path = "*.safetensors"
"""


@pytest.fixture
def history(repo: Repo) -> dict[str, str]:
    """v1.0; a branch that changed `low` and was merged, v1.1; then `high` changed and a head left.

    The rules are in the work tree alone: they need not be committed to be looked at.
    """

    def make() -> dict[str, str]:
        def commit(message: str, **tensors: Any) -> str:
            found = {**model(), **tensors}
            repo.write(NAME, safetensors({n: value for n, value in found.items() if n != gone}))
            return repo.commit(message)

        gone = ""
        made = {"first": commit("first")}
        repo.git("tag", "v1.0")
        repo.git("checkout", "-q", "-b", "side")
        made["low"] = commit("low", **{LOW: changed(model()[LOW])})
        repo.git("checkout", "-q", "main")
        repo.git("commit", "-q", "--allow-empty", "-m", "else")
        repo.git("merge", "-q", "-m", "merge", "side")
        repo.git("tag", "-a", "-m", "annotated", "v1.1")
        gone = "num_batches_tracked"
        made["high"] = commit("high", **{LOW: changed(model()[LOW]), HIGH: changed(model()[HIGH])})
        return made

    found = repo.once(make)
    repo.write(".theta.toml", RULES)
    return found


def rows(repo: Repo, *words: str) -> dict[str, Any]:
    (file,) = json.loads(repo.theta("modules", "--json", *words))["files"]
    return {**{one["name"]: one for one in file["modules"]}, "": file}


def test_every_module_with_its_last_change_and_version(repo: Repo, history: dict[str, str]) -> None:
    found = rows(repo)
    low, high = found["low"], found["high"]
    assert (low["tensors"], low["parameters"], low["bytes"]) == (4, 8320, 33280)
    assert low["change"]["commit"] == history["low"]  # not the merge that brought it
    assert (low["version"], high["version"]) == ("v1.1", None)
    assert high["change"] == {
        "commit": history["high"], "author": "Ada", "date": high["change"]["date"],
        "subject": "high", "certain": True,
    }  # fmt: skip
    assert (low["owners"], low["frozen"]) == (["@low-team", "@org/eyes"], False)
    assert (high["owners"], high["frozen"]) == ([], True)
    assert high["stored"] > 0
    assert (found[""]["unassigned"], found[""]["several"]) == (["head.weight"], {})
    # Of an older version; and one that has since come back to what a tag has.
    old = rows(repo, "v1.0", NAME)
    assert old["low"]["change"]["commit"] == history["first"]
    assert (old["low"]["version"], old["high"]["version"]) == ("v1.0", "v1.1")
    assert old[""]["unassigned"] == ["head.weight", "num_batches_tracked"]

    # A checkpoint that was renamed is followed, in tags too.
    repo.git("mv", NAME, "m.safetensors")
    repo.git("commit", "-q", "-m", "rename")
    moved = rows(repo, "m.safetensors")
    assert moved["high"]["change"] == high["change"]
    assert (moved["low"]["version"], moved["high"]["version"]) == ("v1.1", None)

    repo.write(".theta.toml", RULES + b'[[module]]\nname = "all"\npattern = "*.bias"\n')
    text = repo.theta("modules")
    assert "@low-team @org/eyes" in text
    assert "frozen" in text
    assert "1 tensor in no module:\n    head.weight" in text
    assert "2 tensors in several modules (low, all):\n" in text


def test_history_and_sizes_by_module(repo: Repo, history: dict[str, str]) -> None:
    commits = json.loads(repo.theta("log", NAME, "--module", "low", "--json"))["commits"]
    assert [one["commit"] for one in commits] == [history["low"], history["first"]]
    assert [one["name"] for one in commits[0]["changes"]] == [LOW]
    (every,) = json.loads(repo.theta("log", "--json"))["files"]
    assert every["file"] == NAME
    assert {one["commit"] for one in every["commits"]} >= set(history.values())
    shown = repo.theta("log", "-p", NAME, "--module", "low", "-n", "1")
    assert f"~ {LOW}" in shown
    assert " cos " in shown
    (whole,) = json.loads(repo.theta("log", "--module", "low", "--json"))["files"]
    assert whole == {"file": NAME, "commits": commits}
    assert repo.theta("log", "--module", "low", "-n", "1").startswith(f"{NAME}:\n")

    blamed = json.loads(repo.theta("blame", NAME, "--module", "high", "--json"))["tensors"]
    assert len(blamed) == 8
    assert {one["commit"] for one in blamed if one["name"] == HIGH} == {history["high"]}

    parts = json.loads(repo.theta("du", "--by-module", "--json", NAME))["modules"]
    assert [(one["name"], one["tensors"]) for one in parts] == [("low", 4), ("high", 8), (None, 1)]
    assert parts[0]["stored"] == rows(repo)["low"]["stored"]
    one = json.loads(repo.theta("du", "--module", "low", "--json", NAME))
    assert [row["name"].split(".")[2] for row in one["tensors"]] == ["0"] * 4
    assert "(no module)" in repo.theta("du", "--by-module", NAME)

    text = repo.theta("diff", "v1.0", "HEAD", "--by-module")
    heads = [line for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    assert heads[0].startswith("  low  1 of 4 tensors changed · change ")
    assert heads[0].endswith(" · @low-team @org/eyes")
    assert heads[1].startswith("  high  1 of 8 ")
    assert heads[1].endswith(" · frozen")
    assert heads[2].startswith("  (no module)  1 of 2 tensors changed · stores 0 B")
    (file,) = json.loads(
        repo.theta("diff", "v1.0", "HEAD", "--by-module", "--module", "high", "--format", "json")
    )["files"]
    assert [one["changed"] for one in file["modules"]] == [[HIGH]]
    assert [one["name"] for one in file["changes"]] == [HIGH]
    assert repo.theta("diff", "HEAD", "v1.1", "--module", "low") == ""


def test_a_sharded_model_is_one_and_mistakes_are_said(repo: Repo) -> None:
    write_shards(repo, arrays(), 0, 6)
    repo.commit("base")
    repo.git("tag", "v1")
    write_shards(repo, {**arrays(), **trained("layers.7.w")}, 0, 6)
    new = repo.commit("trained")

    def said(*words: str) -> str:
        return repo.run("git", "theta", *words, ok=(2,)).stderr.decode()

    assert "in .theta.toml: [[module]], name =" in said("modules")
    repo.write(
        ".theta.toml",
        b"[[module]]\nname='a'\npattern='layers.{0..6}.*'\npath='llm/model.safetensors.index.json'"
        b"\n[[module]]\nname='b'\npattern='*'\npath='llm/model-*'\n"
        b"[[module]]\nname='c'\npattern='*'\npath='*.gguf'\n",
    )
    file = rows(repo)
    assert (file[""]["path"], file["b"]["tensors"], file["a"]["tensors"]) == (PATTERN, 12, 7)
    assert file["b"]["change"]["commit"] == new
    assert (file["a"]["version"], file["b"]["version"]) == ("v1", None)
    assert "c" not in file
    assert rows(repo, "llm/model-00001-of-00002.safetensors")["b"]["tensors"] == 6

    assert "did you mean" not in said("log", PATTERN, "--module", "zzz")
    assert "the module c is not about" in said("blame", PATTERN, "--module", "c")
    assert "--by-module is for text and JSON" in said("diff", "--by-module", "--name-only")
    listed = said("modules", "README").partition("hint: git theta ")[2].partition("   ")[0]
    assert "model-00001" in repo.theta(*listed.split())
    hint = said("du", "--by-module").partition("hint: git theta ")[2].strip()
    assert "layers" not in repo.theta(*hint.replace("[REV:]FILE", PATTERN).split())
    repo.write(".theta.toml", b"[[module]]\nname = 'a'\n")
    assert "line 1: [[module]] number 1: it has no pattern" in said("modules")
