"""Run what proves that nothing is lost, and write the table of docs/reliability.md.

    python -m tests.reliability                           # all of it: hours
    python -m tests.reliability --scale 0.01              # a hundredth of it
    python -m tests.reliability --only twins bitflips     # these parts; other lines stay

A part is a module of this folder with `measure(scale) -> list[Row]`. A part that fails is
told in the table like any other result, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests.reliability.rows import Row

PARTS = (
    "kills", "power", "errors", "changing", "transfers", "processes", "bitflips", "twins", "fuzz",
    "losses", "attacks",
)  # fmt: skip
"""Every part, in the order of the table."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
_HEAD = "| what | how | result | scale |\n|---|---|---|---|\n"

Line = tuple[str, str, str, str]
"""What, how, result, and the share of the full run."""


def parts() -> list[str]:
    """The parts that there are."""
    return [name for name in PARTS if find_spec(f"tests.reliability.{name}") is not None]


def measure(name: str, scale: float) -> tuple[list[Line], bool]:
    """The lines of a part, and whether it could be measured."""
    try:
        rows: Iterable[Row] = import_module(f"tests.reliability.{name}").measure(scale)
    except Exception as error:  # one part that fails must not hide the others
        traceback.print_exc()
        text = (str(error).strip().splitlines() or [""])[0][:200]
        return [_line(Row(name, "not measured", f"FAILED: {text}"), scale)], False
    return [_line(row, scale) for row in rows], True


def _line(row: Row, scale: float) -> Line:
    what, how, result = (
        " ".join(cell.split()).replace("|", "\\|") for cell in (row.what, row.how, row.result)
    )
    return what, how, result, f"{scale:g}"


def read(document: str) -> list[Line]:
    """The lines of the table that stands in the document."""
    table = document.partition(BEGIN)[2].partition(END)[0]
    found: list[Line] = []
    for text in table.removeprefix(_HEAD).splitlines():
        cells = text.removeprefix("| ").removesuffix(" |").split(" | ")
        if len(cells) == 4:
            found.append((cells[0], cells[1], cells[2], cells[3]))
    return found


def write(document: str, lines: Sequence[Line]) -> str:
    """The document with these lines as its table.

    Raises:
        ValueError: it has no place for a table.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no lines {BEGIN.strip()!r} and {END.strip()!r}")
    table = _HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return before + begin + table + end + after


def merged(old: Sequence[Line], new: Sequence[Line]) -> list[Line]:
    """The old lines, those of the same subjects replaced, then those of new subjects."""
    fresh = {line[0]: line for line in new}
    kept = [fresh.pop(line[0], line) for line in old]
    return [*kept, *fresh.values()]


def main(arguments: Sequence[str] | None = None, document: Path = DOCUMENT) -> int:
    """Measure and write; 1 if a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability", description="Measure, and write the table."
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full run")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=parts(), help="these parts")
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    options = parser.parse_args(arguments)
    lines: list[Line] = []
    whole = True
    for name in options.only or parts():
        print(f"{name} ...", file=sys.stderr, flush=True)
        found, good = measure(name, options.scale)
        for line in found:
            print(" | ".join(line), flush=True)
        lines += found
        whole = whole and good
        if not options.dry_run:
            # After every part: what took hours is not lost when a later one is interrupted.
            text = document.read_text("utf-8")
            document.write_text(write(text, merged(read(text), lines)), "utf-8", newline="\n")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
