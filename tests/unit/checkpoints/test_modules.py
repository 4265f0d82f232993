"""Modules of .theta.toml: which tensors each has, strictly read, in linear time."""

from __future__ import annotations

import time

import pytest

from git_theta_ext.checkpoints.modules import Module, Modules, parse
from git_theta_ext.core.errors import UsageError
from git_theta_ext.evaluation.config import Config
from git_theta_ext.evaluation.config import parse as parse_config
from git_theta_ext.merge.strategies.policy import Settings, parse_file

TEXT = b"""
[[module]]
name = "vision"
pattern = "vision_tower.*"
owners = ["@vision-team", "@org/eyes"]

[[module]]
name = "head"
pattern = ["lm_head.weight", "layers.{10..11}.*"]
owners = "a.b+c@example.org"
frozen = true
path = "models/*.safetensors"
"""
M = b'[[module]]\nname = "m"\npattern = "*"\n'


def names(modules: Modules, path: str, tensor: str) -> list[str]:
    return [module.name for module in modules.of(path, tensor)]


def test_a_whole_file() -> None:
    vision = Module("vision", ("vision_tower.*",), ("@vision-team", "@org/eyes"))
    head = Module(
        "head", ("lm_head.weight", "layers.10.*", "layers.11.*"), ("a.b+c@example.org",), True,
        ("models/*.safetensors",),
    )  # fmt: skip
    modules = parse(TEXT)
    assert modules == Modules((vision, head))
    assert modules.named("head") == head
    assert names(modules, "a.pt", "vision_tower.0.weight") == ["vision"]
    assert names(modules, "models/a.safetensors", "layers.11.mlp") == ["head"]
    assert names(modules, "models/a.safetensors", "layers.1.mlp") == []
    assert names(modules, "a.safetensors", "lm_head.weight") == []
    assert not parse(b"")


def test_other_readers_of_the_file_know_modules() -> None:
    assert parse_config(TEXT) == Config(modules=parse(TEXT))
    assert parse_file(TEXT) == Settings()


def test_a_tensor_of_several_modules_and_a_shard_by_its_model() -> None:
    text = M + b'[[module]]\nname = "n"\npattern = ["a", "a*"]\npath = "m-*-of-*.bin"\n'
    modules = parse(text + b'[[module]]\nname = "o"\npattern = "a"\n')
    assert names(modules, "m-00001-of-00002.bin", "a") == ["m", "n", "o"]
    assert names(modules, "m-*-of-*.bin", "a") == ["m", "n", "o"]
    assert names(modules, "m.bin", "ab") == ["m"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[module]\nname = 'm'\n", r"write \[\[module\]\], with two brackets"),
        (b"[[modul]]\nname = 'm'\n", "unknown table 'modul'; known: .*module"),
        (b"[[module]]\npattern = '*'\n", "line 1: .* it has no name"),
        (b"[[module]]\nname = 'a/b'\npattern = '*'\n", "line 2: .* is no name"),
        (b"[[module]]\nname = 'm'\n", "line 1: .*it has no pattern"),
        (b"[[module]]\nname = 'm'\npattern = []\n", "line 3: .*it has no pattern"),
        (b"[[module]]\nname = 'm'\npattern = ['']\n", "a text or a list of texts"),
        (b"[[module]]\nname = 'm'\npattern = '{0..99999}'\n", "more than 10000 names"),
        (M + b"frozen = 'yes'\n", "line 4: .*true or false"),
        (M + b"owner = '@a'\n", "did you mean owners"),
        (M + b"owners = ['vision team']\n", "'vision team' is no owner"),
        (M + b"owners = [\"@a\\nb\"]\n", "is no owner"),
        (M + M, r"line 4: \[\[module\]\] number 2: there is a \[\[module\]\] 'm' already"),
        (b"".join(M.replace(b'"m"', b'"m%d"' % n) for n in range(1001)), "at most 1000"),
        (b"".join(b"[[module]]\nname = 'm%d'\npattern = '{0..5999}'\n" % n for n in range(2)),
         "12000 patterns"),
    ],
)  # fmt: skip
def test_errors_name_the_place(text: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}") as caught:
        parse(text, "there")
    assert "there" in str(caught.value)


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"has no module 'visoin'\n.*did you mean vision\?"):
        parse(TEXT).named("visoin")
    with pytest.raises(UsageError, match=r"no module 'x'\n.*modules: vision, head"):
        parse(TEXT).named("x")


def test_thirty_thousand_tensors_and_a_hundred_modules() -> None:
    modules = Modules(tuple(
        Module(f"m{n}", (f"model.layers.{n}.*", f"*.other.{n}.weight", f"head.{n}"), paths=("*",))
        for n in range(100)
    ))  # fmt: skip
    tensors = [f"model.layers.{n % 300}.mlp.experts.{n // 300}.weight" for n in range(30_000)]
    start = time.thread_time()
    found = [modules.of(f"m-{n % 9:05}-of-00010.bin", name) for n, name in enumerate(tensors)]
    assert time.thread_time() - start < 1
    assert sum(map(len, found)) == 10_000
    assert [module.name for module in found[42]] == ["m42"]
