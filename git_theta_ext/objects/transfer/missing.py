"""The error for objects that are neither here nor at any remote that could be asked."""

from __future__ import annotations

from git_theta_ext.core.errors import MissingObjectError
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.transfer import lfsconfig


def missing(
    wanted: dict[str, UpdateRef],
    reasons: list[str],
    *,
    failed: bool = False,
    advice: str | None = None,
) -> MissingObjectError:
    """The error for objects that could not be had.

    Args:
        wanted: the objects by id, at least one.
        reasons: of each remote that was asked, why it did not give them.
        failed: a remote could not be asked.
        advice: about a server that the user has not chosen.
    """
    first = next(iter(wanted.values()))
    amount = "1 object" if len(wanted) == 1 else f"{len(wanted)} objects"
    which = f"{amount} ({first.kind} sha256:{first.oid}, {first.size} bytes"
    which += ", ...)" if len(wanted) > 1 else ")"
    tried = "\n".join("  " + reason.replace("\n", "\n    ") for reason in reasons)
    hint = (
        "where the objects are, type: git theta push REMOTE --all   then here: git theta fetch"
        " REMOTE\nor, as a file, there: git theta format-patch REV -o FILE   then here: "
        "git theta am FILE"
    )
    if failed:
        hint = (
            "put right what it says, then type: git theta fetch\n"
            f"or, if it does not have them: {hint}"
        )
    if advice is not None:
        hint = f"about the server that {lfsconfig.NAME} names: {advice}\n{hint}"
    return MissingObjectError(
        f"{which} could not be fetched:\n{tried or '  this repository has no remote'}", hint=hint
    )
