"""The command that writes the table of docs/reliability.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import __main__ as command
from tests.reliability.rows import Row

TEXT = f"# Title\n\n{command.BEGIN}{command.END}\nAfter\n"


class _Part:
    """A part of the tests that answers at once."""

    def __init__(self, *rows: Row) -> None:
        self.rows = rows

    def measure(self, scale: float) -> list[Row]:
        if not self.rows:
            raise RuntimeError("a version is lost | details")
        return list(self.rows)


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = {
        "tests.reliability.twins": _Part(Row("files", "10 compared", "no difference")),
        "tests.reliability.bitflips": _Part(Row("bits", "a | b\nc", "none unnoticed")),
        "tests.reliability.kills": _Part(),
    }
    monkeypatch.setattr(command, "import_module", known.__getitem__)
    monkeypatch.setattr(command, "parts", lambda: ["twins", "bitflips", "kills"])
    path = tmp_path / "reliability.md"
    path.write_text(TEXT)
    return path


def test_lines_are_written_between_the_markers(document: Path) -> None:
    assert command.main(["--scale", "0.5", "--only", "twins"], document) == 0
    text = document.read_text()
    assert "| files | 10 compared | no difference | 0.5 |\n" in text
    assert text.startswith("# Title\n")
    assert text.endswith("\nAfter\n")


def test_parts_not_run_keep_their_lines(document: Path) -> None:
    command.main(["--only", "twins"], document)
    command.main(["--scale", "0.1", "--only", "bitflips"], document)
    command.main(["--scale", "0.2", "--only", "bitflips"], document)
    assert command.read(document.read_text()) == [
        ("files", "10 compared", "no difference", "1"),
        ("bits", "a \\| b c", "none unnoticed", "0.2"),
    ]


def test_a_part_that_fails_is_told(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "kills", "twins"], document) == 1
    text = document.read_text()
    assert "| kills | not measured | FAILED: a version is lost \\| details | 1 |" in text
    assert "no difference" in text
    assert "RuntimeError" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(document: Path) -> None:
    assert command.main(["--dry-run", "--only", "twins"], document) == 0
    assert document.read_text() == TEXT


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="measured: begin"):
        command.write("# Title\n", [])


def test_the_real_document_has_its_markers() -> None:
    text = command.DOCUMENT.read_text("utf-8")
    assert command.write(text, command.read(text)) == text
