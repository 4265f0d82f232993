"""A patch as a mail: a summary that people read, and the bundle below it.

Source: RFC 2045 and 2046 (MIME). The first line is that of `git format-patch`.
"""

from __future__ import annotations

import email
import email.policy
import re
from email.errors import MessageError
from email.message import EmailMessage
from typing import IO

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.packages.patches.bundle import is_bundle

MOST_BYTES = 5 << 20
"""A longer patch is to be attached as it is: with a third more for base64, hosts refuse mails."""
TYPE = ("application", "x-git-theta-patch")
_LINE = 200
"""Characters of a line of the summary; RFC 5322 allows 998 bytes."""
_HEADER = re.compile(rb"(?:From |[A-Za-z-]+:)", re.IGNORECASE)
_FROM = "From {} Mon Sep 17 00:00:00 2001\n"


def begins_as_mail(head: bytes) -> bool:
    """Whether a file that begins so is a mail, and says that it holds a patch."""
    return _HEADER.match(head) is not None and b"git-theta" in head.lower()


def as_mail(bundle: bytes, tip: str, author: str, subject: str, summary: str) -> bytes:
    """A mail with a patch.

    Args:
        bundle: the patch.
        tip: the id of its last commit.
        author: of that commit, as `Name <address>`.
        subject: of the mail.
        summary: what the patch does, for people.
    """
    message = EmailMessage(policy=email.policy.SMTP.clone(linesep="\n", cte_type="8bit"))
    message["From"] = _one_line(author)
    message["Subject"] = f"[PATCH] {_one_line(subject)}"
    message["X-Mailer"] = "git-theta format-patch"
    text = "\n".join(line[:_LINE] for line in summary.split("\n"))
    message.set_content(f"{text}\n-- \nto apply it: git theta am FILE\n", cte="8bit")
    message.add_attachment(bundle, maintype=TYPE[0], subtype=TYPE[1], filename="theta.patch")
    return _FROM.format(tip).encode() + message.as_bytes()


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())


def patch_in(file: IO[bytes]) -> bytes:
    """The bundle that a mail holds.

    Raises:
        FormatError: it is no mail, too long, or holds none.
    """
    text = file.read(limits.PATCH_MAIL_BYTES + 1)
    if not _HEADER.match(text):
        raise FormatError("it is neither a bundle of Git nor a mail")
    if len(text) > limits.PATCH_MAIL_BYTES:
        raise FormatError(f"it is a mail of more than {limits.PATCH_MAIL_BYTES:,} bytes")
    try:
        message = email.message_from_bytes(text, policy=email.policy.compat32)
        parts = [part.get_payload(decode=True) for part in message.walk()]
    except (MessageError, ValueError, LookupError) as error:
        raise FormatError(f"it is no mail that can be read: {error}") from error
    for part in parts:
        if isinstance(part, bytes) and is_bundle(part[:64]):
            return part
    raise FormatError(
        "it is a mail without a patch of git theta",
        hint="a plain patch: git am FILE",
    )
