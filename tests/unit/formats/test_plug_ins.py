"""Containers and updates from other packages, found through entry points."""

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta_ext import formats, updates
from git_theta_ext.core.errors import UnknownUpdateError, UsageError
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.checkpoints import awkward, safetensors
from tests.scenarios.examples import rebuilt

EXAMPLE = Path(__file__).parents[2] / "plugin_example"
FILE = b"EXAMPLE!" + (30).to_bytes(8, "little") + bytes(range(120))


def install(folder: Path, text: str) -> None:
    """Put down what an installer would: the metadata of a distribution with entry points."""
    info = folder / "git_theta_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: git-theta-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    for cached in (formats.plug_ins, formats.get, updates.get):
        cached.cache_clear()
    yield
    for cached in (formats.plug_ins, formats.get, updates.get):
        cached.cache_clear()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    install(
        tmp_path,
        "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in members.items())
            for group, members in points.items()
        ),
    )
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


def test_without_the_plug_in_the_file_is_opaque() -> None:
    assert formats.read_layout(BytesSource(FILE)).format == "opaque"
    with pytest.raises(UsageError, match="unknown format 'example'"):
        formats.get("example")


@pytest.mark.usefixtures("installed")
def test_with_the_plug_in_the_file_is_split() -> None:
    layout = formats.read_layout(BytesSource(FILE))
    assert layout.format == "example"
    assert rebuilt(FILE, layout) == FILE
    assert formats.get("example").sniff(FILE[:16], BytesSource(FILE))
    damaged = FILE + b"\0"
    assert formats.read_layout(BytesSource(damaged)).format == "opaque"


def test_a_plug_in_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "[git_theta_ext.formats]\nbroken = git_theta_nowhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="'broken' \\(git_theta_nowhere\\)"):
        formats.read_layout(BytesSource(FILE))


def test_a_missing_update_is_named() -> None:
    with pytest.raises(UnknownUpdateError, match=r"(?s)'sketch'.*git_theta_ext\.updates"):
        updates.get("sketch")


def test_a_known_file_looks_for_no_plug_ins(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(awkward()))
    program = (
        "import sys\nfrom pathlib import Path\nfrom git_theta_ext import formats\n"
        "from git_theta_ext.formats.layout.source import FileSource\n"
        "before = 'importlib.metadata' in sys.modules\n"
        "with FileSource(Path(sys.argv[1])) as source: formats.read_layout(source)\n"
        "assert before or 'importlib.metadata' not in sys.modules\n"
        "assert formats.plug_ins.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


@pytest.mark.parametrize(
    ("path", "found", "expected"),
    [
        ("a/m.SAFETENSORS", "opaque", "safetensors"), ("m.msgpack", "msgpack", None),
        ("m.bin", "gguf", None), ("m", "opaque", None), ("m.pt", "torch-legacy", None),
        ("m.pt", "safetensors", "torch-zip"),
    ],
)  # fmt: skip
def test_extensions_that_promise_another_container(
    path: str, found: str, expected: str | None
) -> None:
    assert formats.expected_format(path, found) == expected
