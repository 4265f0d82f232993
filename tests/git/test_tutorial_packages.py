"""docs/tutorials/packages.md as it stands: files are written and commands run in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

DOCUMENT = ROOT / "docs/tutorials/packages.md"
_STEP = re.compile(
    r"^`([\w./]+)` [^`]*?\n\n```(?:python|toml)\n(.*?)```|^    ((?:git|python|cd) .*)$",
    re.M | re.S,
)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """What a reader does: a file's name and its content, or nothing and a line to type."""
    position = 0
    while found := _STEP.search(text, position):
        line = text.find("\n", found.start())
        if found[3] is not None:
            yield "", text[found.start() : line].strip()
            position = line
        else:
            yield found[1], found[2]
            position = found.end()


def test_an_update_arrives(new_repo: Callable[..., Repo]) -> None:
    top = Repo(new_repo("empty", install=False).path)
    said: dict[str, str] = {}
    here = top
    for name, step in steps(DOCUMENT.read_text("utf-8")):
        if name:
            top.write(name, step.encode())
        elif step.startswith("cd "):
            here = Repo((here.path / step.removeprefix("cd ")).resolve())
        else:
            command, _, status = step.partition("    # ")
            done = here.run("sh", "-c", command, ok=(int(status or 0),))
            said[command] = (done.stdout + done.stderr).decode()
    assert "@vision-team" in said["git -C base theta modules model.safetensors"]
    blame = said["git theta blame model.safetensors"]
    assert re.search(r"vision_tower.proj.weight.*vision@main", blame), blame
    assert re.search(r"text.0.weight.*base@v1.0", blame), blame
    assert re.search(r"tower +v1.0.0 +v1.1.0", said["git theta outdated"])
    moved = said["git theta update tower"]
    assert "tower: v1.0.0 → v1.1.0" in moved
    assert "1 of 2 tensors changed" in moved
    assert "1 of 5 tensors changed" in said["git theta diff HEAD~1 HEAD --stat"]
    older = Repo(top.path / "vision").run(
        "git", "cat-file", "--filters", "v1.0.0:tower.safetensors"
    )
    assert (top.path / "product/tower/tower.safetensors").read_bytes() == older.stdout
