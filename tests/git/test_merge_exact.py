"""Merges that need no strategy: what sides did apart, cast, added, removed, counted."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.scenarios import torchzip
from tests.scenarios.checkpoints import NAME, changed, model
from tests.scenarios.merges import QUERY, VALUE, branches, st
from tests.scenarios.repositories import Repo


def merged(repo: Repo, name: str = NAME) -> bytes:
    """What a merge makes of a file: the same once it is checked out again."""
    repo.git("merge", "-q", "-m", "merge", "side")
    found = (repo.path / name).read_bytes()
    assert repo.status() == ""
    repo.git("checkout", "-q", "HEAD~1")
    repo.git("checkout", "-q", "main")
    assert (repo.path / name).read_bytes() == found
    return found


def test_different_tensors_added_on_both_sides(repo: Repo) -> None:
    base = model()
    ones, twos = np.ones(100, np.float32), np.full(100, 2, np.float32)
    names = list(base)
    place = names.index(QUERY) + 1
    theirs = {}
    for number, (name, value) in enumerate(base.items()):
        if number == place:
            theirs["after.query"] = twos
        theirs[name] = value
    ours = {**base, "head.bias": ones}
    branches(
        repo,
        st(base, metadata={"format": "pt", "step": "7"}),
        st(ours, metadata={"format": "pt", "step": "9", "who": "ada"}),
        st(theirs, metadata={"format": "pt", "step": "12"}),
    )
    expected = {}
    for name, value in ours.items():
        expected[name] = value
        if name == QUERY:
            expected["after.query"] = twos
    assert merged(repo) == st(expected, metadata={"format": "pt", "step": "12", "who": "ada"})


def test_removed_on_one_side_and_added_on_the_other(repo: Repo) -> None:
    base = model()
    ours = {name: value for name, value in base.items() if name != VALUE}
    theirs = {**base, "new": np.ones(50, np.float32)}
    branches(repo, st(base), st(ours), st(theirs))
    assert merged(repo) == st({**ours, "new": np.ones(50, np.float32)})


def test_removed_on_one_side_and_changed_on_the_other_is_a_conflict(repo: Repo) -> None:
    base = model()
    ours = {name: value for name, value in base.items() if name != VALUE}
    branches(repo, st(base), st(ours), st(base, {VALUE: changed(base[VALUE])}))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"ours removed it, theirs changed it" in done.stderr
    assert (repo.path / NAME).read_bytes() == st(ours)


def test_cast_on_one_side_and_changed_on_the_other(repo: Repo) -> None:
    base = model()
    half = {
        name: value.astype(ml_dtypes.bfloat16) if value.dtype == np.float32 else value
        for name, value in base.items()
    }
    moved = changed(base[QUERY])
    branches(repo, st(base), st(half), st(base, {QUERY: moved}))
    assert merged(repo) == st(half, {QUERY: moved.astype(ml_dtypes.bfloat16)})


def test_cast_with_other_changes_collides(repo: Repo) -> None:
    base = model()
    half = (base[QUERY] + 1).astype(ml_dtypes.bfloat16)
    branches(repo, st(base), st(base, {QUERY: half}), st(base, {QUERY: changed(base[QUERY])}))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert QUERY.encode() in done.stderr
    assert (repo.path / NAME).read_bytes() == st(base, {QUERY: half})


def test_rows_added_on_one_side_and_entries_changed_on_the_other(repo: Repo) -> None:
    base = model()
    wider = np.concatenate([base[QUERY], np.full((6, 64), 3, np.float32)])
    moved = base[QUERY].copy()
    moved[10:12] = 7
    branches(repo, st(base), st(base, {QUERY: moved}), st(base, {QUERY: wider}))
    both = wider.copy()
    both[10:12] = 7
    assert merged(repo) == st(base, {QUERY: both})


def test_rows_added_on_both_sides_are_a_conflict_and_common_rows_merge(repo: Repo) -> None:
    base = model()
    ours = np.concatenate([base[QUERY], np.full((2, 64), 3, np.float32)])
    theirs = np.concatenate([base[QUERY], np.full((5, 64), 4, np.float32)])
    theirs[0] = 9
    branches(repo, st(base), st(base, {QUERY: ours}), st(base, {QUERY: theirs}))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"both sides added rows, 66 in ours and 69 in theirs" in done.stderr
    ours[0] = 9
    assert (repo.path / NAME).read_bytes() == st(base, {QUERY: ours})


def test_counters_take_the_larger_and_other_integers_conflict(repo: Repo) -> None:
    base = {**model(), "ids": np.arange(300, dtype=np.int64)}
    counter = "num_batches_tracked"
    ours = {counter: np.array(5, np.int64), "ids": base["ids"] + 1}
    theirs = {counter: np.array(9, np.int64), "ids": base["ids"] + 2}
    branches(repo, st(base), st(base, ours), st(base, theirs))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"ids" in done.stderr
    assert counter.encode() not in done.stderr
    assert (repo.path / NAME).read_bytes() == st(base, ours, {counter: theirs[counter]})


def test_nan_on_one_side_only_is_a_conflict_that_counts_them(repo: Repo) -> None:
    base = model()
    ours, theirs = base[QUERY].copy(), base[QUERY].copy()
    ours[0] = 1
    theirs[5, :3] = np.nan
    branches(repo, st(base), st(base, {QUERY: ours}), st(base, {QUERY: theirs}))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"3 NaN in theirs only" in done.stderr
    assert (repo.path / NAME).read_bytes() == st(base, {QUERY: ours})


def test_ties_stay_tied_or_conflict(repo: Repo) -> None:
    tied = {**model(), "head.tied": model()[QUERY]}
    both = changed(tied[QUERY])
    loose = {QUERY: changed(tied[QUERY], seed=8), "head.tied": changed(tied[QUERY], seed=9)}
    branches(repo, st(tied), st(tied, {QUERY: both, "head.tied": both}), st(tied, loose))
    done = repo.run("git", "merge", "side", ok=(1,), env={"GIT_THETA_MERGE": "average"})
    assert f"{QUERY}: tied to head.tied in ours, untied in theirs".encode() in done.stderr


def test_a_copy_of_a_tensor_that_the_other_side_changed_is_a_conflict(repo: Repo) -> None:
    base = model()
    untied = {"lm_head.weight": base[QUERY]}
    branches(repo, st(base), st(base, untied), st(base, {QUERY: changed(base[QUERY])}))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert f"lm_head.weight: a copy of {QUERY}, which theirs changed".encode() in done.stderr


def test_optimizer_state_is_never_blended(repo: Repo) -> None:
    name = "optimizer.state.0.exp_avg"
    base = {**model(), name: np.zeros(400, np.float32)}
    ours, theirs = np.zeros(400, np.float32), np.zeros(400, np.float32)
    ours[0], theirs[1] = 1, 1
    branches(repo, st(base), st(base, {name: ours}), st(base, {name: theirs}))
    done = repo.run("git", "merge", "side", ok=(1,), env={"GIT_THETA_MERGE": "average"})
    assert b"optimizer state is never blended" in done.stderr


def test_codes_of_one_side_never_meet_scales_of_the_other(repo: Repo) -> None:
    codes, scales = "q.qweight", "q.scales"
    base = {**model(), codes: np.zeros(400, np.int32), scales: np.ones(400, np.float16)}
    branches(
        repo,
        st(base),
        st(base, {codes: np.ones(400, np.int32)}),
        st(base, {scales: np.full(400, 2, np.float16)}),
    )
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"both sides changed the quantised q" in done.stderr
    assert (repo.path / NAME).read_bytes() == st(base, {codes: np.ones(400, np.int32)})


def test_the_same_change_on_both_sides_and_metadata_that_differs(repo: Repo) -> None:
    base = model()
    moved = {QUERY: changed(base[QUERY])}
    branches(
        repo,
        st(base, metadata={"a": "1"}),
        st(base, moved, metadata={"a": "2"}),
        st(base, moved, metadata={"a": "3"}),
    )
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"both sides changed the metadata a" in done.stderr
    assert (repo.path / NAME).read_bytes() == st(base, moved, metadata={"a": "2"})


def lightning(
    epoch: int, weight: np.ndarray, bias: np.ndarray, rate: float = 0.1, **more: object
) -> bytes:
    """A checkpoint as PyTorch Lightning nests it: counters in the pickle beside the weights."""
    tensors = {
        "weight": torchzip.tensor(torchzip.Storage("0", count=weight.size), weight.shape),
        "bias": torchzip.tensor(torchzip.Storage("1", count=bias.size), bias.shape),
    }
    progress = {"total": {"ready": epoch + 1, "completed": epoch}, "current": {"ready": epoch}}
    value = {
        "epoch": epoch,
        "global_step": 100 * epoch,
        "loops": {"fit_loop": {"epoch_progress": progress}},
        "state_dict": torchzip.state_dict(tensors),
        "lr_schedulers": [{"last_epoch": epoch, "_step_count": epoch + 1, "base_lrs": [rate]}],
        **more,
    }
    return torchzip.save(value, {"0": weight.tobytes(), "1": bias.tobytes()})


def test_pickles_that_differ_in_counters_merge(repo: Repo) -> None:
    weight, bias = np.ones((40, 8), np.float32), np.zeros(40, np.float32)
    branches(
        repo,
        lightning(1, weight, bias),
        lightning(300, weight + 1, bias),
        lightning(5, weight, bias + 1),
        "last.pt",
    )
    assert merged(repo, "last.pt") == lightning(300, weight + 1, bias + 1)


def test_the_side_that_changed_more_than_counters_gives_the_pickle(repo: Repo) -> None:
    weight, bias = np.ones((40, 8), np.float32), np.zeros(40, np.float32)
    branches(
        repo,
        lightning(1, weight, bias),
        lightning(300, weight + 1, bias),
        lightning(5, weight, bias + 1, 0.01),
        "last.pt",
    )
    assert merged(repo, "last.pt") == lightning(5, weight + 1, bias + 1, 0.01)


def test_pickles_that_differ_in_settings_are_a_clear_conflict(repo: Repo) -> None:
    weight, bias = np.ones((40, 8), np.float32), np.zeros(40, np.float32)
    branches(
        repo,
        lightning(1, weight, bias),
        lightning(2, weight + 1, bias, 0.5),
        lightning(3, weight, bias + 1, 0.01),
        "last.pt",
    )
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"ours changed lr_schedulers.0.base_lrs.0; theirs changed" in done.stderr
    assert (repo.path / "last.pt").read_bytes() == lightning(2, weight + 1, bias + 1, 0.5)


def test_a_file_added_on_both_sides(repo: Repo) -> None:
    shared = {QUERY: model()[QUERY]}
    one, two = {"a": np.ones(90, np.float32)}, {"b": np.ones(80, np.float32)}
    branches(repo, None, st(shared, one), st(shared, two))
    # A tensor of theirs follows the one that it followed in theirs.
    assert merged(repo) == st(shared, two, one)


def test_a_large_tensor_of_several_blocks(repo: Repo) -> None:
    base = {"table": np.zeros((9000, 1024), np.float32), "bias": np.zeros(10, np.float32)}
    ours, theirs = base["table"].copy(), base["table"].copy()
    ours[0], ours[8999] = 1, 1
    theirs[10], theirs[8998] = 2, 2
    branches(repo, st(base), st(base, {"table": ours}), st(base, {"table": theirs}))
    assert merged(repo) == st(base, {"table": ours + theirs})
