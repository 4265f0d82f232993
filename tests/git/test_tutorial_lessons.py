"""Tutorials as they stand: files are written, commands run in order, the output compared."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.scenarios.lessons import play
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

TUTORIALS = ROOT / "docs/tutorials"


def test_a_first_afternoon(new_repo: Callable[..., Repo]) -> None:
    said = play(TUTORIALS / "first-afternoon.md", new_repo("project", install=False))
    accuracy = [float(said[f"python train.py {epochs}"].split()[1]) for epochs in (2, 4)]
    assert accuracy[0] < accuracy[1]
    assert said["cmp model.safetensors ../copy"] == ""
    assert said["git diff --exit-code HEAD~2 HEAD"] == ""
    assert "(256, 4)" in said["python look.py"]


def test_a_merge_keeps_both_skills(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("project", install=False)
    said = play(TUTORIALS / "merging.md", repo)
    scores = re.findall(r"arm ([\d.]+) +ring ([\d.]+)", "".join(said.values()))
    arm, ring = map(float, scores[-1])
    assert min(arm, ring) > 0.8
    assert "(cosine" in said["git theta merge rings --plan"]
    assert repo.git("log", "-1", "--format=%P").count(" ") == 1


def test_a_document_that_shows_something_else_is_found(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("project", install=False)
    wrong = repo.write("wrong.md", b"    git --version\n\n```text\ngit version 1.0 of Bo\n```\n")
    with pytest.raises(AssertionError, match="of Bo"):
        play(wrong, repo)
