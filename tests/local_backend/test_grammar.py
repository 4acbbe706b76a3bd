"""Schemas become grammars that llama.cpp accepts, that let every fitting text through and nothing else."""

import asyncio
import json
import os
import random

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_backend.errors import InvalidRequestError
from local_backend.gbnf import literal
from local_backend.grammar import schema_to_gbnf
from local_backend.integer_ranges import integer_expression

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", 'b\n"c"', "ü"]}, "maxItems": 3},
        "nick": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "boolean"},
                "c": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["v"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
GOOD = [
    PERSON,
    TREE,
    {"type": "object", "additionalProperties": {"type": "integer", "minimum": -3, "maximum": 7}},
    {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False},
    {"type": ["string", "integer"], "maxLength": 4},
    {"const": {"a": [1, None, '\\ " \u2028 \U0001f600']}},
    {"allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"]}, {"properties": {"b": {"type": "boolean"}}}]},
    {"type": "object", "properties": {'q"u\\o]te\n': {"type": "null"}}, "required": ['q"u\\o]te\n']},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"properties": {"x": {"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 11}}, "required": ["x"]},
]  # fmt: skip
BAD = [
    {"$ref": "https://example.com/schema.json"},
    {"$ref": "file:///etc/passwd"},
    {"$ref": "#/nowhere"},
    {"$ref": 7},
    {"type": "string", "minLength": 100_000},
    {"type": "array", "items": {"type": "null"}, "minItems": 100_000},
    {"type": "string", "maxLength": -1},
    {"type": "string", "minLength": 5, "maxLength": 3},
    {"type": "string", "pattern": "^(a+)+$"},
    {"type": "number", "multipleOf": 3},
    {"not": {"type": "string"}},
    {"type": "banana"},
    {"type": 7},
    {"type": []},
    {"enum": []},
    {"anyOf": []},
    {"anyOf": {"a": 1}},
    {"type": "object", "properties": []},
    {"type": "object", "properties": {"a": 5}},
    {"type": "object", "required": "a"},
    {"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False},
    {"type": "integer", "minimum": 5, "maximum": 4},
    {"type": "integer", "minimum": "5"},
    {"description": "x" * 70_000},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    False,
    [],
    "string",
]
CRASHERS = [
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"allOf": [{"$ref": "#"}]},
]
"""Grammars that recurse without ever matching a character: llama.cpp answers NULL, or we refuse before it."""


def nested(depth):
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def compiled(vocabulary, schema):
    from local_backend.sampling import Grammar  # noqa: PLC0415  # native code, only where a test wants it

    return Grammar(vocabulary, schema_to_gbnf(schema))


def accepts(vocabulary, schema, text):
    grammar = compiled(vocabulary, schema)
    for byte in text.encode():
        token = 5 + byte  # the bundled vocabulary's byte tokens
        if not grammar.allows(token):
            return False
        grammar.accept(token)
    return grammar.allows(2)


@pytest.mark.parametrize("schema", GOOD, ids=lambda schema: json.dumps(schema)[:40])
def test_llama_cpp_takes_the_grammar(vocabulary, schema):
    compiled(vocabulary, schema)


@pytest.mark.parametrize("schema", BAD, ids=lambda schema: json.dumps(schema)[:40])
def test_what_cannot_be_enforced_is_refused_by_name(schema):
    with pytest.raises(InvalidRequestError, match="JSON schema"):
        schema_to_gbnf(schema)


@pytest.mark.parametrize("schema", CRASHERS, ids=json.dumps)
def test_endless_recursion_is_refused_and_kills_nobody(vocabulary, schema):
    with pytest.raises(InvalidRequestError):
        compiled(vocabulary, schema)


def test_depth_is_bounded():
    schema_to_gbnf(nested(30))
    for depth in (33, 300, 100_000):
        with pytest.raises(InvalidRequestError):
            schema_to_gbnf(nested(depth))


def test_size_and_repeats_are_bounded_in_all():
    many = {"type": "object", "properties": {str(n): {"type": "string", "maxLength": 1000} for n in range(40)}}
    with pytest.raises(InvalidRequestError, match="in all"):
        schema_to_gbnf(many)
    wide = {"type": "object", "properties": {str(n): {"type": "string"} for n in range(3000)}}
    with pytest.raises(InvalidRequestError):
        schema_to_gbnf(wide)


def test_the_person_grammar_takes_what_fits_and_nothing_else(vocabulary):
    good = [
        '{"name": "Ada", "age": 36}',
        '{"name":"Ada","age":0,"tags":["a", "ü"],"nick":null}',
        ' {"name":"\\u00e4\\n","age":150,"nick":"x"}',
        '{\n  "name": "A",\n  "age": 7\n}',
    ]
    bad = [
        "{}",
        '{"name": "Ada"}',
        '{"age": 36, "name": "Ada"}',
        '{"name": "Ada", "age": 151}',
        '{"name": "Ada", "age": 036}',
        '{"name": "Ada", "age": -1}',
        '{"name": "A\nda", "age": 1}',
        '{"name": "\\ud800", "age": 1}',
        '{"name": "1234567890123", "age": 1}',
        '{"name": "Ada", "age": 1,}',
        '{"name": "Ada", "age": 1} x',
        '{"name": "Ada", "age": 1, "other": 1}',
        '{"name": "Ada", "age": 1, "tags": ["c"]}',
        "[]",
    ]
    assert [text for text in good if not accepts(vocabulary, PERSON, text)] == []
    assert [text for text in bad if accepts(vocabulary, PERSON, text)] == []


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_any_json_value_fits_the_schema_true_and_its_own_constant(vocabulary, value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert accepts(vocabulary, True, text)
    assert accepts(vocabulary, {"const": value}, json.dumps(value, ensure_ascii=False))


@given(
    low=st.integers(-2000, 2000),
    span=st.integers(0, 3000),
    probes=st.lists(st.integers(-6000, 6000), min_size=1, max_size=6),
)
def test_integer_bounds_are_exact(vocabulary, low, span, probes):
    schema = {"type": "integer", "minimum": low, "maximum": low + span}
    for probe in {*probes, low, low + span, low - 1, low + span + 1, 0}:
        assert accepts(vocabulary, schema, str(probe)) == (low <= probe <= low + span)


@given(low=st.integers(-(10**6), 10**6))
def test_one_sided_integer_bounds_are_exact(vocabulary, low):
    for probe in (low - 1, low, low + 1, low * 7 + 3):
        assert accepts(vocabulary, {"type": "integer", "minimum": low}, str(probe)) == (probe >= low)
        assert accepts(vocabulary, {"type": "integer", "exclusiveMaximum": low}, str(probe)) == (probe < low)


def test_without_bounds_there_is_no_expression():
    assert integer_expression({}) is None


@given(text=st.text(max_size=20))
def test_a_literal_matches_exactly_its_text(vocabulary, text):
    text = "".join(char for char in text if not 0xD800 <= ord(char) <= 0xDFFF and char != "\0")
    assert '"' + "".join(literal(text)[1:-1]) + '"' == literal(text)
    assert "\n" not in literal(text)


def resolve(schema):
    return jsonschema.Draft202012Validator(schema, format_checker=None)


COUNT = 100 if os.environ.get("MIXGATE_TEST_FULL") else 36


async def test_constrained_answers_are_always_valid_unless_cut(demo):
    """Even at a temperature where the model writes noise."""
    rng = random.Random(5)

    async def check(number: int) -> bool:
        schema = GOOD[number % len(GOOD)]
        answer = await demo.ask(
            rng.choice(["Hello", "Return JSON about Ada", "Tell me a story"]),
            json_schema=schema, temperature=[0, 1.0, 3.0][number % 3], seed=number, max_tokens=700,
        )  # fmt: skip
        assert answer.status == 200, (schema, answer.error)
        assert not any(line["t"] == "error" for line in answer.lines), answer.lines[-1]
        if answer.reasons()[0] == "length":
            return False
        resolve(schema).validate(json.loads(answer.text()))
        return True

    ended = []
    for start in range(0, COUNT, 12):
        ended += await asyncio.gather(*(check(number) for number in range(start, min(start + 12, COUNT))))
    assert sum(ended) > 0.6 * len(ended)


async def test_a_json_object_is_an_object(demo):
    answers = await asyncio.gather(
        *(
            demo.ask("Tell me a story", json_object=True, temperature=1.5, seed=seed, max_tokens=300)
            for seed in range(6)
        )
    )
    whole = [json.loads(answer.text()) for answer in answers if answer.reasons()[0] == "stop"]
    assert whole
    assert all(isinstance(each, dict) for each in whole)


async def test_bad_schemas_are_a_400_and_the_worker_lives_on(demo):
    pid = demo.backend.worker_pid("demo")
    for schema in [*BAD, *CRASHERS, nested(300)]:
        answer = await demo.ask("Hi", json_schema=schema, max_tokens=20)
        assert (answer.status, answer.error["code"]) == (400, "invalid_request"), schema
    assert demo.backend.worker_pid("demo") == pid
    assert (await demo.ask("Hello")).status == 200


async def test_several_choices_each_follow_the_grammar(demo):
    answer = await demo.ask("Ada", n=4, json_schema=PERSON, temperature=1.5, seed=1, max_tokens=400)
    for choice, reason in answer.reasons().items():
        if reason == "stop":
            jsonschema.validate(json.loads(answer.text(choice)), PERSON)
