"""Which commit an entry of `models.toml` means, of the refs that its repository has.

Entries of one repository and artifact are chosen together: what stands in one project comes from
one version, unless an entry says `alone = true`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import nearest, plural, printable
from git_theta_ext.packages.locking.lock_file import label
from git_theta_ext.packages.locking.requirements import Requirement
from git_theta_ext.packages.locking.versions import (
    Constraint,
    Version,
    is_constraint,
    parse_constraint,
    parse_tag,
)
from git_theta_ext.packages.remote import without_secret

TAGS = "refs/tags/"
HEADS = "refs/heads/"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_EVENT = re.compile(r"(.+?)(!?)#([0-9]{1,9})")
_STAGE = re.compile(r"[^@]+#[^#]+")
_SHOWN = 5

Refs = Mapping[str, str]
"""Commits by the full names of refs, as a remote lists them; `HEAD` may be among them."""


class VersionError(ThetaError):
    """No version is what was asked for, or none is what everybody asks for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A commit, the ref that it was found by, and the version that its tag is."""

    commit: str
    ref: str | None
    version: Version | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return label(self.ref, self.commit)


def group(wanted: Iterable[Requirement]) -> list[list[Requirement]]:
    """Entries that get one version, in order: of one repository and artifact, if not alone."""
    groups: dict[tuple[str, ...], list[Requirement]] = {}
    for one in wanted:
        key = ("alone", one.name) if one.alone else ("of", _plain(one.url), _artifact(one.version))
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _plain(url: str) -> str:
    """A URL as it is written in several ways, with and without `.git`."""
    return url.rstrip("/").removesuffix(".git")


def _artifact(version: str | None) -> str:
    """The artifact that a version names, as GTO does; empty: none."""
    if version is None:
        return ""
    if is_constraint(version):
        return parse_constraint(version).artifact
    if _STAGE.fullmatch(version):
        return version.partition("#")[0]
    tag = parse_tag(
        f"{version.removesuffix('latest')}1" if version.endswith("@latest") else version
    )
    return "" if tag is None else tag[0]


def choose(wanted: Sequence[Requirement], refs: Refs, prefer: Collection[str] = ()) -> list[Choice]:
    """The newest commit that all entries of a group allow: for each, as it named it.

    Args:
        wanted: entries of one repository.
        refs: what that repository has.
        prefer: commits that are taken before newer ones, where they are allowed.

    Raises:
        VersionError: an entry allows none, or all together do; says which ask for what.
    """
    allowed = [(one, allowed_by(one, refs)) for one in wanted]
    commits = set.intersection(*({c.commit for c in choices} for _, choices in allowed))
    if not commits:
        raise _clash(allowed)
    commits = commits & set(prefer) or commits
    common = [c for _, choices in allowed for c in choices if c.commit in commits]
    versions = [choice for choice in common if choice.version is not None]
    best = max(versions, key=_order, default=common[0])
    _refuse_two(best, versions, wanted[0])
    return [
        max((c for c in choices if c.commit == best.commit), key=_order) for _, choices in allowed
    ]


def _order(choice: Choice) -> tuple[object, ...]:
    """Versions in order; what is no version comes first."""
    key = () if choice.version is None else choice.version.key
    return key, choice.ref or ""


def latest(one: Requirement, refs: Refs) -> Choice | None:
    """The newest release of an entry's artifact, whatever it allows; None if there is none."""
    tags = _tags(refs, _artifact(one.version))
    return next((each for each in reversed(tags) if each.version and not each.version.pre), None)


def allowed_by(one: Requirement, refs: Refs) -> list[Choice]:
    """What an entry allows, the newest version last; one for a tag, a branch or a commit.

    Raises:
        VersionError: nothing; says what there is.
    """
    asked = one.version
    if asked is None:
        if "HEAD" not in refs:
            raise VersionError(
                f"{one.where}: {one.name}: {_shown(one)} has no default branch",
                hint=f'say which version: version = "…"; {_there_are(refs)}',
            )
        return [Choice(refs["HEAD"], _head(refs))]
    if is_constraint(asked):
        return _of_constraint(one, parse_constraint(asked), refs)
    found = by_name(asked, refs)
    if not found and (asked == "latest" or asked.endswith("@latest")):
        newest = parse_constraint(f"{asked.removesuffix('latest')}*")
        return _of_constraint(one, newest, refs)
    if not found:
        raise _unknown(one, asked, refs)
    return found


def by_name(asked: str, refs: Refs) -> list[Choice]:
    """What a tag, a branch, a commit, a stage of GTO or a version names; none if nothing does.

    In this order: the name of a ref as it is written (of a tag before a branch, as Git has it), a
    whole commit id, the stage `model#prod`, a version by its number (`1.2` for the tag `v1.2.0`).
    Two tags may be the same version.
    """
    for ref in (asked if asked.startswith("refs/") else None, TAGS + asked, HEADS + asked):
        if ref is not None and ref in refs:
            tag = parse_tag(ref.removeprefix(TAGS)) if ref.startswith(TAGS) else None
            return [Choice(refs[ref], ref, None if tag is None else tag[1])]
    if _COMMIT.fullmatch(asked):
        return [Choice(asked, None)]
    if _STAGE.fullmatch(asked):
        return _in_stage(asked, refs)
    wanted = parse_tag(asked)
    if wanted is None:
        return []
    tags = _tags(refs, wanted[0])
    return [one for one in tags if one.version and one.version.key == wanted[1].key]


def _of_constraint(one: Requirement, constraint: Constraint, refs: Refs) -> list[Choice]:
    """The versions that a constraint allows, in order."""
    tags = _tags(refs, constraint.artifact)
    found = [choice for choice in tags if choice.version and constraint.allows(choice.version)]
    if found:
        return found
    what = f"{one.where}: {one.name}: no version of {_shown(one)} is {printable(constraint.text)}"
    if tags:
        hint = f"its versions: {_list(tags)}"
        if all(choice.version is not None and choice.version.pre for choice in tags):
            hint += f"; a pre-release is taken where it is asked for: >={tags[-1].version}"
    elif artifacts := sorted(_artifacts(refs)):
        rest = constraint.text.removeprefix(constraint.artifact).lstrip("@/")
        hint = f"its versions are of {', '.join(map(printable, artifacts[:_SHOWN]))}: write " + (
            f'version = "{printable(artifacts[0])}@{printable(rest)}"'
        )
    else:
        hint = f"none of its tags is a version; {_there_are(refs)}"
    raise VersionError(what, hint=hint)


def _tags(refs: Refs, artifact: str) -> list[Choice]:
    """The versions of an artifact by their tags, in order, without those that GTO took back."""
    names = [ref.removeprefix(TAGS) for ref in refs if ref.startswith(TAGS)]
    events = [match for name in names if (match := _EVENT.fullmatch(name))]
    gone = {match[1] for match in events if match[2]}
    found = []
    for name in names:
        tag = parse_tag(name)
        if tag is not None and tag[0] == artifact and name not in gone:
            found.append(Choice(refs[TAGS + name], TAGS + name, tag[1]))
    return sorted(found, key=_order)


def _artifacts(refs: Refs) -> set[str]:
    tags = (parse_tag(ref.removeprefix(TAGS)) for ref in refs if ref.startswith(TAGS))
    return {tag[0] for tag in tags if tag is not None and tag[0]}


def _in_stage(asked: str, refs: Refs) -> list[Choice]:
    """What is in a stage of GTO: the last assignment `model#prod#3` that `model#prod!#4` leaves.

    Source: GTO's user guide; the numbers count up over all tags of an artifact.
    """
    events = []
    for ref in refs:
        match = _EVENT.fullmatch(ref.removeprefix(TAGS)) if ref.startswith(TAGS) else None
        if match is not None and match[1] == asked:
            events.append((int(match[3]), match[2] == "!", ref))
    held: list[Choice] = []
    for _, taken, ref in sorted(events):
        held = [choice for choice in held if choice.commit != refs[ref]]
        if not taken:
            held.append(Choice(refs[ref], ref))
    return held[-1:]


def _head(refs: Refs) -> str:
    """The branch that HEAD is, as far as the commits tell; main and master before others."""
    same = [ref for ref in refs if ref.startswith(HEADS) and refs[ref] == refs["HEAD"]]
    first = [ref for ref in (HEADS + "main", HEADS + "master") if ref in same]
    return (first or same if len(same) > 1 else same or ["HEAD"])[0]


# -- words -----------------------------------------------------------------------------------------


def _refuse_two(best: Choice, named: Iterable[Choice], one: Requirement) -> None:
    """Refuse a version that two tags name differently: `v1.2` and `1.2.0` on two commits."""
    for other in named:
        same = other.version and best.version and other.version.key == best.version.key
        if same and other.commit != best.commit:
            raise VersionError(
                f"{one.where}: {one.name}: the tags {printable(best.label)} and "
                f"{printable(other.label)} of {_shown(one)} are one version and two commits",
                hint=f'say which one: version = "{printable(best.label)}"',
            )


def _clash(allowed: Sequence[tuple[Requirement, Sequence[Choice]]]) -> VersionError:
    """Entries of one repository that no version pleases: the first two that clash, else all."""
    pairs = (
        (a, b)
        for number, a in enumerate(allowed)
        for b in allowed[number + 1 :]
        if not {c.commit for c in a[1]} & {c.commit for c in b[1]}
    )
    shown = next(pairs, allowed)
    lines = [
        f"{one.name} ({one.where}) asks for {_asked(one)}, which is {_list(choices)}"
        for one, choices in shown
    ]
    names = " and ".join([", ".join(one.name for one, _ in shown[:-1]), shown[-1][0].name])
    what = f"{names} need different versions of {_shown(shown[0][0])}. The conflict is caused by:"
    return VersionError(
        "\n".join([what, *lines]),
        hint="loosen one of them, or say alone = true in one, to have two versions side by side",
    )


def _asked(one: Requirement) -> str:
    return "the default branch" if one.version is None else printable(one.version)


def _list(choices: Sequence[Choice]) -> str:
    """The newest few of some versions, in order."""
    labels = [printable(choice.label) for choice in choices[-_SHOWN:]]
    more = len(choices) - len(labels)
    return ", ".join([*([f"{more:,} more"] if more else []), *labels])


def _unknown(one: Requirement, asked: str, refs: Refs) -> VersionError:
    """No tag, branch or version has this name."""
    what = f"{one.where}: {one.name}: {_shown(one)} has no version {printable(asked)}"
    if re.fullmatch(r"[0-9a-f]{4,63}", asked):
        return VersionError(what, hint="a commit is named by its whole id")
    names = [name for ref in refs for name in _short(ref)]
    near = nearest(asked, names) if names else None
    hint = f"did you mean {printable(near)}?" if near else _there_are(refs)
    return VersionError(what, hint=hint)


def _short(ref: str) -> Iterator[str]:
    if ref.startswith((TAGS, HEADS)):
        yield ref.removeprefix(TAGS).removeprefix(HEADS)


def _there_are(refs: Refs) -> str:
    tags = [ref for ref in refs if ref.startswith(TAGS)]
    branches = [printable(ref.removeprefix(HEADS)) for ref in refs if ref.startswith(HEADS)]
    listed = ", ".join(branches[:_SHOWN]) + (", …" if len(branches) > _SHOWN else "")
    return f"it has {plural(len(tags), 'tag')}, and the branches {listed or '(none)'}"


def _shown(one: Requirement) -> str:
    return printable(without_secret(one.url))
