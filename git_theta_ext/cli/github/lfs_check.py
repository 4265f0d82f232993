"""Whether a server has every object that new manifests name; those that a report reads are fetched.

Who is asked: the server that the workflow names, or `.lfsconfig` on the base branch, or the
repository's own. Neither the files of the checkout nor its settings are asked, for a pull request
may have brought them. After the first refusal nobody is asked anything more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from git_theta_ext.cli.github.at_hand import AtHand
from git_theta_ext.cli.github.event import Ends, Event
from git_theta_ext.cli.github.findings import Findings
from git_theta_ext.cli.github.uploaded import Server
from git_theta_ext.core.errors import ManifestError, TransferError
from git_theta_ext.core.text import plural, printable, size
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store import reachable

_MAX_LISTED = 20
_MAX_ASKED = 100_000
"""Objects that a server is asked about: a thousand requests, for three terabytes of blocks."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a workflow is to report on."""

    repository: Repository
    event: Event
    between: Ends
    environment: Mapping[str, str]

    @property
    def checks(self) -> bool:
        """Whether missing objects fail it."""
        return self.environment.get("THETA_CHECK_OBJECTS", "true").lower() == "true"


def ask(report: Findings, job: Job, at_hand: AtHand) -> None:
    """Ask the server which objects it has, and fetch those that the report reads."""
    needed = _needed(report, job)
    asked = {ref.oid: ref for ref in at_hand.wanted} | (needed if job.checks else {})
    report.objects = "complete" if job.checks else "skipped"
    if not asked:
        return
    try:
        server = _server(job)
        print(f"Objects are looked for at {printable(server.url)}")
        if len(asked) > _MAX_ASKED:
            raise TransferError(
                f"there are {len(asked):,} objects; at most {_MAX_ASKED:,} are checked"
            )
        lost = [ref for ref in server.missing(asked.values()) if job.checks and ref.oid in needed]
    except TransferError as error:
        at_hand.give_up(error.message)
        if job.checks:
            report.objects = "unknown"
        report.warn(
            f"It was not checked whether all objects are on the server: {error.message}",
            error.exit_code if job.checks else 0,
        )
        return
    gone = at_hand.fetch(server) - {ref.oid for ref in lost}
    if lost:
        report.objects = "missing"
        report.warn(_missing(lost), 1)
    if job.checks:
        _doubt(report, server, [ref for oid, ref in needed.items() if oid in gone])
    if server.trouble is not None:
        report.warn(f"Not all values could be fetched: {server.trouble}")


def _doubt(report: Findings, server: Server, gone: list[UpdateRef]) -> None:
    """Take back what was believed of a server that was found out."""
    if gone:
        report.objects = "missing"
        report.warn(
            f"The server says that it has {plural(len(gone), 'object')} that it does not send, or"
            f" sends damaged: {_names(gone)}. Anyone who has them can run: git theta push"
            " --no-cache",
            1,
        )
    if server.lies:
        report.objects = "unknown" if report.objects == "complete" else report.objects
        report.warn(
            "It is not known whether all objects are on the server: it says that it has objects"
            " that do not exist",
            TransferError.exit_code,
        )


def _needed(report: Findings, job: Job) -> dict[str, UpdateRef]:
    """The objects that the manifests of all new commits name."""
    damaged: list[str] = []

    def note(oid: str, error: ManifestError) -> None:
        damaged.append(oid)

    found = reachable.objects_in(job.repository, [job.between.new], [job.between.old], note)
    if damaged and report.code == 0:
        words = plural(len(damaged), "manifest is", "manifests are")
        report.warn(f"{words} damaged, blob {damaged[0][:12]} first", ManifestError.exit_code)
    if job.checks and _is_partial(job.repository):
        report.warn(
            "In this partial clone only the last commit's objects were checked: actions/checkout "
            "without filter has the commits before it too"
        )
    return found


def _is_partial(repository: Repository) -> bool:
    """Whether Git fetches objects as they are needed, so that what is not here is not listed."""
    pattern = r"^remote\..*\.promisor$"
    return bool(repository.git("config", "--get-regexp", pattern, "true", ok=(0, 1)))


def _missing(absent: list[UpdateRef]) -> str:
    total = size(sum(item.size for item in absent))
    return (
        f"{plural(len(absent), 'object')} ({total}) missing on the server: {_names(absent)}. "
        "Anyone who has them can run: git theta push"
    )


def _names(objects: list[UpdateRef]) -> str:
    names = ", ".join(item.oid[:12] for item in objects[:_MAX_LISTED])
    more = f" and {len(objects) - _MAX_LISTED} more" if len(objects) > _MAX_LISTED else ""
    return f"{names}{more}"


def _server(job: Job) -> Server:
    env = job.environment
    site = env.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    own = f"{site}/{job.event.repository}.git/info/lfs"
    url = env.get("THETA_LFS_URL") or _settled(job) or own
    # The token is GitHub's: no other server gets to see it.
    token = env.get("GITHUB_TOKEN", "") if url.startswith(site + "/") else ""
    return Server(url, token)


def _settled(job: Job) -> str | None:
    """The server that `.lfsconfig` names on a branch that is believed."""
    trusted = job.between.trusted
    oid = job.repository.blob_at(trusted, ".lfsconfig") if trusted is not None else None
    if oid is None:
        return None
    for name in ("lfs.url", "remote.origin.lfsurl"):
        answer = job.repository.git("config", "--blob", oid, "--get", name, ok=(0, 1))
        if found := answer.decode("utf-8", "replace").strip():
            return found
    return None
