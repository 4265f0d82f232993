"""A hostile pull request"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from git_theta_ext.cli.github import event as events
from git_theta_ext.cli.github import findings
from git_theta_ext.cli.github.findings import Warn
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import annotation
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.markdown import reading
from tests.scenarios.pull_requests import BOT, MARKER, GitHub, change, report
from tests.scenarios.remotes import bare, guard, history, push
from tests.scenarios.repositories import Repo
from tests.servers.listening import silent

TOP = Path(__file__).parents[3]
TENSOR = "encoder.layer.1.attention.query.weight"
ACTIVE = re.compile(r"@\w|#\d|GH-\d|https?:|www\.", re.IGNORECASE)
LIMIT = 65_536

pytestmark = pytest.mark.skipif(os.name == "nt", reason="such names and scripts cannot be there")


def put_blob(repo: Repo, path: str, data: bytes, mode: str = "100644") -> None:
    """Have the index name a file that need not be possible in the work tree."""
    oid = repo.git("hash-object", "-w", "--stdin", stdin=data).strip()
    repo.git("update-index", "--add", "--cacheinfo", f"{mode},{oid},{path}")


def commit_index(repo: Repo, message: str = "hostile") -> None:
    repo.git("commit", "-q", "-m", message)


def outputs(folder: Path) -> dict[str, str]:
    lines = (folder / "output").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


# -- running something -----------------------------------------------------------------------------

MODULES = (
    "venv", "pip", "ensurepip", "setuptools", "wheel", "numpy", "git_theta_ext", "sitecustomize",
    "usercustomize", "site", "encodings", "codecs", "os", "re", "json", "runpy", "types", "typing",
    "subprocess", "shutil", "tempfile", "pathlib", "logging", "argparse", "hashlib", "ssl",
    "socket", "urllib", "http", "email", "zipfile", "zipimport", "importlib", "packaging",
    "pkg_resources", "_distutils_hack", "distutils", "sysconfig", "_sysconfigdata", "platform",
    "tomllib", "configparser", "zstandard", "pygit2", "git", "gitdb", "cffi", "_cffi_backend",
)  # fmt: skip
SETTINGS = (
    "pip.conf", "pip.ini", ".pip/pip.conf", "pyproject.toml", "setup.cfg", "tox.ini",
    "requirements.txt", "requirements/run.txt", ".python-version", "pyvenv.cfg", "python311._pth",
    ".env", ".bashrc", ".profile", ".pydistutils.cfg",
)  # fmt: skip


def planted(workspace: Path, marker: Path) -> None:
    """Fill a checkout with everything that Python, pip or a shell may take from where it is."""
    code = f"open({str(marker)!r}, 'a').write(__name__ + ' ' + __file__ + chr(10))\n"
    for name in MODULES:
        (workspace / f"{name}.py").write_text(code)
    for name in ("setup.py", "conftest.py", "__main__.py", "__init__.py"):
        (workspace / name).write_text(code)
    (workspace / "evil.pth").write_text(f"import sys; {code}")
    for name in SETTINGS:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[global]\nindex-url = file://{workspace}\ntarget = {workspace}\n")
    for name in ("python", "python3", "mktemp", "git", "pip", "bash"):
        path = workspace / name
        path.write_text(f"#!/bin/sh\necho {name} >> {marker}\n")
        path.chmod(0o755)


def steps() -> list[str]:
    found = yaml.safe_load((TOP / "action.yml").read_text("utf-8"))["runs"]["steps"]
    return [step["run"] for step in found if "run" in step]


def run_step(script: str, workspace: Path, temp: Path, **more: str) -> None:
    """Run a script of the action as a runner does, but in the checkout, the worst place."""
    environment = {
        "PATH": os.pathsep.join([str(temp.parent / "bin"), os.environ["PATH"]]),
        "HOME": str(temp), "RUNNER_TEMP": str(temp), "GITHUB_WORKSPACE": str(workspace),
        "GITHUB_OUTPUT": str(temp / "output"), "GITHUB_ACTION_PATH": str(TOP),
        "SETUP_PYTHON": sys.executable, "THETA_PYTHON": sys.executable, "PIP_NO_INDEX": "1",
        **more,
    }  # fmt: skip
    subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],
        cwd=workspace, env=environment, capture_output=True, timeout=240, check=False,
    )  # fmt: skip


def test_modules_and_settings_in_the_checkout(tmp_path: Path) -> None:
    """Sixty files of the checkout are called like what Python, pip, venv and bash look for."""
    workspace, temp, marker = (tmp_path / name for name in ("workspace", "temp", "ran"))
    workspace.mkdir()
    temp.mkdir()
    planted(workspace, marker)
    for script in steps():
        run_step(script, workspace, temp)
    assert not marker.exists(), marker.read_text()
    # Without -I the very same files are run: so this test can fail.
    run_step('"$SETUP_PYTHON" -m venv "$RUNNER_TEMP/other"', workspace, temp)
    assert marker.exists()


def test_files_called_like_the_outputs(pull: Repo, github: GitHub, tmp_path: Path) -> None:
    """Committed links are called like the report, the summary and the outputs of the job."""
    secret = tmp_path / "secret"
    secret.write_text("untouched")
    pull.git("switch", "-q", "feature")
    for name in ("git-theta-report.html", "output", "summary.md", "event.json"):
        (pull.path / name).symlink_to(secret)
    pull.git("add", "-A")
    commit_index(pull)
    report(pull, github, RUNNER_TEMP=".")  # (the checkout itself, which the action never uses)
    assert secret.read_text() == "untouched"
    assert not (pull.path / "git-theta-report.html").is_symlink()


def git_that_tells(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A PATH on which a git writes down its environment and goes on as git does."""
    real, log = shutil.which("git"), tmp_path / "git.log"
    folder = tmp_path / "wrapped"
    folder.mkdir()
    script = folder / "git"
    script.write_text(f'#!/bin/sh\nenv >> {log}\necho "START $*" >> {log}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}, log


def test_secrets_in_what_is_started(pull: Repo, github: GitHub, tmp_path: Path) -> None:
    """Programs that the report starts look for tokens, and for the files that a runner obeys."""
    path, log = git_that_tells(tmp_path)
    secrets = {
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "hidden1", "ACTIONS_RUNTIME_TOKEN": "hidden2",
        "INPUT_TOKEN": "hidden3", "GITHUB_STATE": "hidden4", "GITHUB_ENV": "hidden5",
        "GITHUB_PATH": "hidden6", "NPM_TOKEN": "hidden7", "GH_TOKEN": "hidden8",
    }  # fmt: skip
    report(pull, github, **path, **secrets)
    said = log.read_text("utf-8", "replace")
    assert "START" in said
    assert "hidden" not in said
    assert "=secret" not in said  # the token


def test_work_for_each_file(pull: Repo, github: GitHub, tmp_path: Path) -> None:
    """A pull request of many files that are no checkpoints has a program started for each."""
    path, log = git_that_tells(tmp_path)
    report(pull, github, **path)
    few = log.read_text("utf-8", "replace").count("\nSTART ")
    pull.git("switch", "-q", "feature")
    for number in range(60):
        pull.write(f"text{number}.txt", b"x%d" % number)
    pull.commit("many")
    log.unlink()
    report(pull, github, **path)
    assert log.read_text("utf-8", "replace").count("\nSTART ") <= few + 20


# -- hiding a change -------------------------------------------------------------------------------


def test_refs_that_stand_for_other_commits(pull: Repo, github: GitHub) -> None:
    """A ref below refs/replace says to look at the base in place of the head."""
    head, base = (pull.git("rev-parse", name).strip() for name in ("feature", "main~1"))
    pull.git("update-ref", f"refs/replace/{head}", base)
    report(pull, github)
    assert TENSOR in github.comments[-1]["body"]


@pytest.mark.sample(2)
@pytest.mark.parametrize("what", ["whole", "link", "pointer", "submodule", "empty", "deleted"])
def test_a_checkpoint_that_is_none_any_more(pull: Repo, github: GitHub, what: str) -> None:
    """The attributes are removed, and a checkpoint becomes a blob, a link, a pointer or nothing."""
    pull.git("switch", "-q", "feature")
    pull.git("rm", "-q", "--cached", ".gitattributes")
    (pull.path / ".gitattributes").unlink()
    pull.git("rm", "-q", "--cached", NAME)
    (pull.path / NAME).unlink()
    if what == "whole":
        put_blob(pull, NAME, safetensors(model(3)))
    elif what == "link":
        put_blob(pull, NAME, b"/etc/passwd", "120000")
    elif what == "pointer":
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 12\n"
        put_blob(pull, NAME, text.encode())
    elif what == "submodule":
        pull.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{NAME}")
    elif what == "empty":
        put_blob(pull, NAME, b"")
    commit_index(pull)
    report(pull, github, THETA_CHECK_OBJECTS="false")
    assert f"<code>{NAME}</code>" in github.comments[-1]["body"]


def test_remarks_longer_than_a_comment(pull: Repo, github: GitHub) -> None:
    """Names of four thousand characters make the report longer than a comment may be."""
    pull.git("switch", "-q", "feature")
    data = safetensors(model(3))
    for number in range(24):
        folders = "/".join(["@" * 200] * 18)
        put_blob(pull, f"{number}{folders}/m.safetensors", data)
    commit_index(pull)
    _, folder = report(pull, github)
    body = github.comments[-1]["body"]
    assert len(body) <= LIMIT
    assert "more remarks" in body
    assert "more checkpoints" in body
    assert outputs(folder)["changed"] == "true"


def test_remarks_that_crowd_out_the_failure() -> None:
    """Harmless remarks without number push the one that fails the job out of the report."""
    warnings = [Warn("@" * 5000, fatal=False) for _ in range(5000)]
    warnings.append(Warn("an object is missing", fatal=True))
    notes = findings.notes(warnings)
    assert "an object is missing" in notes[0]
    assert sum(map(len, notes)) < LIMIT // 2


def test_names_that_crowd_out_other_checkpoints(pull: Repo, github: GitHub) -> None:
    """Checkpoints with names as long as a comment stand before the one that matters."""
    manifest = pull.blob(f"main:{NAME}")
    pull.git("switch", "-q", "feature")
    for number in range(12):
        folders = "/".join(["&" * 200] * 18)
        put_blob(pull, f"0{number}{folders}/m.safetensors", manifest)
    commit_index(pull)
    report(pull, github)
    body = github.comments[-1]["body"]
    assert len(body) <= LIMIT
    assert f"<code>{NAME}</code>" in body


def test_an_author_who_mentions(
    pull: Repo,
    github: GitHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Author, subject and object names of a commit mention people and refer to issues."""
    name = "@octocat #1 GH-2 www.e.org " * 400
    monkeypatch.setenv("GIT_AUTHOR_NAME", name)
    pull.git("switch", "-q", "feature")
    change(pull, np.float32(2.5))
    pull.git("commit", "-q", "--amend", "-m", f"fixes #1 {name}")
    shutil.rmtree(pull.path / ".git/theta")
    report(pull, github, ok=1)
    body = github.comments[-1]["body"]
    assert "was never uploaded by" in body
    assert not ACTIVE.search(reading(body))
    assert len(body) <= LIMIT


def test_a_comment_that_looks_like_ours(pull: Repo, github: GitHub) -> None:
    """Strangers post comments that begin as the report does, to have it written into theirs."""
    people: list[object] = [{"login": "None"}, {"login": "github-actions"}, None, {}, "x"]
    github.comments += [
        {"id": number, "user": user, "body": f"{MARKER}\nall is well"}
        for number, user in enumerate(people)
    ]
    github.comments.append({"id": 90, "user": BOT, "body": f"well: {MARKER}"})
    out, _ = report(pull, github)
    assert "Comment: made" in out
    assert all("well" in one["body"] for one in github.comments[:-1])


# -- commands in names -----------------------------------------------------------------------------

COMMANDS = (
    "::set-output name=x::y ::add-mask::e ##[set-env name=PATH]x ##[group] ::stop-commands::t"
)


def test_commands_to_the_runner(pull: Repo, github: GitHub) -> None:
    """Names of files are commands that a runner obeys when they stand in its log."""
    pull.git("switch", "-q", "feature")
    for name in (f"{COMMANDS}.safetensors", f"a\n{COMMANDS}.safetensors", f"%0A{COMMANDS}.pt"):
        put_blob(pull, name, safetensors(model(3)))
    put_blob(pull, f"b\r{COMMANDS}.safetensors", b"git-theta manifest 1\n::add-mask::x\n")
    commit_index(pull)
    out, folder = report(pull, github, GITHUB_ACTIONS="true")
    assert "add-mask" in out
    for line in re.split(r"[\r\n\x0b\x0c\x85\u2028]", out):
        if line.strip().startswith("::"):
            assert re.match(r"::(warning|error|notice)::", line)
        assert "##[" not in line
        assert "%0A" not in line.replace("%250A", "")
    assert set(outputs(folder)) == {"changed", "objects", "verdict", "html", "results"}


def test_gates_are_told_harmlessly(pull: Repo, github: GitHub) -> None:
    """Gates that it takes away refuse it, and say so of names that are commands and mentions."""
    rules = '[[evaluation]]\nname = "e"\ncommand = "run {checkpoint}"\n'
    rules += '[[gate]]\nevaluation = "e"\nmin = 1\n[[gate]]\nname = "lean"\nmax_stored = 0\n'
    pull.write(".theta.toml", rules.encode())
    pull.commit("a gate")
    pull.git("switch", "-q", "feature")
    pull.write(".theta.toml", b"")
    pull.commit("no gate")
    for name in (f"{COMMANDS}.safetensors", f"a\n{COMMANDS}.safetensors", "@all #1 www.x.y.pt"):
        put_blob(pull, name, pull.blob(f"feature:{NAME}"))
    commit_index(pull)
    out, folder = report(pull, github, ok=1, THETA_CHECK="true", THETA_CHECK_OBJECTS="false")
    assert out.count("::error file=") == 8
    for line in re.split(r"[\r\n\x0b\x0c\x85\u2028]", out):
        if line.strip().startswith("::"):
            assert re.match(r"::(warning|error|notice)( file=[^:,]*)?::", line)
        assert "##[" not in line
    body = github.comments[-1]["body"]
    assert "Refused" in body
    assert not ACTIVE.search(reading(body))
    assert outputs(folder)["verdict"] == "refused"


@pytest.mark.sample(2)
@pytest.mark.parametrize("text", ["##[set-env]x", "a\r\n::add-mask::x", "%0a::error::", "\x85::x"])
def test_commands_inside_of_annotations(text: str) -> None:
    """What an annotation quotes ends it, and begins another command."""
    line = f"::warning::{annotation(text)}"
    assert len(line.splitlines()) == 1
    assert "##[" not in line
    assert "%0a" not in line.replace("%250a", "")


# -- whom requests go to, and how much is asked ----------------------------------------------------

LFSCONFIGS = (
    "[lfs]\n\turl = {url}/x\n\tpushurl = {url}/y\n",
    '[remote "origin"]\n\tlfsurl = {url}/x\n[remote]\n\tlfsdefault = origin\n',
    '[url "{url}/"]\n\tinsteadOf = http\n[http]\n\tproxy = {url}\n',
    "[include]\n\tpath = ../../evil\n[lfs]\n\turl = {url}/x\n[remote]\n\tpushDefault = {url}\n",
)


@pytest.mark.sample(2)
@pytest.mark.parametrize("event", ["pull_request", "merge_group"])
def test_a_server_that_the_head_names(pull: Repo, github: GitHub, event: str) -> None:
    """The head brings, changes and deletes .lfsconfig and .gitmodules to have its server asked."""
    with silent() as evil:
        pull.git("switch", "-q", "feature")
        text = "".join(LFSCONFIGS).format(url=evil)
        for name in (".lfsconfig", ".gitmodules", ".gitconfig", "config", "model/.lfsconfig"):
            pull.write(name, text.encode())
        pull.commit("hostile")
        base, head = (pull.git("rev-parse", name).strip() for name in ("main", "feature"))
        what: Mapping[str, object] = {
            "pull_request": {"number": 7, "base": {"sha": base}, "head": {"sha": head}}
        }
        if event == "merge_group":
            what = {"merge_group": {"base_sha": base, "head_sha": head}}
        shutil.rmtree(pull.path / ".git/theta")
        out, _ = report(pull, github, event=what)
        assert evil not in out
    assert "Basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0" in github.tokens


def test_an_object_of_a_terabyte(pull: Repo, github: GitHub) -> None:
    """A manifest says that its objects have a terabyte each, to be downloaded for the report."""
    pull.git("switch", "-q", "feature")
    text = pull.blob(f"feature:{NAME}").decode()
    ours = set(re.findall(r"sha256:([0-9a-f]{64}) \d+", text))
    theirs = set(re.findall(r"sha256:([0-9a-f]{64}) \d+", pull.blob(f"main:{NAME}").decode()))
    new = (ours - theirs).pop()
    big = re.sub(rf"sha256:{new} \d+", f"sha256:{new} 1000000000000", text)
    assert big != text
    put_blob(pull, NAME, big.encode())
    commit_index(pull)
    shutil.rmtree(pull.path / ".git/theta")
    start = time.monotonic()
    report(pull, github)  # (this server has objects of any size)
    assert time.monotonic() - start < 60
    assert f"GET /object/{new}" not in github.calls
    assert "TB to download, past the limit" in github.comments[-1]["body"]


EVENTS: list[object] = [
    {"pull_request": {"number": 7, "base": {"sha": "--output=x"}, "head": {"sha": "1" * 40}}},
    {"pull_request": {"number": "7/../8", "base": {"sha": "1" * 40}, "head": {"sha": "1" * 40}}},
    {"pull_request": {"number": True, "base": {"sha": "1" * 40}, "head": {"sha": "1" * 40}}},
    {"pull_request": {"number": 7, "base": {"sha": "1" * 40}, "head": {"sha": "HEAD"}}},
    {"pull_request": {"number": 7, "base": {"sha": "1" * 40}, "head": {"sha": "1" * 40 + "\n"}}},
    {"pull_request": [], "merge_group": {"base_sha": "1" * 40, "head_sha": "2" * 40}},
    {"merge_group": {"base_sha": {"x": 1}, "head_sha": "2" * 40}},
    {"before": 0, "after": "1" * 40},
    {"before": "1" * 40, "after": "refs/heads/main"},
    [[[[]]]],
]


@pytest.mark.sample(2)
@pytest.mark.parametrize("number", range(len(EVENTS)))
def test_forged_events(tmp_path: Path, number: int) -> None:
    """An event names options, paths and refs where there should be commits and numbers."""
    path = tmp_path / "event.json"
    path.write_text(json.dumps(EVENTS[number]))
    with pytest.raises(UsageError):
        events.read_event({"GITHUB_EVENT_PATH": str(path), "GITHUB_REPOSITORY": "o/r"})


@pytest.mark.sample(2)
@pytest.mark.parametrize("text", ["[" * 3_000_000, "9" * 3_000_000, "", '{"a": ' * 100_000])
def test_events_that_are_no_json(tmp_path: Path, text: str) -> None:
    """An event is nested, or long, beyond what a parser takes."""
    path = tmp_path / "event.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        events.read_event({"GITHUB_EVENT_PATH": str(path), "GITHUB_REPOSITORY": "o/r"})


def test_manifests_that_no_commit_holds(repo: Repo) -> None:
    """A push to a checking server names manifests without objects by tags of blobs and trees."""
    remote = bare(repo)
    guard(remote)
    history(repo, 1)
    blob = repo.git("rev-parse", f"HEAD:{NAME}").strip()
    outer = repo.git("mktree", stdin=f"100755 blob {blob}\t::x\n".encode()).strip()
    deep = repo.git("mktree", stdin=f"040000 tree {outer}\ta\n".encode()).strip()
    for number, target in enumerate((blob, outer, deep)):
        repo.git("tag", f"plain{number}", target)
        repo.git("tag", "-a", "-m", "t", f"signed{number}", target)
        repo.git("tag", "-a", "-m", "t", f"twice{number}", f"signed{number}")
        for name in ("plain", "signed", "twice"):
            push(repo, "origin", f"refs/tags/{name}{number}", ok=1)
    assert repo.git("ls-remote", str(remote)) == ""
