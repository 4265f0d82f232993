"""Memory of the machine and of the control groups, from files as Linux shows them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from git_theta_ext.objects import memory as module
from git_theta_ext.objects.memory import memory

MIB = 1 << 20
MEMINFO = "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\nSwapTotal: 1048576 kB\n"


@pytest.fixture(autouse=True)
def no_limit_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_of_process", lambda most: most)


def machine(folder: Path, cgroup: str, files: dict[str, str]) -> tuple[int | None, int | None]:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(MEMINFO)
    (folder / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return memory(folder / "proc", folder / "groups")


def test_without_control_groups(tmp_path: Path) -> None:
    assert machine(tmp_path, "", {}) == (4096 * MIB, 9216 * MIB)


def test_version_2_in_a_container(tmp_path: Path) -> None:
    """It sees its own group as the top one."""
    files = {
        "memory.max": f"{512 * MIB}\n",
        "memory.swap.max": "0\n",
        "memory.current": f"{300 * MIB}\n",
        "memory.stat": f"anon 5\nfile {100 * MIB}\n",
    }
    assert machine(tmp_path, "0::/\n", files) == (312 * MIB, 512 * MIB)


def test_version_2_of_nested_groups(tmp_path: Path) -> None:
    """The tightest one counts, swap space too where it may be used."""
    files = {
        "ci/memory.max": f"{2048 * MIB}\n",
        "ci/memory.current": f"{1000 * MIB}\n",
        "ci/job/memory.max": "max\n",
        "ci/job/memory.current": "5\n",
    }
    assert machine(tmp_path, "0::/ci/job\n", files) == (1048 * MIB, 3072 * MIB)


def test_version_2_without_a_limit(tmp_path: Path) -> None:
    files = {"memory.max": "max\n", "memory.current": "7\n"}
    assert machine(tmp_path, "0::/\n", files) == (4096 * MIB, 9216 * MIB)


@pytest.mark.parametrize("place", ["memory/docker/abc", "memory"])
def test_version_1(place: str, tmp_path: Path) -> None:
    """The path is the host's, which a container does not see."""
    files = {
        f"{place}/memory.limit_in_bytes": f"{1024 * MIB}\n",
        f"{place}/memory.memsw.limit_in_bytes": f"{1536 * MIB}\n",
        f"{place}/memory.usage_in_bytes": f"{600 * MIB}\n",
        f"{place}/memory.stat": f"total_inactive_file {50 * MIB}\ntotal_active_file {MIB}\n",
    }
    lines = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n"
    assert machine(tmp_path, lines, files) == (475 * MIB, 1536 * MIB)


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert machine(tmp_path, "4:memory:/\n", files) == (4096 * MIB, 9216 * MIB)


@pytest.mark.parametrize("text", ["nonsense", "0::/../../..\n", "4:memory\n", ":::\n"])
def test_what_makes_no_sense_is_no_limit(text: str, tmp_path: Path) -> None:
    files = {"memory.max": "many\n", "memory/memory.limit_in_bytes": ""}
    assert machine(tmp_path, text, files) == (4096 * MIB, 9216 * MIB)


def test_elsewhere_something_is_known_or_nothing(tmp_path: Path) -> None:
    free, most = memory(tmp_path, tmp_path)
    if sys.platform != "win32":
        assert (free or 0) > 1 << 28
        assert most is None
