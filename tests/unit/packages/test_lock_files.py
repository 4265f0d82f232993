"""`models.toml` and `theta.lock` as texts: what is read, what is refused, and in which words."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.locking.lock_file import (
    LockedFile,
    LockedModel,
    lock_text,
    parse_lock,
    quoted,
)
from git_theta_ext.packages.locking.requirements import Requirement, parse

MODELS = b"""\
[[model]]
name = "base"
url = "https://host/org/base"
version = "^1.2"

[[model]]
name = "adapter"
url = "../adapter"
path = "weights/"
tensors = ["lora.*"]
into = "models/adapter"
base = "base"
alone = true
public_key = "release.pem"
"""


def test_models_are_read() -> None:
    assert parse(MODELS) == (
        Requirement(
            "base", "https://host/org/base", "^1.2", into="base", where="models.toml, line 1"
        ),
        Requirement(
            "adapter", "../adapter", None, "weights", ("lora.*",), "models/adapter", "base", True,
            (("public_key", "release.pem"),), "models.toml, line 6",
        ),
    )  # fmt: skip
    assert parse(b"") == ()


def entry(**keys: str) -> str:
    """A `[[model]]` with these keys, name and url added."""
    rows = {"name": "m", "url": "../m"} | keys
    return "".join(["[[model]]\n", *(f"{key} = '{value}'\n" for key, value in rows.items())])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (entry(versoin="1"), "unknown key 'versoin'\n  hint: did you mean version?"),
        ("[[models]]\nname = 'm'", "unknown table 'models'"),
        ("[model]\nname = 'm'", "write [[model]], with two brackets"),
        ("[[model]]\nurl = '../m'", "it has no name"),
        ("[[model]]\nname = 'm'", "m has no url"),
        (entry(name="../m"), "'../m' is no name"),
        (entry(into="../up"), "into = ../up is not a path inside the folder of models.toml"),
        (entry(into="/etc"), "into = /etc is not a path inside the folder of models.toml"),
        (entry(into="a/.GIT/hooks"), "into = a/.GIT/hooks leads into .git"),
        (entry(into="git~1"), "into = git~1 leads into .git"),
        (entry(into="."), "into = . is not a path"),
        (entry(into="a\\b"), "write folders with / between them"),
        (entry(into="Models.toml"), "Models.toml has its own use"),
        (entry(into=".theta-sync/x"), ".theta-sync has its own use"),
        (entry(path="../other"), "path = ../other is not a path"),
        (entry(url="--upload-pack=x"), "'--upload-pack=x' is no url"),
        (entry(url="ext::sh -c x"), "names a helper program"),
        (entry(version="^main"), "in '^main': '^main' is no constraint"),
        (entry(version="a b"), "neither a tag, a branch, a commit nor a constraint"),
        (entry(base="bse"), "base = 'bse': there is no model of this name"),
        (entry(base="m"), "m cannot be its own base"),
        (entry() + entry(name="M"), "line 4: there is a model 'm' already (models.toml, line 1)"),
        (entry(into="x") + entry(name="n", into="X"), "m and n both go into x"),
        (entry(into="x") + entry(name="n", into="x/y"), "m and n go into x and x/y, which lies"),
        ("[[model]]\nname = 3", "name is a text in quotes, not 3"),
        ("a." * 300 + "b = 1", "a key of more than 300 parts"),
        ("\xff", "is not TOML"),
    ],
)
def test_what_is_wrong_with_models_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text.encode("latin-1"))
    assert said in str(caught.value)


# -- theta.lock ------------------------------------------------------------------------------------

HASH = "0" * 63 + "1"
LOCKED = LockedModel(
    "base", "https://host/org/base", "^1.2", None, ("a.*", "b"), "base", "refs/tags/v1.2.0",
    "a" * 40,
    (("model.safetensors", HASH),),
    (
        LockedFile("model.safetensors", "b" * 40, 12, HASH),
        LockedFile("config.json", "c" * 40, 3, HASH),
    ),
)  # fmt: skip
TEXT = f"""\
# What git theta sync got for models.toml. Commit it; git theta update moves it.
version = 1

[[model]]
name = "base"
url = "https://host/org/base"
version = "^1.2"
tensors = ["a.*", "b"]
into = "base"
ref = "refs/tags/v1.2.0"
commit = "{"a" * 40}"
content = [
  {{ path = "model.safetensors", identity = "{HASH}" }},
]
files = [
  {{ path = "config.json", blob = "{"c" * 40}", size = 3, sha256 = "{HASH}" }},
  {{ path = "model.safetensors", blob = "{"b" * 40}", size = 12, sha256 = "{HASH}" }},
]
"""


def test_a_lock_has_one_text() -> None:
    assert lock_text([LOCKED]).decode() == TEXT
    (found,) = parse_lock(TEXT.encode()).values()
    assert lock_text([found]).decode() == TEXT
    assert parse_lock(TEXT.replace("\n", "\r\n").encode()) == {"base": found}
    assert parse_lock(lock_text([])) == {}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1\n", "version = 2\n", "is of version 2, and this program reads version 1"),
        ('into = "base"', 'into = "../base"', "is not a path"),
        ('path = "config.json"', 'path = ".git/config"', "leads into .git"),
        ('path = "config.json"', 'path = "model.safetensors"', "has a file twice"),
        ('commit = "a', 'commit = "g', "is no hash"),
        ("size = 3", "size = -3", "is no number of bytes"),
        ('ref = "refs/tags/v1.2.0"\n', "", ""),
        ('into = "base"\n', 'into = "base"\nextra = "x"\n', "not as git theta writes it"),
        ('name = "base"\nurl', 'url = "x"\nname = "base"\nurl', "cannot be read"),
        ("[[model]]", "<<<<<<< ours\n[[model]]", "has conflict markers"),
        ("files = [", "a.b.c.d = [", "this line is not understood"),
    ],
)  # fmt: skip
def test_a_lock_that_was_edited_is_refused(old: str, new: str, said: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1).encode()
    if not said:  # what could have been written is read
        assert parse_lock(text)["base"].ref is None
        return
    with pytest.raises(UsageError) as caught:
        parse_lock(text)
    assert said in str(caught.value)


@given(st.text())
def test_any_text_can_be_quoted(text: str) -> None:
    line = quoted(text)
    assert tomllib.loads(f"key = {line}") == {"key": text}
    assert line.isprintable()


def test_a_name_that_is_not_unicode_is_refused() -> None:
    model = LockedModel("m", "u\udcff", None, None, (), "m", None, "a" * 40)
    with pytest.raises(UsageError, match="cannot hold a name that is not UTF-8"):
        lock_text([model])
