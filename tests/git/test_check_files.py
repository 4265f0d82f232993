"""`git theta check-files`, as pre-commit's hook runs it."""

from __future__ import annotations

import json

import numpy as np

from tests.scenarios.advised import do
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"


def test_what_should_not_be_committed_is_refused(repo: Repo) -> None:
    tensors = model()
    whole = safetensors(tensors)
    repo.write(NAME, whole)
    repo.write(".gitattributes", b"*.safetensors filter=theta diff=theta merge=theta -text\n")
    repo.git("add", ".")
    assert repo.theta("check-files") == ""  # nothing was committed yet
    repo.git("commit", "-q", "-m", "good")
    with_nan = changed(tensors[WEIGHT], seed=3)
    with_nan.flat[5] = np.nan
    repo.write(NAME, safetensors({**tensors, WEIGHT: with_nan}))
    repo.write("new.safetensors", safetensors({WEIGHT: with_nan}))
    repo.write("short.safetensors", whole[:-100])
    repo.write("small.npy", b"\x93NUMPY small")
    repo.git("add", ".")
    repo.write("raw.safetensors", whole)
    repo.git(
        "-c", "filter.theta.process=", "-c", "filter.theta.required=false", "add", "raw.safetensors"
    )
    repo.write("odd name.weights", whole)
    repo.write("notes.txt", bytes(200_000))
    said = repo.run("git", "theta", "check-files", "notes.txt", ok=(2,)).stderr.decode()
    do(repo, said.partition("hint: ")[2])
    repo.git("add", "*.weights", "*.txt")
    limits = ("--max-size", f"{len(whole) - 1}", "--min-size", "1kB")
    done = repo.run("git", "theta", "check-files", "--json", *limits, ok=(1,))
    found = {(one["path"], one["kind"]) for one in json.loads(done.stdout)["problems"]}
    assert found == {
        (NAME, "not finite"), ("new.safetensors", "not finite"), ("short.safetensors", "truncated"),
        ("raw.safetensors", "raw"),
        ("odd name.weights", "untracked"), (NAME, "oversized"),
    }  # fmt: skip
    said = repo.run(
        "git",
        "theta",
        "check-files",
        "raw.safetensors",
        "odd name.weights",
        "--min-size",
        "1kB",
        ok=(1,),
    )
    for line in said.stdout.decode().splitlines():
        if "hint: " in line:
            do(repo, line.partition("hint: ")[2])
    repo.git("add", ".gitattributes")
    repo.theta("check-files", "raw.safetensors", "odd name.weights", "notes.txt", "small.npy")
    repo.theta("check-files", NAME, "--allow-not-finite", "--max-added", "1MB")
    repo.run("git", "theta", "check-files", NAME, "--max-added", "1", ok=(1,))
    # A deleted file, and one with NaN that were there before, are no reason.
    repo.git("commit", "-q", "-m", "all the same")
    repo.git("rm", "-q", "short.safetensors")
    assert repo.theta("check-files") == ""


def test_a_summary_is_put_into_the_message_that_is_edited(repo: Repo) -> None:
    theirs = repo.path / ".git/hooks/prepare-commit-msg"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("#!/bin/sh\necho theirs >> $1\n")
    theirs.chmod(0o755)
    before = theirs.read_bytes()
    repo.theta("install", "--local", "--commit-summary")
    tensors = model()
    repo.write(NAME, safetensors(tensors))
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "given")
    assert repo.git("log", "-1", "--format=%B").strip() == "given\ntheirs"
    repo.write(NAME, safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT])}))
    repo.git("add", ".")
    text = repo.theta("summary")
    assert text.startswith(f"{NAME}  1 of {len(tensors)} tensors changed")
    assert WEIGHT in text
    editor = {"GIT_EDITOR": "sed -i -e '1s/^/subject/'"}
    repo.git("commit", "-q", env=editor)
    message = repo.git("log", "-1", "--format=%B")
    assert message.startswith(f"subject\n\n{text}")
    assert message.strip().endswith("theirs")
    assert repo.theta("summary") == ""
    assert json.loads(repo.theta("summary", "HEAD", "--json"))["files"][0]["path"] == NAME
    assert repo.theta("summary", "HEAD") == text == repo.theta("summary", "HEAD~1..HEAD")
    repo.theta("uninstall", "--local")
    assert theirs.read_bytes() == before
