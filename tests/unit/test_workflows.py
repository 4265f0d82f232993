"""Workflows and hooks are what GitHub and pre-commit take, with no more rights than they need."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from git_theta_ext.git import process

TOP = Path(__file__).parents[2]
WORKFLOWS = sorted((TOP / ".github/workflows").glob("*.yml"))
CI = TOP / ".github/workflows/ci.yml"
PINNED = re.compile(r"^ *-? *uses: ([\w./-]+@[0-9a-f]{40}) # (v\d+\.\d+\.\d+)$")


def lint(schema: str, path: Path) -> None:
    """Compare a file with the schema that its reader publishes."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def jobs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def _publishes(job: dict[str, Any]) -> bool:
    """It only says to the index who it is, and somebody has agreed; nothing of ours runs in it."""
    steps = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
    return (
        job["permissions"] == {"id-token": "write"}
        and job.get("environment") == "pypi"
        and steps == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    )


def faults(text: str) -> list[str]:
    """Whatever in a workflow gives away rights, or runs what nobody looked at."""
    wrong = []
    workflow = yaml.safe_load(text)
    # (YAML 1.1 takes the key `on` for a boolean.)
    if set(workflow[True]) - {"push", "pull_request", "workflow_dispatch"}:
        wrong.append(f"it is started by {sorted(workflow[True])}")
    if workflow.get("permissions") != {"contents": "read"}:
        wrong.append("it may do more than read")
    if "group" not in workflow.get("concurrency", {}):
        wrong.append("two runs of one branch work side by side")
    if "secrets." in text:
        wrong.append("it uses a secret")
    for line in text.splitlines():
        if "uses:" in line and not PINNED.match(line):
            wrong.append(f"not pinned by a commit, with its version beside it: {line.strip()}")
    for name, job in workflow["jobs"].items():
        if "permissions" in job and not _publishes(job):
            wrong.append(f"{name}: rights of its own")
        if "timeout-minutes" not in job:
            wrong.append(f"{name}: no bound on its time")
        for step in job["steps"]:
            if "${{" in step.get("run", ""):
                wrong.append(f"{name}: an expression becomes part of the script")
            checkout = step.get("uses", "").startswith("actions/checkout@")
            if checkout and (step.get("with") or {}).get("persist-credentials") is not False:
                wrong.append(f"{name}: the token stays in the checkout")
    return wrong


# -- the action and the workflows ------------------------------------------------------------------


def test_the_action_is_one() -> None:
    lint("vendor.github-actions", TOP / "action.yml")


def test_the_workflows_in_the_docs_are_some(tmp_path: Path) -> None:
    text = (TOP / "docs" / "pull-requests.md").read_text("utf-8")
    found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(found) == 2
    path = tmp_path / "workflow.yml"
    for workflow in found:
        path.write_text(workflow, "utf-8")
        lint("vendor.github-workflows", path)


def test_there_are_workflows() -> None:
    assert CI in WORKFLOWS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_workflow_is_one(path: Path) -> None:
    lint("vendor.github-workflows", path)


@pytest.mark.parametrize(
    ("schema", "path", "then", "now"),
    [
        ("vendor.github-actions", TOP / "action.yml", "shell: bash", "shel: bash"),
        ("vendor.github-workflows", CI, "runs-on:", "run-on:"),
    ],
)
def test_the_linter_refuses_what_is_none(
    tmp_path: Path, schema: str, path: Path, then: str, now: str
) -> None:
    damaged = tmp_path / path.name
    damaged.write_text(path.read_text("utf-8").replace(then, now), "utf-8")
    with pytest.raises(AssertionError):
        lint(schema, damaged)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_workflow_has_the_least_rights(path: Path) -> None:
    assert faults(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("contents: read", "contents: write"),
        ("  pull_request:\n", "  pull_request_target:\n"),
        ("concurrency:", "env:"),
        ("PYTHON: python", "PYTHON: ${{ secrets.PYTHON }}"),
        ("@1af3b93b6815bc44a9784bd300feb67ff0d1eeb3 # v6.0.0", "@v6"),
        (" # v6.3.0", ""),
        ("    timeout-minutes: 120\n", ""),
        ("run: .ci/run", "run: .ci/run ${{ github.head_ref }}"),
        ("          persist-credentials: false\n", ""),
    ],
)
def test_the_check_finds_what_it_is_for(then: str, now: str) -> None:
    text = CI.read_text("utf-8")
    assert then in text
    assert faults(text.replace(then, now))


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("    environment: pypi\n", ""),
        ("id-token: write", "contents: write"),
        (
            "    steps:\n      - uses: actions/download",
            "    steps:\n      - run: ./x\n      - uses: actions/download",
        ),
    ],
)
def test_only_what_publishes_says_who_it_is(then: str, now: str) -> None:
    text = (TOP / ".github/workflows/release.yml").read_text("utf-8")
    assert then in text
    assert faults(text.replace(then, now))


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.citation-file-format", "CITATION.cff"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/fault.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/wish.yml"),
    ],
)
def test_what_github_shows_is_what_it_takes(schema: str, path: str) -> None:
    lint(schema, TOP / path)


def test_an_action_has_one_version_everywhere() -> None:
    """A pin that is renewed in one place only is one that somebody forgot."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in [*WORKFLOWS, TOP / "action.yml", TOP / "docs" / "pull-requests.md"]:
        for line in path.read_text("utf-8").splitlines():
            if match := PINNED.match(line):
                action, _, commit = match[1].partition("@")
                found.setdefault(action, set()).add((commit, match[2]))
    assert {"actions/checkout", "actions/setup-python"} <= set(found)
    assert {action: len(pins) for action, pins in found.items()} == dict.fromkeys(found, 1)


def test_every_python_and_system_is_tried() -> None:
    matrix = jobs(CI.read_text("utf-8"))["everything"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    pairs = {(one["system"].split("-")[0], one["python"]) for one in matrix["include"]}
    assert pairs == {(system, v) for system in ("macos", "windows") for v in ("3.11", "3.14")}


def test_the_oldest_git_that_is_tried_is_the_one_that_is_asked_for() -> None:
    """The message where git is missing says which is old enough."""
    asked = re.search(r"install Git (\d+\.\d+) or newer", inspect.getsource(process))
    assert asked
    tried = [
        git["version"] for git in jobs(CI.read_text("utf-8"))["git"]["strategy"]["matrix"]["git"]
    ]
    assert tried[0].startswith(f"{asked[1]}.")


# -- the programs that they start ------------------------------------------------------------------


def test_every_program_of_the_workflows_is_there_and_may_be_run() -> None:
    named = {
        name for path in WORKFLOWS for name in re.findall(r"\.ci/\w+", path.read_text("utf-8"))
    }
    assert ".ci/run" in named
    for name in named:
        assert (TOP / name).is_file(), name
        assert os.name == "nt" or os.access(TOP / name, os.X_OK), name


def test_the_tests_that_are_left_out_elsewhere_exist() -> None:
    """A path that was renamed would be left out no longer, and fail there."""
    text = (TOP / ".ci/run").read_text("utf-8")
    named = set(re.findall(r"tests/[\w/.]+\w", text))
    assert "tests/reliability" in named
    assert [name for name in named if not (TOP / name).exists()] == []


# -- pre-commit ------------------------------------------------------------------------------------


def hooks() -> list[dict[str, Any]]:
    settings = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text("utf-8"))
    assert set(settings) == {"repos"}
    assert [set(repo) for repo in settings["repos"]] == [{"repo", "hooks"}]
    return [hook for repo in settings["repos"] if repo["repo"] == "local" for hook in repo["hooks"]]


def test_hooks_download_nothing_and_run_what_is_here() -> None:
    """Source: https://pre-commit.com/#repository-local-hooks."""
    found = hooks()
    assert [hook["id"] for hook in found] == ["ruff-format", "ruff-check", "types", "workflows"]
    known = {"id", "name", "entry", "language", "files", "types_or", "pass_filenames"}
    for hook in found:
        assert {"id", "name", "entry", "language"} <= set(hook) <= known
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        assert os.name == "nt" or os.access(TOP / program, os.X_OK), hook["id"]
        for argument in arguments:
            assert not argument.startswith("tests/") or (TOP / argument).is_file(), argument
        re.compile(hook.get("files", ""))


@pytest.mark.skipif(os.name == "nt", reason="scripts are started by a shell there")
def test_the_format_hook_refuses_what_is_not_formatted(tmp_path: Path) -> None:
    (entry,) = (hook["entry"] for hook in hooks() if hook["id"] == "ruff-format")
    if not (TOP / ".venv").is_dir():
        pytest.skip("there is no .venv here")
    module = tmp_path / "module.py"
    module.write_text("a  =  1\n")
    done = subprocess.run(
        [*entry.split(), "--check", str(module)],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    module.write_text("a = 1\n")
    subprocess.run([*entry.split(), "--check", str(module)], cwd=TOP, check=True)
