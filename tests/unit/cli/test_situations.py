"""Every verb where nothing is as it should be: no repository, commit, work tree or output."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from git_theta_ext.cli import main as program
from git_theta_ext.cli.frame import options
from git_theta_ext.core.terminal import open_streams

DOCS = Path(__file__).parents[3] / "docs/commands"

ANYWHERE = {
    "allow", "cache", "completion", "demo", "diff-filter", "get", "install", "uninstall", "version",
}  # fmt: skip
"""Verbs that need no repository."""

WORDS = {
    "add": "x --update u -n", "allow": "--list", "am": "x", "apply": "x", "assemble": "x.toml",
    "blame": "x", "cat": "x w", "check": "HEAD", "completion": "bash", "diff": "HEAD",
    "export": "x -o y.npz", "format-patch": "HEAD~1 -o y", "get": "x", "import-hf": "x",
    "lock": "x",    "merge": "x", "mergetool": "x", "migrate": "info", "mirror": "--to lfs x y",
    "pointer": "--file x", "release": "HEAD -o y", "resolve": "x",
    "restore": "--source HEAD x --tensors w", "review": "-o y.html HEAD", "scores": "x",
    "show": "x", "sign": "HEAD --verify", "stats": "x --from y", "unlock": "x", "untrack": "x",
}  # fmt: skip
"""What a verb needs to be told; nothing, where it is not here."""

ASKING = sorted(set(program.VERBS) - ANYWHERE - {"receive-check"})


def codes(verb: str) -> set[int]:
    """The exit codes that the verb's page names, and those of every command."""
    text = (DOCS / f"{verb}.md").read_text("utf-8").partition("## EXIT STATUS")[2]
    return {int(one) for one in re.findall(r"\b\d+\b", text)} | {0, 2, 10, 11, 130, 141}


@pytest.fixture(params=["nowhere", "empty", "bare"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that is no repository, or one with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    kind = str(request.param)
    if kind != "nowhere":
        bare = ["--bare"] if kind == "bare" else []
        subprocess.run(["git", "init", "-q", *bare, "."], check=True)
    return kind


def test_every_verb_says_in_a_sentence_what_is_missing(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ASKING:
        code = program.main([verb, *WORDS.get(verb, "").split()])
        said = capsys.readouterr()
        assert code in codes(verb), (verb, code)
        assert "failed: fatal" not in said.err, (verb, said.err)
        assert not code or said.err or said.out, verb
        if place == "nowhere" and verb not in {"sync", "update", "outdated"}:
            assert code == 10, verb
            assert "is not in a Git repository\n  hint: " in said.err, (verb, said.err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("verb", ["", "log", "migrate", "version"])
def test_output_that_cannot_be_written_is_an_error(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, closed = os.pipe()
    os.close(reading)
    for place, code in ((os.open("/dev/full", os.O_WRONLY), 11), (closed, 141)):
        for option in ("-h", "--help"):
            with monkeypatch.context() as patch:
                stream = io.TextIOWrapper(io.FileIO(os.dup(place), "w"), write_through=True)
                patch.setattr(sys, "stdout", stream)
                assert program.main([verb, option] if verb else [option]) == code
                with suppress(OSError):
                    stream.close()
            said = capfd.readouterr().err
            assert said == "" if code == 141 else "error: no space is left" in said
            assert said.count("\n") <= 1
        os.close(place)


@pytest.mark.parametrize("verb", program.VERBS)
def test_an_unknown_option_leads_to_the_known_ones(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = WORDS.get(verb, "").split()
    assert program.main([verb, *words, "--verbsoe"]) == 2
    assert "(did you mean --verbose?)" in capsys.readouterr().err
    assert program.main([verb, *words, "--no-such-thing"]) == 2
    assert re.search(rf"hint: git theta {verb}( \w+)? -h   shows", capsys.readouterr().err)
    if verb not in options.NO_JSON:
        assert program.main([verb, *words, "--json", "--no-such-thing"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["kind"] == "Usage"


def test_a_closed_stream_is_the_null_device() -> None:
    code = "from git_theta_ext.core.terminal import open_streams; open_streams(); import os; "
    code += "print(os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev, file=sys.stderr)"
    shell = f"exec '{sys.executable}' -c 'import sys; {code}' >&-"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, check=True)
    assert done.stderr == b"True\n"
    before = sys.stdout
    open_streams()
    assert sys.stdout is before


def test_folders_of_the_environment_mean_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q", "work"], check=True)
    (tmp_path / "outside").mkdir()
    monkeypatch.chdir(tmp_path / "outside")
    monkeypatch.setenv("GIT_DIR", "../work/.git")
    monkeypatch.setenv("GIT_WORK_TREE", "../work")
    assert program.main(["track", "-n", "*.pt"]) == 0
    assert capsys.readouterr().out == 'Would track "*.pt"\n'
    assert program.main(["env", "--json"]) == 0
    folders = json.loads(capsys.readouterr().out)["folders"]
    assert folders["work_tree"] == str(tmp_path / "work")
