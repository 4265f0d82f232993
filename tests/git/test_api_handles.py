"""What the interface offers besides: safe_open, a trainer's callback, notebook and reference."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import git_theta_ext as theta
from git_theta_ext.api.integrations import CommitCallback, latest_metrics
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.git import repository as repositories
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.training import Model

ROOT = Path(__file__).parents[2]
NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"


@pytest.fixture
def stored(repo: Repo) -> Repo:
    def make() -> None:
        repo.write(NAME, safetensors(model(), {"step": "1"}))
        repo.commit()

    repo.once(make)
    return repo


# -- safe_open -------------------------------------------------------------------------------------


def test_a_handle_is_like_that_of_safetensors(stored: Repo) -> None:
    from safetensors import safe_open

    with (
        theta.safe_open(NAME, framework="np", repository=stored.path) as ours,
        safe_open(stored.path / NAME, framework="np") as theirs,
    ):
        assert set(ours.keys()) == set(theirs.keys())
        assert ours.metadata() == theirs.metadata()
        expected = theirs.get_slice(QUERY)
        found = ours.get_slice(QUERY)
        assert found.get_shape() == expected.get_shape()
        assert found.get_dtype() == expected.get_dtype()
        assert np.array_equal(ours.get_tensor(QUERY), theirs.get_tensor(QUERY))
        whole = theirs.get_tensor(QUERY)
        for index in (
            np.s_[3:9], np.s_[:, 5], np.s_[2:4, 1:3], np.s_[7], np.s_[-1, ..., 0], np.s_[...],
            np.s_[::2], np.s_[5:1],
        ):  # fmt: skip
            assert np.array_equal(found[index], whole[index])


def test_a_part_and_a_selection_of_a_version_that_is_stored_as_it_is(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    arrays = {"a": random.normal(0, 1, (300, 200)).astype(np.float32), "b": np.ones(3, np.float32)}
    repo.git("config", "theta.compress", "false")
    repo.git("config", "theta.packBelow", "0")
    repo.write(NAME, safetensors(arrays))
    repo.commit()
    with theta.open(NAME, repository=repo.path) as stored:
        (row, _) = stored.to_records()
        assert row["updates"] == ["dense"]
        assert row["stored"] > row["bytes"]
        assert np.array_equal(stored["a", :, 3:5], arrays["a"][:, 3:5])
        assert np.array_equal(stored.rows("a", 4, 9), arrays["a"][4:9])
        assert stored["a", 7, 1] == arrays["a"][7, 1]
        with pytest.raises(IndexError, match="300 rows, none at 300"):
            stored["a", 300]
        monkeypatch.setitem(sys.modules, "jax", None)
        with pytest.raises(UsageError, match="jax is not installed"):
            stored.select("a", framework="jax")
        found = stored.select()
    assert list(found) == ["a", "b"]
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    repo.git("config", "theta.compress", "perhaps")
    repo.write(NAME, safetensors({"c": arrays["a"] + 1}))
    said = repo.run("git", "add", NAME, ok=(1, 128)).stderr.decode()
    assert "theta.compress is 'perhaps', not true or false" in said


def test_what_a_handle_refuses(stored: Repo) -> None:
    with pytest.raises(UsageError, match="unknown framework 'nope'"):
        theta.safe_open(NAME, framework="nope", repository=stored.path)
    with pytest.raises(UsageError, match="no device 'cuda'"):
        theta.safe_open(NAME, device="cuda", repository=stored.path)
    handle = theta.safe_open(NAME, repository=stored.path)
    with pytest.raises(KeyError, match="no tensor 'nope'"):
        handle.get_slice("nope")
    with pytest.raises(IndexError, match="64 rows, none at 64"):
        handle.get_slice(QUERY)[64]
    assert handle.get_slice("num_batches_tracked")[()] == model()["num_batches_tracked"]


def test_names_come_in_the_order_of_safetensors(repo: Repo) -> None:
    from safetensors import safe_open

    values = {name: np.full(2, number, np.float32) for number, name in
              enumerate(("z", "layers.10.w", "layers.2.w", "B", "a"))}  # fmt: skip
    repo.write(NAME, safetensors(values))
    repo.commit()
    with (
        theta.safe_open(NAME, framework="np", repository=repo.path) as ours,
        safe_open(repo.path / NAME, framework="np") as theirs,
    ):
        assert {one for one in dir(theirs) if not one.startswith("_")} <= set(dir(ours))
        assert ours.keys() == theirs.keys() == sorted(values)
        assert ours.offset_keys() == theirs.offset_keys() == list(values)
        assert list(ours.get_tensors()) == list(theirs.get_tensors())
        for name, value in ours.get_tensors().items():
            assert np.array_equal(value, values[name])


def test_names_of_a_sharded_model_come_file_by_file(repo: Repo) -> None:
    for number, names in ((1, "zb"), (2, "ya")):
        held = {name: np.full(2, ord(name), np.float32) for name in names}
        repo.write(f"model-0000{number}-of-00002.safetensors", safetensors(held))
    repo.commit()
    with theta.safe_open("model-*-of-*.safetensors", repository=repo.path) as file:
        assert file.keys() == ["a", "b", "y", "z"]
        assert file.offset_keys() == ["z", "b", "y", "a"]


def test_a_shard_that_is_stored_otherwise_is_not_left_out(repo: Repo) -> None:
    name = "model-0000{}-of-00002.safetensors"
    repo.write(name.format(1), safetensors({"a": np.ones(2, np.float32)}))
    repo.commit()
    (repo.path / ".gitattributes").unlink()
    repo.write(name.format(2), safetensors({"b": np.ones(2, np.float32)}))
    # By name: an index as young as its files makes `git add .` read the first one again, raw now.
    repo.git("add", ".gitattributes", name.format(2))
    repo.git("commit", "-qm", "raw")
    with pytest.raises(UsageError, match=r"-00002-of-00002.*is not stored tensor by tensor"):
        theta.open("model-*-of-*.safetensors", repository=repo.path)


def framework(name: str, made: Any) -> dict[str, Any]:
    """Stand-ins for a framework that makes its tensors so."""
    package: Any = ModuleType(name)
    if name == "jax":
        package.device_put = lambda array, **options: made(array)
        return {name: package}
    parts = {"mlx": "core"}
    if name == "tensorflow":
        package.convert_to_tensor = made
        return {name: package}
    part: Any = ModuleType(f"{name}.{parts[name]}")
    part.array = made
    setattr(package, parts[name], part)
    return {name: package, f"{name}.{parts[name]}": part}


@pytest.mark.parametrize(
    ("short", "name"), [("jax", "jax"), ("flax", "jax"), ("tf", "tensorflow"), ("mlx", "mlx")]
)
def test_other_frameworks_make_tensors_or_say_that_they_would_narrow(
    stored: Repo, monkeypatch: pytest.MonkeyPatch, short: Any, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"{name} is not installed"):
        theta.safe_open(NAME, framework=short, repository=stored.path)

    def narrow(array: Any) -> SimpleNamespace:
        dtype = np.dtype("i4") if array.dtype == np.int64 else array.dtype
        said: Any = SimpleNamespace(as_numpy_dtype=dtype) if name == "tensorflow" else dtype
        said = f"mlx.core.{dtype.name}" if name == "mlx" else said
        return SimpleNamespace(dtype=said, array=array)

    for key, module in framework(name, narrow).items():
        monkeypatch.setitem(sys.modules, key, module)
    with theta.safe_open(NAME, framework=short, repository=stored.path) as file:
        assert np.array_equal(file.get_tensor(QUERY).array, model()[QUERY])
        assert file.get_slice(QUERY)[2:4].array.shape == (2, 64)
        with pytest.raises(UsageError, match="would make int32 of it"):
            file.get_tensor("num_batches_tracked")
    with pytest.raises(UsageError, match=f"{name} has no device 'cuda'"):
        theta.safe_open(NAME, framework=short, device="cuda", repository=stored.path)


def test_a_comparison_gives_plain_rows(stored: Repo) -> None:
    stored.git("tag", "v1")
    stored.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}))
    stored.commit()
    (row,) = theta.diff("v1", "HEAD", NAME, repository=stored.path).to_records()
    assert (row["name"], row["status"], row["new_dtype"], row["new_shape"]) == (
        QUERY,
        "changed",
        "F32",
        (64, 64),
    )
    assert row["changed_entries"] > 0
    assert row["stored"] > 0


# -- opening quickly -------------------------------------------------------------------------------


@pytest.fixture
def plain(stored: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository in an environment that steers Git nowhere."""
    for name in list(os.environ):
        if name.startswith("GIT_CONFIG"):
            monkeypatch.delenv(name)
    return stored


def test_a_tensor_is_read_without_starting_a_process(
    plain: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: Any, **others: Any) -> bytes:
        raise AssertionError(f"git {arguments} was run")

    monkeypatch.setattr(repositories, "run_git", started)
    for folder in (plain.path, plain.path / ".git"):
        assert np.array_equal(theta.open(NAME, repository=folder)[QUERY], model()[QUERY])


def test_the_quick_way_finds_the_same_repository(plain: Repo, tmp_path: Path) -> None:
    plain.git("worktree", "add", "-q", str(tmp_path / "further"))
    plain.git("clone", "-q", "--bare", str(plain.path), str(tmp_path / "bare.git"))
    (plain.path / "sub").mkdir()
    for folder in (
        plain.path, plain.path / "sub", plain.path / ".git", tmp_path / "further",
        tmp_path / "bare.git",
    ):  # fmt: skip
        slow, quick = Repository.discover(folder), Repository.discover_quickly(folder)
        assert quick.git_dir.samefile(slow.git_dir)
        assert quick.common_dir.samefile(slow.common_dir)
        assert (quick.work_tree is None) == (slow.work_tree is None)
        if slow.work_tree is not None and quick.work_tree is not None:
            assert quick.work_tree.samefile(slow.work_tree)
        assert os.path.realpath(store_of(quick).root) == os.path.realpath(store_of(slow).root)
        for name in (f"HEAD:{NAME}", "HEAD", "main^{commit}", "HEAD~", ":/Track", "nowhere"):
            assert quick.resolve(name) == slow.resolve(name)
    with pytest.raises(RepositoryError):
        Repository.discover_quickly(tmp_path)


def test_a_store_elsewhere_is_found(plain: Repo, tmp_path: Path) -> None:
    (plain.path / ".git/theta").rename(tmp_path / "elsewhere")
    plain.git("config", "theta.storage", str(tmp_path / "elsewhere"))
    assert np.array_equal(theta.open(NAME, repository=plain.path)[QUERY], model()[QUERY])


def test_variables_that_steer_git_are_respected(
    plain: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(plain.path / ".git"))
    assert np.array_equal(theta.open(NAME, repository=tmp_path)[QUERY], model()[QUERY])


# -- a trainer -------------------------------------------------------------------------------------


def save(repo: Repo, step: int) -> tuple[Any, Any]:
    """What a trainer has when it has saved a checkpoint."""
    folder = f"run/checkpoint-{step}"
    arrays = {**model(), QUERY: changed(model()[QUERY], seed=step)}
    repo.write(f"{folder}/model.safetensors", safetensors(arrays))
    repo.write(f"{folder}/trainer_state.json", json.dumps({"step": step}).encode())
    history = [
        {"loss": 2.5, "epoch": 0.5, "step": step - 1},
        {"loss": 1.25, "learning_rate": 1e-4, "epoch": 1.0, "step": step},
        {"eval_loss": 1.5, "epoch": 1.0, "step": step, "note": "text"},
    ]
    args = SimpleNamespace(output_dir=str(repo.path / "run"))
    state = SimpleNamespace(
        global_step=step, epoch=1.0, log_history=history, is_world_process_zero=True
    )
    return args, state


def saved(callback: CommitCallback, repo: Repo, step: int) -> None:
    """One save of a trainer, and its end: it waits for the commit."""
    args, state = save(repo, step)
    callback.on_save(args, state, None, model=object())
    callback.on_train_end(args, state, None)


def test_every_saved_checkpoint_is_a_commit(repo: Repo) -> None:
    repo.write("staged.txt", b"by the user")
    repo.git("add", "staged.txt")
    callback = CommitCallback(prefix="tiny")
    lock = repo.path / ".git/index.lock"
    lock.write_bytes(b"")  # the user's git is at work for a moment
    threading.Timer(0.3, lock.unlink).start()
    saved(callback, repo, 10)
    assert repo.git("log", "-1", "--format=%B").strip().splitlines() == [
        "tiny: step 10, eval_loss 1.5, loss 1.25",
        "",
        "epoch: 1",
        "eval_loss: 1.5",
        "learning_rate: 0.0001",
        "loss: 1.25",
    ]
    assert repo.status() == "A  staged.txt\n"
    found = theta.open("run/checkpoint-10/model.safetensors", repository=repo.path)
    assert np.array_equal(found[QUERY], changed(model()[QUERY], seed=10))
    before = repo.git("rev-parse", "HEAD")
    saved(callback, repo, 10)
    assert repo.git("rev-parse", "HEAD") == before


def test_checkpoints_that_the_trainer_removes_stay_in_history(repo: Repo) -> None:
    callback = CommitCallback()
    saved(callback, repo, 10)
    first = repo.git("rev-parse", "HEAD").strip()
    for path in (repo.path / "run/checkpoint-10").iterdir():
        path.unlink()
    saved(callback, repo, 20)
    assert repo.git("ls-tree", "-r", "--name-only", "HEAD", "run").split() == [
        "run/checkpoint-20/model.safetensors",
        "run/checkpoint-20/trainer_state.json",
    ]
    old = theta.open(f"{first}:run/checkpoint-10/model.safetensors", repository=repo.path)
    new = theta.open("run/checkpoint-20/model.safetensors", repository=repo.path)
    assert (
        new.entry("encoder.layer.0.attention.query.weight").blocks
        == old.entry("encoder.layer.0.attention.query.weight").blocks
    )


def test_a_commit_can_be_pushed(repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "host.git"))
    saved(CommitCallback(push="origin"), repo, 10)
    pushed = repo.git("--git-dir", str(tmp_path / "host.git"), "rev-parse", "main")
    assert pushed == repo.git("rev-parse", "HEAD")


def test_a_failing_push_is_told_as_that(repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD")
    with pytest.raises(RepositoryError, match="was committed and not pushed to nowhere"):
        saved(CommitCallback(push="nowhere"), repo, 10)
    assert repo.git("rev-parse", "HEAD~1") == before


def test_a_folder_that_git_ignores_is_told(repo: Repo) -> None:
    repo.write(".gitignore", b"*.safetensors\n*.json\n")
    repo.commit("Ignore runs")
    before = repo.git("rev-parse", "HEAD")
    with pytest.raises(UsageError, match=r"Git ignores all of .*\.gitignore"):
        saved(CommitCallback(), repo, 10)
    assert repo.git("rev-parse", "HEAD") == before


def test_a_failing_commit_does_not_end_the_training(sealed: Path, tmp_path: Path) -> None:
    args, state = save(Repo(tmp_path), 10)
    callback = CommitCallback()
    callback.on_save(args, state, None)
    with pytest.warns(UserWarning, match="a checkpoint was not committed"):
        callback.on_save(args, state, None)
    with pytest.raises(RepositoryError) as error:
        callback.on_train_end(args, state, None)
    assert error.value.__notes__ == ["errors of commits in this training: 2"]
    callback.on_train_end(args, state, None)
    callback = CommitCallback(strict=True)
    callback.on_save(args, state, None)
    for event in (callback.on_save, callback.on_train_end):
        with pytest.raises(RepositoryError):
            event(args, state, None)
    state.is_world_process_zero = False
    CommitCallback(strict=True).on_save(args, state, None)


def test_statistics_are_collected_and_committed(repo: Repo) -> None:
    weight = model()[QUERY]
    trained = Model(QUERY.removesuffix(".weight"), weight)
    callback = CommitCallback(statistics=("fisher", "gram"), strict=True)
    args, state = save(repo, 10)
    callback.on_train_begin(args, state, None, model=trained, optimizer=None)
    inputs = np.ones((4, weight.shape[1]), np.float32)
    trained.step(inputs, np.full(weight.shape, 3.0))
    callback.on_save(args, state, None)
    callback.on_train_end(args, state, None)
    assert not trained.outer
    place = "run/checkpoint-10/model"
    fisher = theta.open(f"{place}.fisher.safetensors", repository=repo.path)
    gram = theta.open(f"{place}.gram.safetensors", repository=repo.path)
    assert np.array_equal(fisher[QUERY], np.full(weight.shape, 9.0))
    assert np.array_equal(gram[QUERY], inputs.T @ inputs / 4)
    assert repo.status() == ""
    with pytest.warns(UserWarning, match=r"no statistics are collected.*some of fisher, gram"):
        CommitCallback(statistics=("hessian",)).on_train_begin(args, state, None, model=trained)


def test_other_events_of_a_trainer_pass() -> None:
    callback = theta.CommitCallback()
    assert callback.on_step_end(1, 2, 3, model=4) is None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        callback.nothing  # noqa: B018
    assert latest_metrics([{"a": 1, "step": 9}, {"a": 2, "text": "x"}]) == {"a": 2.0}


# -- documentation ---------------------------------------------------------------------------------


def test_the_notebook_runs(sealed: Path, tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "docs/notebook.ipynb").read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert all(cell["outputs"] == [] for cell in cells)
    text = "\n".join("".join(cell["source"]) for cell in cells)
    folder = tmp_path / "empty"
    folder.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PATH": path}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "changed layers.3.mlp.weight" in done.stdout


def test_the_reference_is_complete_and_fresh() -> None:
    script = runpy.run_path(str(ROOT / "docs/make_api_reference.py"))
    expected = script["reference"]()
    found = (ROOT / "docs/api-reference.md").read_text("utf-8")
    assert found == expected, "run: python docs/make_api_reference.py"
    for name in theta.__all__:
        assert f"`{name}`" in found
