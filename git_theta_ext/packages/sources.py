"""What somebody names to get a model: `URL[@VERSION][:PATH]`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable

FORM = "URL[@VERSION][:PATH], such as https://host/org/model@v1.2:model.safetensors"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_HELPER = re.compile(r"[A-Za-z0-9]+::")
_SCP = re.compile(r"(?:[^/:@]+@)?(?:\[[^\]/]+\]|[^/:@\[]+):(?!//)")
_DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")
_IS_PATH = re.compile(r"/|~/|\.{1,2}(?:[/\\@:]|$)|[A-Za-z]:[\\/]")
_SEPARATOR = re.compile(r":|(?<=[^/\\])@")
"""An `@` that the name of a folder begins with (`@scope/model`) is a part of the URL."""

_NO_VERSION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|^-|^/|/$|//|\.lock(?:/|$)|\.$")
"""What no name of a ref has (git-check-ref-format(1)), nor a commit's id."""

_BUNDLE = b"# v"


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that somebody names: a repository, and what of it.

    `url` is anything that Git takes; a path is absolute. `version` is a tag, a branch or a commit,
    None for what the remote's HEAD is. `path` is a checkpoint or a folder; None for everything.
    """

    url: str
    version: str | None
    path: str | None

    @property
    def name(self) -> str:
        """The last part of the URL without `.git` or `.bundle`, as `git clone` names a folder."""
        text = re.sub(r"[\\/]+$", "", self.url)
        last = re.split(r"[\\/:]", re.sub(r"[\\/]\.git$", "", text))[-1]
        return re.sub(r"\.(?:git|bundle)$", "", last)

    @property
    def folder(self) -> str:
        """The folder in the current one that it is written into, if no other is named.

        Raises:
            UsageError: the URL ends with no name.
        """
        if self.name in ("", ".", "..") or "\0" in self.name:
            raise UsageError(
                f"{printable(self.url)} does not say how its folder is to be called",
                hint="name one: -o FOLDER",
            )
        return self.name

    def __str__(self) -> str:
        version = "" if self.version is None else f"@{self.version}"
        return f"{self.url}{version}{'' if self.path is None else f':{self.path}'}"


def parse(text: str) -> Source:
    """Take `URL[@VERSION][:PATH]` apart.

    After the host a URL ends at the first `@` or colon; `%40` stands for an `@` of the URL itself.
    A path on this machine ends at the first of them before which there is something.

    Raises:
        UsageError: it has another form.
    """
    start = _after_host(text)
    ends = _ends(text, start or 0)
    end = ends[0]
    if start is None:
        end = next((one for one in ends if os.path.exists(_path(text[:one]))), end)
    url, rest = text[:end], text[end:]
    version, path = None, None
    if rest.startswith("@"):
        version, colon, path = rest[1:].partition(":")
        path = path if colon else None
    elif rest:
        path = rest[1:]
    return Source(checked_url(url), checked_version(version), _checked_path(path))


def is_source(text: str) -> bool:
    """Whether a name means another repository, and no revision of the one at hand.

    `main:model.safetensors` and `model@v1.2.0:model.safetensors` are revisions here. So a host with
    a colon after it counts only with a user, and with a second colon before the path (or the user
    `git`); and a path that counts from here only where it leads to a repository or a bundle.
    """
    if _SCHEME.match(text) or os.path.isabs(text) or text.startswith("~/"):
        return True
    if _IS_PATH.match(text):
        try:
            return _is_repository(parse(text).url)
        except UsageError:
            return False
    host = _SCP.match(text)
    if host is None or "@" not in host[0] or host[0].startswith("HEAD@"):
        return False
    return host[0].startswith("git@") or ":" in text[host.end() :]


def absolute(url: str, base: Path | str | None = None) -> str:
    """A URL as it is; a path on this machine from the root, where it counts from `base`."""
    if _SCHEME.match(url) or _HELPER.match(url):
        return url
    place = os.path.abspath(os.path.join(base or os.getcwd(), _path(url)))
    if not _IS_PATH.match(url) and _SCP.match(url) and not os.path.exists(place):
        return url
    return place


def _after_host(text: str) -> int | None:
    """Where the host of a URL ends; None for a path on this machine.

    What might be a host is a path where there is something: `model:weights`.
    """
    if found := _SCHEME.match(text):
        return found.end()
    if _HELPER.match(text):
        return len(text)
    found = None if _IS_PATH.match(text) else _SCP.match(text)
    if found is None or any(os.path.exists(text[:end]) for end in _ends(text, 0)):
        return None
    return found.end()


def _ends(text: str, start: int) -> list[int]:
    """Where the URL may end, the first place first."""
    start = max(start, 2 if _DRIVE.match(text) else 0)
    return [*(found.start() for found in _SEPARATOR.finditer(text, start)), len(text)]


def _path(text: str) -> str:
    return os.path.expanduser(text)


def checked_url(url: str) -> str:
    """A URL, made absolute if it is a path; from a file that may be anybody's, or a user.

    Raises:
        UsageError: it names no repository, but may be taken for an option or for several lines.
    """
    if not url or url.startswith("-") or re.search(r"[\x00-\x1f\x7f]", url):
        raise UsageError(f"{printable(url)!r} names no repository", hint=f"write {FORM}")
    return absolute(url)


def checked_version(version: str | None) -> str | None:
    """A version as it is.

    Raises:
        UsageError: no tag, branch or commit can be called so.
    """
    if version is None:
        return None
    if not version or version == "@" or _NO_VERSION.search(version):
        raise UsageError(
            f"{printable(version)!r} is not a version: it is a tag, a branch or a commit",
            hint=f"write {FORM}",
        )
    return version


def is_ref_name(name: str) -> bool:
    """Whether a ref, or a part of its name, may be called so (git-check-ref-format(1))."""
    return not _NO_VERSION.search(name)


def _checked_path(path: str | None) -> str | None:
    if path is None:
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in path:
        raise UsageError(
            f"{printable(path)!r} is not a path inside a repository", hint=f"write {FORM}"
        )
    return "/".join(parts)


def _is_repository(url: str) -> bool:
    """Whether there is a repository, or a bundle, at a path."""
    place = Path(url)
    try:
        if place.is_file():
            with place.open("rb") as file:
                return file.read(len(_BUNDLE)) == _BUNDLE
    except OSError:
        return False
    return any((one / "HEAD").is_file() for one in (place, place / ".git")) or (
        (place / ".git").is_file() or Path(f"{place}.git").is_dir()
    )
