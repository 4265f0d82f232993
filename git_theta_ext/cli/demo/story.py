"""The demonstration, step by step."""

from __future__ import annotations

import time
from pathlib import Path

from git_theta_ext.cli.demo.session import Session, folder, folder_bytes, sealed
from git_theta_ext.cli.demo.subjects import Subject
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.text import printable, size
from git_theta_ext.objects.store.store import sha256_of


def tell(subject: Subject, *, keep: Path | None, color: bool) -> None:
    """Run the whole demonstration, in `keep` or in a folder that is removed afterwards.

    Raises:
        RepositoryError: a git command failed.
        CorruptObjectError: a checkpoint came back with other bytes.
    """
    began = time.monotonic()
    with folder(keep) as root, sealed(root):
        work = root / "model"
        work.mkdir()
        story = _Story(subject, root, Session(work, color=color))
        story.set_up()
        story.first_version()
        story.second_version()
        story.back_and_forth()
        story.branches_and_merge()
        story.push_and_clone()
        story.session.heading(f"Done in {time.monotonic() - began:.0f} s")
        if keep is None:
            story.session.say("All of it was in a temporary folder, which is removed now.")
        else:
            story.session.say(f"Kept in {printable(str(root))}; its git config is home/.gitconfig.")
    print(
        "  In your own repository:  git theta install;  git theta track '*.safetensors';"
        "  git add, commit, push as ever."
    )


class _Story:
    """The steps, and what they hand on: the checkpoint's path and the hashes of its versions."""

    def __init__(self, subject: Subject, root: Path, session: Session) -> None:
        self.subject = subject
        self.session = session
        self._root = root
        self._work = session.cwd
        self._file = subject.file_name
        self._path = self._work / self._file
        self._hashes: dict[str, str] = {}

    def set_up(self) -> None:
        self.session.heading("1. Set up: once per user, and once per repository")
        self.session.run("init", "-q")
        self.session.run("theta", "install", quiet=True)
        pattern = f"*{self._path.suffix}" if self._path.suffix else self._file
        self.session.run("theta", "track", pattern)
        self.session.run("add", ".gitattributes")
        self.session.run("commit", "-q", "-m", "Track checkpoints")

    def first_version(self) -> None:
        self.session.heading("2. The first version")
        self._note(self.subject.start(self._path))
        self._commit("First version")

    def second_version(self) -> None:
        self.session.heading("3. Fine-tune all of it, and see what changed")
        self._note(self.subject.fine_tune(self._path))
        self._commit("Fine-tune")
        self.session.run("diff", "HEAD~1")

    def back_and_forth(self) -> None:
        self.session.heading("4. Any version comes back byte for byte")
        for revision, message in (("HEAD~1", "First version"), ("main", "Fine-tune")):
            self.session.run("checkout", "-q", revision)
            self._same_bytes(self._path, message)

    def branches_and_merge(self) -> None:
        first, second = self.subject.branches
        self.session.heading("5. Two people change different tensors, and git merges them")
        for branch in (first, second):
            self.session.run("checkout", "-q", "-b", branch, "main")
            self._note(self.subject.specialise(self._path, branch))
            self._commit(f"Work on {branch}")
        self.session.run("checkout", "-q", first)
        self.session.run("merge", "--no-edit", second)
        self._hashes["merged"] = sha256_of(self._path)
        self._note("merged: both changes are in it")

    def push_and_clone(self) -> None:
        self.session.heading("6. Push, clone, and compare")
        self.session.run("init", "-q", "--bare", "../server.git")
        self.session.run("remote", "add", "origin", "../server.git")
        self.session.run("push", "-q", "origin", "--all")
        branch = self.subject.branches[0]
        self.session.run("clone", "-q", "--branch", branch, "../server.git", "../clone")
        self._same_bytes(self._root / "clone" / self._file, "merged")

    def _commit(self, message: str) -> None:
        before = folder_bytes(self._work / ".git")
        self.session.run("add", self._file)
        self.session.run("commit", "-q", "-m", message)
        grown = folder_bytes(self._work / ".git") - before
        raw = self._path.stat().st_size
        self._hashes[message] = sha256_of(self._path)
        self.session.say(f"{size(raw)} file, .git grew by {size(grown)} ({grown / raw:.0%})")

    def _note(self, text: str) -> None:
        score = self.subject.score(self._path)
        self.session.say(printable(text) + (f"  ->  accuracy: {score}" if score else ""))

    def _same_bytes(self, path: Path, version: str) -> None:
        found, expected = sha256_of(path), self._hashes[version]
        if found != expected:
            raise CorruptObjectError(
                f"{path} should be the version '{version}' with SHA-256 {expected}, has {found}"
            )
        self.session.say(f"{path.name} is '{version}', byte for byte (SHA-256 {found[:12]}...)")
