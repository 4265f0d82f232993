"""Completion: what bash offers, asked of bash itself with the completion that comes with Git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta_ext.cli import main as program
from git_theta_ext.cli.frame import completion

OF_GIT = [
    Path("/usr/share/bash-completion/completions/git"),
    Path("/usr/local/share/bash-completion/completions/git"),
]
_ASK = r"""
source "$1"; source "$2"; shift 2
for line in "$@"; do
    read -r -a COMP_WORDS <<<"$line"
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=$line; COMP_POINT=${#line}; COMPREPLY=()
    __git_wrap__git_main
    echo "${COMPREPLY[*]}"
done
"""


def test_bash_offers_commands_options_values_and_topics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = next((path for path in OF_GIT if path.is_file()), None)
    bash = shutil.which("bash")
    if script is None or bash is None:
        pytest.skip("no bash, or Git has come without its completion")
    assert program.main(["completion", "bash"]) == 0
    (tmp_path / "theta").write_text(capsys.readouterr().out)
    wanted = {
        "git theta fo": "format-patch",
        "git theta cache --dry": "--dry-run",
        "git theta cache pr": "prune",
        "git theta scores --format h": "html",
        "git theta scores --format=m": "markdown",
        "git theta scores --by ": "time score",
        "git theta help manif": "manifest",
        "git theta nope --": "",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [bash, "--norc", "-c", _ASK, "ask", str(script), str(tmp_path / "theta"), *wanted],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(wanted, answers, strict=True)) == wanted
    assert done.stderr == ""


def test_fish_offers_them_for_git_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("no fish")
    assert program.main(["completion", "fish"]) == 0
    (tmp_path / "theta.fish").write_text(capsys.readouterr().out)
    wanted = {
        "git theta fo": "format-patch",
        "git-theta fo": "format-patch",
        "git -C . --no-pager theta scores --by ": "score time",
        "git theta scores --format=m": "--format=markdown",
        "git theta help manif": "manifest",
        "git log theta fo": "",
    }
    ask = "source theta.fish; for line in $argv; echo (complete -C $line | cut -f1); end"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [fish, "--no-config", "-c", ask, *wanted],
        cwd=tmp_path, env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert dict(zip(wanted, done.stdout.split("\n"), strict=False)) == wanted, done.stderr


@pytest.mark.parametrize("shell", completion.PLACES)
def test_the_script_of_each_shell_is_one(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in program.VERBS)
    assert "@" not in text.replace("[@]", "").replace("(@s", "").replace('"$@"', "")
    found = shutil.which(shell)
    if found is not None:  # zsh and fish are not needed for anything else here
        subprocess.run([found, "-n"], input=text.encode(), check=True, capture_output=True)


def test_options_have_their_values_and_what_they_are_for() -> None:
    lines = list(completion.options(program.parser_of("scores")[1]))
    assert "--by|=|time score|the newest first (default), or the best by the first metric" in lines
    assert any(line.startswith("-q|||") for line in lines)


def test_what_cannot_be_completed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["completion"]) == 2
    assert "git theta completion bash" in capsys.readouterr().err
    assert program.main(["completion", "--of", "nope"]) == 2
