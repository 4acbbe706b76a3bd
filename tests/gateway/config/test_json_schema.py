"""The published JSON Schema: current, sound, and of one mind with the loader."""

from pathlib import Path

import jsonschema
import pytest

from gateway.config.json_schema import json_schema, rendered
from gateway.config.load import read_text
from gateway.config.source import read_source
from providers.quirks import Quirks

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs/reference/providers.schema.json"


def judge(text: str) -> list[str]:
    value = read_source(text.encode(), "f").plain()
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(value)]


def test_the_published_schema_is_the_one_of_the_code():
    assert PUBLISHED.read_text() == rendered(), "run: make docs"


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_shipped_file_satisfies_it_and_names_it():
    text = read_text(ROOT / "providers.yaml").decode()
    assert judge(text) == []
    first, _, _ = text.partition("\n")
    assert first == f"# yaml-language-server: $schema={PUBLISHED.relative_to(ROOT)}"


def test_every_key_and_quirk_is_described():
    schema = json_schema()
    for name, definition in schema["$defs"].items():
        if name != "CapabilitiesSection":
            for key, value in definition["properties"].items():
                assert value.get("description"), (name, key)
    assert set(schema["$defs"]["QuirksSection"]["properties"]) == set(Quirks.__struct_fields__)


@pytest.mark.parametrize(
    "text",
    [
        "provider: {}",
        "providers: {a: {}}",
        "providers: {a: {dialect: opnai}}",
        "providers: {a: {dialect: openai, base_url: ftp://h}}",
        "providers: {a: {dialect: openai, api_key: sk-abcdefgh12345678}}",
        "providers: {a: {dialect: openai, quirks: {nope: true}}}",
        "providers: {a: {dialect: openai, models: {m: {context_tokens: 0}}}}",
        "providers: {a: {dialect: openai, models: {m: {price: {input: -1}}}}}",
        'providers: {a: {dialect: openai, models: {m: {price: {input: "2"}}}}}',
        "providers: {a: {dialect: openai, models: {m: {capabilities: [toolz]}}}}",
        "providers: {}\nroutes: {r: {policy: cheapest}}",
        "providers: {}\ngateway: {port: 70000}",
    ],
)
def test_editors_mark_what_the_loader_refuses(text: str):
    assert judge(text)
