"""Every exercise of the course as it stands, in a copy of the files with which it begins."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest

from tests.scenarios.lessons import play
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

COURSE = ROOT / "docs/course"
SAID: dict[int, dict[str, str]] = {
    1: {"git diff": r"3 of 4 tensors changed", "cmp model.safetensors ../kept": r"^$"},
    2: {
        "git theta du": r"(?s)sparse .*100 entries.*low-rank .*rank 4.*delta .*every .*cast .*half",
        "git theta fsck": r"0 problems",
    },
    3: {
        "git theta merge arms --plan": r"hidden.weight +ours changed +theirs changed",
        "git theta status": r"conflict: 2 parts open",
    },
    4: {
        "git theta check main...careful": r"Accepted: 2 judgements",
        "git theta check main...eager": r"ring/acc .*REFUSED",
        "git bisect run git theta check --gate skills": r"first '?bad'? commit(?s:.*) for the",
    },
    5: {
        "git theta modules model.safetensors": r"trunk .*@core",
        "git theta outdated": r"points +v1.0 +v1.1",
        "git theta sync": r"1 model: as theta.lock says",
        "git theta sync --locked": r"the tag v1.1 was",
    },
    6: {
        "git diff": r"! hidden.weight(?s:.*)1 new NaN",
        "git theta evaluate HEAD": r"skills/score 1",
        "git theta fsck": r"0 problems",
    },
}
"""Session -> a command, and what its last answer has to say."""


@pytest.mark.sample(3)
@pytest.mark.parametrize("session", SAID)
def test_the_exercises_of_a_session(new_repo: Callable[..., Repo], session: int) -> None:
    repo = new_repo("empty", install=False)
    shutil.rmtree(repo.path)
    repo = Repo(repo.path.with_name("files"))
    shutil.copytree(COURSE / "files", repo.path, ignore=shutil.ignore_patterns("__pycache__"))
    said = play(COURSE / f"exercises-{session}.md", repo)
    for command, pattern in SAID[session].items():
        assert re.search(pattern, said[command]), f"{command}\n{said[command]}"
