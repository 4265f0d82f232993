"""Models before the state of their training, one heading, and no plot of a counter."""

from __future__ import annotations

from html import unescape

import numpy as np
import pytest

from git_theta_ext.checkpoints.versions import FileSide
from git_theta_ext.comparison.compare import Change, Comparison, compare
from git_theta_ext.comparison.named import Version
from git_theta_ext.comparison.report import html, markdown
from git_theta_ext.comparison.report.groups import group, weight
from git_theta_ext.comparison.report.words import is_training_state
from tests.scenarios.checkpoints import Tensors, safetensors

BETWEEN = (
    Version("a" * 40, "Train <b>it</b>", "Ada", "2024-01-01"),
    Version("b" * 40, "Train it | more @all", "Ada", "2024-02-01"),
)


def comparison(tmp_path: object, old: Tensors, new: Tensors) -> Comparison:
    sides = []
    for name, tensors in (("old", old), ("new", new)):
        path = tmp_path / f"{name}.safetensors"  # type: ignore[operator]
        path.write_bytes(safetensors(tensors))
        sides.append(FileSide(path))
    found = compare(*sides)
    for side in sides:
        side.close()
    return found


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("optimizer.pt", True),
        ("checkpoint-10/optimizer.bin", True),
        ("mp_rank_00_optim_states.pt", True),
        ("scheduler.pt", True),
        ("rng_state_0.pth", True),
        ("training_args.bin", True),
        ("optimizer.state.0.exp_avg", True),
        ("layer.0.weight.exp_avg_sq", True),
        ("state.3.step", True),
        ("model.safetensors", False),
        ("optimus-7b.safetensors", False),
        ("model.layers.0.weight", False),
        ("optimal_transport.weight", False),
    ],
)
def test_what_only_training_needs(name: str, state: bool) -> None:
    assert is_training_state(name) == state


def test_the_model_before_the_optimizer(tmp_path: object) -> None:
    old = {name: np.ones(64, np.float32) for name in ("optimizer.state.0.exp_avg", "wte.weight")}
    new = {"optimizer.state.0.exp_avg": old["wte.weight"] * 9, "wte.weight": old["wte.weight"] * 2}
    found = comparison(tmp_path, old, new)
    first = min(group(found.changes), key=weight)
    assert first.name == "wte.weight"
    for render in (markdown.render, html.render):
        text = render([("optimizer.pt", found), ("pytorch_model.bin", found)])
        plain = unescape(text).replace("<wbr>", "")
        assert plain.index("pytorch_model.bin") < plain.index("optimizer.pt")


def test_a_counter_has_no_plot(tmp_path: object) -> None:
    old = {"step": np.array([3], np.int64), "steps": np.array([3.0], np.float32)}
    new = {"step": np.array([9], np.int64), "steps": np.array([9.0], np.float32)}
    weights = np.linspace(-1, 1, 64, dtype=np.float32)
    found = comparison(tmp_path, {**old, "w": weights}, {**new, "w": weights**2})
    assert html.render([("m", found)]).count("<figure") == 1
    assert "<figure" not in html.render([("m", comparison(tmp_path, old, new))])


def test_what_is_compared_is_named_and_inert() -> None:
    text = markdown.render([], between=BETWEEN, notes=["a note"])
    assert text.replace("&#", "").count("#") == 3  # one heading
    assert "aaaaaaaaaaaa" in text
    assert "2024" in text
    assert "<b>" not in text
    assert "@all" not in unescape(text)
    assert "> a note" in text
    page = html.render([], BETWEEN, ["<i>note</i>"])
    assert "<b>it" not in page
    assert "&lt;i&gt;note" in page
    assert "bbbbbbbbbbbb" in page
    assert page.count("<h1>") == 1


def test_what_has_no_values_is_listed(tmp_path: object) -> None:
    ones = np.ones(64, np.float32)
    sides = []
    for name, factor in (("old", 1), ("new", 2)):
        path = tmp_path / f"{name}.safetensors"  # type: ignore[operator]
        tensors = {f"w{at}": ones * np.float32(factor + at) for at in range(30)}
        path.write_bytes(safetensors(tensors))
        sides.append(FileSide(path))
    found = compare(*sides, lacking=lambda blocks: "object 0123 | is gone")
    for side in sides:
        side.close()
    assert all(isinstance(one, Change) and one.measure is None for one in found.changes)
    text = markdown.render([("m", found)])
    assert unescape(text).count("values not available: object 0123 <code>|</code> is gone") == 20
    assert "and 10 more tensors" in text
    assert "values not available: object 0123" in html.render([("m", found)])
