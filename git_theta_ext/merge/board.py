"""What `git theta mergetool` shows and does, without a terminal: keys in, lines out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from git_theta_ext.errors import ThetaError, UsageError
from git_theta_ext.merge import structure
from git_theta_ext.merge.choice import CONFLICT, Choice
from git_theta_ext.merge.distance import Weighed
from git_theta_ext.merge.plan import Decision, Plan
from git_theta_ext.text import printable

Leave = Literal["", "accept", "quit"]
"""Whether to go on (empty), to write the result, or to leave all as it was."""

QUICK = {"o": "ours", "t": "theirs", "b": "base", "v": "average"}
_KEYS = ("↑↓ move", "a scope", "o ours", "t theirs", "v average", "b base", "s strategy",
         "u undo", "w accept", "q quit")  # fmt: skip
_CHANGED_BY_BOTH = ("merge", "open")


class State(Protocol):
    """The part of `merge.state.State` that is used here."""

    def choose(self, name: str) -> Choice:
        """The strategy for a tensor."""
        ...

    @property
    def structure(self) -> structure.Side | None:
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
        self, pattern: str | None, choice: str | None, side: structure.Side | None
    ) -> Settling:
        """See `Conflict.resolve`."""
        ...

    def only(self, names: Sequence[str], choice: str) -> Settling:
        """See `Conflict.only`."""
        ...

    def undo(self) -> Settling:
        """See `Conflict.undo`."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor that both sides changed, or the structure: what each did, and what is chosen."""

    name: str
    ours: str
    theirs: str
    chosen: str
    weighed: Weighed

    @property
    def open(self) -> bool:
        """Whether it is still to be settled."""
        return bool(self.weighed.open)


class Board:
    """The table, the cursor, a prompt at the bottom, and the conflict as it is settled so far."""

    def __init__(
        self,
        conflict: Settling,
        weigh: Callable[[Settling, str], Weighed],
        structure_reason: str = "",
    ) -> None:
        """`weigh` merges one tensor; `structure_reason` says why the structure is open, if so."""
        self.conflict = conflict
        self.cursor = 0
        self.message = ""
        self.prompt: str | None = None
        self.everything = False
        self._weigh = weigh
        self._reason = structure_reason
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

    def _row(self, name: str) -> Row:
        one = self._decision(name)
        chosen = "" if one.choice == CONFLICT else str(one.choice)
        return Row(name, one.ours, one.theirs, chosen, self._weigh(self.conflict, name))

    def _decision(self, name: str) -> Decision:
        return next(one for one in self.conflict.plan().decisions if one.name == name)

    def _structure(self) -> Row:
        side = self.conflict.state.structure
        reason = "" if side else self._reason
        return Row(structure.NAME, "changed", "changed", side or "", Weighed(reason, None, None))

    @property
    def left(self) -> int:
        """How many parts are open."""
        return sum(row.open for row in self.rows)

    def press(self, key: str) -> Leave:
        """Do what a key asks for: a character, or `up down pgup pgdn home end enter esc back`."""
        sure, self._sure = self._sure, False
        if self.prompt is not None:
            self._type(key)
            return ""
        self.message = ""
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -10, "pgdn": 10}
        far = {"home": -len(self.rows), "end": len(self.rows)}
        if key in steps or key in far:
            place = self.cursor + (steps.get(key) or far.get(key, 0))
            self.cursor = max(0, min(place, len(self.rows) - 1))
        elif key == "a":
            self.everything = not self.everything
        elif key in QUICK:
            self.use(QUICK[key])
        elif key in ("s", "enter"):
            self.prompt = ""
        elif key == "u":
            self.undo()
        elif key in ("q", "esc"):
            return "quit"
        elif key == "w":
            return self._accept(sure)
        return ""

    def _type(self, key: str) -> None:
        text = self.prompt or ""
        if key == "esc":
            self.prompt = None
        elif key == "enter":
            self.prompt = None
            if text.strip():
                self.use(text.strip())
        elif key == "back":
            self.prompt = text[:-1]
        elif len(key) == 1 and key.isprintable():
            self.prompt = text + key

    def _accept(self, sure: bool) -> Leave:
        if not self.left or sure:
            return "accept"
        self._sure = True
        self.message = (
            f"{self.left} open, where ours stands; w again writes it and leaves them open"
        )
        return ""

    def use(self, choice: str) -> None:
        """Settle what the scope says, this row or all that is open, by a strategy."""
        if not self.rows:
            return
        rows = (
            [row for row in self.rows if row.open] if self.everything else [self.rows[self.cursor]]
        )
        names = [row.name for row in rows if row.name != structure.NAME]
        sided: structure.Side | None = (
            "ours" if choice == "ours" else "theirs" if choice == "theirs" else None
        )
        header = any(row.name == structure.NAME for row in rows)
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
            self.message = error.message

    def _refresh(self, names: Sequence[str], before: Settling) -> None:
        """Merge some tensors anew; as it was, where that fails."""
        try:
            found = {name: self._row(name) for name in names}
        except ThetaError:
            self.conflict = before
            raise
        self.rows = [found.get(row.name, row) for row in self.rows]

    def _renew_structure(self) -> None:
        self.rows = [self._structure() if row.name == structure.NAME else row for row in self.rows]

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
        return [row for row in self.rows if row.name != structure.NAME]

    def screen(self, width: int, height: int) -> tuple[list[str], int]:
        """What to show, line by line, and the number of the line under the cursor."""
        keys = _keys(width)[: max(1, height - 6)]
        room = max(1, height - 5 - len(keys))
        first = max(0, min(self.cursor - room // 2, len(self.rows) - room))
        seen = self.rows[first : first + room]
        cells = [_HEAD, *(_cells(row) for row in seen)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
        widths[0] = max(6, min(widths[0], width - sum(widths[1:]) - 2 * len(_HEAD)))
        head, *body = [_line(row, widths) for row in cells]
        title = f"{printable(self.conflict.path)}: {self.left} of {len(self.rows)} parts open"
        lines = [title, head, *body]
        lines += [""] * (height - 3 - len(keys) - len(lines))
        scope = "all that is open" if self.everything else "this tensor"
        reason = self.rows[self.cursor].weighed.open if self.rows else ""
        prompt = self.message if self.prompt is None else f"strategy: {self.prompt}_"
        lines += [
            f"why: {printable(reason)}" if reason else "",
            f"scope: {scope}",
            printable(prompt),
            *keys,
        ]
        return [line[: max(0, width - 1)] for line in lines], 2 + self.cursor - first


_HEAD = ["tensor", "ours", "theirs", "result", "to ours", "to theirs"]


def _keys(width: int) -> list[str]:
    """What the keys do, in as many lines as it takes."""
    lines = [""]
    for key in _KEYS:
        longer = f"{lines[-1]}  {key}" if lines[-1] else key
        if lines[-1] and len(longer) >= width:
            lines.append(key)
        else:
            lines[-1] = longer
    return lines


def _cells(row: Row) -> list[str]:
    chosen = f"{row.chosen}: open" if row.open and row.chosen else row.chosen or "by itself"
    result = "open" if row.open and not row.chosen else chosen
    gaps = [_gap(row.weighed.ours), _gap(row.weighed.theirs)]
    return [printable(row.name), row.ours, row.theirs, result, *gaps]


def _gap(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0]
    if len(name) > widths[0]:
        half = (widths[0] - 1) // 2
        name = f"{name[:half]}…{name[len(name) - (widths[0] - 1 - half) :]}"
    fitted = [name, *cells[1:]]
    return "  ".join(cell.ljust(width) for cell, width in zip(fitted, widths, strict=True)).rstrip()
