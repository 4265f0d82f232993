"""Patches that mean harm: each is refused, and leaves a repository as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.cli import main as cli
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.packages.patches import apply
from git_theta_ext.packages.patches.bundle import DESCRIPTION, REF, Header, read_header
from git_theta_ext.packages.patches.git_packs import BLOB, COMMIT, TREE, PackWriter
from git_theta_ext.packages.patches.opened import Patch, opened
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.repositories import Repo

QUERY = "encoder.layer.0.attention.query.weight"


def contents(repo: Repo) -> dict[str, str]:
    """All files of a repository that a refusal must leave as they are."""
    found = {}
    for path in sorted(repo.path.rglob("*")):
        name = path.relative_to(repo.path).as_posix()
        if path.is_file() and not name.startswith(
            (".git/theta/verified", ".git/theta/lock", ".git/theta-applied.lock")
        ):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def stored(repo: Repo) -> Iterable[Path]:
    """What its store has: objects, and the memory of answers."""
    folder = repo.path / ".git/theta"
    return (path for path in folder.rglob("*") if path.is_file() and path.parent != folder)


def begun(repo: Repo) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit("A base")
    kept = set(stored(repo))
    repo.git("switch", "-q", "-c", "more")
    repo.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}))
    repo.commit("More")
    repo.theta("format-patch", "HEAD~1", "-o", "../more.patch")
    repo.git("switch", "-q", "-")
    repo.git("branch", "-q", "-D", "more")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "-q", "--prune=now")
    for path in set(stored(repo)) - kept:
        path.unlink()
    repo.write("more.patch.kept", (repo.path.parent / "more.patch").read_bytes())


@pytest.fixture
def victim(new_repo: Callable[..., Repo]) -> Repo:
    repo = new_repo("victim")
    repo.once(lambda: begun(repo))
    return repo


class Forge:
    """An honest patch taken apart, and put together with something else in it."""

    def __init__(self, path: Path) -> None:
        self.patch = Patch("kept", io.BytesIO(path.read_bytes()))
        own = self.patch.commit(self.patch.header.at(REF)).tree
        self.own = dict(self.patch._tree(own))
        self.objects: dict[str, tuple[int, bytes]] = {}
        for name, entry in self.patch.pack.entries.items():
            self.objects[name] = entry.kind, self.patch.pack.read(name, entry.kind)
        self.header = self.patch.header

    def add(self, kind: int, data: bytes) -> str:
        word = {BLOB: b"blob", TREE: b"tree", COMMIT: b"commit"}[kind]
        name = hashlib.sha1(b"%s %d\0" % (word, len(data)) + data).hexdigest()
        self.objects[name] = kind, data
        return name

    def tree(self, rows: Iterable[tuple[str, str, str]]) -> str:
        return self.add(
            TREE, b"".join(f"{m} {n}".encode() + b"\0" + bytes.fromhex(o) for m, n, o in rows)
        )

    def commit(self, tree: str, *parents: str) -> str:
        lines = [f"tree {tree}", *(f"parent {one}" for one in parents),
                 "author A <a@x> 0 +0000", "committer A <a@x> 0 +0000", "", "x\n"]  # fmt: skip
        return self.add(COMMIT, "\n".join(lines).encode())

    def described(self, tip: str | None = None, **changes: Any) -> None:
        """Change what the patch says of itself, and where its refs are."""
        told = json.loads(self.objects[self.own[DESCRIPTION].oid][1])
        told.update(changes)
        tip = tip or self.header.at("HEAD")
        told["tip"] = tip
        blob = self.add(BLOB, json.dumps(told).encode())
        rows = [(row.mode, row.name, blob if row.name == DESCRIPTION else row.oid)
                for row in self.own.values()]  # fmt: skip
        refs = tuple((name, self.commit(self.tree(rows)) if name == REF else tip)
                     for name, _ in self.header.refs)  # fmt: skip
        self.header = Header("sha1", self.header.prerequisites, refs)

    def write(self, path: Path) -> None:
        with path.open("wb") as out:
            out.write(self.header.text())
            pack = PackWriter(out.write, len(self.objects), "sha1")
            for kind, data in self.objects.values():
                pack.add(kind, len(data), [data], 1)
            pack.finish()


def with_tree(forge: Forge, *rows: tuple[str, str, str]) -> None:
    """The commit of the patch has other files."""
    base = forge.header.prerequisites[0][0]
    tip = forge.commit(forge.tree(rows), base)
    forge.described(tip, files=[])


def damaged_object(forge: Forge) -> None:
    """An object's bytes are not those that its manifest names."""
    for name, (kind, data) in list(forge.objects.items()):
        if (kind == BLOB and b'\\"kind\\":\\"pack' in data[:400]) or b"__metadata__" in data[:40]:
            del forge.objects[name]
            forge.add(kind, data[:-1] + bytes([data[-1] ^ 1]))


def wrong_content(forge: Forge) -> None:
    """A manifest promises other bytes than its objects give."""
    told = json.loads(forge.objects[forge.own[DESCRIPTION].oid][1])
    row = next(one for one in told["files"] if one["checkpoint"])
    text = forge.objects[row["new"]][1].decode()
    old = next(line for line in text.split(f"tensor {QUERY}\n")[1].splitlines())
    forged = text.replace(old, old[:-4] + ("0000" if old[-4:] != "0000" else "1111"))
    blob = forge.add(BLOB, forged.encode())
    tree = forge.patch._tree(forge.patch.commit(forge.header.at("HEAD")).tree)
    rows = [(one.mode, one.name, blob if one.name == NAME else one.oid) for one in tree.values()]
    tip = forge.commit(forge.tree(rows), forge.header.prerequisites[0][0])
    forge.described(tip, files=[{**row, "new": blob}])


def other_refs(forge: Forge) -> None:
    refs = (*forge.header.refs[:1], ("refs/heads/../../hooks/x", forge.header.at("HEAD")),
            *forge.header.refs[-1:])  # fmt: skip
    forge.header = Header("sha1", forge.header.prerequisites, refs)


ATTACKS: dict[str, Callable[[Forge], object]] = {
    "a folder called ..": lambda f: with_tree(f, ("40000", "..", f.tree([]))),
    "a file in .git": lambda f: with_tree(
        f, ("40000", ".git", f.tree([("100755", "hook", f.add(BLOB, b"#!/bin/sh\n"))]))
    ),
    "a name with a slash": lambda f: with_tree(f, ("100644", "a/b", f.add(BLOB, b"x"))),
    "a folder that is not in it": lambda f: with_tree(f, ("40000", "lost", "1" * 40)),
    "objects that are not their names": damaged_object,
    "a manifest that promises other bytes": wrong_content,
    "other refs": other_refs,
    "another base than it says": lambda f: f.described(base="2" * 40),
    "a description that is none": lambda f: f.described(files=[{"path": 1}]),
    "a newer version": lambda f: f.described(version=2),
    "needs nothing": lambda f: setattr(f, "header", Header("sha1", (), f.header.refs)),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_it_is_refused_and_nothing_has_changed(
    victim: Repo, attack: Callable[[Forge], object], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    forge = Forge(victim.path / "more.patch.kept")
    attack(forge)
    forge.write(victim.path.parent / "forged.patch")
    before = contents(victim)
    monkeypatch.chdir(victim.path)
    for verb in ("am", "apply"):
        status = cli.main([verb, "../forged.patch"])
        said = capsys.readouterr()
        if verb == "apply" and status == 0:
            continue  # what is wrong with it is about its commits, which apply does not take
        assert status not in (0, 1), (verb, said)
        assert "git theta: error: " in said.err
        assert contents(victim) == before


def test_the_honest_one_is_taken(victim: Repo) -> None:
    """The negative control: what the attacks were made from, put together again."""
    forge = Forge(victim.path / "more.patch.kept")
    forge.described()
    forge.write(victim.path.parent / "forged.patch")
    assert "the same commits" in victim.theta("am", "../forged.patch")


def test_a_file_that_is_no_patch_is_refused(tmp_path: Path) -> None:
    for number, data in enumerate(
        (b"", b"# v2 git bundle\n", b"# v2 git bundle\n\nPACK", b"From me\nX: git-theta\n\nhello\n",
         b"# v3 git bundle\n@filter=blob:none\n\n", b"# v2 git bundle\n" + b"-" * (1 << 17))
    ):  # fmt: skip
        place = tmp_path / f"{number}.patch"
        place.write_bytes(data)
        with pytest.raises(ThetaError, match="patch: "), opened(str(place)):
            pass


def killed_before_the_index(repo: Repo, *arguments: str) -> None:
    """Run a command in a process that is gone before it stages anything."""
    child = os.fork()
    if child == 0:
        os.chdir(repo.path)
        apply.restage = lambda *_: os._exit(9)  # type: ignore[assignment]
        cli.main(list(arguments))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_an_apply_that_was_killed_goes_on(victim: Repo) -> None:
    old = (victim.path / NAME).read_bytes()
    killed_before_the_index(victim, "apply", "more.patch.kept")
    assert victim.status().startswith(f" M {NAME}\n")
    done = victim.run("git", "theta", "apply", "more.patch.kept", "--scale", "2", ok=(2,))
    assert b"has changes that are not staged" in done.stderr
    victim.theta("apply", "more.patch.kept")
    assert victim.status().startswith(f"M  {NAME}\n")
    assert (victim.path / NAME).read_bytes() != old
    victim.theta("apply", "-R", "more.patch.kept")
    assert (victim.path / NAME).read_bytes() == old


def test_an_apply_that_fails_leaves_everything(
    victim: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, or the index locked, once files have been written."""
    old = (victim.path / NAME).read_bytes()
    victim.write(".git/index.lock", b"")
    done = victim.run("git", "theta", "apply", "more.patch.kept", ok=(10,))
    assert b"index.lock" in done.stderr
    assert (victim.path / NAME).read_bytes() == old
    (victim.path / ".git/index.lock").unlink()
    assert "changed" in victim.theta("apply", "more.patch.kept")


def test_headers_have_an_end(tmp_path: Path) -> None:
    place = tmp_path / "long"
    oid = "1" * 40
    place.write_bytes(b"# v2 git bundle\n" + f"-{oid} x\n".encode() * 5000 + b"\nPACK")
    with place.open("rb") as file, pytest.raises(ThetaError):
        read_header(file)
