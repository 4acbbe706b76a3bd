"""botocore as the judge: what it decodes from the same bytes, and whether its service model takes what we send."""

import base64
import json
import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import botocore.session
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import EventStreamJSONParser, RestJSONParser
from botocore.validate import ParamValidator

SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[4] / "shared"))
RECORDINGS = Path(os.environ.get("RECORDINGS_DIR", SHARED / "recordings")) / "bedrock"
REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


@cache
def model(operation):
    loader = botocore.session.get_session().get_component("data_loader")
    description = loader.load_service_model("bedrock-runtime", "service-2")
    return botocore.model.ServiceModel(description).operation_model(operation)


def load():
    """Name and content of every recording."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RECORDINGS.glob("*.json"))}


def body_of(response):
    body = response["body"]
    if "base64" in body:
        return base64.b64decode(body["base64"])
    return body["text"].encode() if "text" in body else json.dumps(body["json"]).encode()


def messages(raw, operation):
    """The events of a stream as botocore's own parser reads them."""
    shape = model(operation).get_event_stream_output()
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    parsed = []
    for message in buffer:
        response = message.to_response_dict()
        assert response["status_code"] == 200
        parsed.append(EventStreamJSONParser().parse(response, shape))
    return parsed


def fold(raw):
    """A Converse answer put together from its stream, by the rules of the service model."""
    blocks, reason, usage = {}, None, None
    for message in messages(raw, "ConverseStream"):
        ((name, said),) = ((name, said) for name, said in message.items() if name != "ResponseMetadata")
        if name == "contentBlockStart":
            blocks[said["contentBlockIndex"]] = [("start", said["start"])]
        elif name == "contentBlockDelta":
            blocks.setdefault(said["contentBlockIndex"], []).append(("delta", said["delta"]))
        elif name == "messageStop":
            reason = said["stopReason"]
        elif name == "metadata":
            usage = said["usage"]
    text, thinking, calls = "", "", []
    for pieces in (blocks[index] for index in sorted(blocks)):
        start = pieces[0][1].get("toolUse") if pieces[0][0] == "start" else None
        if start is not None and start.get("type") != "server_tool_use":
            joined = "".join(piece["toolUse"]["input"] for kind, piece in pieces if kind == "delta")
            calls.append((start["toolUseId"], start["name"], json.loads(joined or "{}")))
        for kind, piece in pieces:
            if kind == "delta":
                text += piece.get("text", "")
                thinking += piece.get("reasoningContent", {}).get("text", "")
    return meaning(text, thinking, calls, reason, usage)


def whole(raw, headers):
    """A whole Converse answer as botocore's own parser reads it."""
    parsed = RestJSONParser().parse(
        {"status_code": 200, "headers": headers, "body": raw}, model("Converse").output_shape
    )
    text, thinking, calls = "", "", []
    for block in parsed["output"]["message"]["content"]:
        text += block.get("text", "")
        thinking += block.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")
        use = block.get("toolUse")
        if use is not None and use.get("type") != "server_tool_use":
            calls.append((use["toolUseId"], use["name"], use["input"]))
    return meaning(text, thinking, calls, parsed["stopReason"], parsed["usage"])


def meaning(text, thinking, calls, reason, usage):
    read, written = (usage.get(name) for name in ("cacheReadInputTokens", "cacheWriteInputTokens"))
    total = usage["inputTokens"] + (read or 0) + (written or 0)
    return text, thinking, calls, REASONS[reason], (total, usage["outputTokens"], read, written)


BLOBS = {"bytes", "redactedContent"}


def params_of(wire):
    """The parameters of the operation, as a caller of botocore would write them: blobs are bytes again."""
    body = json.loads(wire.body, object_hook=_with_bytes)
    return {"modelId": unquote(urlsplit(wire.url).path.split("/")[2]), **body}


def _with_bytes(value):
    return {
        name: base64.b64decode(item) if name in BLOBS and isinstance(item, str) else item
        for name, item in value.items()
    }


def check(params, operation="Converse"):
    """Assert that the service model takes the parameters: types, required members, ranges, and what botocore leaves
    to the service: enums, patterns, maxima and unions."""
    shape = model(operation).input_shape
    report = ParamValidator().validate(params, shape)
    assert not report.has_errors(), report.generate_report()
    _walk(params, shape, operation)


def _walk(value, shape, where):
    limits = shape.metadata
    if shape.type_name == "structure" and not shape.is_document_type:
        assert set(value) <= set(shape.members), f"{where}: {set(value) - set(shape.members)}"
        assert not shape.is_tagged_union or len(value) == 1, where
        for name, item in value.items():
            _walk(item, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        _within(len(value), limits, where)
        for place, item in enumerate(value):
            _walk(item, shape.member, f"{where}[{place}]")
    elif shape.type_name == "map":
        _within(len(value), limits, where)
        for name, item in value.items():
            _walk(name, shape.key, where)
            _walk(item, shape.value, f"{where}.{name}")
    elif shape.type_name in ("string", "blob"):
        _within(len(value), limits, where)
        if shape.type_name == "string":
            assert not shape.enum or value in shape.enum, f"{where}: {value}"
            pattern = limits.get("pattern")
            assert pattern is None or re.fullmatch(pattern, value), f"{where}: {value!r}"
    elif shape.type_name in ("integer", "float"):
        _within(value, limits, where)


def _within(size, limits, where):
    assert limits.get("min", size) <= size <= limits.get("max", size), f"{where}: {size} is not within {limits}"
