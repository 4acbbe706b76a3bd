"""What our decoder read in an answer, in the form in which the vendor's SDK is asked."""

import json

from providers.anthropic import Anthropic
from providers.base import Capabilities, Endpoint
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from providers.quirks import Quirks

ALL = Capabilities(
    system=True, tools=True, json_object=True, json_schema=True, prefill=True, vision=True, reasoning=True
)


def endpoint_for(body):
    """A row for the recorded model, with quirks as an operator would write them for it."""
    effort = body.get("thinking", {}).get("type") == "adaptive" or "effort" in body.get("output_config", {})
    quirks = Quirks(thinking="effort" if effort else "budget", late_system=True)
    return Endpoint(
        id="a/m",
        provider="a",
        model="m",
        upstream_model=body["model"],
        base_url="https://api.anthropic.com/v1",
        capabilities=ALL,
        quirks=quirks,
    )


def ours(events):
    """The meaning of our events, in the form of `vendor.meaning`; thinking blocks by way of a next request."""
    assert not any(isinstance(event, AnswerFailed) for event in events), events[-1]
    (started,) = [event for event in events if isinstance(event, AnswerStarted)]
    (finished,) = [event for event in events if isinstance(event, ChoiceFinished)]
    thoughts = [event for event in events if isinstance(event, ReasoningDelta)]
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call = calls.setdefault(event.index, ["", "", ""])
            for place, piece in enumerate((event.id, event.name, event.arguments)):
                call[place] += piece or ""
    assert list(calls) == list(range(len(calls)))
    usage = [event.usage for event in events if isinstance(event, UsageReported)][-1]
    return {
        "id": started.upstream_id,
        "model": started.upstream_model,
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "reasoning": "".join(event.text for event in thoughts),
        "blocks": handed_back([detail for event in thoughts for detail in event.details or ()]),
        "calls": [(call_id, name, json.loads(arguments)) for call_id, name, arguments in calls.values()],
        "finish": finished.reason,
        "native": finished.native_reason,
        "usage": (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        ),
    }


def handed_back(details):
    """The thinking blocks of a next request by a client that appends details as they come."""
    said = Message(role="assistant", content="x", reasoning_details=details)
    asked = (Message(role="user", content="a"), said, Message(role="user", content="b"))
    body = json.loads(Anthropic().encode(ChatRequest(messages=asked), endpoint_for({"model": "m"}), stream=False).body)
    content = body["messages"][1]["content"]
    return [block for block in content if block["type"] != "text"]
