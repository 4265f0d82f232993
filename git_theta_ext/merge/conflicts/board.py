"""What `git theta mergetool` shows and does, without a terminal: keys in, lines out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.conflicts import board_rows, board_table
from git_theta_ext.merge.conflicts.board_rows import Line, Row
from git_theta_ext.merge.conflicts.distance import Weighed
from git_theta_ext.merge.decide.plan import Decision, Plan
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice

Leave = Literal["", "accept", "quit"]
"""Whether to go on (empty), to write the result, or to leave without writing."""

QUICK = {"o": "ours", "t": "theirs", "b": "base", "v": "average"}
_CHANGED_BY_BOTH = ("merge", "open")
_LEAVING = ("q", "esc", "\x03", "\x04")
"""Ctrl-C and Ctrl-D among them."""


class State(Protocol):
    """The part of `merge.state.State` that is used here."""

    def choose(self, name: str) -> Choice:
        """The strategy for a tensor."""
        ...

    @property
    def structure(self) -> skeleton.Side | None:
        """The side whose structure was chosen."""
        ...


class Settling(Protocol):
    """The part of `merge.resolve.Conflict` that is used here; each call gives a new one."""

    @property
    def path(self) -> str:
        """The checkpoint's."""
        ...

    @property
    def state(self) -> State:
        """What was chosen."""
        ...

    def plan(self) -> Plan:
        """What would be done."""
        ...

    def resolve(
        self, pattern: str | None, choice: str | None, side: skeleton.Side | None
    ) -> Settling:
        """See `Conflict.resolve`."""
        ...

    def only(self, names: Sequence[str], choice: str) -> Settling:
        """See `Conflict.only`."""
        ...

    def undo(self) -> Settling:
        """See `Conflict.undo`."""
        ...


class Board:
    """The table, the cursor, a prompt at the bottom, and the conflict as it is settled so far."""

    def __init__(
        self,
        conflict: Settling,
        weigh: Callable[[Settling, str], Weighed],
        structure_reason: str = "",
        *,
        partly: bool = True,
    ) -> None:
        """`weigh` merges one tensor; `structure_reason` says why the structure is open, if so.

        `partly`: what is settled can be written while something is open.
        """
        self.conflict = conflict
        self.cursor = 0
        self.message = ""
        self.prompt: str | None = None
        self.everything = False
        self._weigh = weigh
        self._reason = structure_reason
        self._partly = partly
        self._sure = False
        # A coupled group is settled under the name of its first tensor, in one row.
        names = [
            one.name
            for one in conflict.plan().decisions
            if one.action in _CHANGED_BY_BOTH and one.leader in ("", one.name)
        ]
        self.rows = [self._row(name) for name in names]
        if structure_reason:
            self.rows.insert(0, self._structure())
        self._folds = board_rows.folded(self.rows)

    @property
    def lines(self) -> list[Line]:
        """The lines of the table; the rows of one that was unfolded stand by themselves."""
        return [
            one
            for line in self._folds
            for one in ([line] if line.folded else [Line(name, (name,)) for name in line.rows])
        ]

    def turn(self) -> None:
        """Unfold the line under the cursor, or fold again what it was part of."""
        if not self.rows:
            return
        names = self.lines[self.cursor].rows
        line = next(one for one in self._folds if names[0] in one.rows)
        if len(line.rows) == 1:
            self.message = "this line stands for one tensor"
            return
        line.folded = not line.folded
        self.cursor = next(
            number for number, one in enumerate(self.lines) if line.rows[0] in one.rows
        )

    def _row(self, name: str) -> Row:
        one = self._decision(name)
        chosen = "" if one.choice == CONFLICT else str(one.choice)
        return Row(name, one.ours, one.theirs, chosen, self._weigh(self.conflict, name))

    def _decision(self, name: str) -> Decision:
        return self.conflict.plan().by_name[name]

    def _structure(self) -> Row:
        side = self.conflict.state.structure
        reason = "" if side else self._reason
        return Row(skeleton.NAME, "changed", "changed", side or "", Weighed(reason, None, None))

    @property
    def left(self) -> int:
        """How many parts are open."""
        return sum(row.open for row in self.rows)

    def press(self, key: str) -> Leave:
        """Do what a key asks for: a character, or `up down pgup pgdn home end enter esc back`."""
        sure, self._sure = self._sure, False
        if self.prompt is not None:
            if key in ("\x03", "\x04"):
                return "quit"
            self._type(key)
            return ""
        self.message = ""
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -10, "pgdn": 10}
        far = {"home": -len(self.rows), "end": len(self.rows)}
        if key in steps or key in far:
            place = self.cursor + (steps.get(key) or far.get(key, 0))
            self.cursor = max(0, min(place, len(self.lines) - 1))
        elif key in ("f", " "):
            self.turn()
        elif key == "a":
            self.everything = not self.everything
        elif key in QUICK:
            self.use(QUICK[key])
        elif key in ("s", "enter"):
            self.prompt = ""
        elif key == "u":
            self.undo()
        elif key in _LEAVING:
            return "quit"
        elif key == "w":
            return self._accept(sure)
        return ""

    def _type(self, key: str) -> None:
        text = self.prompt or ""
        if key == "esc":
            self.prompt = None
            self.message = ""
        elif key == "enter":
            # What was typed stays, to be corrected, until it is a strategy that can be used.
            self.message = ""
            if not text.strip() or self.use(text.strip()):
                self.prompt = None
        elif key == "back":
            self.prompt = text[:-1]
        elif len(key) == 1 and key.isprintable():
            self.prompt = text + key

    def _accept(self, sure: bool) -> Leave:
        if not self.left or sure:
            return "accept"
        self._sure = True
        self.message = (
            f"{self.left} open; w again writes the file, with our version for them"
            if self._partly
            else f"{self.left} open: git mergetool marks a whole file as merged, so nothing "
            "is written until all is settled; w again leaves, and keeps your choices for the next "
            "start"
        )
        return ""

    @property
    def aimed(self) -> list[Row]:
        """The rows that the scope says: those of the line under the cursor, or all that is open."""
        if self.everything or not self.rows:
            return [row for row in self.rows if row.open]
        names = frozenset(self.lines[self.cursor].rows)
        return [row for row in self.rows if row.name in names]

    def use(self, choice: str) -> bool:
        """Settle what the scope says by a strategy; False, with a message, where it cannot be."""
        rows = self.aimed
        if not rows:
            self.message = "nothing is open" if self.rows else ""
            return True
        names = [row.name for row in rows if row.name != skeleton.NAME]
        sided: skeleton.Side | None = (
            "ours" if choice == "ours" else "theirs" if choice == "theirs" else None
        )
        header = any(row.name == skeleton.NAME for row in rows)
        try:
            if header and sided is None and not names:
                raise UsageError("the structure can only be ours or theirs")
            conflict = self.conflict
            if names:
                conflict = conflict.only(names, choice)
            if header and sided is not None:
                conflict = conflict.resolve(None, None, sided)
            before, self.conflict = self.conflict, conflict
            self._refresh(names, before)
            if header:
                self._renew_structure()
        except ThetaError as error:
            # What to type comes first: the end of a long line may not be seen.
            self.message = f"{error.hint}   ({error.message})" if error.hint else error.message
            return False
        return True

    def _refresh(self, names: Sequence[str], before: Settling) -> None:
        """Merge some tensors anew; as it was, where that fails."""
        try:
            found = {name: self._row(name) for name in names}
        except ThetaError:
            self.conflict = before
            raise
        self.rows = [found.get(row.name, row) for row in self.rows]

    def _renew_structure(self) -> None:
        self.rows = [self._structure() if row.name == skeleton.NAME else row for row in self.rows]

    def undo(self) -> None:
        """Take the last choice back, also one of an earlier session."""
        try:
            before = [self._decision(row.name).choice for row in self.tensors]
            conflict = self.conflict.undo()
            old, self.conflict = self.conflict, conflict
            after = [self._decision(row.name).choice for row in self.tensors]
            changed = [
                row.name for row, a, b in zip(self.tensors, before, after, strict=True) if a != b
            ]
            self._refresh(changed, old)
            self._renew_structure()
        except ThetaError as error:
            self.message = error.message

    @property
    def tensors(self) -> list[Row]:
        """The rows that are tensors."""
        return [row for row in self.rows if row.name != skeleton.NAME]

    def screen(self, width: int, height: int) -> tuple[list[str], int]:
        """What to show, line by line, and the number of the line under the cursor."""
        keys = board_rows.keys(width, folds=any(len(one.rows) > 1 for one in self._folds))
        keys = keys[: max(1, height - 6)]
        cells = self._table()
        kept = board_table.columns(cells, width)
        head, *body = board_table.body(cells, kept, width)
        spare = height - 5 - len(keys) - min(len(body), 4)
        foot = self._foot(cells, kept, body, width, max(0, spare))
        room = max(1, height - 2 - len(foot) - len(keys))
        first = max(0, min(self.cursor - room // 2, len(body) - room))
        lines = [self._title(), head, *body[first : first + room]]
        lines += [""] * (height - len(foot) - len(keys) - len(lines))
        lines += [*foot, *keys]
        return [line[: max(0, width - 1)] for line in lines], 2 + self.cursor - first

    def _title(self) -> str:
        return f"{printable(self.conflict.path)}: {self.left} of {len(self.rows)} parts open"

    def listing(self, width: int) -> list[str]:
        """The whole table without a cursor: a title, the head, and a line for each line."""
        cells = self._table()
        return [self._title(), *board_table.body(cells, board_table.columns(cells, width), width)]

    def _foot(
        self,
        cells: Sequence[board_table.Cells],
        kept: Sequence[int],
        body: Sequence[str],
        width: int,
        spare: int,
    ) -> list[str]:
        """What is said below the table in three lines, and in `spare` more where it needs them."""
        here = self._rows_of(self.lines[self.cursor]) if cells else []
        reason = next((row.weighed.open for row in here if row.weighed.open), "")
        said = [] if self.prompt is None else [printable(f"strategy: {self.prompt}_")]
        if self.message and said and not spare:
            said = [f"{said[0]}  {printable(self.message)}"]
        elif self.message:
            said += board_table.wrapped(self.message, width, spare + 1 - len(said))
        spare -= max(0, len(said) - 1)
        told = board_table.below(cells[self.cursor], kept, width, body[self.cursor]) if here else []
        why = board_table.wrapped(f"why: {reason}", width, min(3, spare + 1)) if reason else [""]
        told = told[: max(0, spare + 1 - len(why))]
        aimed = len(self.aimed)
        parts = f"these {aimed} parts" if aimed > 1 else "this tensor"
        scope = f"scope: {'all that is open' if self.everything else parts}"
        return [*told, *why, scope, *(said or [""])]

    def _rows_of(self, line: Line) -> list[Row]:
        names = frozenset(line.rows)
        return [row for row in self.rows if row.name in names]

    def _table(self) -> list[list[str]]:
        """The cells of each line."""
        found = {row.name: row for row in self.rows}
        return [
            board_rows.cells(line.name, [found[name] for name in line.rows]) for line in self.lines
        ]
