"""Asks the Anthropic dialect for a request, in chat terms."""

import json

import msgspec

from providers.anthropic import Anthropic
from providers.base import Capabilities, Endpoint
from providers.messages import ChatRequest
from providers.quirks import Quirks

DIALECT = Anthropic()
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
PNG = "data:image/png;base64,iVBORw0KGgo="
EVERYTHING = ("system", "tools", "json_object", "json_schema", "prefill", "vision", "reasoning")


def endpoint(*, able=EVERYTHING, most=None, **quirks):
    return Endpoint(
        id="a/up",
        provider="a",
        model="m",
        upstream_model="claude-up",
        base_url="https://api.anthropic.com/v1",
        max_output_tokens=most,
        capabilities=Capabilities(**dict.fromkeys(able, True)),
        quirks=Quirks(**quirks),
    )


def wire(*messages, at=None, stream=False, **members):
    request = msgspec.convert({"model": "m", "messages": list(messages or [USER]), **members}, ChatRequest)
    return DIALECT.encode(request, at or endpoint(), stream=stream)


def body(*messages, **members):
    return json.loads(wire(*messages, **members).body)


def told(*messages, **members):
    return {(item.param, item.action) for item in wire(*messages, **members).adapted}


def call(call_id="c1", arguments="{}", name="f"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
