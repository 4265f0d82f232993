"""The examples of the documents are run, in the situation that they are for.

Each scene takes its lines out of a document, in order, so that a line that changes there changes
here; `test_every_example_is_run` names those that no scene takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.scenarios import moved, ranks
from tests.scenarios.adapters import adapter, lora
from tests.scenarios.advised import only, take
from tests.scenarios.checkpoints import Tensors, changed, model, safetensors
from tests.scenarios.dvc import dvc_add
from tests.scenarios.published import FIRST, QUERY, publish
from tests.scenarios.repositories import Repo
from tests.scenarios.sharded import write as write_shards
from tests.scenarios.signatures import keys
from tests.scenarios.statistics import SCRIPT
from tests.scenarios.suggestions import ROOT

NAME = "model.safetensors"
RESOLVE, MERGING, SETTING_UP = "commands/resolve.md", "merging.md", "setting-up.md"
TAKEN: dict[str, set[str]] = {}
"""Document -> the lines that a scene takes."""

NOT_RUN = {
    "python -I -m pip install .": "test_advice_setup.test_the_package_is_installed_from_its_source",
    "python -I -m pip uninstall git-theta-ext": "would remove what the tests run",
    "cd model.git": "a scene runs in that folder",
    "git restore FILE": "test_advice_objects.test_files_that_a_failed_checkout_removed",
}
"""Lines that no scene takes -> why, or the test that runs them."""


def examples(document: str) -> list[str]:
    """The commands of a document's examples: all that stand as code and begin with git."""
    text = (ROOT / "docs" / document).read_text("utf-8")
    if document.startswith("commands/"):
        text = text.partition("\n## EXAMPLES\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^    ((?:\w+=\S+ )?(?:git|cd|python) .*)$", text, re.MULTILINE)
    return [re.split(r"\s+#", line)[0].rstrip() for line in lines]


COMMANDS = sorted(f"commands/{one.name}" for one in (ROOT / "docs/commands").glob("*.md"))
DOCUMENTS = [SETTING_UP, MERGING, *COMMANDS]


def scene(document: str, *lines: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Say which lines of a document a test runs; it is given them as `lines`."""
    TAKEN.setdefault(document, set()).update(lines)
    assert set(lines) <= set(examples(document)), set(lines) - set(examples(document))
    return pytest.mark.parametrize("lines", [lines], ids=[lines[0]])


def do(repo: Repo, line: str, ok: tuple[int, ...] = (0,), **words: str) -> str:
    """Run a line, with what a reader puts in the place of some words; what it printed."""
    for word, value in words.items():
        assert word in line
        line = line.replace(word, value)
    done = repo.run("sh", "-c", line, ok=ok)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_example_is_run(document: str) -> None:
    lacking = set(examples(document)) - TAKEN.get(document, set()) - set(NOT_RUN)
    assert lacking == set()


def with_head(seed: int = 0) -> Tensors:
    return {**model(seed), "lm_head.weight": model(seed)["head.weight"]}


@pytest.fixture
def versions(repo: Repo) -> Repo:
    """Two releases of a model."""
    repo.write(NAME, safetensors(with_head()))
    repo.commit("one")
    repo.git("tag", "v1.0")
    query = "encoder.layer.1.attention.query.weight"
    repo.write(NAME, safetensors({**with_head(), query: changed(with_head()[query])}))
    repo.commit("two")
    repo.git("tag", "v2.0")
    return repo


@scene("commands/cat.md", *examples("commands/cat.md"))
def test_cat(versions: Repo, lines: tuple[str, ...]) -> None:
    do(versions, lines[0])
    found = np.load(versions.path / "lm_head.npy")
    assert found.shape == with_head()["lm_head.weight"].shape


@scene("commands/export.md", *[one for one in examples("commands/export.md") if ".." not in one])
def test_export(versions: Repo, lines: tuple[str, ...]) -> None:
    do(versions, lines[0])
    with np.load(versions.path / "encoder.npz") as found:
        assert set(found) == {name for name in model() if name.startswith("encoder.")}


@scene("commands/release.md", *examples("commands/release.md"))
def test_release(repo: Repo, lines: tuple[str, ...]) -> None:
    _with_keys(repo)
    tensors = {f"model.{name}": value for name, value in model().items()}
    repo.write(NAME, safetensors({**tensors, "optimizer.w": model()["head.weight"]}))
    repo.commit()
    repo.git("tag", "v1.2")
    said = [do(repo, line) for line in lines]
    assert "15 tensors" in said[0]
    assert "14 tensors" in said[1]
    assert "signed as it should be" in said[3]


@scene("commands/sign.md", *examples("commands/sign.md"))
def test_sign(repo: Repo, lines: tuple[str, ...]) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit()
    _with_keys(repo)
    do(repo, lines[0])
    repo.git("add", "model.sig", "theta_tensors.json")
    repo.commit("signed")
    assert "signed as it should be" in do(repo, lines[1])


@scene("commands/completion.md", *examples("commands/completion.md"))
def test_completion(repo: Repo, lines: tuple[str, ...]) -> None:
    home = Path(os.environ["HOME"])
    for line in lines:
        target = home / line.partition("~/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        do(repo, line)
        assert "git theta completion --of" in target.read_text()


def _with_keys(repo: Repo) -> None:
    """`key.pem` and `key.pub` in the work tree, and no part of it."""
    keys(repo.path)
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/exclude").write_text("key.*\ndist\n")


@scene("commands/export.md", *[one for one in examples("commands/export.md") if ".." in one])
def test_export_of_a_commit(versions: Repo, lines: tuple[str, ...]) -> None:
    for line in lines:
        assert "of the entries" in do(versions, line) or "exact" in do(versions, line)


@scene("commands/du.md", *examples("commands/du.md"))
def test_du(versions: Repo, lines: tuple[str, ...]) -> None:
    for line in lines:
        assert NAME in do(versions, line) or "encoder" in do(versions, line)


@scene("commands/repack.md", *examples("commands/repack.md"))
def test_repack(versions: Repo, lines: tuple[str, ...]) -> None:
    assert NAME in do(versions, lines[0])
    assert "git commit" in do(versions, lines[1])
    assert versions.status() == f"M  {NAME}\n"


@scene("commands/import-hf.md", *examples("commands/import-hf.md"))
def test_import_hf(tmp_path: Path, sealed: Path, lines: tuple[str, ...]) -> None:
    """Two snapshots, the second by a ref; then a third one; and what is damaged or leads away."""
    repo, cache = moved.started(tmp_path / "repo", lfs=False), tmp_path / "models--org--tiny"
    repo.write("README.md", b"ours")
    repo.commit()

    def snapshot(commit: str, time: int, content: bytes) -> Path:
        blob = cache / "blobs" / hashlib.sha256(content).hexdigest()
        folder = cache / "snapshots" / commit
        for path in (folder, blob.parent, cache / "refs"):
            path.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        (folder / NAME).symlink_to(f"../../blobs/{blob.name}")
        (folder / "config.json").write_bytes(b"{}")
        os.utime(folder, (time, time))
        (cache / "refs" / "main").write_text(commit)
        return blob

    snapshot("b" * 40, 1_000_000, moved.version(0))
    snapshot("a" * 40, 2_000_000, moved.version(1))
    assert "2 snapshots committed" in do(repo, lines[0])
    fresh = Repo(tmp_path / "fresh")
    fresh.path.mkdir()
    fresh.git("init", "-q")
    branch = only(do(fresh, lines[0]), "git switch").removeprefix("git switch ")
    fresh.git("switch", "-q", branch)
    assert (fresh.path / NAME).read_bytes() == moved.version(1)
    snapshot("c" * 40, 3_000_000, moved.version(2))
    assert "1 snapshot committed" in do(repo, lines[0])
    subjects = repo.git("log", "--reverse", "--format=%s %ct", "hf/main").splitlines()
    assert subjects == [f"Snapshot {one * 40} of org/tiny {number}000000"
                        for number, one in enumerate("bac", 1)]  # fmt: skip
    for revision in ("hf/main~2", "hf/main~1", "hf/main"):
        assert repo.blob(f"{revision}:{NAME}").startswith(b"git-theta ")
    repo.git("checkout", "-q", "--detach", "hf/main~1")
    assert (repo.path / NAME).read_bytes() == moved.version(1)
    assert (repo.blob("hf/main:config.json"), repo.status()) == (b"{}", "")
    snapshot("d" * 40, 4_000_000, moved.version(3)).write_bytes(b"damaged")
    assert "is damaged" in do(repo, lines[0], (5,))
    (cache / "snapshots" / ("d" * 40) / "link").symlink_to("/etc/passwd")
    assert "leads out" in do(repo, lines[0], (3,))


@scene("commands/import-dvc.md", *examples("commands/import-dvc.md"))
def test_import_dvc(tmp_path: Path, sealed: Path, lines: tuple[str, ...]) -> None:
    repo = moved.started(tmp_path / "repo", lfs=False)
    repo.write(".gitignore", b"/model.safetensors\n.dvc\n!*.dvc\n")
    dvc_add(repo, NAME, moved.version(0))
    repo.commit()
    assert "1 version to move" in do(repo, lines[0])
    do(repo, lines[1])
    assert repo.blob(f"HEAD:{NAME}").startswith(b"git-theta ")


MOVING = [line for verb in ("migrate", "mirror") for line in examples(f"commands/{verb}.md")]


@pytest.mark.parametrize("lines", [MOVING], ids=[""])
def test_migrate_and_mirror(tmp_path: Path, sealed: Path, lines: list[str]) -> None:
    repo = moved.started(tmp_path / "repo", lfs=False)
    repo.write(NAME, moved.version(0))
    repo.commit()
    before = moved.refs(repo)
    info, dry, move_in, back, manifests, mirror, publish = lines
    assert "1 version of 1 file" in do(repo, info)
    assert "1 version to move" in do(repo, dry)
    assert "1 commit of 1 rewritten" in do(repo, move_in)
    assert (tmp_path / "map.csv").read_text().startswith(before["refs/heads/main"])
    assert "version 2" in do(repo, manifests)
    assert "1 commit, 1 file" in do(repo, mirror)
    repo.git("init", "-q", "--bare", "../host.git")
    repo.git("remote", "add", "origin", "../host.git")
    assert "1 file and the branch are at origin" in do(repo, publish)
    repo.git("remote", "remove", "origin")
    repo.git("branch", "-q", "-D", "main-lfs")
    set_up = take(repo, *back.split())
    assert set_up == "git lfs install --skip-repo"
    do(repo, set_up)
    assert "main" in do(repo, back)
    assert repo.blob(f"HEAD:{NAME}").startswith(b"version https://git-lfs")


TAKEN["commands/migrate.md"] = TAKEN["commands/mirror.md"] = set(MOVING)

LOCKING = [f"commands/{verb}.md" for verb in ("sync", "outdated", "update")]


@pytest.mark.parametrize("lines", [[line for one in LOCKING for line in examples(one)]], ids=[""])
def test_locking(versions: Repo, tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "app").mkdir()
    app = Repo(tmp_path / "app")
    text = '[[model]]\nname = "base"\nurl = "../repo"\nversion = "<2"\n'
    app.write("models.toml", text.encode())
    sync, offline, outdated, dry, update = lines
    assert "base v1.0" in do(app, sync)
    assert "as theta.lock says" in do(app, offline)
    app.write("models.toml", text.replace("<2", "*").encode())
    assert "v2.0" in do(app, outdated, (1,))
    assert "base: v1.0 → v2.0" in do(app, dry)
    do(app, update)
    assert (app.path / "base" / NAME).read_bytes() == (versions.path / NAME).read_bytes()


TAKEN.update((one, set(examples(one))) for one in LOCKING)


@scene("commands/ls-files.md", *examples("commands/ls-files.md"))
def test_ls_files(versions: Repo, lines: tuple[str, ...]) -> None:
    for line in lines:
        assert f"{NAME}  safetensors  15 tensors" in do(versions, line)


@scene("commands/show.md", *(one for one in examples("commands/show.md") if ".patch" not in one))
def test_show(versions: Repo, lines: tuple[str, ...]) -> None:
    assert "lm_head.weight" in do(versions, lines[0])
    listed = do(versions, lines[1])
    assert listed.count("query.weight") == 3
    assert "attention.value" not in listed
    sides = ("-p", "HEAD~1", "-p", "HEAD")
    merge = versions.git("commit-tree", "-m", "merge", *sides, "HEAD^{tree}").strip()
    versions.git("branch", "-M", "main")
    versions.git("reset", "-q", "--hard", merge)
    assert "the file is as in theirs" in do(versions, lines[2])


@scene("commands/diff-filter.md", *examples("commands/diff-filter.md"))
def test_diff_filter(versions: Repo, lines: tuple[str, ...]) -> None:
    assert "  dense  stored in " in do(versions, lines[0])


@scene("commands/modules.md", *examples("commands/modules.md"))
def test_modules(versions: Repo, lines: tuple[str, ...]) -> None:
    versions.write(".theta.toml", b"[[module]]\nname = 'vision'\npattern = 'encoder.*'\n")
    assert "vision  12" in do(versions, lines[0])
    assert "v1.0" in do(versions, lines[1])


@scene("commands/restore.md", *examples("commands/restore.md"))
def test_restore(versions: Repo, lines: tuple[str, ...]) -> None:
    versions.write(".theta.toml", b"[[module]]\nname = 'vision'\npattern = 'encoder.*'\n")
    assert "12 tensors taken from v1.0; " in do(versions, lines[0])
    assert "4 tensors as in v1.0 already" in do(versions, lines[1])
    versions.git("add", NAME)
    assert "12 tensors taken from HEAD (in the index); " in do(versions, lines[2])


PATCHES = ("commands/format-patch.md", "commands/apply.md", "commands/am.md")
TAKEN["commands/show.md"].add(examples("commands/show.md")[2])
for one in PATCHES:
    TAKEN[one] = set(examples(one))


def test_patches(versions: Repo) -> None:
    """A branch is sent, looked at, tried on what it was made on, and taken."""
    made, tried, taken = map(examples, PATCHES)
    versions.git("branch", "-M", "main")
    versions.git("switch", "-q", "-c", "rte")
    versions.write(NAME, safetensors({**with_head(), "lm_head.weight": model(4)["head.weight"]}))
    versions.commit("Learn RTE")
    said = [do(versions, line) for line in made]
    assert all("the receiver must have" in one for one in said)
    versions.git("switch", "-q", "main")
    assert "Learn RTE" in do(versions, examples("commands/show.md")[2])
    assert "nothing was changed" in do(versions, tried[0])
    assert "changed" in do(versions, tried[1])
    assert "to the byte" in do(versions, tried[2])
    assert "the same commits" in do(versions, taken[0])


@scene("commands/evaluate.md", *examples("commands/evaluate.md"))
def test_evaluate(versions: Repo, lines: tuple[str, ...]) -> None:
    command = f"'{sys.executable}' -c 'print(0.5)' {{checkpoint}}"
    text = f"[[evaluation]]\nname = 'glue'\ncommand = {json.dumps(command)}\n"
    versions.write(".theta.toml", text.encode())
    versions.theta("allow")
    versions.git("checkout", "-q", "-b", "topic")
    versions.git("branch", "-f", "main", "v1.0")
    samples = [{"doc_id": number, "filter": "none", "acc": number} for number in (0, 1)]
    versions.write("samples_rte.jsonl", "\n".join(map(json.dumps, samples)).encode())
    results = {"results": {"rte": {"acc,none": 0.5}}, "versions": {"rte": 1}}
    versions.write("results_2026-11-28.json", json.dumps(results).encode())
    assert "glue/score 0.5" in do(versions, lines[0])
    assert "was measured before" in do(versions, lines[1])
    assert "rte/acc 0.5 ± 0.5  (2 examples)" in do(versions, lines[2])


@scene("commands/scores.md", *examples("commands/scores.md"))
def test_scores(versions: Repo, lines: tuple[str, ...]) -> None:
    versions.write("results.json", b'{"rte": {"acc": 0.5}}')
    versions.theta("evaluate", "--evaluation", "glue", "--import", "results.json")
    for line in lines[:2]:
        assert "glue/rte/acc" in do(versions, line)
    do(versions, lines[2])
    assert b"<svg" in (versions.path / "scores.html").read_bytes()


@scene("commands/assemble.md", *examples("commands/assemble.md"))
def test_assemble(versions: Repo, lines: tuple[str, ...]) -> None:
    versions.write(
        "recipe.toml",
        b"""[model]
path = "assembled.safetensors"
[[part]]
name = "encoder"
from = "main:model.safetensors"
tensors = "encoder.*"
[[part]]
from = "v1.0:model.safetensors"
tensors = "lm_head.*"
rename = { "lm_head.*" = "head.*" }
""",
    )
    dry, build, check, update = lines
    assert "head.weight" in do(versions, dry)
    assert "13 tensors" in do(versions, build)
    assert "is what recipe.toml makes" in do(versions, check)
    assert "no tensor changed" in do(versions, update)


@scene("commands/add.md", *examples("commands/add.md"))
def test_add(repo: Repo, lines: tuple[str, ...]) -> None:
    repo.write(".gitignore", b"out\n")
    repo.write(NAME, safetensors(model()))
    names = list(model())
    for number, part in enumerate((names[:6], names[6:]), 1):
        shard = safetensors({name: model()[name] for name in part})
        repo.write(f"model-0000{number}-of-00002.safetensors", shard)
    shards = {name: f"model-0000{1 + (name in names[6:])}-of-00002.safetensors" for name in names}
    repo.write(f"{NAME}.index.json", str({"weight_map": shards}).replace("'", '"').encode())
    repo.commit()
    shutil.copytree(adapter(repo, lora()), repo.path / "out/checkpoint-500")
    dry, add, commit, sharded, several, by_cluster = lines
    do(repo, dry)
    assert repo.status() == ""
    do(repo, add)
    do(repo, commit)
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() != safetensors(model())
    do(repo, sharded)
    assert repo.git("diff", "--cached", "--name-only").count("-of-") == 2
    for seed, name in enumerate(("style", "task")):
        shutil.copytree(adapter(repo, lora(seed=seed)), repo.path / "out" / name)
    assert "cat of 2 adapters: 0.7 × lora" in do(repo, several)
    assert "no Dask scheduler" in do(repo, by_cluster, (13,), **{"node1:8786": "127.0.0.1:1"})


@scene("commands/stats.md", *examples("commands/stats.md"))
def test_stats(repo: Repo, lines: tuple[str, ...]) -> None:
    adam, stats, add, merge = lines
    repo.write(".gitignore", b"stats.py\noptimizer.pt\n")
    repo.commit("base")
    files = Path(__file__).parents[1] / "golden" / "optimizers"
    repo.write(NAME, (files / NAME).read_bytes())
    repo.write("optimizer.pt", (files / "named.pt").read_bytes())
    assert "fisher statistics of 12 tensors" in do(repo, adam)
    (repo.path / "model.fisher.safetensors").unlink()
    for branch, weight in (("other", [1.0, 3.0]), ("main", [2.0, 5.0])):
        repo.git("checkout", "-q", "-B", branch, "main")
        repo.write(NAME, safetensors({"layer.weight": np.array([weight], np.float32)}))
        repo.write("stats.py", f"BATCHES = [[[1.0, {weight[0]}]]]\n{SCRIPT}".encode())
        do(repo, stats)
        repo.git("add", NAME)
        do(repo, add)
        if branch == "other":
            repo.git("checkout", "-q", "main")
    assert "regmean" in do(repo, merge)
    assert repo.git("log", "-1", "--format=%P").count(" ") == 1


@scene("commands/track.md", *examples("commands/track.md"))
def test_track(new_repo: Callable[..., Repo], lines: tuple[str, ...]) -> None:
    repo = new_repo("plain", install=False)
    for line in lines:
        do(repo, line)
    text = repo.blob(":.gitattributes").decode()
    assert "models/**/*.bin filter=theta" in text
    asked = ["a/x.pt", "models/a/b/c.bin", "best [v2].pt", "other/c.bin"]
    found = repo.git("check-attr", "filter", *asked).splitlines()
    assert [line.rpartition(" ")[2] for line in found] == ["theta"] * 3 + ["unspecified"]


# -- conflicts -------------------------------------------------------------------------------------

EMBEDDINGS = {"embeddings.word": np.ones((30, 8), np.float32), "head.weight": np.ones(300, "f4")}


def collided(repo: Repo, grown: bool = False) -> Repo:
    """`main` and `other` changed both tensors; with `grown`, each adds a row to the embeddings."""

    def version(number: int) -> bytes:
        words = EMBEDDINGS["embeddings.word"] + (0 if grown else number)
        rows = np.full((1, 8), number, np.float32)
        words = np.concatenate([words, rows]) if grown and number else words
        head = EMBEDDINGS["head.weight"] + (0 if grown else number)
        return safetensors({"embeddings.word": words, "head.weight": head})

    repo.write(NAME, version(0))
    repo.commit("base")
    repo.git("branch", "other")
    repo.write(NAME, version(1))
    repo.commit("ours")
    repo.git("checkout", "-q", "other")
    repo.write(NAME, version(2))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    return repo


def values(repo: Repo) -> Mapping[str, np.ndarray]:
    return load_file(repo.path / NAME)


@scene(RESOLVE, *examples(RESOLVE))
def test_resolve(repo: Repo, lines: tuple[str, ...]) -> None:
    collided(repo).run("git", "merge", "other", ok=(1,))
    assert "2 parts open" in do(repo, lines[0], ok=(1,))
    assert "1 part open" in do(repo, lines[1], ok=(1,))
    assert "nothing is open" in do(repo, lines[2])
    assert np.array_equal(values(repo)["embeddings.word"], EMBEDDINGS["embeddings.word"] + 1)


ENDS = (f" {NAME}", " average", " ours", "--undo")
SETTLING = [one for one in examples(MERGING) if one.endswith(ENDS) and "model-*" not in one]


@scene(MERGING, *SETTLING)
def test_settling_step_by_step(repo: Repo, lines: tuple[str, ...]) -> None:
    average, ours, undo, add = lines
    collided(repo).run("git", "merge", "other", ok=(1,))
    do(repo, average)
    do(repo, ours)
    assert np.array_equal(values(repo)["head.weight"], EMBEDDINGS["head.weight"] + 1)
    do(repo, undo)
    assert np.array_equal(values(repo)["head.weight"], EMBEDDINGS["head.weight"] + 1.5)
    do(repo, add)
    repo.git("commit", "-q", "--no-edit")
    assert repo.status() == ""


@scene(MERGING, "git theta resolve model.safetensors --tensor 'embeddings.*' --strategy stack")
def test_stacking(repo: Repo, lines: tuple[str, ...]) -> None:
    collided(repo, grown=True).run("git", "merge", "other", ok=(1,))
    do(repo, lines[0])
    assert values(repo)["embeddings.word"].shape == (32, 8)


GROWING = [line for line in examples(MERGING) if "rank=grow" in line]


@scene(MERGING, *GROWING)
def test_a_rank_that_grows(repo: Repo, lines: tuple[str, ...]) -> None:
    merge, resolve = lines
    ranks.start(repo, (4, 8.0), (4, 8.0), (8, 8.0))
    repo.git("branch", "other", "side")
    do(repo, merge)
    grown = (repo.path / ranks.NAME).read_bytes()
    assert json.loads((repo.path / ranks.CONFIG).read_bytes())["r"] == 12
    repo.git("reset", "-q", "--hard", "HEAD~1")
    repo.run("git", "merge", "other", ok=(1,))
    assert "to rank 12" in do(repo, resolve)
    assert (repo.path / ranks.NAME).read_bytes() == grown


@scene(MERGING, *[line for line in examples(MERGING) if " other" in line and line not in GROWING])
def test_choosing(repo: Repo, lines: tuple[str, ...]) -> None:
    plan, strategy, variable, tune = lines
    collided(repo)
    assert "1 checkpoint changed on both sides" in do(repo, plan)
    for line in (strategy, variable):
        do(repo, f"{line}")
        assert repo.git("log", "-1", "--format=%P").count(" ") == 1
        repo.git("reset", "-q", "--hard", "HEAD~1")
    script = (
        "import sys\nfrom safetensors.numpy import load_file\n"
        "print(-abs(float(load_file(sys.argv[1])['head.weight'].mean()) - 4), 400)\n"
    )
    (repo.path / "evaluate.py").write_text(script)
    assert "To take it" in do(repo, tune, ok=(1,))


@scene(MERGING, "git theta merge math code chat --strategy ties")
def test_several(repo: Repo, lines: tuple[str, ...]) -> None:
    repo.write(NAME, safetensors(model()))
    base = repo.commit("base")
    name = "encoder.layer.0.attention.query.weight"
    for number, branch in enumerate(("math", "code", "chat")):
        repo.git("checkout", "-q", "-b", branch, base)
        repo.write(NAME, safetensors({**model(), name: changed(model()[name], seed=number)}))
        repo.commit(branch)
    repo.git("checkout", "-q", "main")
    repo.git("commit", "-q", "--allow-empty", "-m", "main")
    do(repo, lines[0])
    assert repo.git("log", "-1", "--format=%P").count(" ") == 3


@scene(MERGING, "git config theta.mergeStorage values")
def test_values_in_place_of_recipes(collided: Repo, lines: tuple[str, ...]) -> None:
    merge = ("git", "theta", "merge", "side", "--strategy", "average")
    do(collided, lines[0])
    collided.run(*merge)
    assert b"  merge " not in collided.blob(f"HEAD:{NAME}")


SHARDED = [line for line in examples(MERGING) if "model-*" in line or "index.json" in line]


@scene(MERGING, *SHARDED)
def test_sharded(repo: Repo, lines: tuple[str, ...]) -> None:
    resolve, add, index, add_index = lines
    base = {f"w{n}": np.full((20, 30), n, np.float32) for n in range(6)}
    sides = {"main": {"w1": base["w1"] + 1}, "other": {"w1": base["w1"] + 3}}
    for starts, commands in (((0, 2), (resolve, add)), ((0, 3), (index, add_index))):
        repo.git("checkout", "-q", "-B", "main")
        write_shards(repo, base, 0, 3)
        start = repo.commit(f"base {starts}")
        for branch, cut in (("other", starts), ("main", (0, 3))):
            repo.git("checkout", "-q", "-B", branch, start)
            own = sides[branch] if commands[0] == resolve else {f"new.{branch}": base["w1"]}
            write_shards(repo, {**base, **own}, *cut)
            repo.commit(branch)
        repo.run("git", "merge", "other", ok=(1,))
        inner = Repo(repo.path / "llm")
        for command in commands:
            do(inner, command)
        repo.git("commit", "-q", "--no-edit")
        assert repo.status() == ""


# -- setting up ------------------------------------------------------------------------------------


def lines_of(first: str, last: str) -> list[str]:
    """The lines of setting-up.md from one to another, without those that are not run."""
    found = examples(SETTING_UP)
    start = found.index(first)
    stop = found.index(last, start)
    return [line for line in found[start : stop + 1] if line not in NOT_RUN]


@scene(SETTING_UP, "git theta install", "git theta track '*.safetensors'")
def test_set_up(new_repo: Callable[..., Repo], lines: tuple[str, ...]) -> None:
    repo = new_repo("plain", install=False)
    for line in lines:
        do(repo, line)
    repo.write(NAME, safetensors(model()))
    repo.commit()
    assert repo.blob(f"HEAD:{NAME}").startswith(b"git-theta manifest")


@scene(SETTING_UP, 'git config filter.theta.process ""', "git config filter.theta.required false")
def test_without_the_filter(repo: Repo, lines: tuple[str, ...]) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("config", "filter.theta.process", "/gone/python -I -m x")
    (repo.path / NAME).unlink()
    repo.run("git", "checkout", "--", NAME, ok=(1, 128))
    for line in lines:
        do(repo, line)
    repo.git("checkout", "--", NAME)
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() == repo.blob(f":{NAME}")


BY_HAND = lines_of(
    "git config --global --remove-section filter.theta",
    "git config --global --unset theta.skipSmudge",
)


@scene(SETTING_UP, *BY_HAND)
def test_removing_the_settings_by_hand(sealed: Path, lines: tuple[str, ...]) -> None:
    home = Repo(sealed)
    home.theta("install", "--skip-smudge")
    assert "theta" in home.git("config", "--global", "--list")
    for line in lines:
        do(home, line)
    assert "theta" not in home.git("config", "--global", "--list")


MIRROR = [line for line in examples(SETTING_UP) if "example.org" in line]


@scene(SETTING_UP, *MIRROR, "git theta install --local")
def test_moving_to_another_host(repo: Repo, tmp_path: Path, lines: tuple[str, ...]) -> None:
    clone, push, install = lines
    for host in ("old.git", "new.git"):
        repo.git("init", "-q", "--bare", str(tmp_path / host))
    repo.write(NAME, safetensors(model()))
    repo.commit()
    repo.git("push", "-q", str(tmp_path / "old.git"), "main")
    (tmp_path / "old.git").rename(tmp_path / "model.git.old")
    urls = {"https://old.example.org/team/model.git": (tmp_path / "model.git.old").as_uri()}
    outside = Repo(tmp_path)
    do(outside, clone + " model.git", **urls)
    mirror = Repo(tmp_path / "model.git")
    do(mirror, install)
    do(mirror, push, **{"https://new.example.org/team/model.git": (tmp_path / "new.git").as_uri()})
    outside.git("clone", "-q", (tmp_path / "new.git").as_uri(), "last")
    last = Repo(tmp_path / "last")
    last.theta("install", "--local")
    last.theta("pull")
    assert (last.path / NAME).read_bytes() == safetensors(model())


@scene(SETTING_UP, "git theta install --hooks")
def test_hooks_of_another_folder(repo: Repo, tmp_path: Path, lines: tuple[str, ...]) -> None:
    repo.git("config", "core.hooksPath", "own-hooks")
    (repo.path / "own-hooks").mkdir()
    do(repo, lines[0])
    assert (repo.path / "own-hooks/pre-push").exists()
    repo.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    repo.write(NAME, safetensors(model()))
    repo.commit(NAME)
    repo.git("push", "-q", str(tmp_path / "host.git"), "main")
    assert list((tmp_path / "host.git/lfs/objects").rglob("*"))


AWAY = lines_of("git theta pull", "git theta uninstall")


@scene(SETTING_UP, *AWAY)
def test_uninstalling(repo: Repo, lines: tuple[str, ...]) -> None:
    repo.theta("install")
    repo.theta("uninstall", "--local")
    repo.theta("untrack", "*.pt", "*.bin", "*.weights")
    repo.write(NAME, safetensors(model()))
    repo.commit()
    for line in lines:
        do(repo, line)
    assert repo.blob(f"HEAD:{NAME}") == safetensors(model())
    assert repo.git("config", "--get-regexp", "theta", ok=(0, 1)) == ""
    assert repo.status() == ""


@scene(SETTING_UP, "git config theta.strict true")
def test_strict(repo: Repo, lines: tuple[str, ...]) -> None:
    repo.write(NAME, safetensors(model())[:5000])
    repo.git("add", NAME)
    repo.git("rm", "-q", "--cached", NAME)
    do(repo, lines[0])
    assert b"theta" in repo.run("git", "add", NAME, ok=(1, 128)).stderr


CI = [line for line in examples(SETTING_UP) if "skip-smudge" in line or line.startswith(
    ("git clone ...", "git theta pull origin"))]  # fmt: skip


@scene(SETTING_UP, *CI)
def test_ci(repo: Repo, tmp_path: Path, lines: tuple[str, ...]) -> None:
    install, clone, pull = lines
    for name in ("small", "large"):
        repo.write(f"models/{name}.safetensors", safetensors(model()))
    repo.commit()
    repo.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    repo.git("push", "-q", str(tmp_path / "host.git"), "main")
    outside = Repo(tmp_path)
    do(outside, install)
    do(outside, clone.replace("...", f"{tmp_path / 'host.git'} job"))
    job = Repo(tmp_path / "job")
    do(job, pull)
    assert (job.path / "models/small.safetensors").read_bytes() == safetensors(model())
    assert (job.path / "models/large.safetensors").read_bytes().startswith(b"git-theta")
    assert job.status() == ""


@scene("commands/install.md", *examples("commands/install.md"))
def test_install(sealed: Path, lines: tuple[str, ...]) -> None:
    home = Repo(sealed)
    for line in lines:
        do(home, line)
    assert home.git("config", "--global", "theta.skipSmudge").strip() == "true"
    assert sys.executable.replace(os.sep, "/") in home.git("config", "filter.theta.process")


@scene("commands/cache.md", *examples("commands/cache.md"))
@pytest.mark.parametrize("get", [tuple(examples("commands/get.md"))], ids=["get"])
def test_models_of_others(
    new_repo: Callable[..., Repo],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    get: tuple[str, ...],
    lines: tuple[str, ...],
) -> None:
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    work = new_repo("model")
    remote = publish(work)
    work.git("tag", "v1.2", "v1^{}")
    work.git("push", "-q", "origin", "v1.2")
    here = Repo(tmp_path / "product")
    here.path.mkdir()
    for url in ("https://host/org/model", "git@host:org/model"):
        here.git("config", "--global", "--add", f"url.{remote.as_uri()}.insteadOf", url)
    assert "model: 4 files" in do(here, get[0])
    assert (here.path / "model" / NAME).read_bytes() == FIRST
    do(here, get[1])
    assert QUERY in load_file(here.path / "encoder.safetensors")
    shutil.rmtree(here.path / "model")
    do(here, get[2])
    assert (
        load_file(work.path / NAME)[QUERY].shape
        == np.load(here.path / "model/model.npz")[QUERY].shape
    )
    listed, unused, limit, setting = (do(here, line) for line in lines)
    assert "v1.2" in listed
    assert "removed 0 versions" in unused
    assert "would remove 0 versions" in limit
    assert setting == ""


TAKEN["commands/get.md"] = set(examples("commands/get.md"))
