"""Trees and dictionaries: models that a merge takes whole."""

from __future__ import annotations

from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.merge.decide.models import models


def _entries(*names: str) -> dict[str, Entry]:
    """Tensors, those called `nodes` of bytes of unknown meaning."""
    block = Block(4, "0" * 64)
    return {
        name: Entry(TensorInfo(name, DTYPES["U8"], (4,)), (block,), name.endswith("nodes"))
        for name in names
    }


def test_a_model_of_trees_is_what_stands_below_its_name() -> None:
    found = _entries(
        "scaler.mean_", "forest.classes_", "forest.estimators_.0.tree_.nodes",
        "forest.estimators_.0.tree_.values", "boost._predictors.0.0.nodes", "boost._baseline",
    )  # fmt: skip
    assert dict(models(found, set(found), {"pickle"})) == {
        "the trees of forest": {name for name in found if name.startswith("forest.")},
        "the trees of boost": {"boost._predictors.0.0.nodes", "boost._baseline"},
    }
    lone = _entries("tree_.nodes", "tree_.values")
    assert dict(models(lone, set(), {"pickle"})) == {"the trees": set(lone)}


def test_other_nodes_are_no_trees() -> None:
    graph = _entries("graph.nodes", "layer.estimators_.weight", "nodes")
    assert not list(models(graph, set(graph), {"pickle"}))
    trees = _entries("tree_.nodes")
    assert not list(models(trees, set(trees), {"safetensors"}))


def test_vectors_go_with_the_dictionary_only_where_that_changed() -> None:
    found = _entries("dictionary", "input_matrix.words", "output_matrix")
    ((_, names),) = models(found, {"dictionary"}, {"fasttext"})
    assert names == set(found)
    assert not list(models(found, {"output_matrix"}, {"fasttext"}))
