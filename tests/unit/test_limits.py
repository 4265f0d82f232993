"""The limits on what is read: in one place, listed for users, and nowhere else."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

from git_theta_ext.core import limits

ROOT = Path(__file__).parents[2]
READERS = (
    "formats", "updates", "manifest", "checkpoints/adapters", "checkpoints/shards.py",
    "merge/combine/pickles.py", "merge/strategies/policy.py", "evaluation",
)  # fmt: skip
OWN = {
    "formats/gguf.py": {"_MAX_AXES"},
    "formats/hdf5/container.py": {"_MAX_AXES"},
    "formats/zips/archive.py": {"_MAX_COMMENT"},
    "manifest/model.py": {"MAX_BYTES"},
    "manifest/rules.py": {"MAX_INT"},
    "updates/choose.py": {"MAX_UPDATES", "_MAX_SHARE", "_MAX_LARGE_SHARE"},
    "updates/low_rank/factors.py": {"_MAX_EXPONENT"},
    "updates/step.py": {"_MAX_WIDTH"},
}
"""What a specification sets, or what the encoder chooses."""


def documented() -> dict[str, tuple[int, str]]:
    """Value and meaning of each limit, from the module's source."""
    found: dict[str, tuple[int, str]] = {}
    body = ast.parse((ROOT / "git_theta_ext/core/limits.py").read_text("utf-8")).body
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
            (name,) = (target.id for target in node.targets if isinstance(target, ast.Name))
            meaning = ast.literal_eval(after.value)
            found[name] = (getattr(limits, name), " ".join(meaning.split()))
    return found


def test_every_limit_says_what_it_is_of() -> None:
    names = {name for name in vars(limits) if name.isupper()}
    assert names == set(documented())


def test_the_document_lists_them() -> None:
    text = (ROOT / "docs/security.md").read_text("utf-8")
    listed = re.findall(r"^\| `([A-Z0-9_]+)` \| ([\d,]+) \| (.*) \|$", text, re.MULTILINE)
    assert {name: (int(value.replace(",", "")), meaning) for name, value, meaning in listed} == (
        documented()
    )


def test_readers_have_no_limits_of_their_own() -> None:
    wrong = []
    for reader in READERS:
        path = ROOT / "git_theta_ext" / reader
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT / "git_theta_ext").as_posix()
            found = re.findall(r"^(_?MAX\w*)\b", file.read_text("utf-8"), re.MULTILINE)
            wrong += [f"{name}: {one}" for one in found if one not in OWN.get(name, set())]
    assert wrong == []
