"""`docs/exit-codes.md` and the classes of errors say the same."""

from __future__ import annotations

import re
from pathlib import Path

from git_theta_ext.cli import main
from git_theta_ext.core import errors

ROOT = Path(__file__).parents[2]


def documented() -> dict[int, str]:
    text = (ROOT / "docs/exit-codes.md").read_text("utf-8")
    return {int(code): words for code, words in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.M)}


def classes() -> list[type[errors.ThetaError]]:
    """Those with a code of their own."""
    found = [errors.ThetaError]
    for one in found:
        found += one.__subclasses__()
    return [one for one in found if one.__module__ == errors.__name__ and "exit_code" in vars(one)]


def test_every_code_of_an_error_is_documented_with_its_sentence() -> None:
    known = documented()
    for one in classes():
        assert one.exit_code in known
        if one.exit_code > 1:
            sentence = (one.__doc__ or "").partition("\n\n")[0]
            assert known[one.exit_code] == " ".join(sentence.split())


def test_no_code_means_two_things() -> None:
    codes = [one.exit_code for one in classes() if one.exit_code > 1]
    assert len(codes) == len(set(codes))
    assert set(documented()) == {0, 1, main._INTERRUPTED, main._BROKEN_PIPE, *codes}
