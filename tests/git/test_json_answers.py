"""`--json` of the verbs in one afternoon's work: each answer is as `docs/schemas` publishes it.

That is looked at by `tests/scenarios/schemas.py` wherever a test runs a command with `--json`; here
are the verbs that no other test runs so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.remotes import bare
from tests.scenarios.repositories import Repo
from tests.scenarios.signatures import keys

BASE = model()
QUERY = "encoder.layer.0.attention.query.weight"


def test_an_afternoon_in_json(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("work")

    def ask(*words: str, code: int = 0) -> Any:
        return json.loads(repo.theta(*words, "--json", ok=(code,)))

    assert ask("install", "--local", "--skip-smudge")["changes"][0]["name"] == "theta.skipSmudge"
    repo.git("config", "--unset", "theta.skipSmudge")
    repo.write(NAME, safetensors(BASE))
    repo.commit("A base")
    bare(repo)
    assert ask("push")["sent"] > 0
    repo.git("switch", "-q", "-c", "other")
    for branch, seed in (("other", 1), ("-", 2)):
        if branch == "-":
            repo.git("switch", "-q", "-")
        repo.write(NAME, safetensors({**BASE, QUERY: changed(BASE[QUERY], seed=seed)}))
        repo.commit(f"change {seed}")
    row = next(one for one in ask("merge", "other", "--plan")["plan"][0]["tensors"]
               if one["name"] == QUERY)  # fmt: skip
    assert (row["ours"], row["action"], row["share"] > 0) == ("changed", "merge", True)
    left = ask("merge", "other", code=1)
    assert left["conflicts"] == [NAME]
    assert any("CONFLICT" in line for line in left["lines"])
    ask("resolve", NAME, "--strategy", "average")
    repo.git("commit", "-q", "-a", "--no-edit")
    assert ask("track", "-n", "*.new")["added"] == ["*.new"]
    for words in (["fetch", "-n"], ["pull", "-n"], ["checkout", "-n"],
                  ["fetch"], ["pull"], ["repack"], ["migrate", "--to-manifest", "2", "-n"],
                  ["cache", "prune", "-n"], ["export", NAME, "-o", "../x.npz"],
                  ["format-patch", "HEAD^", "-o", "../one.patch"], ["show", "../one.patch"],
                  ["apply", "-n", "../one.patch"],
                  ["release", "HEAD", "-o", "../out"]):  # fmt: skip
        ask(*words)
    private, _ = keys(repo.path.parent)
    assert NAME in ask("sign", "--private-key", str(private))["files"]
    repo.write(".theta.toml", b'[[evaluation]]\nname = "e"\ncommand = "true {checkpoint}"\n')
    assert ask("evaluate", "-n")["would_measure"][0]["path"] == NAME
    assert ask("allow")["commands"][0]["command"] == "true {checkpoint}"
    repo.git("reset", "-q", "--hard", "HEAD^")
    assert ask("am", "../one.patch")["commits"]
    assert ask("untrack", "*.nothing", code=1)["patterns"] == []
    assert ask("log", "nothing", code=2)["error"]["exit_code"] == 2
    ask("uninstall", "--local")


def test_what_is_done_quietly_says_nothing(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("work")

    def quietly(*words: str, code: int = 0) -> str:
        done = repo.run("git", "theta", *words, "-q", ok=(code,))
        assert done.stderr == b"" or code
        return done.stdout.decode()

    for seed in (1, 2):
        repo.write(NAME, safetensors({**BASE, QUERY: changed(BASE[QUERY], seed=seed)}))
        repo.commit(f"version {seed}")
    bare(repo)
    for words in (["install"], ["track", "*.new"], ["untrack", "*.new"], ["push"], ["fetch"],
                  ["pull"], ["checkout"], ["prune"], ["repack", "--yes"], ["logs", "clear"],
                  ["cache", "prune", "--all"], ["export", NAME, "-o", "../out.safetensors"],
                  ["format-patch", "HEAD^", "-o", "../one.patch"], ["uninstall"]):  # fmt: skip
        assert quietly(*words) == "", words
    # What was asked for is said, and so is what is left to do.
    assert "Would track" in quietly("track", "-n", "*.new")
    assert "*.safetensors" in quietly("track")
    assert "is not tracked" in quietly("untrack", "*.new", code=1)
    assert "Manifests" in quietly("status")
    assert json.loads(quietly("push", "--json"))["sent"] == 0
