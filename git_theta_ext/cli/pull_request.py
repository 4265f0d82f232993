"""The report on a pull request: `python -m git_theta_ext.cli.pull_request`, run by action.yml.

It compares the head of the pull request with where it left its base, has one comment with the
report, writes the report as HTML and into the summary of the job, and checks that the server has
every object that the new manifests name. It reads Git's objects only; nothing of the pull request
is executed. Source of the variables: docs.github.com/actions, "Variables".
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from git_theta_ext import transport
from git_theta_ext.checkpoints import blobs_of, is_raw
from git_theta_ext.cli import main as command
from git_theta_ext.cli import uploaded
from git_theta_ext.cli.github import Api, RefusedError
from git_theta_ext.errors import ManifestError, RepositoryError, ThetaError, UsageError
from git_theta_ext.manifest import UpdateRef
from git_theta_ext.repository import Repository
from git_theta_ext.text import annotation, markdown_text, paragraph, plural, printable, size

MARKER = "<!-- git-theta-ext: report on checkpoints -->"
"""How our comment begins; by it, it is found again."""
LIMIT = 65_536
"""Characters of a comment; the report on the tensors itself leaves room for what stands above."""
_MAX_EVENT = 32 << 20
_MAX_LISTED = 20
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Request:
    """The pull request: its number, the commits of its base and head, and the repository."""

    number: int
    base: str
    head: str
    repository: str


def main(environment: Mapping[str, str] | None = None) -> int:
    """Report on the pull request that the environment tells of; the exit code.

    0 if the report stands, 1 if objects are missing on the server, others as for all errors.
    """
    try:
        return _report(os.environ if environment is None else environment)
    except ThetaError as error:
        print(f"::error::{annotation(error.message)}")
        if error.hint is not None:
            print(f"  hint: {paragraph(error.hint, '        ')}", file=sys.stderr)
        return error.exit_code


def _report(environment: Mapping[str, str]) -> int:
    request = read_event(environment)
    repository = Repository.discover()
    base = _fork_point(repository, request)
    folder = Path(environment.get("RUNNER_TEMP") or ".")
    page, text = folder / "git-theta-report.html", folder / "git-theta-report.md"
    changed = _make("markdown", text, base, request.head)
    _make("html", page, base, request.head)
    tensors = text.read_text("utf-8").strip() + "\n"
    warnings = _warnings(repository, base, request.head, environment)
    changed = changed or bool(warnings)
    body = _body(warnings, tensors)
    _append(environment.get("GITHUB_STEP_SUMMARY"), body)
    _append(environment.get("GITHUB_OUTPUT"), f"changed={str(changed).lower()}\nhtml={page}\n")
    _comment(environment, request, body if changed else None)
    for warning in warnings:
        print(f"::{'error' if warning.fatal else 'warning'}::{annotation(warning.text)}")
    return int(any(warning.fatal for warning in warnings))


def _make(form: str, path: Path, base: str, head: str) -> bool:
    """Write a report in a format; whether anything differs."""
    path.unlink(missing_ok=True)
    options = ["--format", form, "--exit-code", "-o", str(path)]
    code = command.main(["diff", *options, base, head])
    if code not in (0, 1) or not path.exists():
        raise ThetaError(f"the {form} report could not be made (exit status {code}; see above)")
    return code == 1


def read_event(environment: Mapping[str, str]) -> Request:
    """The pull request of the event that started the workflow.

    Raises:
        UsageError: there is no event, or it is of no pull request.
    """
    hint = "run this in a workflow with: on: pull_request"
    path, name = environment.get("GITHUB_EVENT_PATH"), environment.get("GITHUB_REPOSITORY", "")
    if not path:
        raise UsageError("GITHUB_EVENT_PATH is not set", hint=hint)
    try:
        with open(path, "rb") as file:
            event: Any = json.loads(file.read(_MAX_EVENT))
        found = event["pull_request"]
        number, base, head = found["number"], found["base"]["sha"], found["head"]["sha"]
    except OSError as error:
        raise UsageError(f"cannot read the event {path}: {error.strerror}", hint=hint) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError("the event is not that of a pull request", hint=hint) from error
    oids = all(isinstance(oid, str) and _OID.fullmatch(oid) for oid in (base, head))
    if type(number) is not int or not oids or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError("number, commits or repository of the pull request are malformed")
    return Request(number, base, head, name)


def _fork_point(repository: Repository, request: Request) -> str:
    for oid in (request.base, request.head):
        if repository.resolve(f"{oid}^{{commit}}") is None:
            raise RepositoryError(
                f"commit {oid} of the pull request is not here",
                hint="actions/checkout needs: with: {fetch-depth: 0}",
            )
    answer = repository.git("merge-base", request.base, request.head, ok=(0, 1)).decode().split()
    return answer[0] if answer else request.base


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that a reader must know before the tensors; `fatal` if it must stop the merge."""

    text: str
    fatal: bool


def _warnings(
    repository: Repository, base: str, head: str, environment: Mapping[str, str]
) -> list[Warn]:
    found: list[Warn] = []

    def damaged(oid: str, error: ManifestError) -> None:
        found.append(Warn(f"Manifest {oid[:12]} is damaged: {error.message}", True))

    objects = transport.objects_in(repository, [head], [base], damaged)
    absent = _absent(repository, list(objects.values()), environment)
    if absent is None:
        found.append(Warn("It was not checked whether all objects are on the server", False))
    elif absent:
        total = size(sum(item.size for item in absent))
        names = ", ".join(item.oid[:12] for item in absent[:_MAX_LISTED])
        more = f" and {len(absent) - _MAX_LISTED} more" if len(absent) > _MAX_LISTED else ""
        found.append(
            Warn(
                f"{plural(len(absent), 'object')} ({total}) missing on the server: {names}{more}. "
                "Whoever has them runs: git theta push",
                True,
            )
        )
    found += _raw(repository, base, head)
    return found


def _absent(
    repository: Repository, objects: list[UpdateRef], environment: Mapping[str, str]
) -> list[UpdateRef] | None:
    """The objects that the server lacks; None if that was not to be checked."""
    if environment.get("THETA_CHECK_OBJECTS", "true").lower() != "true":
        return []
    if not objects:
        return []
    server = environment.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    own = f"{server}/{environment['GITHUB_REPOSITORY']}.git/info/lfs"
    url = environment.get("THETA_LFS_URL") or repository.setting("lfs.url") or own
    if not url.startswith(("https://", "http://")):
        return None
    # The token is GitHub's: no other server gets to see it.
    token = environment.get("GITHUB_TOKEN", "") if url.startswith(server + "/") else ""
    try:
        return uploaded.missing(url, token, objects)
    except RefusedError:
        return None


def _raw(repository: Repository, base: str, head: str) -> list[Warn]:
    """Tracked paths whose new blob is no manifest: committed without the extension."""
    before = set(blobs_of(repository, base))
    fresh = [item for item in blobs_of(repository, head) if item not in before]
    tracked = [(path, oid) for path, oid in fresh if _is_tracked(repository, path)]
    raw = is_raw(repository, [oid for _, oid in tracked])
    return [
        Warn(
            f"{printable(path)} was committed whole, without git-theta: git theta install, then "
            f"git add --renormalize .",
            False,
        )
        for path, oid in tracked
        if oid in raw
    ][:_MAX_LISTED]


def _is_tracked(repository: Repository, path: str) -> bool:
    return repository.attribute("filter", path) == "theta"


def _body(warnings: list[Warn], tensors: str) -> str:
    lines = [f"{MARKER}\n## Checkpoints\n"]
    for warning in warnings:
        mark = "❌" if warning.fatal else "⚠️"
        lines.append(f"\n> {mark} {markdown_text(warning.text)}\n")
    lines.append(f"\n{tensors}")
    text = "".join(lines)
    if len(text) <= LIMIT:
        return text
    # Pieces of the report end with an empty line outside a table; the last that fits ends it.
    note = "\n\n… cut here; the whole report is in the job's summary and its artifact.\n"
    kept = text[: LIMIT - len(note)].rpartition("\n\n###")[0]
    return (kept or "".join(lines[:-1])) + note


def _comment(environment: Mapping[str, str], request: Request, body: str | None) -> None:
    token = environment.get("GITHUB_TOKEN", "")
    if not token:
        print("No token: the report is in the summary of this job")
        return
    api = Api(
        environment.get("GITHUB_API_URL", "https://api.github.com"), request.repository, token
    )
    try:
        print(f"Comment: {api.comment(request.number, MARKER, body)}")
    except RefusedError as error:
        # Pull requests from forks get a token that may only read.
        print(f"::notice::{annotation(error.message)}; the report is in the summary of this job")


def _append(path: str | None, text: str) -> None:
    if path:
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
