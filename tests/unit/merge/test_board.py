"""The mergetool's board: keys in, lines out, over a conflict that is made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.conflicts.board import Board, Settling
from git_theta_ext.merge.conflicts.distance import Weighed
from git_theta_ext.merge.decide.plan import Decision, Plan
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.policy import parse_choice
from tests.scenarios.manifests import entry, manifest

NAMES = ("a.weight", "b.weight", "c.weight")


@dataclass(frozen=True)
class FakeState:
    chosen: tuple[tuple[frozenset[str], str], ...] = ()
    structure: skeleton.Side | None = None

    def choose(self, name: str) -> Choice:
        found = [choice for names, choice in self.chosen if name in names]
        return parse_choice(found[-1], "test") if found else CONFLICT


@dataclass(frozen=True)
class FakeConflict:
    path: str = "model.safetensors"
    state: FakeState = field(default_factory=FakeState)
    names: tuple[str, ...] = NAMES

    def plan(self) -> Plan:
        some = manifest(*(entry(name) for name in self.names))
        decisions = [
            Decision(n, "weights", "changed", "changed", "merge", None, self.state.choose(n))
            for n in self.names
        ]
        kept = Decision("d", "weights", "kept", "changed", "theirs", None)
        return Plan(some, some, some, (*decisions, kept))

    def only(self, names: Sequence[str], choice: str) -> FakeConflict:
        parse_choice(choice, "strategy")
        chosen = (*self.state.chosen, (frozenset(names), choice))
        return replace(self, state=replace(self.state, chosen=chosen))

    def resolve(
        self, pattern: str | None, choice: str | None, side: skeleton.Side | None
    ) -> FakeConflict:
        return replace(self, state=replace(self.state, structure=side))

    def undo(self) -> FakeConflict:
        if not self.state.chosen:
            raise UsageError("nothing was resolved yet")
        return replace(self, state=replace(self.state, chosen=self.state.chosen[:-1]))


def weigh(conflict: Settling, name: str) -> Weighed:
    choice = conflict.state.choose(name)
    if choice.strategy == "fisher":
        raise UsageError("no fisher statistics")
    open_ = "both sides changed 9 entries" if choice == CONFLICT else ""
    share = {"ours": 0.0, "theirs": 1.0}.get(choice.strategy, 0.5)
    return Weighed(open_, share, 1 - share)


def board(reason: str = "") -> Board:
    return Board(FakeConflict(), weigh, reason)


def press(made: Board, *keys: str) -> str:
    return [made.press(key) for key in keys][-1]


def text(made: Board) -> str:
    return "\n".join(made.screen(100, 20)[0])


def test_the_table_has_what_both_changed() -> None:
    made = board()
    shown = text(made)
    assert "model.safetensors: 3 of 3 parts open" in shown
    assert "d " not in [line[:2] for line in shown.splitlines()]
    assert "why: both sides changed 9 entries" in shown
    assert made.screen(100, 20)[1] == 2


def test_a_choice_for_the_tensor_under_the_cursor_shows_its_distances() -> None:
    made = board()
    press(made, "down", "t")
    assert [row.chosen for row in made.rows] == ["", "theirs", ""]
    line = next(line for line in text(made).splitlines() if line.startswith("b.weight"))
    assert line.split() == ["b.weight", "changed", "changed", "theirs", "1.000", "0.000"]
    press(made, "up", "o")
    assert made.left == 1
    press(made, "u")
    assert [row.chosen for row in made.rows] == ["", "theirs", ""]


def test_a_choice_for_all_that_is_open_leaves_what_is_settled() -> None:
    made = board()
    press(made, "o", "a", "v")
    assert [row.chosen for row in made.rows] == ["ours", "average", "average"]
    assert made.left == 0
    assert press(made, "w") == "accept"


def test_a_typed_strategy() -> None:
    made = board()
    press(made, "s", *"ties,density=0.33", "back", "enter")
    assert made.rows[0].chosen == "ties,density=0.3"
    press(made, "s", *"ours", "esc")
    assert made.prompt is None
    assert made.rows[0].chosen == "ties,density=0.3"


@pytest.mark.parametrize(
    ("typed", "message"), [("tis", "unknown merge strategy 'tis'"), ("fisher", "no fisher")]
)
def test_a_mistake_is_told_and_changes_nothing(typed: str, message: str) -> None:
    made = board()
    press(made, "s", *typed, "enter")
    assert message in made.message
    assert message in text(made)
    assert made.rows[0].open
    assert made.conflict == FakeConflict()
    assert made.prompt == typed
    assert f"strategy: {typed}_" in text(made)
    press(made, "esc", "u")
    assert made.message == "nothing was resolved yet"


def test_a_mistyped_strategy_is_corrected_where_it_stands() -> None:
    made = board()
    press(made, "down", "s", *"tis,density=0.3", "enter")
    assert "did you mean: ties" in text(made)
    press(made, *["back"] * len("is,density=0.3"), *"ies", "enter")
    assert made.prompt is None
    assert [row.chosen for row in made.rows] == ["", "ties", ""]


def test_all_that_is_known_is_said_in_a_narrow_terminal() -> None:
    made = board()
    press(made, "s", *"tis", "enter")
    shown = " ".join(" ".join(made.screen(60, 24)[0]).split())
    assert "did you mean: ties" in shown
    for name in ("ours", "average", "task-arithmetic"):
        assert name in shown


def test_control_characters_leave_from_the_prompt_too() -> None:
    for key in ("\x03", "\x04"):
        assert press(board(), key) == "quit"
        assert press(board(), "s", *"aver", key) == "quit"


LAYERS = [f"base_model.model.layers.{n}.self_attn.{p}.weight" for n in range(12) for p in "qv"]


def many(names: Sequence[str]) -> Board:
    return Board(FakeConflict(names=tuple(names)), weigh)


def test_names_are_told_apart_in_sixty_columns() -> None:
    names = [f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_A.default.weight"
             for n in range(10)]  # fmt: skip
    made = many(names)
    lines, _ = made.screen(60, 30)
    assert all(len(line) < 60 for line in lines)
    rows = lines[2:12]
    assert len({row.split("  ")[0] for row in rows}) == 10
    assert all(str(n) in row for n, row in enumerate(rows))
    # The whole name of the row under the cursor stands below.
    assert names[0] in "".join(lines[12:])


def test_many_that_changed_alike_are_one_line() -> None:
    made = many(LAYERS)
    shown = text(made)
    assert "model.safetensors: 24 of 24 parts open" in shown
    assert "base_model.model.layers.{0..11}.self_attn.{q,v}.weight" in shown
    assert len(made.lines) == 1
    press(made, "t")
    assert made.left == 0
    press(made, "u", "f", "down", "o")
    assert [row.chosen for row in made.rows[:3]] == ["", "ours", ""]
    assert len(made.lines) == 24
    press(made, "f")
    assert len(made.lines) == 1
    assert "several, 23 open" in text(made)


def test_accepting_with_something_open_is_asked_twice() -> None:
    made = board()
    assert press(made, "w") == ""
    assert "3 open; w again writes the file, with our version for them" in text(made)
    assert press(made, "down", "w") == ""
    assert press(made, "w") == "accept"
    assert press(board(), "q") == "quit"
    assert press(board(), "esc") == "quit"


def test_the_structure_takes_a_side_only() -> None:
    made = board("both sides changed the metadata a")
    assert made.rows[0].name == skeleton.NAME
    press(made, "v")
    assert made.message == "the structure can only be ours or theirs"
    press(made, "t")
    assert made.rows[0].chosen == "theirs"
    assert made.left == 3
    made = board("both sides changed the metadata a")
    press(made, "a", "o")
    assert made.left == 0


@pytest.mark.parametrize(("width", "height"), [(100, 20), (40, 8), (20, 6), (1, 1), (200, 60)])
def test_every_size_of_terminal(width: int, height: int) -> None:
    made = board()
    press(made, "end")
    lines, place = made.screen(width, height)
    assert all(len(line) < max(width, 1) for line in lines if line)
    if height > 6:
        assert len(lines) == height
        assert lines[place].startswith("c")


def test_the_keys_are_told_in_a_usual_terminal() -> None:
    lines, _ = board().screen(80, 24)
    assert "  ".join(line for line in lines[-2:]).split("  ")[-2:] == ["w accept", "q quit"]
    assert all(len(line) < 80 for line in lines)


def test_the_cursor_stays_on_the_table() -> None:
    made = board()
    for key in ("up", "pgdn", "down", "home", "k", "end", "j", "pgup", "x", ""):
        press(made, key)
        assert 0 <= made.cursor < 3
