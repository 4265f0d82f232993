"""`docs/schemas` has a form for each verb that answers, and its tests do catch another one."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from git_theta_ext.cli.frame.options import NO_JSON
from git_theta_ext.cli.main import VERBS
from tests.scenarios import schemas


def test_every_verb_that_answers_has_a_schema() -> None:
    found = {path.stem for path in schemas.FOLDER.glob("*.json")}
    answering = {verb for verb in VERBS if verb not in NO_JSON}
    assert found == answering | {"error"}
    text = (schemas.FOLDER / "README.md").read_text("utf-8")
    assert all(f"`{verb}`" in text for verb in NO_JSON)


def test_every_schema_is_one_and_has_a_version() -> None:
    for path in schemas.FOLDER.glob("*.json"):
        schema = json.loads(path.read_text("utf-8"))
        Draft202012Validator.check_schema(schema)
        assert schema["$id"] == f"urn:git-theta:{path.stem}:1"


def test_every_key_of_an_answer_is_in_the_page_of_its_verb() -> None:
    for path in schemas.FOLDER.glob("*.json"):
        if path.stem == "error":
            continue
        pages = [path.stem, "sync"] if path.stem == "update" else [path.stem]
        text = "".join((schemas.FOLDER.parent / f"commands/{one}.md").read_text("utf-8")
                       for one in pages)  # fmt: skip
        for form in json.loads(path.read_text("utf-8"))["anyOf"]:
            keys = form.get("properties", form.get("items", {}).get("properties", {}))
            lacking = [key for key in keys if f'"{key}"' not in text and f"`{key}`" not in text]
            assert set(lacking) <= {"exit_code", "lines"}, path.stem


def test_an_answer_of_another_form_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THETA_WRITE_SCHEMAS", raising=False)
    command = ("git", "theta", "track", "--json")
    row = {"pattern": "*.pt", "source": ".gitattributes"}
    right = {"exit_code": 0, "patterns": [row], "lines": []}
    schemas.check(command, json.dumps(right).encode())
    for wrong in ({}, {**right, "more": 1}, {**right, "patterns": [{**row, "source": 1}]},
                  {"error": {"message": "no"}}):  # fmt: skip
        with pytest.raises(AssertionError, match="is not as schemas"):
            schemas.check(command, json.dumps(wrong).encode())
    schemas.check(("git", "theta", "track"), b'{"more": 1}')


def test_a_schema_learns_of_an_answer() -> None:
    first = schemas.taught(None, {"a": 1, "b": [], "open": {"w.x": "no"}})
    assert first["required"] == ["a", "b", "open"]
    assert first["properties"]["open"]["additionalProperties"] == {"type": "string"}
    both = schemas.taught(first, {"a": None, "b": [{"c": 1.5}], "open": {}, "d": "x"})
    assert both["properties"]["a"]["type"] == ["integer", "null"]
    assert both["properties"]["b"]["items"]["properties"] == {"c": {"type": "number"}}
    assert both["required"] == ["a", "b", "open"]
