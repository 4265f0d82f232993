"""What `--json` prints is what `docs/schemas` says: looked at wherever a test runs such a command.

With THETA_WRITE_SCHEMAS=1 in the environment an answer that is not as published is written into the
schema instead, so that a new key, or a new verb, shows as a difference to be read and committed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs/schemas"
_MAPS = {
    "config", "info", "kinds", "libraries", "manifests", "metadata", "open", "remarks", "several",
}  # fmt: skip
"""Keys whose objects have names of data for keys."""
_KEY = re.compile(r"[a-z][a-z0-9_-]*")
_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array",
          dict: "object", type(None): "null"}  # fmt: skip

Schema = dict[str, Any]


def check(command: Sequence[str], output: bytes) -> None:
    """Fail if a command was asked for JSON, printed some, and that is not of its published form."""
    verb = _verb(command)
    if verb is None or not {"--json", "json", "--format=json"} & set(command):
        return
    try:
        answer = json.loads(output)
    except ValueError:
        return  # another format, or a file that was asked for: the test looks at it
    if isinstance(answer, dict) and set(answer) == {"error"}:
        verb = "error"
    if wrong := list(_problems(verb, answer)):
        if os.environ.get("THETA_WRITE_SCHEMAS") == "1":
            write(verb, answer)
            return
        raise AssertionError(
            f"git theta {verb} --json is not as {FOLDER.name}/{verb}.json says (see "
            f"docs/schemas/README.md): {wrong[0]}"
        )


def _verb(command: Sequence[str]) -> str | None:
    """The verb of a command that runs this program."""
    words = list(command)
    for start in (["git", "theta"], ["-m", "git_theta_ext.cli.main"]):
        for at in range(len(words) - 2):
            if words[at : at + 2] == start:
                return words[at + 2]
    return None


def _problems(verb: str, answer: Any) -> Iterator[str]:
    validator = _validator(verb)
    if validator is None:
        yield "there is no such file"
        return
    from jsonschema.exceptions import best_match

    error = best_match(validator.iter_errors(answer))
    if error is not None:
        yield f"{error.json_path}: {error.message[:300]}"


@cache
def _validator(verb: str) -> Any:
    """What validates the answers of a verb, and takes no key that is not published."""
    from jsonschema import Draft202012Validator

    path = FOLDER / f"{verb}.json"
    if not path.is_file():
        return None
    return Draft202012Validator(closed(json.loads(path.read_text("utf-8"))))


def closed(schema: Any) -> Any:
    """A schema that allows no properties but those that it names."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and "additionalProperties" not in schema:
        found["additionalProperties"] = False
    return found


def write(verb: str, answer: Any) -> None:
    """Write what an answer shows into the schema of its verb."""
    path = FOLDER / f"{verb}.json"
    old: Schema = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    forms = old.get("anyOf", [])
    form = next((one for one in forms if _alike(one, answer)), None)
    if form is None:
        forms = [*forms, taught(None, answer)]
    else:
        forms[forms.index(form)] = taught(form, answer)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:git-theta:{verb}:1",
        "title": f"git theta {verb} --json",
        "description": f"docs/commands/{verb}.md says what the keys mean.",
    }
    made = {**head, **{key: old[key] for key in head if key in old}, "anyOf": forms}
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    _validator.cache_clear()


def _alike(form: Schema, answer: Any) -> bool:
    """Whether an answer is of a form of a verb's answers: most of their keys are the same."""
    if not isinstance(answer, dict):
        return form["type"] == "array"
    known, keys = set(form.get("required", ())), set(answer)
    return len(known & keys) * 2 > len(known | keys)


def taught(schema: Schema | None, value: Any, key: str = "") -> Schema:
    """A schema that also takes this value; `key` is what the value stands under."""
    found: Schema = dict(schema or {})
    types = found.get("type", [])
    known = {types} if isinstance(types, str) else set(types)
    known.add(_NAMES[type(value)])
    if "number" in known:
        known.discard("integer")
    found["type"] = sorted(known) if len(known) > 1 else next(iter(known))
    if isinstance(value, list):
        for one in value:
            found["items"] = taught(found.get("items"), one)
    elif isinstance(value, dict):
        if key in _MAPS or "additionalProperties" in found or not all(map(_KEY.fullmatch, value)):
            for one in value.values():
                found["additionalProperties"] = taught(found.get("additionalProperties"), one)
            found.setdefault("additionalProperties", {})
            return found
        properties = dict(found.get("properties", {}))
        before = set(found.get("required", value)) if properties else set(value)
        for name, one in value.items():
            properties[name] = taught(properties.get(name), one, name)
        found["properties"] = properties
        found["required"] = sorted(before & set(value))
    return found
