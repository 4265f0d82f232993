"""The filter's commands: clean, smudge, and the list of delayed files that are ready."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO

from git_theta_ext import formats
from git_theta_ext.checkpoints.clean import Cancelled, Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import Predecessors, Unlike
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import advice, files
from git_theta_ext.core.errors import ChangedWhileReadError, FormatError, ProtocolError, ThetaError
from git_theta_ext.core.text import paragraph, printable
from git_theta_ext.drivers import unnamed
from git_theta_ext.drivers.content import WINDOW_BYTES, Content
from git_theta_ext.drivers.left_open import LeftOpen
from git_theta_ext.drivers.pktline import PacketReader, PacketWriter
from git_theta_ext.drivers.room_ahead import RoomAhead
from git_theta_ext.formats.layout.source import FileSource, check_unchanged
from git_theta_ext.git import ancestry, launch
from git_theta_ext.git.paths import where_git_was_started
from git_theta_ext.git.repository import Repository, git_hash, skips_smudge
from git_theta_ext.git.setup import hooks
from git_theta_ext.manifest.model import HEAD_BYTES, HEADS, MAX_BYTES, Manifest, is_manifest
from git_theta_ext.manifest.text import Parser, has_conflict_markers, parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.cluster.choice import executor_told
from git_theta_ext.objects.executor import Executor
from git_theta_ext.objects.kept import Kept
from git_theta_ext.objects.reminders import remind
from git_theta_ext.objects.store.where import store_of

_WORTH_REMEMBERING = 8 << 20
"""A smaller checkpoint is cleaned again sooner than Git tells what it wrote."""
_SMALL_BYTES = 1 << 20
"""Git has put a file of this size into the pipe before we are done with the one before."""
_IN_MEMORY_BYTES = 8 << 20
_OPAQUE = tuple(head + b"format opaque\n" for head in HEADS.values())
"""How the manifest of a file of no known container begins."""
_UNLIKE = b"git-theta: the file is not what the index names (git status asks for no more)\n"
"""What `git status` is answered of a checkpoint that has changed; it keeps nothing of it."""
_WAY_BACK = (
    "Git may have removed files of the work tree: git status   lists them; to have them again,\n"
    "        once the cause is mended: git restore FILE   (after git clone: git checkout -f)"
)


class Commands:
    """Answers one Git command's requests, one after the other."""

    def __init__(self, reader: PacketReader, writer: PacketWriter) -> None:
        """The streams stand just after the handshake."""
        self._reader = reader
        self._writer = writer
        self._delayed: dict[bytes, bytes] = {}
        self._parser = Parser()
        self._listed = False
        self._written: dict[str, bytes] = {}
        self._worth_remembering: set[str] = set()
        self._passed: dict[str, None] = {}
        self._conflicted: dict[str, None] = {}
        self._staged = False
        self._tree: str | None = None

    @cached_property
    def _repository(self) -> Repository:
        repository = Repository.discover()
        # A hook that cannot be placed must not stop an add; `git theta status` tells.
        with suppress(ThetaError, OSError):
            hooks.ensure(repository, *launch.current_command())
        store_of(repository).remove_stale()
        return repository

    @cached_property
    def _blocks(self) -> Blocks:
        blocks = Blocks.open(self._repository, self._executor)
        blocks.kept = Kept(blocks.store)
        return blocks

    @cached_property
    def _executor(self) -> Executor:
        return executor_told(self._repository)

    @cached_property
    def _left_open(self) -> LeftOpen:
        return LeftOpen(self._repository)

    @cached_property
    def _room(self) -> RoomAhead:
        return RoomAhead(self._repository)

    @cached_property
    def _memo(self) -> Memo:
        return Memo(store_of(self._repository).root / "memo")

    @cached_property
    def _cleaner(self) -> Cleaner:
        predecessors = Predecessors(
            self._repository, self._written, self._parser, only_asked=ancestry.only_status()
        )
        return Cleaner(self._blocks, predecessors, self._memo)

    def close(self) -> None:
        """Git is done, and its index is written: remember what it wrote, tell what it passed."""
        if "_executor" in self.__dict__:
            self._executor.close()
        heard = bool(self._passed or self._staged) and not ancestry.answers_a_program()
        if heard and self._passed and not self._skips_smudge():
            _tell_of_manifests(list(self._passed))
        if heard and self._staged:
            self._left_open.tell()
            remind(self._repository)
        for path in self._conflicted:
            name = advice.word(where_git_was_started(path))
            print(
                f"git-theta: {path!r} was merged as text and holds conflict markers\n"
                f"  hint: git theta resolve {name} --strategy S   (git theta help resolve)",
                file=sys.stderr,
            )
        if self._worth_remembering:
            with suppress(ThetaError, OSError):
                cleaner = Cleaner(self._blocks, Predecessors(self._repository), self._memo)
                written = {path: self._written[path] for path in self._worth_remembering}
                cleaner.remember_written(self._repository, written)
        if "_memo" in self.__dict__ and self._memo.grew:
            self._memo.trim(store_of(self._repository).root / "objects")

    def answer(self, request: Mapping[str, bytes], found: os.stat_result | None) -> None:
        """Read the rest of one request and answer it; a failure concerns one file only.

        Args:
            request: its keys and values.
            found: the file to be cleaned as it was when the request came; None if not there.
        """
        command = request.get("command", b"")
        if command == b"list_available_blobs":
            self._list_available()
            return
        name = request.get("pathname", b"")
        try:
            if command == b"clean":
                self._clean(os.fsdecode(name), found)
            elif command == b"smudge":
                self._smudge(name, request)
            else:
                self._drain()
                self._writer.lines(b"status=error")
        except ProtocolError:
            raise
        except (ThetaError, OSError, MemoryError) as error:
            _complain(os.fsdecode(name), error, command == b"smudge")
            self._writer.lines(b"status=error")

    @cached_property
    def _renormalizes(self) -> bool:
        return ancestry.renormalizes()

    def _drain(self) -> None:
        for _ in self._reader.content():
            pass

    # -- clean -----------------------------------------------------------------------------------

    def _clean(self, path: str, found: os.stat_result | None) -> None:
        """Answer with a manifest. The whole content is read before anything can fail."""
        content = Content(self._reader)
        try:
            if content.head == b"":
                _check_unchanged(path, found)
                self._send(b"")
            elif is_manifest(content.head):
                self._pass_manifest(path, content)
            else:
                self._clean_checkpoint(path, content, found)
        except Unlike:
            content.drain()
            _check_unchanged(path, found)
            self._send(_UNLIKE)
        finally:
            content.drain()

    def _pass_manifest(self, path: str, content: Content) -> None:
        data = content.read_all(MAX_BYTES)
        parse_manifest(data)
        self._passed[path] = None
        self._send_manifest(path, data)

    def _clean_checkpoint(self, path: str, content: Content, found: os.stat_result | None) -> None:
        """Answer for just the bytes that Git sent, whatever the work-tree file holds.

        With a manifest, or unchanged where the index holds them so. Nothing is sent before all
        were read, and no manifest if the file at `path` is not as it was `found`.
        """
        source = _open(path)
        if source is None:
            self._clean_spooled(path, content, None, found)
            return
        with source:
            answer = self._cleaner.remembered(path, source)
            if answer is None and source.size <= _SMALL_BYTES:
                equal = content.equals(source)
                manifest = self._cleaner.clean(path, source) if equal else b""
            else:
                with _started(self._cleaner, path, source, answer) as job:
                    equal = content.equals(source)
                    manifest = job.result() if equal else b""
            if not equal:
                self._clean_spooled(path, content, source, found)
                return
            _check_unchanged(path, found)
            if not self._pass_raw(path, source):
                self._require_whole(path, source, manifest)
                if answer is None:
                    self._cleaner.remember(path, source, manifest)
                self._send_manifest(path, manifest)

    def _clean_spooled(
        self,
        path: str,
        content: Content,
        prefix: FileSource | None,
        found: os.stat_result | None,
    ) -> None:
        """Clean content that is not the work-tree file's, from a temporary copy of it."""
        with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
            copy = Path(folder) / "content"
            with files.new_file(copy, mode=0o600) as file:
                content.spool(file, prefix)
            with FileSource(copy) as source:
                path = path or self._path_of(source)
                if not self._pass_raw(path, source):
                    manifest = self._cleaner.clean(path, source)
                    _check_unchanged(path, found)
                    self._require_whole(path, source, manifest)
                    self._send_manifest(path, manifest)

    def _path_of(self, source: FileSource) -> str:
        """The path of what a client cleans without naming it; empty if none is likely."""
        top = self._repository.work_tree
        tracked = dict.fromkeys(entry.path for entry in self._repository.tracked())
        return "" if top is None else unnamed.path_of(source, top, tracked)

    def _require_whole(self, path: str, source: FileSource, manifest: bytes) -> None:
        """Say, or with `theta.strict` refuse, that a file is not what its extension promises.

        A command that only looks whether something changed is not refused anything.
        """
        if not manifest.startswith(_OPAQUE) or not formats.promises(path):
            return
        from git_theta_ext.objects.transfer.pointer_files import (  # rarely needed
            POINTER_BYTES,
            read_pointer,
        )

        if read_pointer(source.read(0, min(source.size, POINTER_BYTES + 1))) is not None:
            reason, way = "it is a pointer of Git LFS", "git lfs pull   brings the file itself"
        else:
            reason = formats.broken_promise(path, source) or "its structure is past a limit"
            way = "if it was cut short or damaged, write it again; then: git add FILE"
        text = f"{path!r} is no {os.path.splitext(path)[1][1:]} file: {reason}"
        if self._repository.flag("theta.strict") and not ancestry.only_looks():
            raise FormatError(f"{text}; theta.strict refuses it", hint=way)
        if ancestry.answers_a_program():
            return
        print(f"git-theta: {printable(text)}\n  hint: {way}", file=sys.stderr)

    def _pass_raw(self, path: str, source: FileSource) -> bool:
        """Send a file unchanged if the index holds it raw, as someone without this filter left it.

        Otherwise it would show as modified for ever, and block switching branches. To store it by
        tensor all the same is what `git add --renormalize` asks for.
        """
        staged = self._cleaner.raw_blob(path, source.size)
        if (
            staged is None
            or self._renormalizes
            or git_hash(source.read, source.size, len(staged)) != staged
        ):
            return False
        self._writer.lines(b"status=success")
        for start in range(0, source.size, WINDOW_BYTES):
            self._writer.write(source.read(start, min(WINDOW_BYTES, source.size - start)))
        self._writer.flush()
        self._writer.flush()
        return True

    # -- smudge ----------------------------------------------------------------------------------

    def _smudge(self, name: bytes, request: Mapping[str, bytes]) -> None:
        """Answer with a checkpoint, or put it off until all that is missing is fetched at once."""
        if name in self._delayed and self._listed:
            self._drain()
            text = self._delayed.pop(name)
            self._rebuild(name, text, self._parser.parse(text), True)
            return
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spool:
            for payload in self._reader.content():
                spool.write(payload)
            size = spool.tell()
            spool.seek(0)
            head = spool.read(HEAD_BYTES)
            spool.seek(0)
            if not is_manifest(head) or size > MAX_BYTES or self._hands_through(request):
                self._send_file(spool)
                return
            text = spool.read()
            if has_conflict_markers(text):
                self._conflicted[os.fsdecode(name)] = None
                self._send(text)
                return
            manifest = self._parser.parse(text)
        # Git crashes on a delayed answer for an unmerged path, for which it sends no tree.
        may_delay = request.get("can-delay") == b"1" and "treeish" in request
        self._tree = os.fsdecode(request["treeish"]) if may_delay else self._tree
        if may_delay and not self._all_here(manifest):
            self._delayed[name] = text
            self._listed = False
            self._writer.lines(b"status=delayed")
            return
        self._rebuild(name, text, manifest, may_delay)

    def _all_here(self, manifest: Manifest) -> bool:
        store = store_of(self._repository)
        return all(store.has(*one) for one in {(ref.oid, ref.size) for ref in manifest.objects()})

    def _rebuild(self, name: bytes, text: bytes, manifest: Manifest, in_work_tree: bool) -> None:
        """Answer with a checkpoint, which Git holds in memory before it writes it, or passes on."""
        shown = os.fsdecode(name)
        smudger = Smudger(manifest, self._blocks, shown)
        top = self._repository.work_tree
        folder = Path() if top is None else (top / shown).parent
        if in_work_tree:
            self._room.look(self._tree, smudger.size, self._written)
        smudger.check_room(shown, folder, certain=in_work_tree, in_memory=True)
        self._writer.lines(b"status=success")
        try:
            smudger.write(self._writer.write)
        except ProtocolError:
            raise
        except (ThetaError, OSError) as error:
            # Too late for the first status: the one after the content makes Git discard it.
            _complain("", error, True)
            self._writer.flush()
            self._writer.lines(b"status=error")
            return
        self._writer.flush()
        self._writer.flush()
        path = os.fsdecode(name)
        self._written[path] = text
        if smudger.size >= _WORTH_REMEMBERING:
            self._worth_remembering.add(path)

    def _list_available(self) -> None:
        """Fetch for all delayed files in one batch, then name them; an empty list ends it."""
        names = [] if self._listed else list(self._delayed)
        self._listed = True
        if names:
            with suppress(ThetaError):  # reported for each file when it is asked for
                self._blocks.ensure(
                    ref
                    for text in self._delayed.values()
                    for ref in self._parser.parse(text).objects()
                )
        self._writer.lines(*(b"pathname=" + name for name in names))
        self._writer.lines(b"status=success")

    def _hands_through(self, request: Mapping[str, bytes]) -> bool:
        """Whether the manifest itself is wanted: smudging is off, or our diff driver reads it."""
        if self._skips_smudge():
            return True
        if set(request) != {"command", "pathname", "blob"} or "GIT_EXTERNAL_DIFF" in os.environ:
            return False
        if not ancestry.started_by_diff():
            return False
        command = self._repository.setting("diff.theta.command", "") or ""
        path = os.fsdecode(request["pathname"])
        ours = "git_theta_ext.drivers.diff" in command
        return ours and self._repository.attribute("diff", path) == "theta"

    def _skips_smudge(self) -> bool:
        return skips_smudge(self._repository, os.environ)

    def _send_manifest(self, path: str, manifest: bytes) -> None:
        self._staged = True
        self._left_open.note(path, manifest)
        self._send(manifest)

    def _send(self, data: bytes) -> None:
        self._writer.lines(b"status=success")
        self._writer.write(data)
        self._writer.flush()
        self._writer.flush()

    def _send_file(self, file: IO[bytes]) -> None:
        self._writer.lines(b"status=success")
        while data := file.read(WINDOW_BYTES):
            self._writer.write(data)
        self._writer.flush()
        self._writer.flush()


@contextmanager
def _started(
    cleaner: Cleaner, path: str, source: FileSource, answer: bytes | None
) -> Iterator[Future[bytes]]:
    """Clean on another thread while the pipe is drained; called off when the block is left."""
    cancelled = threading.Event()
    if answer is not None:
        known: Future[bytes] = Future()
        known.set_result(answer)
        yield known
        return
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(cleaner.clean, path, source, cancelled)
        try:
            yield job
        finally:
            cancelled.set()
            with suppress(Cancelled):
                if job.done():
                    job.exception()


def _open(path: str) -> FileSource | None:
    """The work-tree file that Git most likely reads; None if there is no regular file there."""
    with suppress(OSError):
        if not os.path.islink(path):
            return FileSource(Path(path))
    return None


def _check_unchanged(path: str, found: os.stat_result | None) -> None:
    """Stage nothing of a file that was written to since it was found, or replaced."""
    if found is not None:
        check_unchanged(Path(path), found)


def _tell_of_manifests(paths: list[str]) -> None:
    """Say, once per command, that checkpoints are not in the work tree."""
    count = len(paths)
    some = f"{paths[0]!r} holds a manifest, not a checkpoint; it is"
    many = f"{count} files hold manifests, not checkpoints (the first: {paths[0]!r}); they are"
    print(
        f"git-theta: {some if count == 1 else many} handed to Git unchanged\n"
        "  hint: git theta pull   writes the checkpoints",
        file=sys.stderr,
    )


def _complain(path: str, error: BaseException, smudging: bool) -> None:
    """Tell the user; Git itself only says that the filter failed."""
    text = f"{path!r}: {error}" if path else str(error)
    if isinstance(error, ChangedWhileReadError):
        text += "\n  hint: nothing was staged; add it again when it has been written"
    if isinstance(error, MemoryError):
        text += "out of memory"
    print(f"git-theta: {paragraph(text)}", file=sys.stderr)
    if smudging:
        print(f"  hint: {_WAY_BACK}", file=sys.stderr)
    sys.stderr.flush()
