"""What a remote says that it has, as far as it is believed."""

from __future__ import annotations

from git_theta_ext.packages.remote import Listing, listed

A, B, C = "a" * 40, "b" * 40, "c" * 64


def test_refs_tags_and_head() -> None:
    text = (
        f"ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{A}\trefs/heads/main\n"
        f"{B}\trefs/tags/model@v1.0\n{A}\trefs/tags/model@v1.0^{{}}\n{C}\trefs/tags/long\n"
    )
    found = listed(text)
    assert found.head == "refs/heads/main"
    assert {ref: found.commit(ref) for ref in found.oids} == {
        "HEAD": A, "refs/heads/main": A, "refs/tags/model@v1.0": A, "refs/tags/long": C,
    }  # fmt: skip
    assert found.oids["refs/tags/model@v1.0"] == B


def test_what_could_be_taken_for_something_else_is_left_out() -> None:
    names = [
        "--upload-pack=x", "refs/heads/a b", "refs/heads/../x", "refs/tags/x\ty", "main", "refs/",
        "refs/heads/x.lock", "refs/heads/\x1b[2J", "-HEAD",
    ]  # fmt: skip
    text = "".join(f"{A}\t{name}\n" for name in names)
    evil = "ref: --upload-pack=touch x\tHEAD\n" + f"{A}\tHEAD\n" + text
    assert listed(evil) == Listing({"HEAD": A})
    assert listed(f"{A}\trefs/heads/x\nref: refs/heads/gone\tHEAD\n") == Listing(
        {"refs/heads/x": A}
    )
    assert listed("--evil\trefs/heads/main\nfatal\n") == Listing()
