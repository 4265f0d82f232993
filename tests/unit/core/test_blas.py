"""Work on several threads: in order, and without threads of linear algebra under them."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from git_theta_ext.core import blas
from git_theta_ext.core.parallel import ordered_map


class Library:
    """A library of linear algebra that can be asked for the number of its threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.set_to: list[int] = []

    def get(self) -> int:
        return self.threads

    def put(self, threads: int) -> None:
        self.threads = threads
        self.set_to.append(threads)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library(8)
    assert sys.modules["numpy"] is np  # without it there is nothing to ask
    monkeypatch.setattr(blas, "_controls", lambda: (library.get, library.put))
    return library


def test_results_come_in_order_and_linear_algebra_has_one_thread(library: Library) -> None:
    found = list(ordered_map(lambda item: (item, library.threads), range(20), lambda item: 1))
    assert found == [(item, 1) for item in range(20)]
    assert library.threads == 8


def test_the_last_thread_puts_the_number_back(library: Library) -> None:
    both, seen = threading.Barrier(2, timeout=30), []

    def hold(first: bool) -> None:
        with blas.single_threaded():
            both.wait()
            if first:
                return
            other.join()
            seen.append(library.threads)

    other = threading.Thread(target=hold, args=(True,))
    last = threading.Thread(target=hold, args=(False,))
    other.start()
    last.start()
    last.join()
    assert seen == [1]
    assert library.set_to == [1, 8]


def test_a_failure_puts_the_number_back(library: Library) -> None:
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda item: 1 // item, [0], lambda item: 1))
    assert library.threads == 8


def test_a_library_of_one_thread_is_left_alone(library: Library) -> None:
    library.threads = 1
    assert list(ordered_map(abs, [-1], lambda item: 1)) == [1]
    assert library.set_to == []


def test_the_library_that_numpy_brings_is_found() -> None:
    controls = blas._controls()
    if controls is None:
        pytest.skip("NumPy was built with another library than OpenBLAS")
    code = (
        "import numpy; from git_theta_ext.core import blas\n"
        "get, put = blas._controls(); put(2); first = get()\n"
        "with blas.single_threaded(): print(first, get())\n"
        "print(get())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "1", "2"]
