"""Modules on a pull request: what is frozen, what has no owner, whom to ask; and in a merge."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.pull_requests import GitHub, report, upload
from tests.scenarios.repositories import Repo

MODULES = """
[[module]]
name = "vision"
pattern = "vision.*"
owners = ["@vision-team"]
frozen = true

[[module]]
name = "lm"
pattern = ["lm.*", "shared.*"]
owners = ["@lm-team", "ada@example.org"]

[[module]]
name = "head"
pattern = ["head.*", "shared.*"]
"""


def weights(**changed: float) -> bytes:
    """A model whose tensors are ones, or what is asked for (`__` stands for a dot)."""
    values = dict.fromkeys(("vision.a", "vision.b", "lm.a", "head.a", "stray.a"), 1.0)
    values |= {name.replace("__", "."): value for name, value in changed.items()}
    return safetensors({name: np.full(300, value, "f4") for name, value in values.items() if value})


@pytest.fixture
def parts(repo: Repo) -> Repo:
    """`main` has a model, one tensor of which is in no module."""
    repo.write(".theta.toml", MODULES.encode())
    repo.write(NAME, weights())
    repo.commit("base")
    repo.git("switch", "-q", "-c", "update")
    return repo


def test_an_update_of_modules_is_judged_and_its_owners_named(parts: Repo) -> None:
    parts.write(NAME, weights(lm__a=2, head__a=2))
    parts.commit("train the language model")
    done = parts.theta("check", "main..HEAD")
    assert "lm      @lm-team, ada@example.org  1 of 1 tensor" in done
    assert "head    no owner is named          1 of 1 tensor" in done
    assert "to ask: @lm-team, ada@example.org\n" in done
    assert "left as they were, though they have no module or several: stray.a in model" in done
    assert done.endswith("Accepted: 2 judgements, none refuses.\n")

    # Nobody unfreezes a module on the way, nor gives what is new an owner of its own.
    loosened = MODULES.replace("frozen = true\n", "") + '[[module]]\nname="new"\npattern="new.*"\n'
    parts.write(".theta.toml", loosened.encode())
    parts.write(NAME, weights(vision__a=2, new__a=1, shared__a=1, stray__a=3))
    parts.commit("unfreeze")
    # (Manifests say all of it: no object is needed.)
    (parts.path / ".git/theta/objects").rename(parts.path / ".git/theta/away")
    done = parts.theta("check", ok=(1,))
    assert "module vision: frozen" in done
    assert "frozen tensors differ: vision.a; to ask: @vision-team" in done
    assert "these belong to no module: new.a, stray.a\n" in done
    assert "these belong to several modules: shared.a (lm, head)\n" in done
    assert "counts once it is on the base: vision is not frozen any more; new is new\n" in done
    assert "by its own modules, stray.a in model.safetensors would have no module; shared.a" in done
    assert done.endswith("Refused: 2 of 2 judgements.\n")
    found = json.loads(parts.theta("check", "--format", "json", "--gate", "modules", ok=(1,)))
    assert found["owners"] == ["@vision-team", "@lm-team", "ada@example.org"]
    assert found["modules"][0] == {
        "module": "vision", "owners": ["@vision-team"], "frozen": True, "path": NAME,
        "tensors": 2, "changed": ["vision.a"],
    }  # fmt: skip
    said = parts.theta("check", "--format", "markdown", ok=(1,))
    assert "**To ask:** <code>&#64;<!-- -->vision-team</code> (<code>vision</code>), " in said

    parts.write(".theta.toml", b"[[module]]\n")
    parts.commit("broken")
    done = parts.theta("check", ok=(1,))
    assert "note: the .theta.toml of this is not usable: .theta.toml, line 1: [[module]]" in done
    assert "REFUSED" in done

    # Away with it altogether, or under another name: that is a change, too.
    parts.git("rm", "-q", NAME, ".theta.toml")
    parts.git("commit", "-q", "-m", "away")
    assert "vision is gone" in (done := parts.theta("check", ok=(1,)))
    assert "frozen tensors differ: vision.a, vision.b; to ask" in done


def test_a_pull_request_is_reported_by_module(parts: Repo, github: GitHub) -> None:
    parts.git("branch", "-m", "feature")
    github.bare = parts.path.parent / "nothing"
    # Nobody loosens the rules unseen, also where no checkpoint changes.
    parts.write(".theta.toml", MODULES.replace("frozen = true\n", "").encode())
    parts.commit("unfreeze")
    out, _ = report(parts, github, THETA_CHECK="true")
    assert "::warning file=.theta.toml::this changes the modules" in out
    assert "vision is not frozen any more" in github.comments[-1]["body"]
    parts.write(NAME, weights(lm__a=1.5, vision__b=2))
    parts.write(".theta.toml", b"")  # (what it declares itself does not count)
    parts.commit("train")
    upload(parts, github)
    report(parts, github)
    body = github.comments[-1]["body"]
    page = "<td>lm</td><td>@lm-team, ada@example.org</td><td>1 of 1</td><td>50 %</td>"
    assert "| module | owners | tensors | change | stores |" in body
    assert (
        "| <code>vision &#40;frozen&#41;</code> | <code>&#64;<!-- -->vision-team</code> |" in body
    )
    assert "1 of 2 | 100 % | " in body
    assert "1 module is as before" in body
    assert "To ask" not in body

    assert "| 1 of 2 | 100 % | " in parts.theta("diff", "main...HEAD", "--format", "markdown")

    out, folder = report(parts, github, 1, THETA_CHECK="true")
    body = github.comments[-1]["body"]
    assert body.index("**To ask:** <code>&#64;<!-- -->vision-team") < body.index("| module |")
    assert "vision is gone; lm is gone" in body
    assert "::error file=model.safetensors::module vision: frozen: REFUSED; frozen tensors" in out
    assert "::notice::To ask: @vision-team, @lm-team, ada@example.org" in out
    assert page in (folder / "git-theta-report.html").read_text("utf-8")


def test_a_merge_tells_by_module_whom_to_ask(parts: Repo) -> None:
    parts.write(NAME, weights(lm__a=3, vision__a=3, head__a=3, stray__a=3))
    parts.write("alone.safetensors", weights())
    parts.commit("theirs")
    parts.git("switch", "-q", "main")
    parts.write(NAME, weights(lm__a=2, vision__b=2))
    parts.commit("ours")
    plan = parts.theta("merge", "update", "--plan")
    assert (
        "  module vision (frozen)  @vision-team              1 from ours, 1 from theirs\n" in plan
    )
    assert "  module lm               @lm-team ada@example.org  1 open\n" in plan
    assert "  module head             no owner is named         1 from theirs\n" in plan
    assert "  in no module                                      1 from theirs\n" in plan
    said = "model.safetensors: module vision is frozen, and theirs changes 1 of 2 tensors; to ask: "
    assert f"{said}@vision-team\n" in plan
    assert "alone" not in plan
    assert "lm               @lm-team ada@example.org  1 combined\n" in parts.theta(
        "merge", "update", "--plan", "--strategy", "average")  # fmt: skip
    parts.git("branch", "third", "update~1")
    parts.git("switch", "-q", "third")
    parts.write(NAME, weights(lm__a=4, vision__b=4))
    parts.commit("third")
    parts.git("switch", "-q", "main")
    several = parts.theta("merge", "update", "third", "--plan")
    assert "vision is frozen, and update changes 1 of 2" in several
    assert "vision is frozen, and third changes 1 of 2" in several
    assert "@lm-team ada@example.org  1 entry by entry\n" in several
    assert "1 from one side, 1 entry by entry\n" in several

    done = parts.run("git", "merge", "-q", "update", ok=(1,)).stderr.decode()
    tag = "[lm: @lm-team ada@example.org]"
    assert next(line for line in done.splitlines() if "    lm.a: " in line).endswith(tag)
    asked = "to ask: @lm-team ada@example.org (lm: 1 open)"
    for shown in (done, parts.theta("status"), parts.theta("resolve", NAME, ok=(1,))):
        assert tag in shown
        assert asked in shown
    whose = [
        {"module": "lm", "owners": ["@lm-team", "ada@example.org"], "open": ["lm.a"]}
    ]  # fmt: skip
    assert json.loads(parts.theta("resolve", NAME, "--json", ok=(1,)))["modules"] == whose
    rows = json.loads(parts.theta("status", "--json"))["files"]
    assert [row["modules"] for row in rows if row["path"] == NAME] == [whose]
    # The commands that it suggests are what they were.
    assert f"git theta resolve {NAME} --strategy" in done
    # A file that cannot be used keeps nobody from settling.
    parts.run("git", "merge", "--abort")
    parts.write(".theta.toml", MODULES.replace("owners", "owner").encode())
    parts.commit("misspelt")
    done = parts.run("git", "merge", "-q", "update", ok=(1,)).stderr.decode()
    assert "modules are not known: .theta.toml of HEAD, line 5: [[module]] number 1" in done
    assert "nothing is open" in parts.theta("resolve", NAME, "--strategy", "ours")


@pytest.mark.git("2.38")
def test_a_merge_by_gates_leaves_frozen_modules_alone(parts: Repo) -> None:
    parts.write(NAME, weights(lm__a=3, vision__a=3))
    parts.commit("theirs")
    parts.git("switch", "-q", "main")
    parts.write(NAME, weights(lm__a=2))
    parts.commit("ours")
    done = parts.theta("merge", "update", "--gate", "--strategy", "average", ok=(1,))
    assert "Judged by 3 modules of HEAD, against both sides:\n" in done
    assert "average: module vision: frozen against base: frozen tensors differ: vision.a" in done
    assert done.endswith("Nothing was merged.\n")
    parts.git("switch", "-q", "update")
    parts.write(NAME, weights(lm__a=3))
    parts.commit("vision as it was")
    parts.git("switch", "-q", "main")
    assert "Accepted" in parts.theta("merge", "update", "--gate", "--strategy", "average")
