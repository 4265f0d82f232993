"""What is said where Sigstore, which needs the network, gives no signature."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from git_theta_ext.core.errors import SignatureError
from git_theta_ext.packages.release import signing


class Config:
    """Of a signing package that reaches no server."""

    def use_sigstore_signer(self, **_: object) -> Config:
        return self

    def set_hashing_config(self, _: object) -> None:
        pass

    def sign(self, *_: object) -> None:
        raise RuntimeError("Failed to refresh TUF metadata")


def test_without_a_network_a_key_does(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = SimpleNamespace(signing=SimpleNamespace(Config=Config), manifest=None)
    monkeypatch.setattr(signing, "_library", lambda: nullcontext(package))
    with pytest.raises(SignatureError, match="no signature: Failed to refresh") as refused:
        signing.sign({"a": "0" * 64}, "model", signing.Signer(), "model.sig")
    assert (refused.value.hint or "").endswith("needs neither: --private-key KEY")
