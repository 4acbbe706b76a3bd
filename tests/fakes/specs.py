"""The published OpenAPI documents as judges: `validator("openai", "ErrorResponse").validate(body)`."""

import functools
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
SPECS = Path(os.environ.get("SPECS_DIR", SHARED / "specs"))
needs_specs = pytest.mark.skipif(not (SPECS / "openai.yaml").exists(), reason=f"no published OpenAPI at {SPECS}")


@functools.cache
def _components(name: str) -> dict[str, Any]:
    """Parsed once per run: the largest takes seconds."""
    with (SPECS / f"{name}.yaml").open("rb") as file:
        components: dict[str, Any] = yaml.load(file, yaml.CSafeLoader)["components"]
    _allow_null(components)
    return components


def _allow_null(node: Any) -> None:
    """Say OpenAPI 3.0's `nullable`, which the documents still use in places, in JSON Schema's own words."""
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _allow_null(inner)
    if isinstance(node, dict) and node.get("nullable") is True:
        if isinstance(node.get("type"), str):
            node["type"] = [node["type"], "null"]
        for word in ("$ref", "allOf", "oneOf", "anyOf"):
            if word in node:
                node["anyOf"] = [{word: node.pop(word)}, {"type": "null"}]
                break
        if "enum" in node:
            node["enum"] = [*node["enum"], None]


@functools.cache
def validator(document: str, schema: str) -> Draft202012Validator:
    """A validator of one schema of `openai`, `openrouter` or `mistral`."""
    return Draft202012Validator({"components": _components(document), "$ref": f"#/components/schemas/{schema}"})
