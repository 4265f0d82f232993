"""Lines of manifests as people read them: short, one for one, and as different as they were."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.manifest.readable import entry_of, may_be_line, readable

SHA = "a8b771920b8319e47251d1360f5e880bc18e8d329b0f0d003ea3c7e615558947"
PAGE = Path(__file__).parents[3] / "docs/manifest.md"

LINES = {
    f"  F32 [384, 384] sha256:{SHA}": "  F32 [384, 384]  a8b7719",
    f"  BF16 [8, 4] order=1,0 sha256:{SHA}": "  BF16 [8, 4] order=1,0  a8b7719",
    "  BF16 [8, 4]": "  BF16 [8, 4]",
    "  I64 [] inline:e803000000000000": "  I64 []  = 1000",
    "  F32 [2] inline:0000803fcdcccc3d": "  F32 [2]  = 1, 0.100000001",
    "  F32 [1] inline:0000c07f": "  F32 [1]  inline:0000c07f",
    "  BOOL [2] inline:0001": "  BOOL [2]  = false, true",
    "  BOOL [1] inline:02": "  BOOL [1]  inline:02",
    "  F32 [0, 4] inline:": "  F32 [0, 4]  inline:",
    "  F64 [1] inline:cdcc": "  F64 [1]  inline:cdcc",
    f"  block 10485760 sha256:{SHA}": "  block  10.5 MB  a8b7719",
    "  block 2 inline:656e": "  block  2 B  inline:656e",
    f"  dense sha256:{SHA} 484120": "  dense  stored in 484.1 kB  a8b7719",
    f"  dense sha256:{SHA} 3145912[2432:4016]": "  dense  stored in 1.6 kB  a8b7719+2432",
    f"  low-rank sha256:{SHA} 24832 rank=8 change=0.9%":
        "  low-rank  rank=8 change=0.9%  stored in 24.8 kB  a8b7719",
    f"    delta sha256:{SHA} 12": "    delta  stored in 12 B  a8b7719",
    "  merge average of ours, theirs recipe=1": "  merge average of ours, theirs recipe=1",
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_shown_short(line: str) -> None:
    assert readable(line) == LINES[line]
    nested = line.startswith("    ")
    assert readable(line, "a.weight") == (
        LINES[line] if nested else f"  a.weight: {LINES[line].strip()}"
    )


@pytest.mark.parametrize(
    "line",
    [
        "", "end", "skeleton", "tensor a", "  from base", f"sha256:{SHA}", f"  dense sha256:{SHA}",
        f"  F32 [9] sha256:{SHA.upper()}", f"  F32 [384] sha256:{SHA}\r", f" F32 [1] sha256:{SHA}",
        f"  dense sha256:{SHA} 99999999999999999999", f"  dense sha256:{SHA} 9[5:2]",
        f"  dense sha256:{SHA} 12 no remark", "  I64 [] inline:e8030",
    ],
)  # fmt: skip
def test_other_lines_have_no_other_form(line: str) -> None:
    assert readable(line) is None


def test_the_lines_of_a_manifest_are_known() -> None:
    examples = re.findall(r"```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    lines = examples[0].splitlines()
    assert len(lines) > 50
    for line in lines:
        assert may_be_line(line), line
        shown = readable(line)
        if re.search("[0-9a-f]{64}", line):
            assert shown is not None
            assert not re.search("[0-9a-f]{64}", shown)
    named = [name for line in lines if (name := entry_of(line)) is not None]
    assert named[0] == "skeleton"
    assert r'"gr\u00f6\u00dfe"' in named


@given(st.sampled_from("BHIQbhiqefd"), st.binary(min_size=8, max_size=32), st.integers(0, 255))
def test_numbers_that_differ_are_shown_differently(letter: str, raw: bytes, flip: int) -> None:
    dtype = {"B": "U8", "H": "U16", "I": "U32", "Q": "U64", "b": "I8", "h": "I16", "i": "I32",
             "q": "I64", "e": "F16", "f": "F32", "d": "F64"}[letter]  # fmt: skip
    raw = raw[: len(raw) // 8 * 8]
    other = bytes([raw[0] ^ flip]) + raw[1:]
    shown = [readable(f"  {dtype} [1] inline:{data.hex()}") for data in (raw, other)]
    assert (shown[0] == shown[1]) == (raw == other)
