"""`git theta diff` in all its forms."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"
THETA = (sys.executable, "-m", "git_theta_ext.cli.main")
VALUE = "encoder.layer.2.attention.value.weight"


@pytest.fixture
def versions(repo: Repo) -> Repo:
    def make() -> None:
        repo.write(NAME, safetensors(model()))
        repo.commit("first")
        tensors = {**model(), QUERY: changed(model()[QUERY]), VALUE: changed(model()[VALUE], 1e-2)}
        repo.write(NAME, safetensors(tensors))
        repo.write("notes.txt", b"not a checkpoint")
        repo.commit("second")

    repo.once(make)
    return repo


def report(repo: Repo, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(repo.theta("diff", "--format", "json", *arguments))[
        "files"
    ]
    return found


def test_revisions_index_and_work_tree(versions: Repo) -> None:
    (found,) = report(versions, "HEAD~1", "HEAD")
    assert [one["name"] for one in found["changes"]] == [QUERY, VALUE]  # type: ignore[index, attr-defined]
    assert report(versions, "HEAD~1..HEAD") == [found]
    assert report(versions) == []
    versions.write(NAME, safetensors(model()))
    assert len(report(versions)) == 1
    assert report(versions, "HEAD~1") == []
    assert report(versions, "--cached") == []
    versions.git("add", NAME)
    assert len(report(versions, "--cached")) == 1


def test_the_numbers(versions: Repo) -> None:
    (found,) = report(versions, "HEAD~1", "HEAD", "--tensor", "*.value.*")
    (one,) = found["changes"]  # type: ignore[misc]
    old = model()[VALUE].astype(np.float64)
    new = changed(model()[VALUE], 1e-2).astype(np.float64)
    values = one["values"]
    assert values["change"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old))
    assert values["mean"] == [pytest.approx(old.mean()), pytest.approx(new.mean())]
    at = np.unravel_index(np.abs(new - old).argmax(), old.shape)
    assert values["largest_at"] == str([int(index) for index in at])
    assert sum(values["histogram"]) > 0


def test_exit_code_names_and_order(versions: Repo) -> None:
    versions.run(*THETA, "diff", "--exit-code", "HEAD", "HEAD")
    text = versions.theta("diff", "HEAD~1", "HEAD", "--name-only", "--sort", "change")
    assert text.splitlines() == [f"{NAME}: {VALUE}", f"{NAME}: {QUERY}"]
    assert versions.run(*THETA, "diff", "--exit-code", "HEAD~1", "HEAD", ok=(1,)).stdout


def test_the_counters_of_a_pickle(repo: Repo) -> None:
    def trained(step: int) -> bytes:
        weights = np.full(100, step, np.float32)
        value = {
            "state_dict": state_dict({"w": tensor(Storage("0", count=100), (100,))}),
            "global_step": step,
            "hyper_parameters": {"lr": 0.1, "name": "a\nb"},
        }
        return save(value, {"0": weights.tobytes()})

    repo.write("m.pt", trained(1200))
    repo.commit("first")
    repo.write("m.pt", trained(1800))
    repo.commit("second")
    text = repo.theta("diff", "HEAD~1", "HEAD")
    assert re.search(r"global_step +1200 → 1800", text)
    assert "lr" not in text


def test_markdown_of_hostile_names(repo: Repo) -> None:
    evil = "<img src=x onerror=alert(1)>|`@everyone`\n# heading\u202e"
    repo.write(NAME, safetensors({evil: np.ones(9, np.float32), "w": np.ones(99, np.float32)}))
    repo.commit("first")
    repo.write(NAME, safetensors({evil: np.zeros(9, np.float32), "w": np.ones(99, np.float32)}))
    repo.commit("second")
    text = repo.theta("diff", "HEAD~1", "HEAD", "--format", "markdown")
    row = next(line for line in text.splitlines() if "onerror" in line)
    assert "<img" not in text
    assert "@everyone" not in text
    assert "\u202e" not in text
    assert row.count("|") == 7


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.islands: list[str] = []
        self._data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._data = dict(attrs).get("type") == "application/json"
        assert not {name for name, _ in attrs} & {"src", "href", "onerror", "onclick"}

    def handle_data(self, data: str) -> None:
        if self._data:
            self.islands.append(data)
            self._data = False


def test_html_is_one_file_and_inert(repo: Repo) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    tensors = {f"layer.{n}.weight": np.full((8, 8), n, np.float32) for n in range(1, 4)}
    repo.write(NAME, safetensors({evil: np.ones(99, np.float32), **tensors}))
    repo.commit("first")
    moved = {name: value * np.float32(1.5) for name, value in tensors.items()}
    repo.write(NAME, safetensors({evil: np.zeros(99, np.float32), **moved}))
    repo.commit("second")
    repo.theta("diff", "HEAD~1", "HEAD", "--format", "html", "-o", "report.html")
    text = (repo.path / "report.html").read_text("utf-8")
    found = _Elements()
    found.feed(text)
    assert "img" not in found.tags
    assert "http" not in text.replace("http-equiv", "")
    rows = json.loads(found.islands[0])
    assert [row[0] for row in rows] == [evil, *tensors]
    assert found.tags.count("rect") >= 3


def test_what_is_no_revision_is_a_file(versions: Repo) -> None:
    done = versions.run(*THETA, "diff", "HEAD~1", "HEAD", "nothing.pt", ok=(2,))
    assert b"neither a revision nor a file" in done.stderr
    assert NAME in versions.theta("diff", "HEAD~1", "HEAD", "--", NAME)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((f"HEAD~1:{NAME}", "HEAD:nothing"), "there is no 'HEAD:nothing' here"),
        (("HEAD:nothing", f"HEAD~1:{NAME}"), "there is no 'HEAD:nothing' here"),
        ((f"HEAD~1:{NAME}", NAME), f"'HEAD~1:{NAME}' is one file, to be compared with one of "),
        ((f"HEAD~1:{NAME}",), f"'HEAD~1:{NAME}' is one file, to be compared with one of "),
    ],
)
def test_a_file_of_a_revision_that_is_there_is_not_called_missing(
    versions: Repo, words: tuple[str, ...], message: str
) -> None:
    done = versions.run(*THETA, "diff", *words, ok=(2,))
    assert message in done.stderr.decode()


def test_resized_retyped_and_added_tensors(repo: Repo) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(0, 0.02, (300, 64)).astype(np.float32)
    half = random.normal(0, 0.02, (64, 64)).astype(np.float32)
    repo.write(NAME, safetensors({"embed": rows, "w": half, "flat": half + 1}, {"step": "1200"}))
    repo.commit("first")
    more = np.concatenate([rows, random.normal(0, 0.02, (8, 64)).astype(np.float32)])
    fresh = np.full((2, 64), 0.5, np.float32)
    fresh[1, 3] = np.nan
    after = {"embed": more, "w": half.astype(np.float16), "flat": (half + 1).ravel(), "new": fresh}
    repo.write(NAME, safetensors(after, {"step": "1800"}))
    repo.commit("second")
    text = repo.theta("diff", "HEAD~1", "HEAD")
    assert re.search(r"~ embed +F32 \[300, 64\] → \[308, 64\]   8 rows added, others unch", text)
    assert re.search(r"added: mean -?[0-9.e-]+   std 0\.0[12]", text)
    assert re.search(r"~ w +F32 \[64, 64\] → F16 \[64, 64\]   retyped, only rounded", text)
    assert re.search(r"rounding 0\.0\d+ %", text)
    assert re.search(r"~ flat .*reshaped, same values", text)
    assert re.search(r"! new +F32 \[2, 64\]", text)
    assert "new: 1 NaN or infinite, the first at [1, 3]" in text
    assert re.search(r"metadata\.step +1200 → 1800", text)
    markdown = repo.theta("diff", "HEAD~1", "HEAD", "--format", "markdown")
    assert "8 rows added, others unchanged" in markdown
    assert "1 NaN or infinite" in markdown
    (found,) = report(repo, "HEAD~1", "HEAD", "--tensor", "embed")
    (one,) = found["changes"]  # type: ignore[misc]
    assert one["relation"] == ["8 rows added, others unchanged"]
    assert one["values"]["added_entries"] == 512
    assert one["values"]["change"] == 0


def test_another_container(repo: Repo) -> None:
    values = np.arange(100, dtype=np.float32)
    repo.write("m.bin", safetensors({"w": values}))
    repo.commit("first")
    state = state_dict({"w": tensor(Storage("0", count=100), (100,))})
    repo.write("m.bin", save(state, {"0": values.tobytes()}))
    repo.commit("second")
    assert "container  safetensors → torch-zip" in repo.theta("diff", "HEAD~1", "HEAD")
    markdown = repo.theta("diff", "HEAD~1", "HEAD", "--format", "markdown")
    assert "container: <code>safetensors</code> → <code>torch-zip</code>" in markdown


@pytest.mark.sample(2)
@pytest.mark.parametrize("form", ["markdown", "html"])
@pytest.mark.parametrize("words", [["HEAD~1", "HEAD"], ["HEAD~1..HEAD"], ["HEAD~1...HEAD"]])
def test_a_report_names_the_commits(versions: Repo, form: str, words: list[str]) -> None:
    text = versions.theta("diff", *words, "--format", form)
    for revision in ("HEAD~1", "HEAD"):
        assert versions.git("rev-parse", revision)[:12] in text
        assert versions.git("log", "-1", "--format=%s", revision).strip() in text
