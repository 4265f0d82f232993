"""Whether a server that `.lfsconfig` names is the host that the user chose as the remote."""

from __future__ import annotations

import pytest

from git_theta_ext.objects.transfer.lfsconfig import Named, is_plain, same_host


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("https://host/x", "https://host/y.git"),
        ("https://HOST/x", "https://host:443/y.git"),
        ("http://host:8080/x", "http://host:8080/y"),
        ("https://host/x", "git@host:team/y.git"),
        ("https://host/x", "ssh://git@host:2222/y"),
        ("https://host/x", "http://host/y"),
        ("https://host/x", "https://user:secret@host/y"),
        ("ssh://git@host/x", "ssh://host/y"),
        ("https://[::1]/x", "https://[::1]/y"),
    ],
)
def test_the_same_by_no_weaker_protocol(url: str, remote: str) -> None:
    assert same_host(url, remote)


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("https://other/x", "https://host/y"),
        ("http://host/x", "https://host/y"),
        ("http://host/x", "git@host:y"),
        ("https://host:8443/x", "https://host/y"),
        ("https://host/x", "http://host:8080/y"),
        ("https://host.evil/x", "https://host/y"),
        ("https://host@evil/x", "https://host/y"),
        ("https://user@host/x", "https://host/y"),
        ("https://host/x", "/srv/host"),
        ("https://host/x", "file://host/y"),
        ("file:///srv/x", "file:///srv/x"),
        ("https://host/../x", "https://host/y"),
        ("https://host/%0ax", "https://host/y"),
        ("https://host/x", "https://host:port/y"),
    ],
)
def test_not_another(url: str, remote: str) -> None:
    assert not same_host(url, remote)


@pytest.mark.parametrize(
    "url",
    [
        "https://h/$(x)",
        "https://h/a b",
        "https://h/'",
        "-x://h/",
        "https:///x",
        "file:",
        "ftp://h/x",
    ],
)
def test_what_a_shell_would_read_cannot_be_confirmed(url: str) -> None:
    assert not is_plain(url)
    assert "cannot be confirmed" in Named(url, "lfs.url", "f", False, False).advice()
