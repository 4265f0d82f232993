"""git theta evaluate: measure versions once, with leave, within limits, and lose nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.merges import st
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX

ROOT = Path(__file__).parents[2]
SCRIPT = """
import pathlib, struct, sys, time
checkpoint, results, rev = map(pathlib.Path, sys.argv[1:4])
with open("../log", "a") as log:
    print(rev, checkpoint.name, sorted(p.name for p in checkpoint.parent.iterdir()), file=log)
weight = struct.unpack("<f", checkpoint.read_bytes()[-4:])[0]
if weight == 13:
    time.sleep(60)
if weight == 14:
    sys.exit("CUDA out of memory")
right = [number < 40 + 10 * weight for number in range(100)]
rows = "".join(f"{number},{int(one)}\\n" for number, one in enumerate(right))
(results / "rte.csv").write_text("id,correct\\n" + rows)
"""
TOML = """
[[evaluation]]
name = "glue"
path = "{name}"
command = '''"{python}" evaluate.py {{checkpoint}} {{results}} "{{rev}}"'''
timeout = 30
examples = "examples.txt"
"""


def version(repo: Repo, value: float, message: str = "train") -> str:
    repo.write(NAME, st({"w": np.full(300, value, np.float32)}))
    return repo.commit(message)


@pytest.fixture
def measured(repo: Repo) -> Repo:
    """Three versions of a checkpoint, and an evaluation that is allowed."""

    def make() -> None:
        repo.write("evaluate.py", SCRIPT.encode())
        repo.write("examples.txt", b"one\n")
        repo.write(".theta.toml", TOML.format(name=NAME, python=sys.executable).encode())
        for value in (1, 2, 3):
            version(repo, value)

    repo.once(make)
    return repo


def runs(repo: Repo) -> list[str]:
    """What the script was given since the last time."""
    log = repo.path.parent / "log"
    found = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def results(repo: Repo, *arguments: str, ok: tuple[int, ...] = (0,)) -> dict[str, list[dict]]:  # type: ignore[type-arg]
    return json.loads(repo.theta("evaluate", "--json", *arguments, ok=ok))  # type: ignore[no-any-return]


def test_measured_once_wherever_it_stands(measured: Repo) -> None:
    # Not before it was allowed.
    refused = measured.run(*PREFIX, "evaluate", ok=(2,)).stderr.decode()
    assert "evaluate.py" in refused
    assert runs(measured) == []
    assert "git theta evaluate --evaluation glue" in do(measured, only(refused, "theta allow"))
    # The version is not written to the work tree; the index and the file there stay as they are.
    measured.write(NAME, b"not committed")
    head = measured.git("rev-parse", "HEAD").strip()
    text = measured.theta("evaluate")
    assert f"glue: {NAME} at {head[:9]}" in text
    assert "rte/acc 0.7 ± 0.046  (100 examples)" in text
    assert runs(measured) == [f"{head} {NAME} ['{NAME}']"]
    assert (measured.path / NAME).read_bytes() == b"not committed"
    measured.git("checkout", "-q", "--", NAME)
    # A range: only what is new. Another commit, path and time: the same content.
    found = results(measured, "--jobs", "2", "HEAD~2..HEAD")
    assert [len(found[key]) for key in ("measured", "known", "failed")] == [1, 1, 0]
    measured.git("commit", "-q", "--amend", "-m", "in other words")
    measured.git("mv", NAME, "renamed.safetensors")
    measured.write(".theta.toml", TOML.format(name="*", python=sys.executable).encode())
    measured.commit("rename")
    runs(measured)
    (known,) = results(measured)["known"]
    assert (known["rev"], known["origin"], known["path"]) == (head, "measured", NAME)
    assert "@" in known["by"]
    assert runs(measured) == []
    # Another test set is another evaluation; so is what was told to be measured again.
    measured.write("examples.txt", b"two\n")
    assert len(results(measured)["measured"]) == 1
    assert len(results(measured, "--force")["measured"]) == 1
    # A file, in its place.
    other = measured.write("other.safetensors", st({"w": np.full(300, 2, np.float32)}))
    (one,) = results(measured, str(other), "--force")["measured"]
    assert (one["rev"], one["path"]) == ("", "other.safetensors")
    assert one["scores"][0]["value"] == 0.6


def test_what_hangs_dies_or_says_nothing(measured: Repo) -> None:
    measured.theta("allow")
    version(measured, 13, "hangs")
    version(measured, 14, "dies")
    began = time.monotonic()
    done = measured.run(*PREFIX, "evaluate", "HEAD~3..", "--timeout", "1.5", ok=(14,))
    said = done.stderr.decode()
    assert time.monotonic() - began < 30
    assert "took longer than 1.5 s, and was stopped" in said
    assert "exited with 1" in said
    assert "CUDA out of memory" in said
    assert "2 of 3 evaluations gave no result" in said
    assert b"rte/acc 0.7" in done.stdout
    runs(measured)
    assert len(results(measured, "HEAD~3..", "--timeout", "1", ok=(14,))["failed"]) == 2
    assert len(runs(measured)) == 2
    measured.write("evaluate.py", b"print('done')\n")
    said = measured.run(*PREFIX, "evaluate", "--force", ok=(14,)).stderr.decode()
    assert "it left no file of results" in said
    assert "samples_*.jsonl" in said
    # What was measured is said even where it cannot be kept.
    measured.write("evaluate.py", b"print('0.625 8')\n")
    lock = measured.path / ".git/refs/theta/evaluations.lock"
    lock.write_bytes(b"")
    said = measured.run(*PREFIX, "evaluate", "--force", ok=(10,)).stderr.decode()
    lock.unlink()
    assert "was measured, but cannot be kept" in said
    assert "glue/score 0.625" in said


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_stopped_by_the_user(measured: Repo, name: str) -> None:
    """The command ends with what it started, and what was finished is there."""
    number = signal.Signals[name]
    measured.theta("allow")
    version(measured, 13, "hangs")
    child = measured.path.parent / "child"
    text = (measured.path / "evaluate.py").read_text()
    text = text.replace("    time.sleep(60)", (
        "    import subprocess\n"
        "    one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"    pathlib.Path({str(child)!r}).write_text(str(one.pid))\n    time.sleep(60)"
    ))  # fmt: skip
    measured.write("evaluate.py", text.encode())
    process = subprocess.Popen(
        [*PREFIX, "evaluate", "HEAD~2..", "--jobs", "2"], cwd=measured.path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Whoever runs the tests may ignore it, as nohup does.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stdout is not None
    assert b"glue" in process.stdout.readline()
    while not child.exists() or not child.read_text():
        time.sleep(0.05)
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)  # git passes on what the terminal sends to all
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert _ends(int(child.read_text()))
    assert len(results(measured, "HEAD~1")["known"]) == 1


def _ends(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_results_that_somebody_has(measured: Repo, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"rte": {"acc": 0.5, "acc_stderr": 0.1}, "cola": {"mcc": 0.25}}))
    text = measured.theta("evaluate", "HEAD~1", "--import", str(path))
    assert f"Kept for {NAME} at " in text
    assert "rte/acc 0.5 ± 0.1" in text
    assert "are kept already" in measured.theta("evaluate", "HEAD~1", "--import", str(path))
    table = tmp_path / "rte.csv"
    table.write_text("id,correct\na,1\nb,0\n")
    found = results(measured, "HEAD~1", "--evaluation", "other", "--import", str(table))
    assert [one["origin"] for one in found["imported"]] == ["imported"]
    words = ("evaluate", "--import", str(table), "HEAD~1")
    said = measured.run(*PREFIX, *words, ok=(2,)).stderr.decode()
    assert "HEAD~1 is a revision: it goes before --import" in said
    (tmp_path / "run" / "gpt2").mkdir(parents=True)
    (tmp_path / "run" / "gpt2" / "log.eval").write_bytes(b"PK")  # what Inspect writes by itself
    words = ("evaluate", "--import", str(tmp_path / "run"))
    said = measured.run(*PREFIX, *words, ok=(2,)).stderr.decode()
    assert "a log of Inspect that is JSON (--log-format json)" in said
    path.rename(tmp_path / "run" / "gpt2" / "results.json")
    found = results(measured, "HEAD~2", "--import", str(tmp_path / "run"))
    assert len(found["imported"][0]["scores"]) == 2
    measured.write(".theta.toml", b"")
    said = measured.run(*PREFIX, "evaluate", "--import", str(table), ok=(2,)).stderr.decode()
    assert "as anything" in do(measured, only(said, "--import").replace("NAME", "anything"))
    path.write_text("{}")
    words = ("evaluate", "--evaluation", "x", "--import", str(path))
    said = measured.run(*PREFIX, *words, ok=(14,)).stderr.decode()
    assert "results.json: it is JSON, but no results that are known" in said


def test_the_folder_of_a_model(repo: Repo) -> None:
    """{model_dir}: the shards with their index, configuration and tokenizer; no other model."""
    script = (
        "import json, pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n"
        "names = sorted(p.name for p in folder.iterdir())\n"
        "print(names, sys.argv[2:], file=sys.stderr)\n"
        "config = json.loads((folder / 'config.json').read_bytes())\n"
        "pathlib.Path(sys.argv[2], 'r.json').write_text(json.dumps({'heads': config['heads']}))\n"
        "assert names == ['config.json', 'model-00001-of-00002.safetensors',\n"
        "                 'model-00002-of-00002.safetensors', 'model.safetensors.index.json',\n"
        "                 'tokenizer.bin']\n"
        "assert (folder / 'tokenizer.bin').read_bytes() == b'the words of the model'\n"
    )
    repo.write("evaluate.py", script.encode())
    arrays = [{name: np.full(300, 1, np.float32)} for name in ("a", "b")]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, array in zip(names, arrays, strict=True):
        repo.write(f"model/{name}", safetensors(array))
    index = {"metadata": {}, "weight_map": dict(zip("ab", names, strict=True))}
    repo.write("model/model.safetensors.index.json", json.dumps(index).encode())
    repo.write("model/optimizer.safetensors", st({"w": np.zeros(300, np.float32)}))
    repo.write("model/README.md", b"words")
    # A file that git-lfs stores comes as itself, not as the pointer that the commit has.
    repo.git("lfs", "install", "--local", "--skip-repo")
    repo.git("lfs", "track", "model/tokenizer.bin")
    repo.write("model/tokenizer.bin", b"the words of the model")
    repo.write("model/config.json", b'{"heads": 12}')
    command = f"'{sys.executable}' evaluate.py {{model_dir}} {{results}}"
    repo.write(".theta.toml", (
        f'[[evaluation]]\nname = "all"\npath = "model/model*"\ncommand = {json.dumps(command)}\n'
    ).encode())  # fmt: skip
    repo.commit("a model of two files")
    (one,) = results(repo, "--allow-evaluation")["measured"]
    assert one["path"] == "model/model.safetensors.index.json"
    assert [(score["task"], score["value"]) for score in one["scores"]] == [("all", 12)]
    repo.write("model/config.json", b'{"heads": 8}')
    repo.commit("another configuration")
    (other,) = results(repo, "--allow-evaluation")["measured"]
    assert other["content"] == one["content"]
    assert other["beside"] != one["beside"]


def test_no_name_is_a_command(repo: Repo) -> None:
    """The shell that a command starts itself sees no character of a name that it would act on."""
    name = "a $(touch pwned);touch pwned `touch pwned` {rev} 'x.safetensors"
    repo.write(name, st({"w": np.full(300, 1, np.float32)}))
    repo.theta("track", "*.safetensors")
    command = "sh -c 'echo {checkpoint} >&2; echo read {checkpoint}; wc -c < {checkpoint}'"
    text = f"[[evaluation]]\nname = 'size'\ncommand = {json.dumps(command)}\n"
    repo.write(".theta.toml", text.encode())
    repo.commit("a name")
    (one,) = results(repo, "--allow-evaluation")["measured"]
    assert one["scores"][0]["value"] == (repo.path / name).stat().st_size
    assert not (repo.path / "pwned").exists()


def test_the_guide(repo: Repo, tmp_path: Path) -> None:
    """The five minutes of docs/evaluating.md, as they stand there."""
    text = (ROOT / "docs/evaluating.md").read_text("utf-8")
    steps = text[text.index("## In five minutes") : text.index("## `[[evaluation]]`")]
    blocks = re.findall(r"\n\n((?: {7}.*\n)+)", steps)
    toml, table, *commands = [re.sub(r"(?m)^ {7}", "", block) for block in blocks]
    repo.write(".theta.toml", toml.replace("python ", f"'{sys.executable}' ").encode())
    repo.write("evaluate.py", (
        f"import pathlib, sys\npathlib.Path(sys.argv[3], 'rte.csv').write_text({table!r})\n"
    ).encode())  # fmt: skip
    repo.write("eval/glue.jsonl", b"{}\n")
    version(repo, 1)
    said = [do(repo, line) for block in commands for line in block.splitlines()]
    assert [line.split()[2] for block in commands for line in block.splitlines()] == [
        "allow", "evaluate", "scores", "scores",
    ]  # fmt: skip
    assert "rte/acc 0.5" in said[1]
    assert "glue/rte/acc" in said[2]
    assert "<svg" in (repo.path / "scores.html").read_text("utf-8")


def test_what_cannot_be_measured_is_said(measured: Repo) -> None:
    for words, message in [
        (["nowhere"], "nowhere is neither a revision nor a file here"),
        (["main..nowhere"], "'main..nowhere' is no range of commits here"),
        (["HEAD.."], "'HEAD..' has no commits"),
        (["--import", "gone.csv"], "there is no file gone.csv"),
        (["--force", "--import", "examples.txt"], "--force says how to run an evaluation"),
        (["--evaluation", "glu"], "there is no evaluation 'glu'\n  hint: known: glue"),
        (["--path", "x"], f"there is no checkpoint x\n  hint: there: {NAME}"),
        (["--jobs", "0"], "from 1 on, not 0"),
        (["--timeout", "-1"], "above 0, not -1"),
    ]:
        said = measured.run(*PREFIX, "evaluate", *words, ok=(2,)).stderr.decode()
        assert message in said
    measured.git("-c", "theta.skipSmudge=true", "checkout", "-q", "HEAD~1", "--", NAME)
    said = measured.run(*PREFIX, "evaluate", NAME, ok=(2,)).stderr.decode()
    assert f"{NAME} is a manifest, not the checkpoint" in said
    assert f"Wrote {NAME}" in do(measured, only(said, "theta pull"))
    measured.write(".theta.toml", TOML.format(name="other/*", python=sys.executable).encode())
    said = measured.run(*PREFIX, "evaluate", ok=(2,)).stderr.decode()
    assert f"no evaluation (glue) is for {NAME}: see path in .theta.toml" in said
    assert NAME in do(measured, only(said, "ls-files"))
    measured.git("checkout", "-q", "--", ".theta.toml")
    (measured.path / "examples.txt").unlink()
    said = measured.run(*PREFIX, "evaluate", ok=(2,)).stderr.decode()
    assert "there is no file 'examples.txt' in the work tree" in said
    measured.write(".theta.toml", b"")
    said = measured.run(*PREFIX, "evaluate", ok=(2,)).stderr.decode()
    assert "declares no evaluation\n  hint: in .theta.toml: [[evaluation]]" in said
