"""Damaged manifests: each is refused with the line, what was expected and what was found."""

from __future__ import annotations

import pytest

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.manifest.model import HEADS
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest

H = "0" * 64
HEAD = "git-theta manifest v1\nformat safetensors\nskeleton\n  U8 [3] inline:616263\n\n"
ONE = f"tensor a\n  F32 [30] sha256:{H}\n  dense sha256:{H} 7\n\n"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEAD2 = HEAD.replace("git-theta manifest v1\n", HEADS[2].decode())
MERGE = "  merge average of ours, theirs recipe=1\n" + "".join(
    f"  from {name}\n    dense sha256:{H} 7\n" for name in ("base", "ours", "theirs")
)


def test_the_undamaged_one_is_read() -> None:
    merged = ONE.replace(f"  dense sha256:{H} 7\n", MERGE)
    for whole in (HEAD + ONE, HEAD2 + ONE, HEAD2 + ONE.replace(" 7", " 7[0:3]"), HEAD2 + merged):
        text = (whole + "end\n").encode()
        assert manifest_bytes(parse_manifest(text)) == text


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, "`git-theta manifest v1`"),
        ("git-theta manifest v3\n", 1, "`git-theta manifest v1` or `git-theta manifest v2`"),
        ("git-theta manifest v2\nformat safetensors\n", 2, "`# This file stands for a checkpoint"),
        (HEAD.replace("\n", "\r\n"), 1, "`git-theta manifest v1`"),
        (HEAD.replace("safetensors", "Safe Tensors"), 2, "`format NAME`"),
        (HEAD.replace("U8 [3]", "I8 [3]"), 4, "U8 with one axis"),
        (HEAD.replace("[3]", "[2]"), 4, "2 bytes inline"),
        (HEAD.replace("[3]", "[03]"), 4, "SIZE"),
        (HEAD, 6, "`end`"),
        (HEAD + "end", 7, "more lines"),
        (HEAD + "end\n\n", 7, "nothing"),
        (HEAD + ONE[:-1] + "end\n", 9, "``"),
        (HEAD + ONE[:-2], 9, "more lines"),
        (HEAD + ONE + ONE, 10, "a name after a in natural order"),
        (HEAD + ONE + ONE.replace("tensor a", "opaque A"), 10, "natural order"),
        (HEAD + ONE.replace("tensor a", 'tensor "a"'), 6, "a name"),
        (HEAD + ONE.replace("tensor a", "tensor caf\xe9"), 6, "a name"),
        (HEAD + ONE.replace("tensor a", 'tensor "' + "[" * 99999), 6, "a name"),
        (HEAD + ONE.replace("F32", "F31"), 7, "a dtype"),
        (HEAD + ONE.replace("[30]", "[30,]"), 7, "SHAPE"),
        (HEAD + ONE.replace("[30]", "[9223372036854775808]"), 7, "2^63"),
        (HEAD + ONE.replace("[30]", "[9223372036854775807]"), 7, "below 2^63 bytes"),
        (HEAD + ONE.replace("[30]", "[" + ", ".join("1" * 65) + "]"), 7, "inline"),
        (HEAD + ONE.replace("[30]", "[30" + ", 1" * 64 + "]"), 7, "at most 64 axes"),
        (HEAD + ONE.replace("[30]", "[5, 6] order=0,1"), 7, "row-major"),
        (HEAD + ONE.replace("[30]", "[5, 6] order=1,2"), 7, "order of 2 axes"),
        (HEAD + ONE.replace("[30]", "[16]"), 7, "inline: for 64 bytes"),
        (HEAD + ONE.replace(f"sha256:{H}\n", "inline:" + "00" * 120 + "\n", 1), 7, "sha256:"),
        (HEAD + ONE.replace("0" * 64 + "\n", "A" * 64 + "\n", 1), 7, "CONTENT"),
        (HEAD + ONE.replace("  dense", " dense"), 8, "KIND"),
        (HEAD + ONE.replace(" 7", " 9223372036854775808"), 8, "2^63"),
        (HEAD + ONE.replace(" 7", " 7 a=1 a=2"), 8, "each remark once"),
        (HEAD + ONE.replace(" 7", " 7 "), 8, "KIND"),
        (
            HEAD + ONE.replace(" 7", "\n".join([" 7", *[f"  x sha256:{H} 7"] * 256])),
            265,
            "1 to 256",
        ),
        (HEAD + ONE.replace(f"[30] sha256:{H}", "[30]"), 8, "block SIZE"),
        (HEAD + "tensor a\n  F32 [30]\n\nend\n", 7, "single block"),
        (
            HEAD + "tensor a\n  F32 [9000000]\n  block 9 inline:" + "00" * 9 + "\n\nend\n",
            7,
            "single",
        ),
        (
            HEAD
            + "tensor a\n  F64 [1152921504606846975]\n"
            + f"  block 33554432 sha256:{H}\n  dense sha256:{H} 7\n" * 2
            + "\nend\n",
            7,
            "block 3 to be of 33554432",
        ),
        (
            HEAD + f"opaque a\n  U8 [99] sha256:{H}\n  block 99 sha256:{H}\n  x sha256:{H} 1\n",
            7,
            "chunks",
        ),
        (HEAD + f"opaque a\n  U8 [0] sha256:{EMPTY}\n\nend\n", 7, "inline"),
        (HEAD + "opaque a\n  I8 [0] inline:\n\nend\n", 7, "U8 with one axis"),
        (HEAD + "opaque a\n  U8 [3] sha256:{H}\n  block 3 inline:616263\n\nend\n", 7, "SHAPE"),
        (HEAD + ONE.replace(" 7", " 7[1:3]"), 8, "came with version 2"),
        (HEAD + ONE.replace(f"  dense sha256:{H} 7\n", MERGE), 8, "KIND sha256:OID SIZE"),
        *(
            (HEAD2 + ONE.replace(" 7", f" 7[{part}]"), 10, "a part [START:STOP] of 7 bytes")
            for part in ("3:3", "4:3", "0:8", "0:7")
        ),
        (HEAD2 + ONE.replace(" 7", " 7[01:3]"), 10, "KIND"),
        *(
            (HEAD2 + ONE.replace(f"  dense sha256:{H} 7\n", MERGE.replace(old, new)), line, said)
            for old, new, line, said in (
                ("ours, theirs", "ours, ours", 10, "2 to 32 different sides, none called base"),
                ("ours, theirs", "base, theirs", 10, "none called base"),
                ("ours, theirs", "ours", 10, "KIND"),
                ("recipe=1", "recipe=1 a=1 a=2", 10, "each setting once"),
                ("recipe=1", "recipe=9223372036854775808", 10, "below 2^63"),
                ("from theirs", "from ours", 17, "`  from NAME` for ours, theirs, in this order"),
                ("from base", "from old", 17, "`  from NAME`"),
                ("    dense", "  dense", 12, "indented by four spaces"),
                ("    dense", "     dense", 12, "indented by four spaces"),
            )
        ),
    ],
)
def test_damage_is_refused_naming_the_line(text: str, line: int, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text.encode("latin-1"))
    assert caught.value.message.startswith(f"line {line}: ")
    assert expected in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> branch", "||||||| base"])
def test_conflict_markers_are_named_with_the_way_out(marker: str) -> None:
    text = HEAD + ONE.replace("  dense", marker + "\n  dense") + "end\n"
    with pytest.raises(ManifestError, match=r"line 8: .*conflict markers") as caught:
        parse_manifest(text.encode())
    assert "git theta resolve FILE" in (caught.value.hint or "")


def test_limits_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (HEAD + ONE + "end\n").encode()
    monkeypatch.setattr("git_theta_ext.core.limits.MANIFEST_LINES", 8)
    with pytest.raises(ManifestError, match="8 lines"):
        parse_manifest(text)
    monkeypatch.setattr("git_theta_ext.core.limits.MANIFEST_BYTES", 100)
    with pytest.raises(ManifestError, match="limit is 100"):
        parse_manifest(text)
