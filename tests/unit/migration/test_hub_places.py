"""Which models are named to who gives another folder than that of one model."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.migration.others import hub


@pytest.mark.parametrize("typed", ["{cache}", "{cache}/hub", "org/tiny"])
def test_models_of_the_cache_are_named(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model = tmp_path / "hub" / "models--org--tiny"
    (model / "snapshots").mkdir(parents=True)
    with pytest.raises(UsageError, match="no model of a cache") as refused:
        hub.Model(Path(typed.format(cache=tmp_path)))
    assert refused.value.hint == f"one of: {model}"
    with pytest.raises(UsageError) as refused:
        hub.Model(Path("org/other"))
    assert "such as" in (refused.value.hint or "")
