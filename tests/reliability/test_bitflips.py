"""A few flipped bits in every test run, and proof that the run would see an unnoticed one."""

from __future__ import annotations

import pytest

from git_theta_ext.checkpoints.clean import WORTH_REMEMBERING
from git_theta_ext.checkpoints.memo import _digest
from tests.reliability import bitflips
from tests.reliability.bitflips import Scene, Unnoticed


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"), 3)


@pytest.mark.parametrize("kind", bitflips.KINDS)
def test_flipped_bits_are_noticed_or_harmless(scene: Scene, kind: bitflips.Kind) -> None:
    found = {scene.flip(kind) for _ in range(4)}
    assert found <= {"noticed", "harmless"}
    if kind == "object":
        assert found == {"noticed"}


def test_a_lying_memory_would_be_seen(scene: Scene) -> None:
    """The memory is really asked: an answer that claims to be whole is believed."""
    answers = [path for path in scene.victims("memory") if bitflips._is_file(path)]
    large = [one for one in scene.truth[-1].values() if len(one) >= WORTH_REMEMBERING]
    assert len(answers) == len(large) == 2
    first, second = answers[:2]
    whole, other = first.read_bytes(), second.read_bytes()[32:]
    # An answer is bound to what it answers, so another one must be made to look like its own.
    first.write_bytes(_digest(first, other) + other)
    try:
        with pytest.raises(Unnoticed):
            scene._remember(first, whole, "an exchanged answer")
    finally:
        first.write_bytes(whole)


def test_a_wrong_file_would_be_seen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**scene.truth[0], "blob.bin": b"something else"}
    monkeypatch.setattr(scene, "truth", [wrong, *scene.truth[1:]])
    with pytest.raises(Unnoticed, match=r"blob\.bin is wrong"):
        scene._check_out(0, "manifest", "no flip at all")


def test_there_are_updates_of_many_kinds(scene: Scene) -> None:
    texts = b"".join(
        scene.repository.run("git", "cat-file", "blob", f"v2:{name}").stdout for name in scene.names
    )
    known = ("dense", "delta", "low-rank", "scale", "sparse", "resize", "patch")
    kinds = {kind for kind in known if f"\n  {kind} sha256:".encode() in texts}
    assert len(kinds) >= 5, kinds
