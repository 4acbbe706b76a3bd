"""Chat requests with every feature on, and Endpoints of every kind, for hypothesis."""

import json

from hypothesis import strategies as st

from providers.base import Capabilities, Endpoint
from providers.quirks import Quirks

WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
MARKS = st.sampled_from(
    [
        {"type": "ephemeral"},
        {"type": "ephemeral", "ttl": "1h"},
        {"type": "ephemeral", "ttl": 9, "x": 1},
        {},
        {"type": 4},
    ]
)
SCHEMAS = st.sampled_from(
    [
        {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False},
        {"properties": {}},
        {},
        {"type": ["object", "null"]},
    ]
)
IDS = st.sampled_from(["call_1", "call_2", "functions.f:0", "é", "toolu_01", ""]) | WORDS
URLS = st.sampled_from(
    [
        "https://e.org/a.png",
        "HTTPS://e.org/a",
        "http://e.org/a",
        "data:image/png;base64,aGk=",
        "data:image/PNG;name=x;base64,aGk=",
        "data:application/pdf;base64,aGk=",
        "data:text/plain,hey%20you",
        "data:text/plain;base64,aGk=",
        "data:,",
        "file_1",
    ]
)


def members(**strategies):
    """A mapping in which each member may be missing."""
    return st.fixed_dictionaries({}, optional=strategies)


def with_type(name, **strategies):
    return st.fixed_dictionaries({"type": st.just(name)}, optional=strategies)


TEXT_PARTS = with_type("text", text=WORDS, cache_control=MARKS)
PARTS = st.one_of(
    TEXT_PARTS,
    TEXT_PARTS,
    with_type("image_url", image_url=members(url=URLS, detail=st.just("low")) | URLS, cache_control=MARKS),
    with_type("file", file=members(file_data=URLS, file_id=URLS, filename=WORDS), cache_control=MARKS),
)
TEXTS = WORDS | st.lists(TEXT_PARTS, max_size=3)
FUNCTIONS = members(
    description=WORDS,
    parameters=SCHEMAS,
    strict=st.booleans(),
).flatmap(lambda rest: NAMES.map(lambda name: {**rest, "name": name}))
ARGUMENTS = (
    st.dictionaries(WORDS, JSON, max_size=3).map(json.dumps) | WORDS | st.sampled_from(['{"a": 1e400}', '{"a":1}', ""])
)
CALLED = st.fixed_dictionaries({"name": NAMES, "arguments": ARGUMENTS})
CALLS = st.lists(st.fixed_dictionaries({"id": IDS, "function": CALLED}), max_size=3)
DETAILS = st.lists(
    members(
        type=st.sampled_from(["reasoning.text", "reasoning.encrypted", "reasoning.summary"]),
        text=WORDS,
        signature=WORDS | st.none(),
        data=WORDS,
        format=st.sampled_from(["anthropic-claude-v1", None, "openai-responses-v1"]),
        index=st.integers(0, 2),
    ),
    max_size=4,
)


def said_by(role, **strategies):
    return st.fixed_dictionaries({"role": st.just(role)}, optional={"cache_control": MARKS, **strategies})


MESSAGES = st.one_of(
    said_by("system", content=TEXTS, name=NAMES),
    said_by("developer", content=TEXTS),
    said_by("user", content=WORDS | st.lists(PARTS, max_size=3), name=NAMES),
    said_by("user", content=WORDS),
    said_by(
        "assistant",
        content=TEXTS,
        tool_calls=CALLS,
        reasoning_details=DETAILS,
        reasoning=WORDS,
        refusal=WORDS,
        function_call=CALLED,
    ),
    said_by("tool", content=WORDS | st.lists(PARTS, max_size=2), tool_call_id=IDS),
    said_by("function", content=WORDS, name=NAMES),
)
TOOLS = st.lists(
    with_type("function", cache_control=MARKS).flatmap(
        lambda tool: FUNCTIONS.map(lambda function: {**tool, "function": function})
    )
    | st.sampled_from([{"type": "custom"}, {"type": "web_search_preview"}]),
    max_size=3,
)
CHOICES = st.sampled_from(["auto", "none", "required", "other", {"type": "allowed_tools"}, {}]) | NAMES.map(
    lambda name: {"type": "function", "function": {"name": name}}
)
REASONING = members(
    effort=st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]),
    max_tokens=st.integers(1, 200_000),
    enabled=st.booleans(),
    exclude=st.booleans(),
)
FORMATS = st.one_of(
    st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}]),
    SCHEMAS.map(lambda schema: {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}),
    SCHEMAS.map(lambda schema: {"type": "json_object", "schema": schema}),
)
REQUESTS = st.lists(MESSAGES, min_size=1, max_size=8).flatmap(
    lambda messages: st.fixed_dictionaries(
        {"messages": st.just(messages)},
        optional={
            "max_tokens": st.integers(1, 200_000),
            "max_completion_tokens": st.integers(1, 200_000),
            "n": st.integers(1, 8),
            "stop": WORDS | st.lists(WORDS, max_size=4),
            "seed": st.integers(0, 9),
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "top_k": st.integers(-1, 100),
            "min_p": st.floats(0, 1),
            "presence_penalty": st.floats(-2, 2),
            "logit_bias": st.just({"1": 2}),
            "logprobs": st.booleans(),
            "response_format": FORMATS,
            "tools": TOOLS,
            "tool_choice": CHOICES,
            "parallel_tool_calls": st.booleans(),
            "functions": st.lists(FUNCTIONS, max_size=2),
            "function_call": CHOICES,
            "reasoning": REASONING,
            "reasoning_effort": st.sampled_from(["none", "low", "high", "odd"]),
            "service_tier": st.sampled_from(["auto", "default", "flex", "priority"]),
            "user": WORDS,
            "metadata": st.dictionaries(WORDS, WORDS, max_size=2),
            "cache_control": MARKS,
            "extra": st.dictionaries(WORDS.filter(bool), JSON, max_size=2),
        },
    )
)
ENDPOINTS = st.builds(
    lambda able, most, sampling, thinking, late: Endpoint(
        id="a/m",
        provider="a",
        model="m",
        upstream_model="claude-up",
        base_url="https://api.anthropic.com/v1",
        max_output_tokens=most,
        capabilities=Capabilities(**dict.fromkeys(able, True)),
        quirks=Quirks(sampling=sampling, thinking=thinking, late_system=late),
    ),
    st.sets(st.sampled_from(["tools", "json_schema", "prefill", "reasoning"])),
    st.none() | st.integers(1, 100_000),
    st.booleans(),
    st.sampled_from(["budget", "effort"]),
    st.booleans(),
)
