"""What DVC says of files, and what a listing may say that DVC would not write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from git_theta_ext.core.errors import FormatError
from git_theta_ext.migration.others.dvc import Cache, Out, md5s_of

OF_FILE = "0" * 32


def listed(folder: Path, rows: object) -> Out:
    """A listing in a cache, as DVC 3 keeps it."""
    text = json.dumps(rows).encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    place = folder / "files/md5" / md5[:2] / f"{md5[2:]}.dir"
    place.parent.mkdir(parents=True)
    place.write_bytes(text)
    return Out("data", f"{md5}.dir")


@pytest.mark.parametrize(
    "names", [["a", "a/b"], ["a", "a"], ["../a"], [".git/hooks/a"], ["a/b", "a.b", "a/b/c"]]
)
def test_a_listing_with_two_files_in_one_place_is_none(tmp_path: Path, names: list[str]) -> None:
    out = listed(tmp_path, [{"relpath": name, "md5": OF_FILE} for name in names])
    with pytest.raises(FormatError, match="is no listing of DVC"):
        Cache([tmp_path]).members(out)


def test_a_listing_in_a_listing_is_none(tmp_path: Path) -> None:
    good = listed(tmp_path / "good", [{"relpath": "a/b", "md5": OF_FILE}])
    (member,) = Cache([tmp_path / "good"]).members(good) or []
    assert member.path == "data/a/b"
    bad = listed(tmp_path / "bad", [{"relpath": "a", "md5": f"{OF_FILE}.dir"}])
    with pytest.raises(FormatError, match="is no listing of DVC"):
        Cache([tmp_path / "bad"]).members(bad)


def test_a_text_has_the_md5_that_dvc_2_gave_it(tmp_path: Path) -> None:
    """DVC 2.58 names `hi\\r\\nthere\\r\\n` three times so in a listing."""
    (tmp_path / "text").write_bytes(b"hi\r\nthere\r\n" * 3)
    (tmp_path / "weights").write_bytes(b"\x00\x01")
    assert "5f7c7406c2a37bd5858f907de4d80da6" in md5s_of(tmp_path / "text")
    assert len(set(md5s_of(tmp_path / "weights"))) == 1
