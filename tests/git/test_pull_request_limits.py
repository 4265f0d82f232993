"""Reports on a runner, whose store is empty: what is missing, refused, hostile, or too much."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.pull_requests import GitHub, change, report, upload
from tests.scenarios.repositories import Repo
from tests.servers.listening import silent

TENSOR = "encoder.layer.1.attention.query.weight"


def oids(repo: Repo, revision: str) -> set[str]:
    return {ref.oid for ref in parse_manifest(repo.blob(f"{revision}:{NAME}")).objects()}


def empty_store(repo: Repo) -> None:
    """As on a runner, after actions/checkout."""
    shutil.rmtree(repo.path / ".git/theta", ignore_errors=True)


def outputs(folder: Path) -> dict[str, str]:
    lines = (folder / "output").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_values_are_fetched(pull: Repo, github: GitHub) -> None:
    empty_store(pull)
    out, folder = report(pull, github)
    body = github.comments[-1]["body"]
    assert "change 41" in body or "50" in body  # one weight times 1.5
    assert "not available" not in body
    assert outputs(folder) == {
        "changed": "true", "objects": "complete", "verdict": "skipped",
        "html": str(folder / "git-theta-report.html"), "results": "",
    }  # fmt: skip
    assert f"looked for at {github.url}/o/r.git/info/lfs" in out
    assert set(github.tokens) == {"Basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0"}


@pytest.mark.parametrize("lost", ["new", "old"])
def test_what_is_missing_is_named_and_the_rest_is_reported(
    pull: Repo, github: GitHub, lost: str
) -> None:
    pull.git("switch", "-q", "feature")
    change(pull, np.float32(2.5))
    tensors = model()
    other = "encoder.layer.0.attention.query.weight"
    pull.write(NAME, safetensors({**tensors, other: -tensors[other], TENSOR: tensors[TENSOR] + 1}))
    pull.commit("two tensors")
    upload(pull, github)
    manifests = {name: parse_manifest(pull.blob(f"{name}:{NAME}")) for name in ("main", "feature")}
    which = manifests["feature" if lost == "new" else "main"]
    (entry,) = (one for one in which.entries if one.tensor.name == TENSOR)
    gone = entry.blocks[0].chain[-1].oid
    github.objects |= set(github.contents)
    github.objects.discard(gone)
    empty_store(pull)
    # (The new version is stored as a change of the old one, and so lacks its object too.)
    out, folder = report(pull, github, ok=1)
    body, page = github.comments[-1]["body"], (folder / "git-theta-report.html").read_text("utf-8")
    reason = "was never uploaded by Ada" if lost == "new" else "is not on the server"
    for text in (body, (folder / "summary.md").read_text("utf-8")):
        assert f"values not available: object <code>{gone[:12]}</code> {reason}" in text
        assert other in text
        assert "200" in text  # the other tensor's change in percent: it was measured
    assert f"object {gone[:12]}" in page
    assert outputs(folder)["objects"] == "missing"
    assert outputs(folder)["changed"] == "true"
    assert "::error::1 object" in out


@pytest.mark.sample(2)
@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_nothing_is_asked_after_a_refusal(pull: Repo, github: GitHub, status: int) -> None:
    for at in range(3):
        pull.write(f"other{at}.safetensors", safetensors(model(at + 5)))
    pull.commit("more")
    empty_store(pull)
    github.refusal = status
    out, folder = report(pull, github, ok=9)
    assert [call for call in github.calls if "lfs" in call or "/object/" in call] == [
        "POST /o/r.git/info/lfs/objects/batch"
    ]
    assert "It was not checked" in out
    assert TENSOR in github.comments[-1]["body"]
    assert outputs(folder)["objects"] == "unknown"
    github.calls.clear()
    report(pull, github, THETA_CHECK_OBJECTS="false")
    assert sum("lfs" in call for call in github.calls) == 1


def test_a_refused_download_ends_the_downloads(pull: Repo, github: GitHub) -> None:
    empty_store(pull)
    github.contents = {}  # the handler fails: the connection breaks
    out, folder = report(pull, github)
    # Some were under way on other threads.
    assert 1 <= sum("/object/" in call for call in github.calls) <= 4
    assert "could not be fetched" in github.comments[-1]["body"]
    assert outputs(folder)["objects"] == "complete"
    assert "Not all values could be fetched" in out


def test_a_damaged_download_is_not_believed(pull: Repo, github: GitHub) -> None:
    empty_store(pull)
    github.contents = {oid: b"\0" * len(data) for oid, data in github.contents.items()}
    out, folder = report(pull, github, ok=1)
    assert "values not available" in github.comments[-1]["body"]
    assert "is damaged on the server" in github.comments[-1]["body"]
    assert outputs(folder)["objects"] == "missing"
    assert "The server says that it has" in out
    assert not [path for path in (pull.path / ".git/theta").rglob("*") if len(path.name) == 64]


def test_the_pull_request_does_not_choose_whom_to_ask(pull: Repo, github: GitHub) -> None:
    with silent() as evil:  # a request would hang and fail
        pull.git("switch", "-q", "feature")
        lines = f'[lfs]\n\turl = {evil}/x\n[remote "origin"]\n\tlfsurl = {evil}/y\n'
        pull.write(".lfsconfig", lines.encode())
        pull.write(".gitmodules", lines.encode())
        pull.git("add", ".lfsconfig", ".gitmodules")
        pull.git("commit", "-q", "-m", "hostile")
        empty_store(pull)
        out, _ = report(pull, github)
        assert evil not in out
    assert github.tokens
    assert "not available" not in github.comments[-1]["body"]


def test_the_base_branch_says_where_objects_are(pull: Repo, github: GitHub) -> None:
    other = f"{github.url.replace('127.0.0.1', 'localhost')}/elsewhere/info/lfs"
    pull.write(".lfsconfig", f"[lfs]\n\turl = {other}\n".encode())
    pull.git("add", ".lfsconfig")
    pull.git("commit", "-q", "-m", "settled")
    empty_store(pull)
    out, _ = report(pull, github)
    assert f"looked for at {other}" in out
    assert github.tokens == [None]  # another server does not see the token
    github.tokens.clear()
    out, _ = report(pull, github, THETA_LFS_URL=f"{github.url}/o/r.git/info/lfs")
    assert other not in out
    assert None not in github.tokens


def events(repo: Repo) -> dict[str, dict[str, object]]:
    base, head = (repo.git("rev-parse", name).strip() for name in ("main", "feature"))
    repo.git("update-ref", "refs/remotes/origin/main", base)
    about = {"default_branch": "main"}
    return {
        "merge_group": {"merge_group": {"base_sha": base, "head_sha": head}, "repository": about},
        "push": {"before": repo.git("rev-parse", "feature^").strip(), "after": head, "ref": "x"},
        "push of a new branch": {"before": "0" * 40, "after": head, "repository": about},
        "push that was forced": {"before": "1" * 40, "after": head, "repository": about},
        "workflow_dispatch": {"inputs": {}, "repository": about},
        "workflow_dispatch on main": {"inputs": {}, "repository": about},
    }


@pytest.mark.parametrize(
    "kind",
    ["merge_group", "push", "push of a new branch", "push that was forced", "workflow_dispatch"],
)
def test_other_events_have_a_report_and_no_comment(pull: Repo, github: GitHub, kind: str) -> None:
    empty_store(pull)
    head = pull.git("rev-parse", "feature").strip()
    name = {"GITHUB_EVENT_NAME": kind.split(maxsplit=1)[0], "GITHUB_SHA": head}
    _, folder = report(pull, github, event=events(pull)[kind], **name)
    text = (folder / "summary.md").read_text("utf-8")
    assert "1 of 14 tensors" in text
    assert outputs(folder)["changed"] == "true"
    assert not [call for call in github.calls if "comments" in call]
    lost = (oids(pull, "feature") - oids(pull, "main")).pop()
    github.objects.discard(lost)
    out, _ = report(pull, github, event=events(pull)[kind], ok=1, **name)
    assert lost[:12] in out


def test_by_hand_on_the_default_branch(pull: Repo, github: GitHub) -> None:
    """Compared with the parent; the very first commit with nothing."""
    pull.git("switch", "-q", "main")
    change(pull, np.float32(7))
    github.objects |= oids(pull, "main")
    for revision, words in (("main", "1 of 14 tensors"), ("main~2", "new, 14 tensors")):
        name = {"GITHUB_EVENT_NAME": "workflow_dispatch"}
        name["GITHUB_SHA"] = pull.git("rev-parse", revision).strip()
        event = events(pull)["workflow_dispatch on main"]
        _, folder = report(pull, github, event=event, **name)
        assert words in (folder / "summary.md").read_text("utf-8")
    _, folder = report(pull, github, event=event, THETA_BASE="main~2", **name)
    assert "No checkpoint changed" in (folder / "summary.md").read_text("utf-8")
    report(pull, github, event=event, ok=2, THETA_BASE="--output=x", **name)


def test_a_report_names_what_it_compares_once(pull: Repo, github: GitHub) -> None:
    _, folder = report(pull, github)
    body, page = github.comments[-1]["body"], (folder / "git-theta-report.html").read_text("utf-8")
    for revision in ("main~1", "feature"):
        for text in (body, page):
            assert pull.git("rev-parse", revision)[:12] in text
            assert pull.git("log", "-1", "--format=%s", revision).strip() in text
    assert "2024" in body
    assert len([line for line in body.splitlines() if line.startswith("#")]) == 1


def test_claimed_bytes_are_not_computed(pull: Repo, github: GitHub) -> None:
    """A manifest of a few kilobytes can claim terabytes."""
    pull.git("switch", "-q", "feature")
    pull.write("huge.safetensors", safetensors({"w": np.zeros((1024, 1024), np.float32)}))
    pull.commit("small")
    pull.git("switch", "-q", "main")
    pull.git("merge", "-q", "feature")
    pull.git("switch", "-q", "feature")
    pull.write("huge.safetensors", safetensors({"w": np.ones((1024, 1024), np.float32)}))
    pull.commit("changed")
    upload(pull, github)
    github.objects |= set(github.contents)
    empty_store(pull)
    _, folder = report(pull, github, THETA_MAX_GIB="0")
    text = (folder / "summary.md").read_text("utf-8")
    assert "8.4 MB to compute, past the limit" in text.replace("\\", "")
    assert not [call for call in github.calls if "/object/" in call]
    report(pull, github, ok=2, THETA_MAX_GIB="many")


def test_a_damaged_manifest_does_not_end_the_report(pull: Repo, github: GitHub) -> None:
    pull.git("switch", "-q", "feature")
    text = pull.blob(f"feature:{NAME}")
    oid = pull.git("hash-object", "-w", "--stdin", stdin=text[:200]).strip()
    pull.git("update-index", "--add", "--cacheinfo", f"100644,{oid},broken.safetensors")
    pull.git("commit", "-q", "-m", "broken")
    out, folder = report(pull, github, ok=4)
    summary = (folder / "summary.md").read_text("utf-8")
    assert "damaged" in summary
    assert "1 of 14 tensors" in summary
    assert "::error::broken.safetensors" in out


def test_values_that_are_not_what_the_manifest_claims(pull: Repo, github: GitHub) -> None:
    pull.git("switch", "-q", "feature")
    manifest = parse_manifest(pull.blob(f"feature:{NAME}"))
    (entry,) = (one for one in manifest.entries if one.tensor.name == TENSOR)
    text = pull.blob(f"feature:{NAME}").replace(entry.blocks[0].sha256.encode(), b"5" * 64)
    oid = pull.git("hash-object", "-w", "--stdin", stdin=text).strip()
    pull.git("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    pull.git("commit", "-q", "-m", "wrong hash")
    _, folder = report(pull, github, ok=5)
    summary = (folder / "summary.md").read_text("utf-8")
    assert "its values cannot be read" in summary
    assert TENSOR in summary


def test_git_gets_neither_the_token_nor_the_files_of_the_runner(
    pull: Repo, github: GitHub, tmp_path: Path
) -> None:
    """Settings of the checkout that start programs are overruled, and children know no secret."""
    ran = tmp_path / "ran"
    spy = tmp_path / "bin" / "git"
    spy.parent.mkdir()
    real = shutil.which("git")
    secrets = "^GITHUB_(TOKEN|ENV|PATH|OUTPUT)="
    spy.write_text(f"#!/bin/sh\nenv | grep -E '{secrets}' >> {ran}\nexec {real} \"$@\"\n")
    spy.chmod(0o755)
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\necho hook >> {ran}\n")
    hook.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external"):
        pull.git("config", name, str(hook))
    path = f"{spy.parent}{os.pathsep}{os.environ['PATH']}"
    files = {name: str(tmp_path / name) for name in ("GITHUB_ENV", "GITHUB_PATH")}
    report(pull, github, PATH=path, **files)
    assert not ran.exists() or ran.read_text() == ""
    assert not any(Path(file).exists() for file in files.values())


def test_an_error_before_the_report_is_in_the_summary(pull: Repo, github: GitHub) -> None:
    event = {"pull_request": {"number": 7, "base": {"sha": "1" * 40}, "head": {"sha": "2" * 40}}}
    out, folder = report(pull, github, ok=10, event=json.loads(json.dumps(event)))
    assert "fetch-depth: 0" in out
    assert "is not here" in (folder / "summary.md").read_text("utf-8")


def test_a_deleted_branch_has_nothing_to_report(pull: Repo, github: GitHub) -> None:
    event = {"before": pull.git("rev-parse", "feature").strip(), "after": "0" * 40, "ref": "x"}
    out, folder = report(pull, github, event=event)
    assert "nothing to compare" in out
    assert outputs(folder)["changed"] == "false"


def test_a_partial_clone_says_what_it_did_not_check(pull: Repo, github: GitHub) -> None:
    pull.git("config", "remote.origin.promisor", "true")
    _, folder = report(pull, github)
    assert "partial clone" in (folder / "summary.md").read_text("utf-8")
