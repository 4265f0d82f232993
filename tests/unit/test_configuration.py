"""`docs/configuration.md` names the settings and variables that the code reads, and no others."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from git_theta_ext.checkpoints import modules
from git_theta_ext.git.settings_file import TABLES
from tests.scenarios.package import sources

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/configuration.md").read_text("utf-8")
SHARED = (ROOT / "docs/theta-toml.md").read_text("utf-8")

_SETTING = re.compile(
    r"(?:(?:theta|lfs|color|pager|init|http|interactive)\.[A-Za-z.]+|core\.(?:bare|sparseCheckout|hooksPath)"
    r"|remote\.pushDefault|remote\.\*\.(?:url|fetch|lfsurl|lfspushurl)|theta\.\*\.strategy"
    r"|branch\.\*\.remote)"
)
_TEXT = re.compile(r"""["']([a-z]+\.[A-Za-z.{}_]+)(?=["'=])""")
_VARIABLE = re.compile(r"""environ(?:ment)?(?:\[|\.\w+\(\s*)["']([A-Z_]+)["']""")
NO_SETTINGS = {
    "theta.toml", "theta.lock", "theta.patch", "theta.CommitCallback",
    "lfs.com", "lfs.github.com", "http.followRedirects",
}  # fmt: skip
"""What looks like one: files, mail headers, hosts, and what is only set, for a push of results."""
OF_THE_ACTION = ("cli/pull_request.py", "cli/github/", "cli/demo/")
"""What GitHub's runner sets, in docs/pull-requests.md, and what a demonstration keeps out."""
READ_BY_GIT = {
    "core.pager", "PAGER", "LESS", "LV", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PAGER",
}  # fmt: skip
"""Git reads these for us: `git var GIT_PAGER`, and every command of Git that is run."""


def documented() -> set[str]:
    """What stands in the first column of the tables, `NAME` as a star."""
    found: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \|", DOCUMENT, re.MULTILINE):
        found.update(re.findall(r"`([^`]+)`", row))
    aside = DOCUMENT.partition("For its run these are set aside")[2].partition("\n\n")[0]
    found.update(re.findall(r"`([^`]+)`", aside))
    return {name.replace("NAME", "*") for name in found}


def settings(text: str) -> set[str]:
    """The settings among the texts of a module; what is put into one is a star."""
    found = (re.sub(r"\{[^}]*\}", "*", one) for one in _TEXT.findall(text))
    return {match[0] for one in found if (match := _SETTING.fullmatch(one))}


def variables(text: str) -> set[str]:
    """The variables that are looked up in something that is called an environment."""
    return {*_VARIABLE.findall(text)}


@cache
def read() -> frozenset[str]:
    """What the code reads."""
    found: set[str] = set()
    for path in sources():
        text = path.read_text("utf-8")
        found.update(re.findall(r"\bGIT_THETA_[A-Z_]+\b", text), settings(text))
        if not any(part in path.as_posix() for part in OF_THE_ACTION):
            found.update(variables(text))
    found -= {*NO_SETTINGS, "theta.*.strategy"}
    return frozenset(found | {"theta.merge.strategy", "theta.rebase.strategy"})


def test_every_setting_and_variable_is_documented() -> None:
    assert sorted(read() - documented()) == []


def test_what_is_documented_is_read() -> None:
    assert sorted(documented() - read() - READ_BY_GIT) == []


def test_the_search_does_find_them() -> None:
    text = 'os.environ.get("ONE"); environment["TWO"]; f("theta.three"); f"remote.{x}.url=1"'
    assert variables(text) == {"ONE", "TWO"}
    assert settings(text) == {"theta.three", "remote.*.url"}


def test_the_tables_of_the_shared_file_are_described() -> None:
    described = set(re.findall(r"^## `\[+([a-z.]+)\]+`", SHARED, re.MULTILINE))
    assert described == {*TABLES, "merge.tensor"}
    keys = SHARED.partition("## `[[module]]`")[2]
    assert set(re.findall(r"^\| `([a-z]+)`", keys, re.MULTILINE)) == {*modules.KEYS}
