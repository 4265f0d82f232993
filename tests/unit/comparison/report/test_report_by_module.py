"""The table of modules in a report: small, within the limit, and names in it do nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison.division import divisions
from git_theta_ext.comparison.files import Pair
from git_theta_ext.comparison.report import html, markdown
from git_theta_ext.comparison.report.division import MOST
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.manifests import entry, manifest

MANY = tuple(Module(f"m{at}", (f"m{at}.*",), ("@all",)) for at in range(MOST + 5))
SAME = Module("same", ("same.*",))


def side(label: int) -> StoredSide:
    names = [f"m{at}.weight" for at in range(MOST + 5)]
    made = [entry("same.x", 0), entry("stray", label), *(entry(name, label) for name in names)]
    return StoredSide(manifest(*made), cast(Blocks, None))


def test_a_table_of_modules() -> None:
    found = [(path, Pair(path, side(1), side(2)).compare(measured=False)) for path in ("a", "b")]
    cut = divisions(found, Modules((*MANY, replace(SAME, paths=("a",)))))
    text = markdown.render(found, divisions=cut)
    assert "| <code>m0</code> | <code>&#64;<!-- -->all</code> | 1 of 1 |" in text
    said = (
        "and 5 more modules that changed; 1 module is as before; 1 changed tensor is in no module"
    )
    assert said in text
    page = html.render(found, divisions=cut)
    assert said in page
    for shown, row in ((text, "| <code>m"), (page, "<td>m")):
        assert shown.count(row) == 2 * MOST
    # Where there is no room for the tensors, there is none for the modules.
    assert len(short := markdown.render(found, 1500, divisions=cut)) <= 1500
    assert "module" not in short
    assert divisions(found, Modules()) == {}
    assert "module" not in markdown.render(found)
