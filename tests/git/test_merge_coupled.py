"""Tensors that mean something only together, and what no strategy may do, with real Git."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import ml_dtypes
import numpy as np
import pytest

from tests.scenarios.checkpoints import NAME, Tensors, safetensors
from tests.scenarios.containers import gguf
from tests.scenarios.merges import branches
from tests.scenarios.repositories import Repo

CODES = np.random.default_rng(0).integers(-90, 90, (8, 64)).astype(np.int8)


def quantised(codes: np.ndarray, scale: float, weight: float = 0.0) -> bytes:
    return safetensors(
        {
            "l.weight_qdata": codes,
            "l.weight_scale": np.full((8, 1), scale, np.float32),
            "norm.weight": np.full(300, weight, np.float32),
        }
    )


BASE, OURS, THEIRS = quantised(CODES, 1), quantised(CODES // 2, 2, 1), quantised(CODES + 1, 1)
TAKEN = {"ours": OURS, "theirs": quantised(CODES + 1, 1, 1), "base": quantised(CODES, 1, 1)}


def content(repo: Repo, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def merged(repo: Repo, strategy: str = "") -> subprocess.CompletedProcess[bytes]:
    options = ["--strategy", strategy] if strategy else []
    return repo.run("git", "theta", "merge", "side", *options, ok=(0, 1))


def test_a_quantised_module_is_one_conflict_and_one_choice(repo: Repo) -> None:
    branches(repo, BASE, OURS, THEIRS)
    done = repo.run("git", "merge", "side", ok=(0, 1))
    assert done.returncode == 1
    assert done.stderr.count(b"both sides changed the quantised l:") == 1
    assert content(repo) == OURS
    still = repo.run("git", "theta", "resolve", NAME, "--strategy", "average", ok=(0, 1))
    assert still.returncode == 1
    for side in ("theirs", "base", "ours"):
        repo.git("theta", "resolve", NAME, "-t", "l.weight_scale", "--strategy", side)
        assert content(repo) == TAKEN[side]


@pytest.mark.parametrize("side", ["ours", "theirs", "base"])
def test_a_committed_rule_for_a_part_is_one_for_the_whole(repo: Repo, side: str) -> None:
    branches(repo, BASE, OURS, THEIRS)
    rule = f'[[merge.tensor]]\npattern = "*.weight_qdata"\nstrategy = "{side}"\n'
    (repo.path / ".theta.toml").write_text('[merge]\nstrategy = "average"\n' + rule)
    repo.git("merge", "-q", "-m", "merge", "side")
    assert content(repo) == TAKEN[side]


def test_a_rebase_does_not_reapply_codes(repo: Repo) -> None:
    branches(repo, BASE, OURS, THEIRS)
    repo.git("checkout", "-q", "side")
    done = repo.run("git", "rebase", "main", ok=(0, 1))
    assert done.returncode == 1
    assert content(repo) == OURS
    repo.git("theta", "resolve", NAME, "--strategy", "theirs")
    assert content(repo) == TAKEN["theirs"]


@pytest.mark.parametrize(
    ("side", "codes", "scale"), [("ours", CODES // 2, 2), ("theirs", CODES, 3)]
)
def test_several_branches_take_a_group_from_one(
    repo: Repo, side: str, codes: np.ndarray, scale: float
) -> None:
    branches(repo, BASE, OURS, THEIRS)
    repo.git("checkout", "-q", "-b", "third", "main~1")
    repo.write(NAME, quantised(CODES, 3))
    repo.commit("third")
    repo.git("checkout", "-q", "main")
    done = repo.run("git", "theta", "merge", "side", "third", "-s", "average", ok=(0, 1))
    assert done.returncode == 1
    assert b"several sides changed the quantised l" in done.stderr
    assert content(repo) == OURS
    repo.git("theta", "merge", "side", "third", "--strategy", side)
    assert content(repo) == quantised(codes, scale, 1)


def test_the_mergetool_shows_a_group_as_one_row(repo: Repo) -> None:
    branches(repo, BASE, OURS, THEIRS)
    repo.run("git", "merge", "side", ok=(0, 1))
    done = repo.run("git", "theta", "mergetool", NAME, "--plain", stdin=b"1 theirs\naccept\n")
    assert b"1 of 1 parts open" in done.stdout
    assert content(repo) == TAKEN["theirs"]


def test_a_block_of_gguf_has_the_bytes_of_one_side(repo: Repo) -> None:
    def file(seed: int) -> bytes:
        data = np.random.default_rng(seed).integers(0, 256, 16 * 2 * 34, np.uint8).tobytes()
        return gguf({"blk.0.attn_q.weight": (8, (16, 64), data)})

    base, ours, theirs = file(0), bytearray(file(0)), bytearray(file(0))
    ours[-34] ^= 1  # the scale of the last block, and one of its codes
    theirs[-1] ^= 1
    repo.git("theta", "track", "*.gguf")
    repo.commit("track")
    branches(repo, base, bytes(ours), bytes(theirs), "m.gguf")
    assert repo.run("git", "merge", "side", ok=(0, 1)).returncode == 1
    assert content(repo, "m.gguf") == ours
    repo.git("theta", "resolve", "m.gguf", "--strategy", "theirs")
    assert content(repo, "m.gguf") == theirs


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "kind", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
)
@pytest.mark.parametrize("strategy", ["task-arithmetic", "reapply"])
def test_finite_numbers_stay_finite(repo: Repo, kind: type, strategy: str) -> None:
    top = float(ml_dtypes.finfo(kind).max)
    old, mine, yours = (np.full(300, top * part).astype(kind) for part in (0.25, 0.9375, 0.875))
    branches(repo, *(safetensors({"w": one}) for one in (old, mine, yours)))
    done = merged(repo, strategy)
    assert done.returncode == 1
    assert re.search(
        rb"w: [\d,]+ entries would be infinite or NaN, beyond the range of ", done.stderr
    )
    assert content(repo) == safetensors({"w": mine})
    repo.git("theta", "resolve", NAME, "--strategy", "average")


def test_several_finite_numbers_stay_finite(repo: Repo) -> None:
    old, *sides = (np.full(300, value, np.float16) for value in (0, 4e4, 3e4, 2e4))
    branches(repo, *(safetensors({"w": one}) for one in (old, *sides[:2])))
    repo.git("checkout", "-q", "-b", "third", "main~1")
    repo.write(NAME, safetensors({"w": sides[2]}))
    repo.commit("third")
    repo.git("checkout", "-q", "main")
    done = repo.run("git", "theta", "merge", "side", "third", "-s", "task-arithmetic", ok=(0, 1))
    assert done.returncode == 1
    assert b"w: 300 entries would be infinite or NaN" in done.stderr


def test_a_cast_on_one_side_keeps_finite_numbers_finite(repo: Repo) -> None:
    old = np.arange(300, dtype=np.float32)
    yours = old.copy()
    yours[7] = 1e6
    branches(repo, *(safetensors({"w": one}) for one in (old, old.astype(np.float16), yours)))
    done = repo.run("git", "merge", "side", ok=(0, 1))
    assert done.returncode == 1
    assert b"w: 1 entries would be infinite or NaN, beyond the range of F16" in done.stderr


A, B = "model.l.lora_A.weight", "model.l.lora_B.weight"


def adapter(seed: int, near: Tensors | None = None) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {name: random.normal(size=shape) for name, shape in ((A, (4, 32)), (B, (24, 4)))}
    if near is not None:
        made = {name: near[name] + 0.01 * value for name, value in made.items()}
    return {name: value.astype(np.float32) for name, value in made.items()}


def product(data: bytes) -> np.ndarray:
    from safetensors.numpy import load

    tensors = load(data)
    return np.asarray(tensors[B] @ tensors[A])


@pytest.mark.parametrize("strategy", ["average", "task-arithmetic", "reapply"])
def test_factors_are_blended_by_their_product(repo: Repo, strategy: str) -> None:
    base = adapter(0)
    files = [safetensors(one) for one in (base, adapter(1, base), adapter(2, base))]
    branches(repo, *files)
    old, mine, yours = (product(one) for one in files)
    done = merged(repo, strategy)
    assert done.returncode == 0
    assert b"% of its length was cut off" in done.stderr
    wanted = (mine + yours) / 2 if strategy == "average" else mine + yours - old
    off = np.linalg.norm(product(content(repo)) - wanted) / np.linalg.norm(wanted)
    assert off < 1e-3


@pytest.mark.parametrize("strategy", ["", "ties", "slerp"])
def test_factors_are_a_conflict_otherwise(repo: Repo, strategy: str) -> None:
    files = [safetensors(adapter(seed)) for seed in range(3)]
    branches(repo, *files)
    done = merged(repo, strategy)
    assert done.returncode == 1
    assert done.stderr.count(b"only their product has a meaning") == 1
    assert content(repo) == files[1]
    repo.git("theta", "resolve", NAME, "--strategy", "theirs")
    assert content(repo) == files[2]


def test_factors_that_are_scaled_differently_are_a_conflict(repo: Repo) -> None:
    branches(repo, *(safetensors(adapter(seed)) for seed in range(3)))
    repo.write("adapter_config.json", json.dumps({"r": 4, "lora_alpha": 8}).encode())
    repo.commit("config")
    done = merged(repo, "average")
    assert done.returncode == 1
    assert b"adapter_config.json is not beside it in every version" in done.stderr


W = {f"l.{n}.weight": np.full((16, 32), n, np.float32) for n in range(3)}
TRAINED = {name: value + 1 for name, value in W.items()}


@pytest.mark.sample(3)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "encoder."])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_uniform_rename_is_followed(repo: Repo, prefix: str, flipped: bool) -> None:
    renamed = safetensors({prefix + name: value for name, value in W.items()})
    sides = [renamed, safetensors(TRAINED)]
    branches(repo, safetensors(W), *(reversed(sides) if flipped else sides))
    repo.git("merge", "-q", "-m", "merge", "side")
    assert content(repo) == safetensors({prefix + name: value for name, value in TRAINED.items()})


def test_a_prefix_that_is_taken_away_is_followed_where_both_trained(repo: Repo) -> None:
    def wrapped(tensors: Tensors) -> bytes:
        return safetensors({f"module.{name}": value for name, value in tensors.items()})

    ours = {**W, "l.0.weight": W["l.0.weight"] + 2}
    theirs = {**W, "l.1.weight": W["l.1.weight"] + 3}
    branches(repo, wrapped(W), safetensors(ours), wrapped(theirs))
    repo.git("merge", "-q", "-m", "merge", "side")
    assert content(repo) == safetensors({**ours, "l.1.weight": theirs["l.1.weight"]})


def test_training_is_not_left_under_a_name_that_nothing_reads(repo: Repo) -> None:
    new = {name: value for name, value in W.items() if name != "l.0.weight"}
    ours = {**new, "other.weight": W["l.0.weight"] * 2 + 5}
    branches(repo, safetensors(W), safetensors(ours), safetensors(TRAINED))
    done = repo.run("git", "merge", "side", ok=(0, 1))
    assert done.returncode == 1
    assert b"the change would be lost" in done.stderr
    repo.git("theta", "resolve", NAME, "--strategy", "theirs")
    assert content(repo) == safetensors(TRAINED)
    repo.git("theta", "resolve", NAME, "-t", "l.0.weight", "--strategy", "ours")
    kept = {name: TRAINED[name] for name in new}
    assert content(repo) == safetensors({**kept, "other.weight": ours["other.weight"]})


@pytest.mark.parametrize("how", ["setting", "variable"])
def test_resolve_leaves_a_manifest_where_manifests_are_wanted(repo: Repo, how: str) -> None:
    branches(repo, BASE, OURS, THEIRS)
    repo.run("git", "merge", "side", ok=(0, 1))
    if how == "setting":
        repo.git("config", "theta.skipSmudge", "true")
    environment = {"GIT_THETA_SKIP_SMUDGE": "1"} if how == "variable" else {}
    repo.run("git", "theta", "resolve", NAME, "--strategy", "theirs", env=environment)
    assert content(repo).startswith(b"git-theta manifest")


IDS = np.arange(600).reshape(20, 30)
PACKED = CODES.astype(np.int32)
SCENES: dict[str, tuple[Tensors, ...]] = {
    "codes": tuple({"l.qweight": PACKED + n, "l.scales": np.ones(8)} for n in range(3)),
    "ids": tuple({"ids": IDS + n} for n in range(3)),
    "few ids": tuple({"ids": IDS[0] + n} for n in range(3)),
    "removed": ({"w": np.zeros(300)}, {"v": np.zeros(3)}, {"w": np.ones(300)}),
    "optimizer": tuple({"state.0.exp_avg": np.full(300, float(n))} for n in range(3)),
    "shapes": ({"w": np.zeros(30)}, {"w": np.zeros(31)}, {"w": np.zeros(32)}),
    "NaN": ({"w": np.zeros(30)}, {"w": np.ones(30)}, {"w": np.full(30, np.nan)}),
    "factors": (adapter(0), adapter(1), adapter(2)),
    "weights": tuple({"w": np.full(300, float(n))} for n in range(3)),
    "both": tuple({"w": np.full(300, float(n)), "ids": IDS + n} for n in range(3)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_every_hint_settles_what_it_is_given_for(repo: Repo, scene: str) -> None:
    base, ours, theirs = (safetensors(one) for one in SCENES[scene])
    branches(repo, base, ours, theirs)
    done = repo.run("git", "merge", "side", ok=(0, 1))
    assert done.returncode == 1
    text = done.stderr.decode()
    (hint,) = re.findall(r"git theta resolve .*? --strategy (.*)", text)
    for strategy in re.findall(r"[a-z]+", hint.replace("or ", "")):
        repo.run("git", "theta", "resolve", NAME, "--abort", ok=(0, 1))
        repo.git("theta", "resolve", NAME, "--strategy", strategy)


def test_a_pointer_of_git_lfs_whose_object_is_nowhere_is_called_so(repo: Repo) -> None:
    branches(repo, BASE, OURS, THEIRS)
    repo.git("checkout", "-q", "side")
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 4242\n"
    blob = repo.run("git", "hash-object", "-w", "--stdin", stdin=text.encode()).stdout.decode()
    repo.git("update-index", "--cacheinfo", f"100644,{blob.strip()},{NAME}")
    repo.git("commit", "-q", "-m", "pointer")
    repo.git("checkout", "-q", "-f", "main")
    done = repo.run("git", "merge", "side", ok=(0, 1))
    assert done.returncode == 1
    assert b"is stored by git-lfs, and its object sha256:1111" in done.stderr
    (hint,) = re.findall(r"git merge --abort", done.stderr.decode())
    repo.run(*shlex.split(hint))
    assert content(repo) == OURS
