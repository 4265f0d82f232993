"""docs/security.md lists every attack that is tried, and no other."""

from __future__ import annotations

from tests.reliability import attacks


def test_the_list_is_that_of_the_tests() -> None:
    text = attacks.DOCUMENT.read_text("utf-8")
    found = text.partition(attacks.BEGIN)[2].partition(attacks.END)[0]
    assert found == attacks.table(), "python -m tests.reliability.attacks writes it anew"


def test_every_attack_says_who_and_what() -> None:
    for who, what in attacks.listed():
        assert who
        assert what
        assert "|" not in who + what
