"""A diff as Git prints it, coloured or not, with the lines of manifests made readable in it.

Line for line, since `git add -p` shows the lines of this and stages those of its own. What is no
change of a manifest comes out as it came in, byte for byte; so does everything that is not
understood. Of a diff of any length no more is held than a line and the beginning of a hunk.

Formats: git-diff(1), "Generating patch text with -p" and "Combined diff format"; the hunk's heading
is the last line before it that begins with a letter, cut after 80 bytes (`xdiff/xemit.c`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from git_theta_ext.manifest.readable import FIRST_LINE, entry_of, may_be_line, readable

_SGR = rb"(?:\x1b\[[0-9;:]*[A-Za-z])*"
_COLOURS = re.compile(rb"\x1b\[[0-9;:]*[A-Za-z]")
_HUNK = re.compile(
    rb"(" + _SGR + rb"(@{2,99})(?: [-+][0-9]+(?:,[0-9]+)?){2,} \2" + _SGR + rb")"
    rb"((?: |\x1b\[[0-9;:]*[A-Za-z])*)([^\x1b\r\n]*)(.*)",
    re.DOTALL,
)
_ANY_FILE = b"diff --"
_FROM_LINE_1 = re.compile(rb" [-+]1[, ]")
_FILE = (b"diff --git ", b"diff --cc ", b"diff --combined ")
_IDS = re.compile(rb"index ([0-9a-f,]+)\.\.([0-9a-f]+)")

_LONGEST_LINE = 1 << 16
"""A longer line is of no manifest, and is passed on in pieces."""
_HELD = 1 << 16
"""Bytes of a hunk that are looked through before its heading is written."""
_COLOURED = 32
"""Escape sequences in one line; one with more is passed on."""
_CUT = 80
"""Where Git cuts a hunk's heading."""

IsManifest = Callable[[Sequence[str]], bool]


class Hunks:
    """Rewrites one diff; `feed` it pieces, then `end` it."""

    def __init__(self, is_manifest: IsManifest) -> None:
        """`is_manifest` tells whether one of these blobs is a manifest; ids may be short, or zero.

        It is asked at most once for a file, and only if lines of it look like those of a manifest.
        """
        self._is_manifest = is_manifest
        self._part = b""
        self._in_long_line = self._broken = False
        self._held: list[bytes] = []
        self._size = 0
        self._hunk: _Hunk | None = None
        self._ids: list[str] | None = None
        self._known: bool | None = None

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the diff; those of the result that are certain by now."""
        whole, newline, self._part = (self._part + data).rpartition(b"\n")
        if self._ids is None and not self._in_long_line and _ANY_FILE not in whole:
            out = whole + newline  # far from any manifest: most of most diffs
        else:
            lines = whole.split(b"\n") if newline else []
            out = b"".join(self._safely(line + b"\n") for line in lines)
        if len(self._part) > _LONGEST_LINE:
            out += self._flushed() + self._part
            self._part, self._in_long_line = b"", True
        return out

    def end(self) -> bytes:
        """What is left when there is no more."""
        last = self._safely(self._part) if self._part else b""
        self._part = b""
        return last + self._flushed()

    def _flushed(self) -> bytes:
        """What is held, whatever comes next."""
        try:
            return self._release()
        except Exception:
            self._broken = True
            return self._as_it_is()

    def _safely(self, line: bytes) -> bytes:
        """What can be written once this line is there; if that fails, the rest as it comes in."""
        if self._broken:
            return line
        try:
            return self._line(line)
        except Exception:
            self._broken = True
            return self._as_it_is() + line

    def _line(self, line: bytes) -> bytes:
        """As `_safely`, but it may fail: notes whose diff begins, and hands on what is in hunks."""
        if self._in_long_line:
            self._in_long_line = False
            return line
        seen = _COLOURS.sub(b"", line)
        if self._hunk is not None:
            if seen[:1] in (b" ", b"-", b"+", b"\\", b"\n"):
                return self._in_hunk(line, seen)
            out = self._release()
            self._hunk = None
            return out + self._line(line)
        if seen.startswith(_FILE):
            self._ids, self._known = [], None
        elif self._ids is not None and (found := _IDS.match(seen)):
            self._ids = [*found[1].decode().split(","), found[2].decode()]
        elif self._ids is not None and self._known is not False and seen.startswith(b"@@"):
            self._hunk = _Hunk.begun(line)
            if self._hunk is not None:
                self._held, self._size = [line], len(line)
                return b""
        return line

    def _in_hunk(self, line: bytes, seen: bytes) -> bytes:
        """A line of a hunk: held until it is certain whose it is, and what the hunk is about."""
        hunk = self._hunk
        assert hunk is not None
        text = hunk.text_of(seen)
        if self._known is None and text is not None:
            if not may_be_line(text) or self._size > _HELD:
                self._known = False
            elif hunk.is_first and len(self._held) == 1 and text.startswith(FIRST_LINE):
                self._known = True  # whose blob Git may not have: of a new file of the work tree
            elif readable(text) is not None:
                self._known = self._is_manifest(self._ids or [])
        if self._known is False:
            self._hunk = self._ids = None
            return self._as_it_is() + line
        if self._held and self._size <= _HELD:
            self._held.append(line)
            self._size += len(line)
            return b""
        return self._release() + hunk.rewritten(line)

    def _release(self) -> bytes:
        """What is held, rewritten if it is of a manifest."""
        hunk = self._hunk
        if hunk is None or not self._known or not self._held:
            return self._as_it_is()
        head, *lines = self._held
        rest = b"".join(map(hunk.rewritten, lines))
        out = hunk.headed(head, whole=self._size <= _HELD) + rest
        self._held = []
        return out

    def _as_it_is(self) -> bytes:
        held, self._held = b"".join(self._held), []
        return held


class _Hunk:
    """Reads the lines of one hunk in order, and knows whose they are."""

    def __init__(self, parents: int, heading: str, *, is_first: bool) -> None:
        """`parents`: how many columns stand before each line; `is_first`: a version begins here."""
        self._parents = parents
        self.is_first = is_first
        self._line = re.compile(
            rb"(" + _SGR + rb"[ +-]{%d}" % parents + _SGR + rb")(.*?)(" + _SGR + rb"\r?\n?)",
            re.DOTALL,
        )
        name = entry_of(heading)
        if name is not None and len(heading) >= _CUT:
            name += "…"
        # Of either side: the entry, and whether the line that names it is itself a change.
        self._entries = {"-": (name, False), "+": (name, False)}
        self.changed: dict[str, None] = {}

    @classmethod
    def begun(cls, line: bytes) -> _Hunk | None:
        """The hunk that a line begins; None if it begins none."""
        found = _HUNK.fullmatch(line)
        if found is None:
            return None
        heading = found[4].decode("ascii", "replace").rstrip()
        return cls(len(found[2]) - 1, heading, is_first=_FROM_LINE_1.search(found[1]) is not None)

    def text_of(self, seen: bytes) -> str | None:
        """The text of a line without colours; None for one that is about the end of a file."""
        if seen[:1] == b"\\":
            return None
        return seen[self._parents :].removesuffix(b"\n").decode("ascii", "replace")

    def rewritten(self, line: bytes) -> bytes:
        """A line of a manifest as it is shown."""
        found = self._line.fullmatch(line) if line.count(b"\x1b") <= _COLOURED else None
        if found is None:
            return line
        before, coloured, after = found.groups()
        text = _COLOURS.sub(b"", coloured).decode("ascii", "replace")
        marks = _COLOURS.sub(b"", before)
        shown = readable(text, self._named(text, marks))
        return line if shown is None else before + shown.encode() + after

    def _named(self, text: str, marks: bytes) -> str:
        """Whose line it is, where the line must say so: its own changed, and its name did not."""
        side = "-" if b"-" in marks else "+"
        changed = bool(marks.strip())
        entry = entry_of(text)
        if entry is not None or not text:
            for one in (side,) if changed else ("-", "+"):
                self._entries[one] = (entry, changed)
        name, is_new = self._entries[side]
        if not changed or name is None or not text:
            return ""
        self.changed[name] = None
        return "" if is_new else name

    def headed(self, line: bytes, *, whole: bool) -> bytes:
        """The hunk's first line, which names the tensors that it changes."""
        found = _HUNK.fullmatch(line)
        if found is None or not self.changed:
            return line
        first, *others = self.changed
        if others or not whole:
            first += f" and {len(others)} more" if whole else " and more"
        gap = found[3] if b" " in found[3] else found[3] + b" "
        return found[1] + gap + first.encode() + (found[5] or b"\n")
