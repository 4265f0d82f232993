"""One thread of linear algebra for each thread of ours, through whichever door we come.

A library that starts threads of its own under each of ours makes them wait for one another, and
waiting, they compute: four merged matrices of 1024² took 8.7 s of processor time on two cores, and
0.5 s with this. Git's filter says so in the environment before NumPy is imported; in a user's
process it is too late for that, so the library is asked: OpenBLAS, which NumPy's wheels bring.
Others (MKL, Accelerate) are left as they are.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path


class _Turns:
    """How many of our threads ask for it now, and what the library was set to before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.before = 1


_turns = _Turns()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Linear algebra starts no threads meanwhile; what was set before comes back at the end.

    OpenBLAS has one setting for the process: other threads get one thread too, meanwhile.
    """
    controls = _controls() if "numpy" in sys.modules else None
    if controls is None:
        yield
        return
    get, put = controls
    with _turns.lock:
        if not _turns.inside:
            _turns.before = get()
            if _turns.before > 1:
                put(1)
        _turns.inside += 1
    try:
        yield
    finally:
        with _turns.lock:
            _turns.inside -= 1
            if not _turns.inside and _turns.before > 1:
                put(_turns.before)


Controls = tuple[Callable[[], int], Callable[[int], None]]


@cache
def _controls() -> Controls | None:
    """How to ask OpenBLAS for the number of its threads and to set it; None where it is not here.

    Names as its builds have them: with NumPy's prefix, and with the suffix of 64-bit indices.
    """
    for path in _libraries():
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix, suffix in product(("scipy_openblas", "openblas"), ("64_", "")):
            get = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
            put = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
            if get is not None and put is not None:
                return get, put
    return None


def _libraries() -> Iterator[Path]:
    """Where the functions may be: what NumPy was linked with is seen through its own module.

    Not so on Windows, where the library lies beside the package.
    """
    module = find_spec("numpy.linalg._umath_linalg")
    if module is not None and module.origin is not None:
        yield Path(module.origin)
    package = Path(str(sys.modules["numpy"].__file__)).parent
    for folder in (package.with_name("numpy.libs"), package / ".libs"):
        yield from sorted(folder.glob("*openblas*.dll"))
