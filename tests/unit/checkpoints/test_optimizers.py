"""Second moments in files that PyTorch wrote, and which parameter is which tensor."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from git_theta_ext.checkpoints.optimizers import pairing
from git_theta_ext.checkpoints.optimizers.file import Shape
from git_theta_ext.checkpoints.optimizers.fisher import Fisher, opened
from git_theta_ext.checkpoints.optimizers.stored import Chunk, tiled
from git_theta_ext.core.errors import UsageError

FILES = Path(__file__).parents[2] / "golden" / "optimizers"
MODEL = FILES / "model.safetensors"
NAMES = FILES / "names.txt"


def expected(case: str) -> dict[str, np.ndarray]:
    """What torch says."""
    found = load_file(FILES / "expected.safetensors").items()
    return {name.partition("/")[2]: v for name, v in found if name.startswith(f"{case}/")}


def check(found: Fisher, wanted: dict[str, np.ndarray]) -> None:
    assert set(found.moments) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found.read(name), value, err_msg=name)


@pytest.mark.parametrize(
    ("name", "order", "case"),
    [
        ("plain.pt", NAMES, "plain"),
        ("plain.pt", FILES / "model.pt", "plain"),
        ("trainer.pt", NAMES, "trainer"),
        ("named.pt", None, "named"),
        ("fsdp.pt", None, "plain"),
        ("lightning.ckpt", None, "trainer"),
        ("eight-bit.pt", NAMES, "eight-bit"),
    ],
)
def test_moments_come_with_the_names_of_their_tensors(
    name: str, order: Path | None, case: str
) -> None:
    with opened(MODEL, [FILES / name], order, None) as found:
        check(found, expected(case))
        assert found.unmeasured == ()


def test_a_checkpoint_can_have_its_own_optimizer() -> None:
    place = FILES / "lightning.ckpt"
    with opened(place, [place], None, None) as found:
        check(found, {f"state_dict.model.{n}": v for n, v in expected("trainer").items()})


def test_the_order_is_that_of_a_model_in_pytorchs_format(tmp_path: Path) -> None:
    with opened(FILES / "model.pt", [FILES / "plain.pt"], None, None) as found:
        check(found, expected("plain"))
    beside = tmp_path / "pytorch_model.bin"
    beside.write_bytes((FILES / "model.pt").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(MODEL.read_bytes())
    with opened(tmp_path / "model.safetensors", [FILES / "trainer.pt"], None, None) as found:
        check(found, expected("trainer"))


@pytest.mark.parametrize(
    ("name", "order", "words"),
    [
        # safetensors sorts names: two layers of one shape cannot be told.
        ("plain.pt", None, ("[6, 6]: may be a.weight, b.weight", "--order NAMES")),
        # Six of twelve were trained: the module's order does not say which.
        ("frozen.pt", NAMES, ("not certain", "may be")),
        ("sgd.pt", None, ("has no second moments",)),
        ("names.txt", None, ("has no second moments that are known",)),
        ("model.pt", None, ("has no optimizer",)),
    ],
)
def test_what_is_not_certain_is_refused(
    name: str, order: Path | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as caught, opened(MODEL, [FILES / name], order, None):
        pass
    for word in words:
        assert word in str(caught.value)


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = load_file(MODEL)
    tensors["head.weight"] = np.zeros((4, 6), np.float32)
    save_file(tensors, tmp_path / "m.safetensors")
    for name, order, word in [
        ("named.pt", None, "'head.weight', which is [4, 6]"),
        ("plain.pt", NAMES, "is of another model"),
    ]:
        model = tmp_path / "m.safetensors"
        with pytest.raises(UsageError) as caught, opened(model, [FILES / name], order, None):
            pass
        assert word in str(caught.value)
    del tensors["head.weight"]
    save_file(tensors, tmp_path / "m.safetensors")
    with (
        pytest.raises(UsageError, match=r"does not have: head\.weight"),
        opened(tmp_path / "m.safetensors", [FILES / "named.pt"], None, None),
    ):
        pass


def test_optax_has_names_and_no_beta(tmp_path: Path) -> None:
    save_file({"dense.kernel": np.ones((2, 3), np.float32)}, tmp_path / "m.safetensors")
    nu = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "o.npz", **{
        "opt_state.0.nu.params.dense.kernel": nu, "opt_state.0.count": np.int32(3),
        "opt_state.0.mu.params.dense.kernel": -nu,
    })  # fmt: skip
    with (
        pytest.raises(UsageError, match="--beta2"),
        opened(tmp_path / "m.safetensors", [tmp_path / "o.npz"], None, None),
    ):
        pass
    with opened(tmp_path / "m.safetensors", [tmp_path / "o.npz"], None, 0.9) as found:
        np.testing.assert_allclose(found.read("dense.kernel"), nu / (1 - 0.9**3), rtol=1e-6)


OTHERS = FILES / "others"


@pytest.mark.parametrize(
    ("case", "model", "optimizer", "beta2"),
    [
        ("zero", None, ["zero2"], None),
        ("zero", None, ["zero3/last"], None),
        ("zero", None, ["zero3/last/zero_pp_rank_1_mp_rank_00_optim_states.pt"], None),
        ("zero", None, [f"zero2/last/zero_pp_rank_{n}_mp_rank_00_optim_states.pt" for n in (1, 0)],
         None),
        ("fsdp", None, ["fsdp-full.pt"], None),
        ("fsdp", None, ["fsdp-flat.pt"], None),
        ("fsdp", None, ["fsdp-shards"], None),
        ("bitsandbytes", None, ["bitsandbytes.pt"], None),
        ("keras", "keras.keras", ["keras.keras"], None),
        ("keras", "keras.weights.h5", ["keras.keras"], None),
        ("keras", "keras.weights.h5", ["keras.weights.h5"], 0.98),
        ("keras-old", "keras-old.h5", ["keras-old.h5"], 0.98),
        ("optax", None, ["optax.msgpack"], 0.98),
        ("optax", None, ["optax-alone.msgpack"], 0.98),
    ],
)  # fmt: skip
def test_what_other_libraries_saved_is_what_they_say(
    case: str, model: str | None, optimizer: list[str], beta2: float | None
) -> None:
    wanted = load_file(OTHERS / f"{case}.expected.safetensors")
    place = OTHERS / (model or f"{case}.model.safetensors")
    with opened(place, [OTHERS / one for one in optimizer], None, beta2) as found:
        assert set(found.moments) == set(wanted)
        for name, value in wanted.items():
            # Ranks of ZeRO's stages add gradients in another order than each other.
            np.testing.assert_allclose(found.read(name), value, rtol=2e-6, err_msg=name)
        assert all("norm" in name for name in found.unmeasured)


@pytest.mark.parametrize(
    ("case", "optimizer", "words"),
    [
        ("fsdp", ["fsdp-rank.pt"], "one rank's shard"),
        ("fsdp", ["zero2"], "trained tensors that the checkpoint does not have"),
        ("fsdp", ["fsdp-full.pt", "fsdp-flat.pt"], "no part of DeepSpeed"),
        ("fsdp", ["."], "a folder without an optimizer"),
        ("zero", ["zero3/last/zero_pp_rank_0_mp_rank_00_optim_states.pt"] * 2, "ranks 0, 0"),
    ],
)
def test_what_is_not_whole_is_refused(case: str, optimizer: list[str], words: str) -> None:
    with (
        pytest.raises(UsageError, match=words),
        opened(
            OTHERS / f"{case}.model.safetensors", [OTHERS / one for one in optimizer], None, None
        ),
    ):
        pass


def test_a_rank_is_not_left_out(tmp_path: Path) -> None:
    shutil.copytree(OTHERS / "zero3" / "last", tmp_path / "z")
    (tmp_path / "z" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    for given, words in [
        ("z", "is one of 2 parts; 1 part is here"),
        ("z/zero_pp_rank_0_mp_rank_00_model_states.pt", "has no optimizer"),
    ]:
        with (
            pytest.raises(UsageError, match=words),
            opened(OTHERS / "zero.model.safetensors", [tmp_path / given], None, None),
        ):
            pass


def test_weights_of_keras_do_not_say_that_it_is_adam() -> None:
    place = OTHERS / "keras.weights.h5"
    with pytest.raises(UsageError, match="--beta2"), opened(place, [place], None, None):
        pass


def test_boxes_have_to_fill_a_tensor_and_not_to_overlap() -> None:
    def boxes(*places: tuple[Shape, Shape]) -> list[Chunk]:
        return [Chunk(Path("-"), (0, 0), *one) for one in places]

    assert tiled((4, 2), boxes(((0, 0), (3, 2)), ((3, 0), (1, 2))))
    assert tiled((), boxes(((), ())))
    for wrong in (
        boxes(((0, 0), (3, 2))),
        boxes(((0, 0), (3, 2)), ((2, 0), (1, 2))),
        boxes(((0, 0), (3, 2)), ((3, 0), (2, 1))),
        boxes(((0,), (8,))),
    ):
        assert not tiled((4, 2), wrong)


W, V = (4, 4), (4,)


def test_groups_are_dealt_out_by_order_and_shape() -> None:
    order = [W, V, V, W, V]
    assert pairing.by_order([[W, W], [V, V, V]], order) == {
        (0, 0): {0}, (0, 1): {3}, (1, 0): {1}, (1, 1): {2}, (1, 2): {4},
    }  # fmt: skip
    found = pairing.by_order([[W, V, W], [V, V]], order)
    assert found is not None
    # A vector of the first group is one of the two between the matrices; the last is certain.
    assert found[0, 1] == {1, 2}
    assert sorted(pairing.undecided(found)) == [(0, 1), (1, 0)]
    # A frozen matrix: either.
    assert pairing.by_order([[W]], [W, V, W]) == {(0, 0): {0, 2}}
    # A parameter without a state still has its place.
    assert pairing.by_order([[None, V]], [W, V]) == {(0, 0): {0}, (0, 1): {1}}
    assert pairing.by_order([[W, W]], [W, V]) == {(0, 0): set(), (0, 1): set()}
    assert pairing.by_order([[W]], []) == {(0, 0): set()}
    assert pairing.by_order([[W]] * 60, [W] * 60) is None


def test_the_rule_of_the_trainer_settles_vectors_that_decay() -> None:
    names = ["a.weight", "a.gamma", "layernorm.weight", "layernorm.bias"]
    shapes = [W, V, V, V]
    assert pairing.by_decay([[W, V], [V, V]], names, shapes, (1,)) == {
        (0, 0): {0}, (0, 1): {1}, (1, 0): {2}, (1, 1): {3},
    }  # fmt: skip
    assert pairing.by_decay([[W], [V, V, V]], names, shapes, (1,)) is None
    assert pairing.by_decay([[W, V], [V, V]], names, shapes, ()) is None
