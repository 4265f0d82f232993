"""The tour of the README does what it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

README = Path(__file__).parents[2] / "README.md"


def test_the_tour_runs(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "minilm.safetensors").write_bytes(safetensors(model()))
    tuned = {
        name: changed(value) if value.dtype == np.float32 else value
        for name, value in model().items()
    }
    (tmp_path / "tuned.safetensors").write_bytes(safetensors(tuned))
    section = README.read_text("utf-8").split("## Five minutes")[1].split("\n## ")[0]
    commands = re.findall(r"^    \$ (.+)$", section, re.MULTILINE)
    assert len(commands) > 12
    program = f'"{sys.executable}" -m git_theta_ext.cli.main'
    script = "\n".join(line.replace("git theta", program) for line in commands)
    Repo(tmp_path).run("sh", "-e", "-c", script)
    assert (tmp_path / "clone/model.safetensors").read_bytes() == safetensors(tuned)


def test_the_python_of_the_tour_runs(sealed: Path, tmp_path: Path, repo: Repo) -> None:
    repo.write("model.safetensors", safetensors(model()))
    repo.commit()
    repo.git("commit", "-q", "--allow-empty", "-m", "again")
    section = README.read_text("utf-8").split("From Python")[1]
    lines = re.findall(r"^    (.+)$", section, re.MULTILINE)[:3]
    code = "\n".join(lines).replace("embeddings.word_embeddings.weight", "head.weight")
    repo.run(sys.executable, "-c", code)


def test_every_document_that_is_named_is_there() -> None:
    for name in re.findall(r"`(docs/[\w./-]+)`", README.read_text("utf-8")):
        assert (README.parent / name).exists(), name
