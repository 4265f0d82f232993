"""What a workflow was started by, and which two commits its report compares.

Source: docs.github.com/actions, "Events that trigger workflows". Whatever an event says is checked:
object ids are object ids, and names of branches are only looked up below `refs/remotes/origin`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.git.repository import Repository

_MAX_EVENT = 32 << 20
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BY_HAND = ("workflow_dispatch", "schedule", "workflow_call", "repository_dispatch")
_HINT = "run this in a workflow with: on: [pull_request, merge_group]"


@dataclass(frozen=True, slots=True)
class Event:
    """What a workflow was started by.

    `number` is that of a pull request, where a comment goes; `base` is None where the event names
    none; `default` is the name of the default branch, where it is known.
    """

    head: str
    base: str | None
    repository: str
    number: int | None
    default: str | None


@dataclass(frozen=True, slots=True)
class Ends:
    """The commits that are compared, and the one whose settings are believed.

    `old` is where the head left its base, or the empty tree. `trusted` is the tip of the base
    branch, or of the default branch: whoever may write there decides where objects are. None where
    neither is here.
    """

    old: str
    new: str
    trusted: str | None


def read_event(environment: Mapping[str, str]) -> Event:
    """The event that started the workflow.

    Raises:
        UsageError: there is no event, it is malformed, or none that names something to compare.
    """
    path, name = environment.get("GITHUB_EVENT_PATH"), environment.get("GITHUB_REPOSITORY", "")
    if not path:
        raise UsageError("GITHUB_EVENT_PATH is not set", hint=_HINT)
    try:
        with open(path, "rb") as file:
            found: Any = json.loads(file.read(_MAX_EVENT))
        event = _event(found, environment, name)
    except OSError as error:
        raise UsageError(f"cannot read the event {path}: {error.strerror}", hint=_HINT) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            "the event is not that of a pull request, a merge group, a push or a run by hand",
            hint=_HINT,
        ) from error
    oids = [event.head] + ([event.base] if event.base is not None else [])
    if not all(isinstance(oid, str) and _OID.fullmatch(oid) for oid in oids):
        raise UsageError("the commits of the event, such as those of a pull request, are malformed")
    if event.number is not None and type(event.number) is not int:
        raise UsageError("the number of the pull request is malformed")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"GITHUB_REPOSITORY is {name[:80]!r}, not OWNER/NAME of a pull request")
    return event


def _event(found: Any, environment: Mapping[str, str], name: str) -> Event:
    """What to compare for a pull request, a merge queue, a push or a run by hand.

    Raises:
        KeyError: the event is none of these, or lacks a field.
    """
    about = found.get("repository")
    default = about.get("default_branch") if isinstance(about, dict) else None
    default = default if isinstance(default, str) else None
    if "pull_request" in found:
        pull = found["pull_request"]
        return Event(pull["head"]["sha"], pull["base"]["sha"], name, pull["number"], default)
    if "merge_group" in found:
        group = found["merge_group"]
        return Event(group["head_sha"], group["base_sha"], name, None, default)
    if "before" in found and "after" in found:
        before = found["before"]
        # A branch that is new has none.
        return Event(found["after"], before if before.strip("0") else None, name, None, default)
    if environment.get("GITHUB_EVENT_NAME") in _BY_HAND:
        return Event(environment["GITHUB_SHA"], None, name, None, default)
    raise KeyError


def ends(repository: Repository, event: Event, wanted: str = "") -> Ends:
    """The commits that the report on an event compares.

    Args:
        repository: the checkout.
        event: the event.
        wanted: the revision to compare with, where the workflow names one.

    Raises:
        UsageError: `wanted` names no commit.
        RepositoryError: a commit of a pull request is not here.
    """
    default = None
    if event.default is not None:
        default = repository.resolve(f"refs/remotes/origin/{event.default}^{{commit}}")
    base = _here(repository, event)
    if wanted:
        base = repository.resolve(f"{wanted}^{{commit}}")
        if base is None:
            raise UsageError(f"base: {wanted!r} names no commit that is here")
    trusted = event.base if event.number is not None else default or base
    old = _left(repository, base, event.head) if base is not None else None
    if old is None and default is not None:
        old = _left(repository, default, event.head)
        old = None if old == event.head else old  # on the default branch: its parent
    return Ends(old or _before(repository, event.head), event.head, trusted)


def _here(repository: Repository, event: Event) -> str | None:
    """The base that an event names; None where a push was forced, and what was before is gone.

    Raises:
        RepositoryError: the head, or the base of a pull request, is not here.
    """
    for oid in (event.head, event.base):
        if oid is not None and repository.resolve(f"{oid}^{{commit}}") is None:
            if oid == event.base and event.number is None:
                return None
            raise RepositoryError(
                f"commit {oid} of the event is not here",
                hint="actions/checkout needs: with: {fetch-depth: 0}",
            )
    return event.base


def _left(repository: Repository, base: str, head: str) -> str:
    """Where a commit left its base; the base where they have nothing in common."""
    answer = repository.git("merge-base", base, head, ok=(0, 1)).decode().split()
    return answer[0] if answer else base


def _before(repository: Repository, head: str) -> str:
    """The parent of a commit, or the empty tree."""
    parent = repository.resolve(f"{head}^1^{{commit}}")
    if parent is not None:
        return parent
    return repository.git("hash-object", "-t", "tree", "--stdin", stdin=b"").decode().strip()
