"""What a recipe makes of the names and shapes of its parts, and what it is refused for."""

from __future__ import annotations

import hashlib

import pytest

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.packages.assemble.given import Given
from git_theta_ext.packages.assemble.plan import in_file_order, make_plan
from git_theta_ext.packages.assemble.recipe_file import RecipeFile, parse
from git_theta_ext.packages.assemble.renames import matched, replaced

Tensors = dict[str, Entry]
LAYERS = 4


def entry(name: str, *shape: int, dtype: str = "F32", seed: str = "") -> Entry:
    """A tensor whose bytes are told by its name and `seed`."""
    info = TensorInfo(name, DTYPES[dtype], shape or (4, 4))
    digest = hashlib.sha256((name + seed).encode()).hexdigest()
    return Entry(info, tuple(Block(spec.nbytes, digest) for spec in cut(info)))


def tensors(*names: str, seed: str = "") -> Tensors:
    return {name: entry(name, seed=seed) for name in names}


def recipe(*parts: str, model: str = "") -> RecipeFile:
    """A recipe of parts, each a few lines of TOML."""
    text = f'[model]\npath = "m.safetensors"\n{model}\n'
    for number, part in enumerate(parts):
        text += f'[[part]]\nname = "p{number}"\nfrom = "v{number}:m.safetensors"\n{part}\n'
    return parse(text.encode())


def plan(*parts: tuple[str, Tensors], model: str = "") -> dict[str, Given]:
    """What a recipe of parts, each with its tensors, makes."""
    found = recipe(*(text for text, _ in parts), model=model)
    return make_plan(found, [its for _, its in parts])


def made(*parts: tuple[str, Tensors], model: str = "") -> dict[str, str]:
    """As `plan`: the part and the tensors that each is of."""
    return {
        name: f"p{one.part}:{'+'.join(one.sources)}"
        for name, one in plan(*parts, model=model).items()
    }


STACK = tensors("embed", *(f"model.layers.{n}.w" for n in range(LAYERS)), "head")


def test_tensors_keep_their_blocks_under_new_names() -> None:
    found = plan(('rename = { "model.layers.*.w" = "blocks.*.weight" }', STACK))
    assert found["blocks.3.weight"].entry.blocks == STACK["model.layers.3.w"].blocks
    assert found["blocks.3.weight"].is_plain
    assert found["embed"].entry == STACK["embed"]
    assert next(iter(found)) == "embed"
    assert len(found) == len(STACK)


def test_a_later_part_replaces_only_if_it_says_so() -> None:
    other = tensors("head", "extra", seed="trained")
    with pytest.raises(UsageError, match="p0 and p1 give 'head' differently"):
        plan(("", STACK), ("", other))
    found = made(("", STACK), ("overrule = true", other))
    assert found["head"] == "p1:head"
    assert found["extra"] == "p1:extra"
    same = ('tensors = ["head", "w*"]\nwithout = "wor*"', tensors("head", "word", "w"))
    found = made(("", STACK), same)
    assert found["head"] == "p0:head"
    assert "word" not in found


def test_layers_are_moved_and_repeated() -> None:
    inner = 'tensors = "model.layers.*"\n'
    found = made(("", STACK), (f'{inner}layers = ["2..3", "1..2"]\nto = 4', STACK))
    assert found["model.layers.4.w"] == "p1:model.layers.2.w"
    assert found["model.layers.7.w"] == "p1:model.layers.2.w"
    assert found["model.layers.0.w"] == "p0:model.layers.0.w"
    assert len(found) == 10
    # Without `to` they go on where the part before ended, as slices do.
    found = made(('layers = "0..2"', STACK), (f'{inner}layers = "1..3"', tensors(*STACK, seed="b")))
    assert [found[f"model.layers.{n}.w"][:2] for n in range(6)] == ["p0"] * 3 + ["p1"] * 3
    assert found["model.layers.3.w"] == "p1:model.layers.1.w"
    assert found["embed"] == "p0:embed"
    with pytest.raises(UsageError, match="no layer 4"):
        plan(('layers = "2..4"', STACK))
    found = made(('layers = 7\nto = 0\nlayer = "h.{n}."', tensors("h.7.w", "h.70.w", "h.7", "x")))
    assert found == {"h.0.w": "p0:h.7.w", "h.7": "p0:h.7", "x": "p0:x"}


def test_floats_are_cast_and_nothing_else() -> None:
    mixed = {**tensors("a"), "ids": entry("ids", dtype="I64"), "q": entry("q", dtype="F8_E4M3")}
    found = plan(("", mixed), ('dtype = "fp16"\noverrule = true\ntensors = "a"', mixed),
                 model='dtype = "bf16"')  # fmt: skip
    assert found["a"].info.dtype.name == "F16"
    assert not found["a"].is_plain
    assert found["ids"].is_plain
    assert found["q"].is_plain
    assert plan(("", mixed), model='dtype = "bf16"')["a"].info.dtype.name == "BF16"


def test_wide_elements_lie_first_so_that_all_are_aligned() -> None:
    mixed = [entry("b", 3, dtype="U8"), entry("a", 1, dtype="BF16"), entry("c", 1, dtype="I64")]
    ordered = in_file_order(map(Given.plain, mixed))
    assert [one.name for one in ordered] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ('tensors = "vision.*"', "'vision.*' matches none of its 6 tensors"),
        ('without = "x"', "without: 'x' matches none"),
        ('without = "*"', "gives no tensor"),
        ('rename = { "x.*" = "y.*" }', "'x.*' matches none"),
        ('rename = { "embed" = "head" }', "'embed' and 'head' would both be called 'head'"),
        ('rename = { "model.*" = "one" }', "would both be called 'one'"),
        ('rename = { "embed" = "__metadata__" }', "no tensor can be called '__metadata__'"),
        ('layers = "0..1"\nlayer = "h.{n}."', "no layer 0"),
        ('experts = { from = "mixtral", to = "qwen" }', "named as in the layout mixtral"),
    ],
)
def test_what_means_nothing_is_refused(part: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("*", r"\*").replace(".", r"\.")):
        plan((part, STACK))


def test_absurd_repeats_are_refused_before_they_are_made() -> None:
    many = tensors(*(f"model.layers.0.{n}" for n in range(1000)))
    ranges = ", ".join(['"0"'] * (limits.RECIPE_TENSORS // 1000 + 1))
    with pytest.raises(UsageError, match="stands for more than 200000 tensors"):
        plan((f"layers = [{ranges}]", many))


@pytest.mark.parametrize(
    ("pattern", "name", "texts"),
    [
        ("a.*", "a.b.c", ["b.c"]), ("*", "", [""]), ("*.w.*", "x.w.w.w", ["x", "w.w"]),
        ("*a*b", "aab", ["", "a"]), ("ab*ba", "aba", None), ("a", "a", []), ("a", "b", None),
        ("*.x", "x", None), ("*a*a*a*b", "a" * 4000, None),
    ],
)  # fmt: skip
def test_a_star_is_the_shortest_text_that_fits(
    pattern: str, name: str, texts: list[str] | None
) -> None:
    assert matched(pattern, name) == texts
    if texts is not None:
        assert replaced(pattern, texts) == name
