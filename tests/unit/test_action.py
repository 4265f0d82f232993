"""What action.yml may do, read from the file: nothing that a pull request brings is run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from git_theta_ext.git import libgit2

TOP = Path(__file__).parents[2]
REQUIREMENTS = TOP / "requirements"
OUTSIDE = {"${{ runner.temp }}", "${{ github.action_path }}"}
PYTHON = re.compile(
    r"(?:^|[\s\"'/;&|(}])(?:python[\d.]*|\$\{?\w*PYTHON\w*[^}\s]*\}?|\$python)\"? +(\S+)"
)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def action(text: str | None = None) -> Any:
    return yaml.safe_load((TOP / "action.yml").read_text("utf-8") if text is None else text)


def faults(found: Any) -> list[str]:
    """Whatever in an action could run, or believe, what a checkout brings."""
    wrong = []
    for at, step in enumerate(found["runs"]["steps"]):
        name = step.get("name", f"step {at}")
        if "uses" in step and not PINNED.fullmatch(step["uses"]):
            wrong.append(f"{name}: {step['uses']} is not pinned by a commit")
        if "run" not in step:
            continue
        script = step["run"]
        if step.get("working-directory") not in OUTSIDE:
            wrong.append(f"{name}: it does not run outside of the checkout")
        if step.get("shell") != "bash":
            wrong.append(f"{name}: not bash, which the runner starts without files of its own")
        if "${{" in script:
            wrong.append(f"{name}: an expression becomes part of the script")
        if re.search(r"GITHUB_(ENV|PATH|WORKSPACE)|secrets\.", script):
            wrong.append(f"{name}: it names what is not its business")
        calls = PYTHON.findall(script)
        if not calls or any(option != "-I" for option in calls):
            wrong.append(f"{name}: Python without -I: {calls}")
        if re.search(r"(^|[\s\"/])pip\d* +install", script.replace("-m pip", "-m")):
            wrong.append(f"{name}: pip by its own name")
        for line in script.replace("\\\n", " ").splitlines():
            if (
                "pip install" in line
                and "--require-hashes" not in line
                and "--no-index" not in line
            ):
                wrong.append(f"{name}: something is fetched without its hash")
        for variable in ("PATH", "PYTHONPATH", "PYTHONHOME", "BASH_ENV", "ENV"):
            if variable in step.get("env", {}):
                wrong.append(f"{name}: {variable} is set")
    return wrong


def test_nothing_of_a_checkout_is_run() -> None:
    assert faults(action()) == []


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ('"${SETUP_PYTHON:-python}" -I -m venv', "python -m venv"),
        ('"$python" -I -m pip install --quiet --no-index', '"$python" -m pip install --no-index'),
        ('"$THETA_PYTHON" -I -m', '"$THETA_PYTHON" -P -m'),
        ("working-directory: ${{ runner.temp }}", "name: again"),
        ("working-directory: ${{ runner.temp }}", "working-directory: ${{ github.workspace }}"),
        ("--require-hashes ", ""),
        ("$GITHUB_OUTPUT", "$GITHUB_ENV"),
        ("$RUNNER_TEMP/git-theta", "${{ github.head_ref }}/git-theta"),
        ("@ece7cb06caefa5fff74198d8649806c4678c61a1", "@v6"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "PYTHONPATH"),
    ],
)
def test_the_check_finds_what_it_is_for(then: str, now: str) -> None:
    text = (TOP / "action.yml").read_text("utf-8")
    assert then in text
    assert faults(action(text.replace(then, now)))


def test_the_version_of_python_is_never_read_from_the_checkout() -> None:
    """Without a version, setup-python looks for `.python-version` there."""
    (setup,) = (one for one in action()["runs"]["steps"] if "setup-python" in one.get("uses", ""))
    assert re.search(r"\|\| '3\.\d+'", setup["with"]["python-version"])
    assert setup["with"]["update-environment"] == "false"


def workflows() -> list[Any]:
    text = (TOP / "docs" / "pull-requests.md").read_text("utf-8")
    return [yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_the_documented_workflow_has_the_least_rights() -> None:
    found = workflows()
    assert found
    for workflow in found:
        # (YAML 1.1 takes the key `on` for a boolean.)
        events = workflow[True]
        assert set(events) <= {"pull_request", "merge_group", "workflow_dispatch", "push"}
        assert workflow["permissions"] == {}
        # What may write runs for nobody's pull request.
        writes = set(events) == {"push"}
        for job in workflow["jobs"].values():
            assert job["permissions"] == (
                {"contents": "write"} if writes else {"contents": "read", "pull-requests": "write"}
            )
            assert job["timeout-minutes"]
            uses = [step["uses"] for step in job["steps"]]
            assert all(PINNED.fullmatch(one) or "OWNER/" in one for one in uses)
            (checkout,) = (one for one in job["steps"] if "actions/checkout" in one["uses"])
            assert writes or checkout["with"]["persist-credentials"] is False


def test_the_documents_start_no_module_of_the_folder_that_one_is_in() -> None:
    """`python -m pip` in a clone imports its `pip.py`."""
    wrong = []
    for path in [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]:
        for line in path.read_text("utf-8").splitlines():
            if re.search(r"python3? -m (pip|venv|git_theta)", line) and "`python -m" not in line:
                wrong.append(f"{path.relative_to(TOP)}: {line}")
    assert wrong == []


# -- the locked requirements -----------------------------------------------------------------------


def locked(name: str) -> dict[str, list[Requirement]]:
    """The packages of a lock file, one or more lines for each (by version of Python)."""
    text = (REQUIREMENTS / f"{name}.txt").read_text("utf-8").replace("\\\n", " ")
    found: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        wanted, *hashes = line.split(" --hash=sha256:")
        assert hashes, line
        assert all(re.fullmatch(r"[0-9a-f]{64}\s*", one) for one in hashes), line
        requirement = Requirement(wanted.strip())
        assert [one.operator for one in requirement.specifier] == ["=="], line
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def project() -> Any:
    return tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_the_locks_have_what_is_asked_for(python: str, system: str) -> None:
    asked = {
        "run": project()["dependencies"],
        "dev": project()["dependencies"] + project()["optional-dependencies"]["dev"],
        "build": ["setuptools>=77"],
        "audit": ["pip-audit"],
    }
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    for name, wanted in asked.items():
        found = locked(name)
        for text in wanted:
            requirement = Requirement(text)
            (one,) = (
                pin for pin in found[canonicalize_name(requirement.name)]
                if pin.marker is None or pin.marker.evaluate(where)
            )  # fmt: skip
            (pin,) = one.specifier
            assert requirement.specifier.contains(pin.version), f"{name}: {one} is not {text}"


def test_the_locks_agree() -> None:
    dev = locked("dev")
    for name in ("run", "build"):
        for package, pins in locked(name).items():
            assert list(map(str, dev[package])) == list(map(str, pins)), f".ci/lock: {package}"


def test_no_known_weakness_is_allowed() -> None:
    """The oldest versions that were free of advisories when this was written."""
    floors = {Requirement(text).name: Requirement(text) for text in project()["dependencies"]}
    for name, first in (("GitPython", "3.1.59"), ("pygit2", "1.21")):
        (floor,) = floors[name].specifier
        assert floor.operator == ">="
        assert Version(floor.version) >= Version(first)
    assert Version(libgit2.VERSION) >= Version("1.9.7")  # CVE-2026-5917 and five before it
