"""A short run of the twins in every test run; longer ones are started by hand (see `twins.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.twins import Difference, Twins, compare


@pytest.mark.sample(2)
@pytest.mark.parametrize("seed", [3, 4])
def test_random_commands_leave_the_same_files_as_plain_git(tmp_path: Path, seed: int) -> None:
    twins = Twins(tmp_path, seed)
    try:
        assert twins.run(40) > 0
    except Difference as error:
        pytest.fail("\n".join([*twins.said[-40:], str(error)]))


def test_a_difference_is_noticed(tmp_path: Path) -> None:
    twins = Twins(tmp_path, 5)
    twins.new_file()
    twins.clean_up()
    twins.compare()
    name = next(path for path in twins.ours.iterdir() if path.is_file() and path.suffix)
    with (twins.ours / name.name).open("ab") as file:
        file.write(b"!")
    with pytest.raises(Difference):
        compare(twins.ours, twins.plain)
