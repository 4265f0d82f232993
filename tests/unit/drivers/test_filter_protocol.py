"""The filter's side of the protocol, spoken on byte streams without Git."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from git_theta_ext.core.errors import ProtocolError
from git_theta_ext.drivers import filter_commands
from git_theta_ext.drivers.filter import serve
from git_theta_ext.drivers.pktline import PacketReader, PacketWriter
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import is_manifest
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

HELLO = [
    [b"git-filter-client", b"version=2"],
    [b"capability=clean", b"capability=smudge", b"capability=delay"],
]


class Session:
    """What Git would write, packet by packet, and then the answers."""

    def __init__(self) -> None:
        self._sent = io.BytesIO()
        self._writer = PacketWriter(self._sent)
        for lines in HELLO:
            self._writer.lines(*lines)

    def request(self, *lines: bytes, content: bytes | None = None) -> None:
        self._writer.lines(*lines)
        if content is not None:
            self._writer.write(content)
            self._writer.flush()

    def answers(self, sent: io.BytesIO | None = None) -> PacketReader:
        """Serve all that was sent; the answers, read past the handshake."""
        received = io.BytesIO()
        serve(sent or io.BytesIO(self._sent.getvalue()), received)
        received.seek(0)
        reader = PacketReader(received)
        assert reader.lines() == [b"git-filter-server", b"version=2"]
        assert reader.lines() == [b"capability=clean", b"capability=smudge", b"capability=delay"]
        return reader

    def interrupted(self, event: Callable[[], object]) -> PacketReader:
        """Like `answers`; the event takes place when all but the last four bytes are read."""
        return self.answers(_Eventful(self._sent.getvalue(), event))


class _Eventful(io.BytesIO):
    """Bytes of which the last four are not read before something has happened."""

    def __init__(self, data: bytes, event: Callable[[], object]) -> None:
        super().__init__(data)
        self._length = len(data)
        self._event: Callable[[], object] | None = event

    def read(self, size: int | None = -1, /) -> bytes:
        if self._event is not None and self.tell() == self._length - 4:
            self._event()
            self._event = None
        return super().read(size)


def content(reader: PacketReader) -> bytes:
    return b"".join(bytes(part) for part in reader.content())


def good(reader: PacketReader) -> bytes:
    """The content of an answer that says success before and after it."""
    assert reader.lines() == [b"status=success"]
    data = content(reader)
    assert reader.lines() == []
    return data


@pytest.fixture
def inside(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.chdir(repo.path)
    return repo


@pytest.mark.parametrize(
    "welcome",
    [[b"git-filter-client", b"version=1"], [b"hello", b"version=2"], []],
    ids=["version", "name", "empty"],
)
def test_another_protocol_is_refused(welcome: Iterable[bytes]) -> None:
    stream = io.BytesIO()
    PacketWriter(stream).lines(*welcome)
    stream.seek(0)
    with pytest.raises(ProtocolError, match="version 2"):
        serve(stream, io.BytesIO())


def test_only_offered_capabilities_are_taken() -> None:
    stream, answer = io.BytesIO(), io.BytesIO()
    writer = PacketWriter(stream)
    writer.lines(*HELLO[0])
    writer.lines(b"capability=clean", b"capability=unheard-of")
    stream.seek(0)
    serve(stream, answer)
    answer.seek(0)
    reader = PacketReader(answer)
    reader.lines()
    assert reader.lines() == [b"capability=clean"]


def test_clean_then_smudge_gives_the_bytes(inside: Repo) -> None:
    data = safetensors(model())
    inside.write("m.safetensors", data)
    session = Session()
    session.request(b"command=clean", b"pathname=m.safetensors", content=data)
    manifest = good(session.answers())
    assert is_manifest(manifest)
    session = Session()
    session.request(
        b"command=smudge", b"pathname=m.safetensors", b"treeish=x", b"can-delay=1", content=manifest
    )
    assert good(session.answers()) == data


@pytest.mark.parametrize("there", [True, False], ids=["other-file", "no-file"])
def test_content_that_is_not_the_files_is_what_counts(inside: Repo, there: bool) -> None:
    data = safetensors(model(1))
    if there:
        inside.write("m.safetensors", safetensors(model(2)))
    session = Session()
    session.request(b"command=clean", b"pathname=m.safetensors", content=data)
    manifest = good(session.answers())
    session = Session()
    session.request(b"command=smudge", b"pathname=m.safetensors", content=manifest)
    assert good(session.answers()) == data


def _written_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1" * 8)


def _replaced(path: Path) -> None:
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [_written_in_place, _replaced, Path.unlink])
@pytest.mark.parametrize("empty", [False, True], ids=["content", "empty"])
def test_a_file_that_changes_while_it_is_read_is_not_staged(
    inside: Repo, capfd: pytest.CaptureFixture[str], change: Callable[[Path], None], empty: bool
) -> None:
    """Git would have sent the old bytes, or some of each, and called the file clean for ever."""
    inside.write("m.safetensors", safetensors(model()))
    session = Session()
    sent = b"" if empty else safetensors(model())
    session.request(b"command=clean", b"pathname=m.safetensors", content=sent)
    reader = session.interrupted(lambda: change(inside.path / "m.safetensors"))
    assert reader.lines() == [b"status=error"]
    said = capfd.readouterr().err
    assert "'m.safetensors'" in said
    assert "while it was read" in said
    assert "add it again" in said


def test_a_file_that_changed_before_it_is_opened_is_not_staged(
    inside: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git may have read all of a small file before this program is ready to open it."""
    inside.write("m.safetensors", safetensors(model()))
    session = Session()
    session.request(b"command=clean", b"pathname=m.safetensors", content=safetensors(model()))
    opened = filter_commands._open

    def late(path: str) -> FileSource | None:
        _written_in_place(Path(path))
        return opened(path)

    monkeypatch.setattr(filter_commands, "_open", late)
    assert session.answers().lines() == [b"status=error"]


def test_a_manifest_passes_through(inside: Repo) -> None:
    inside.write("m.safetensors", safetensors(model()))
    inside.commit()
    manifest = inside.blob("HEAD:m.safetensors")
    session = Session()
    session.request(b"command=clean", b"pathname=m.safetensors", content=manifest)
    assert good(session.answers()) == manifest


def test_what_is_no_manifest_is_smudged_to_itself(inside: Repo) -> None:
    session = Session()
    session.request(b"command=smudge", b"pathname=m.bin", content=b"plain bytes")
    assert good(session.answers()) == b"plain bytes"


def test_a_failure_concerns_one_file_only(inside: Repo, capfd: pytest.CaptureFixture[str]) -> None:
    inside.write("m.safetensors", safetensors(model()))
    inside.commit()
    good_manifest = inside.blob("HEAD:m.safetensors")
    session = Session()
    broken = good_manifest.replace(b"\nend\n", b"\n")
    session.request(b"command=clean", b"pathname=broken.pt", content=broken)
    session.request(b"command=unheard-of", b"pathname=x", content=b"x")
    session.request(b"command=smudge", b"pathname=m.safetensors", content=good_manifest)
    reader = session.answers()
    assert reader.lines() == [b"status=error"]
    assert reader.lines() == [b"status=error"]
    assert good(reader) == (inside.path / "m.safetensors").read_bytes()
    assert "'broken.pt': line" in capfd.readouterr().err


def test_missing_objects_delay_and_then_fail_for_that_file(
    inside: Repo, capfd: pytest.CaptureFixture[str]
) -> None:
    inside.write("m.safetensors", safetensors(model()))
    inside.commit()
    manifest = inside.blob("HEAD:m.safetensors")
    for ref in parse_manifest(manifest).objects():
        path = inside.path / ".git/theta/objects" / ref.oid[:2] / ref.oid[2:4] / ref.oid
        path.unlink(missing_ok=True)
    session = Session()
    session.request(
        b"command=smudge", b"pathname=m.safetensors", b"treeish=x", b"can-delay=1", content=manifest
    )
    session.request(b"command=list_available_blobs")
    session.request(b"command=smudge", b"pathname=m.safetensors", content=b"")
    session.request(b"command=list_available_blobs")
    reader = session.answers()
    assert reader.lines() == [b"status=delayed"]
    assert reader.lines() == [b"pathname=m.safetensors"]
    assert reader.lines() == [b"status=success"]
    assert reader.lines() == [b"status=error"]
    assert reader.lines() == []
    assert reader.lines() == [b"status=success"]
    assert "could not be fetched" in capfd.readouterr().err


def test_a_name_with_odd_bytes_is_only_a_name(inside: Repo) -> None:
    data = safetensors(model())
    session = Session()
    session.request(b"command=clean", b"pathname=a \xff'$(x)=b.pt", content=data)
    assert is_manifest(good(session.answers()))
