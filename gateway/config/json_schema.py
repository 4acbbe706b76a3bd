"""The JSON Schema of providers.yaml, by which editors complete and check it.

`python -m gateway.config.json_schema` prints it; with a path it writes it there. docs/reference has the published one.
"""

import ast
import inspect
import json
import sys
from pathlib import Path
from typing import Any, cast

from gateway.config.schema import ConfigFile
from providers import quirks

DIALECT_OF_SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema as a JSON value."""
    schema = ConfigFile.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema["$defs"]
    for name, question in _questions().items():
        definitions["QuirksSection"]["properties"][name]["description"] = question
    flags = definitions["CapabilitiesSection"]
    names = {"type": "array", "items": {"enum": [*flags["properties"]]}, "uniqueItems": True}
    definitions["CapabilitiesSection"] = {"anyOf": [flags, names]}
    return {"$schema": DIALECT_OF_SCHEMA, **_tidy(schema), "title": "providers.yaml of Mixgate"}


def rendered() -> str:
    """The schema as the text of the published file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _questions() -> dict[str, str]:
    """The question below each quirk in its class: the one place where it is asked."""
    (struct,) = [node for node in ast.parse(inspect.getsource(quirks)).body if isinstance(node, ast.ClassDef)]
    questions: dict[str, str] = {}
    field = None
    for node in struct.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            field = node.target.id
        elif field and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            questions[field] = inspect.cleandoc(str(node.value.value))
    return questions


def _tidy(value: object) -> Any:
    """Leave out what only says that a key may be missing: null as a choice or default, titles made of key names."""
    if isinstance(value, list):
        return [_tidy(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    entries = dict(cast("dict[str, Any]", value))
    choices = [choice for choice in entries.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del entries["anyOf"]
        entries = {**choices[0], **entries}
    if entries.get("default", "") is None:
        del entries["default"]
    if isinstance(entries.get("title"), str) and "properties" not in entries:
        del entries["title"]
    return {key: _tidy(item) for key, item in entries.items()}


def _main() -> None:
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(rendered(), encoding="utf-8")
    else:
        sys.stdout.write(rendered())


if __name__ == "__main__":
    _main()
