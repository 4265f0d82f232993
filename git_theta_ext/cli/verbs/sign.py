"""`git theta sign`: a signature on a version, and its verification."""

from __future__ import annotations

import argparse
import posixpath
from typing import Any

from git_theta_ext.cli import signatures
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.paths import from_here, from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.packages.release.chosen import SIGNATURE, TENSORS
from git_theta_ext.packages.release.signing import Trust
from git_theta_ext.packages.release.verify import count
from git_theta_ext.packages.release.versions import sign_version, verify_version


def add_parser(subparsers: Any) -> None:
    """Add the parser of `sign`."""
    parser = subparsers.add_parser(
        "sign",
        help="sign a version of a model, or verify its signature",
        description="Sign the files of a version by OpenSSF Model Signing, without a checkout. The "
        "signature and the hashes of all tensors are written into the work tree, to be committed: "
        "who gets the version can verify all of it, or some of its tensors.",
    )
    parser.add_argument("revision", nargs="?", default="HEAD", metavar="REV", help="default: HEAD")
    parser.add_argument(
        "--path", metavar="FOLDER", help="only this folder; the signature is written into it"
    )
    signatures.add_signer(parser)
    parser.add_argument(
        "--verify", action="store_true", help="verify the signature that REV has, and write nothing"
    )
    signatures.add_trust(parser)
    parser.set_defaults(run=run, answers=lambda args: args.verify)


def run(args: argparse.Namespace) -> int:
    """Sign or verify, and say what."""
    repository = Repository.discover()
    commit = commit_of(repository, args.revision, hint="git tag --list")
    folder = _folder(repository, args.path)
    trust = signatures.trust_of(args)
    if args.verify:
        if signatures.signs(args):
            raise UsageError("--private-key signs, and --verify does not")
        found = verify_version(repository, commit, folder, trust or Trust())
        _state(commit, folder, sorted(found.hashes))
        print(f"{printable(args.revision)}: signed as it should be: {count(found)}")
        return 0
    if trust is not None:
        raise UsageError("whose signature it has to be matters to verify one", hint="add --verify")
    signer = signatures.signer_of(args)
    tree = WorkTree(repository.top)
    made = sign_version(repository, commit, folder, signer)
    names = [posixpath.join(folder, name) for name in (TENSORS, SIGNATURE)]
    for name, content in zip(names, (made.tensors, made.signature), strict=True):
        tree.replace(name, content)
    _state(commit, folder, sorted(made.hashes))
    print(f"{printable(args.revision)}: {plural(len(made.hashes), 'file')} signed")
    words = " ".join(advice.word(from_here(repository, name)) for name in names)
    print(f"  to publish it: git add {words} && git commit -m 'Sign'")
    return 0


def _state(commit: str, folder: str, files: list[str]) -> None:
    for name, value in (("commit", commit), ("folder", folder), ("files", files)):
        fact(name, value)


def _folder(repository: Repository, path: str | None) -> str:
    """The folder from the top; empty is the top itself."""
    if path is None:
        return ""
    found = path if repository.work_tree is None else from_top(repository, path)
    return "" if found == "." else found.rstrip("/")
