"""What a wheel has beside the package: manual pages, completion, and the long description.

The rest stands in pyproject.toml. This runs with nothing but setuptools.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from setuptools import setup

TOP = Path(__file__).parent.resolve()
sys.path.insert(0, str(TOP))  # a build frontend does not put this folder there

from git_theta_ext.cli.frame.completion import PLACES, script  # noqa: E402
from git_theta_ext.cli.frame.manual import TOPICS, pages  # noqa: E402
from git_theta_ext.cli.main import VERBS  # noqa: E402
from git_theta_ext.core.version import VERSION  # noqa: E402

HOST = "https://github.com/git-theta-ext/git-theta-ext"


def written() -> list[tuple[str, list[str]]]:
    """Write the files below `build/`; where each goes, below the prefix, as setuptools wants it."""
    wanted = {f"share/man/man{name.rpartition('.')[2]}/{name}": text
              for name, text in pages(TOP / "docs")}  # fmt: skip
    verbs = {name: about for name, (_, about) in VERBS.items()}
    wanted.update((place, script(shell, verbs, list(TOPICS))) for shell, place in PLACES.items())
    found: dict[str, list[str]] = {}
    for place, text in wanted.items():
        file = TOP / "build" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        found.setdefault(str(Path(place).parent.as_posix()), []).append(f"build/{place}")
    return sorted(found.items())


def description(text: str) -> str:
    """The README for a page elsewhere: its pictures and links lead to this version at the host."""
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{HOST}/raw/v{VERSION}/", text)
    return re.sub(r"(?<=\]\()(?!https?:|#)", f"{HOST}/blob/v{VERSION}/", text)


setup(
    data_files=written(),
    long_description=description((TOP / "README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
)
