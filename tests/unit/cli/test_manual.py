"""Manual pages: what becomes of Markdown, which pages there are, what `help` shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from git_theta_ext.cli import main as program
from git_theta_ext.cli.frame import manual, roff

DOCS = Path(__file__).parents[3] / "docs"

MARKDOWN = r"""# git theta try

## NAME

git-theta-try - try `it`

## OPTIONS

`-n`, `--name NAME`
:   A *name*, as in [log](log.md) and [the web](https://example.org/-x).

    .Second paragraph: a~b^c \* 'd'.

        code \n -x

* One item that
  goes on

  with more.
1. Numbered

| key | what | default |
|---|---|---|
| `a \| b` | does | 3 |

```toml
.x = "…"
```
"""

TEXT = """NAME

    git-theta-try - try it

OPTIONS

    -n, --name NAME
        A name, as in git-theta-log(1) and the web <https://example.org/-x>.

        .Second paragraph: a~b^c * 'd'.

            code \\n -x

    *   One item that goes on

        with more.

    1.  Numbered

    a | b
        does; default: 3

        .x = "…"
"""


def made() -> str:
    return roff.page(
        MARKDOWN, "git-theta-try", 1, "git-theta-ext 1", {"log.md": "git-theta-log(1)"}
    )


def test_a_page_as_text() -> None:
    assert roff.plain(made()) == TEXT


def test_a_synopsis_fits_on_a_terminal_and_cells_are_sentences() -> None:
    text = """## SYNOPSIS

    git theta try [--to a|b] [--long-name NAME [--other OTHER]] [--name NAME]
              [--more] -o FILE [REV:]FILE…
    git theta try --list

## TABLE

| key | what | default |
|---|---|---|
| `k` | Does it. | none |

As [formats](../formats.md) and [their rules](../formats.md#rules) say.
"""
    page = roff.page(text, "x", 1, "y", {"../formats.md": "docs/formats.md"})
    assert (
        roff.plain(page)
        == """SYNOPSIS

        git theta try [--to a|b] [--long-name NAME [--other OTHER]]
                      [--name NAME] [--more] -o FILE [REV:]FILE…
        git theta try --list

TABLE

    k
        Does it. Default: none

    As docs/formats.md and their rules say.
"""
    )


def test_no_page_has_a_line_that_a_terminal_breaks_in_its_synopsis() -> None:
    for name, page in manual.pages(DOCS):
        text = roff.plain(page, 80).partition("\nSYNOPSIS\n")[2].partition("\nDESCRIPTION\n")[0]
        assert max(map(len, text.split("\n"))) <= 80, name


def test_no_text_is_a_request_of_roff() -> None:
    requests = {line.split()[0] for line in made().splitlines() if line.startswith((".", "'"))}
    assert requests == {
        ".TH", ".nh", ".ad", ".SH", ".PP", ".TP", ".IP", ".RS", ".RE", ".nf", ".fi"
    }  # fmt: skip
    assert made().isascii()


def test_every_verb_has_a_page_with_its_exit_codes() -> None:
    pages = dict(manual.pages(DOCS))
    for verb in program.VERBS:
        assert '.SH "EXIT STATUS"' in pages[f"git-theta-{verb}.1"], verb
        assert rf"\fBgit\-theta\-{verb.replace('-', chr(92) + '-')}\fR(1)" in pages["git-theta.1"]
    names = {page for page, _ in manual.OTHERS.values()}
    assert names == {*manual.TOPICS.values(), "git-theta"}
    assert all(f"{name}.{section}" in pages for name, section in manual.OTHERS.values())


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff checks pages where it is")
def test_groff_has_nothing_to_say() -> None:
    text = "".join(page for name, page in manual.pages(DOCS) if name.startswith("git-theta-m"))
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=text.encode(), capture_output=True,
        check=True,
    )  # fmt: skip
    assert re.sub(rb".*can't break line\n", b"", done.stderr) == b""


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        (["help", "fsck"], "git-theta-fsck - "),
        (["fsck", "--help"], "git-theta-fsck - "),
        (["fsck", "-v", "--help", "--", "x"], "git-theta-fsck - "),
        (["--help"], "git-theta - "),
        (["help", "configuration"], "git-theta-configuration - "),
        (["help", ".theta.toml"], "theta.toml - "),
    ],
)
def test_help_shows_the_page(
    typed: list[str], title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(typed) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"NAME\n\n    {title}")
    if "fsck" in typed:
        assert "\nEXIT STATUS\n" in shown


def test_the_short_help_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["fsck", "-h"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: git theta fsck")
    assert "--help: the manual page" in shown
    assert len(shown.splitlines()) < 40


def test_without_a_page_it_is_the_short_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manual, "show", lambda name: False)
    assert program.main(["help", "fsck"]) == 0
    assert capsys.readouterr().out.startswith("usage: git theta fsck")


def test_no_page_for_what_is_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["help", "stauts"]) == 2
    assert "did you mean: git theta status" in capsys.readouterr().err
