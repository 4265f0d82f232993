"""docs/tutorials/gate.md as it stands: its files are written, its commands run in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

DOCUMENT = ROOT / "docs/tutorials/gate.md"


def files(text: str) -> Iterator[tuple[str, str]]:
    """Names and contents of the files that a reader is told to make."""
    for match in re.finditer(
        r"^`([\w.]+)` [^`]*?\n\n```(?:python|toml)\n(.*?)```", text, re.M | re.S
    ):
        yield match[1], match[2]


def commands(text: str) -> Iterator[tuple[str, int]]:
    """Lines that a reader types, with their exit status: 0, or the number in their remark."""
    for line in re.findall(
        r"^    ((?:git|python) .*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M
    ):
        command, _, remark = line.partition("    # ")
        yield command, int(remark or 0)


def test_the_gate_decides(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("empty", install=False)
    text = DOCUMENT.read_text("utf-8")
    made = dict(files(text))
    assert set(made) == {"data.py", "train.py", "evaluate.py", ".theta.toml"}
    for name, content in made.items():
        repo.write(name, content.encode())
    said = {}
    for command, status in commands(text):
        done = repo.run("sh", "-c", command, ok=(status,))
        said[command] = (done.stdout + done.stderr).decode()
    assert "Accepted: 2 judgements" in said["git theta check main...ada"]
    bo = said["git theta check main...bo"]
    assert re.search(r"skills: common/acc .* \+0\.\d+ .* accepted", bo)
    assert re.search(r"skills: rare/acc .* -0\.\d+ .* REFUSED", bo)
    bad = repo.git("rev-parse", "bo~1").strip()
    assert f"{bad} is the first bad commit" in said["git bisect run git theta check --gate skills"]
    assert repo.git("rev-parse", "main") == repo.git("rev-parse", "ada")
