"""The Amazon Bedrock dialect: Converse and ConverseStream, one form for every model there.

Credentials are a Signer's business (SigV4 or a bearer key). What a model cannot do is asked of its capabilities, never
of its name: Mixtral 8x7B knows neither system text nor tools, and Bedrock refuses a request that has them.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from providers.base import NO_HEADERS, Adaptation, Decoder, Endpoint, WireRequest
from providers.bedrock_answers import BodyDecoder, StreamDecoder
from providers.bedrock_errors import classify
from providers.bedrock_limits import dropped, sampling
from providers.bedrock_turns import cache_point, conversation, tool_name
from providers.errors import ProviderError, UnsupportedError
from providers.json_values import members
from providers.messages import ChatRequest, Function, ResponseFormat, Tool

STOPS_MAX: Final = 2500
METADATA_MAX: Final = 16
NATIVE_MEMBERS: Final = (
    "guardrailConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
)
"""Converse's own members that a client may write into its request beside OpenAI's; they go on as they are."""
JSON_HEADERS: Final = {"content-type": "application/json", "accept": "application/json"}
STREAM_HEADERS: Final = {"content-type": "application/json", "accept": "application/vnd.amazon.eventstream"}

_METADATA_TEXT = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
_SENT_IF_POSSIBLE: Final = frozenset({"metadata", "parallel_tool_calls"})
_encoder = msgspec.json.Encoder()


class BedrockConverse:
    """Speaks to bedrock-runtime's Converse operations."""

    name = "bedrock_converse"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The request in Converse's form, with what had to change noted.

        Raises:
            UnsupportedError: This model, or Converse, cannot say what was asked.
        """
        notes = dropped(request, but=_SENT_IF_POSSIBLE)
        drawn = sampling(request, endpoint, notes, stops_max=STOPS_MAX)
        talk = conversation(request, endpoint, notes)
        body: dict[str, Any] = {"messages": talk.turns}
        if talk.system:
            body["system"] = talk.system
        inference: dict[str, Any] = {
            "maxTokens": drawn.max_tokens,
            "temperature": drawn.temperature,
            "topP": drawn.top_p,
            "stopSequences": drawn.stop or None,
        }
        body["inferenceConfig"] = {name: value for name, value in inference.items() if value is not None}
        tools = _tool_config(request, endpoint, talk.tools_called, notes)
        if tools is not None:
            body["toolConfig"] = tools
        output = _output_config(request.response_format, endpoint)
        if output is not None:
            body["outputConfig"] = output
        _native(request, body, notes)
        if drawn.top_k is not None:
            body["additionalModelRequestFields"] = {
                "top_k": drawn.top_k,
                **members(body.get("additionalModelRequestFields")),
            }
        return WireRequest(
            url=f"{endpoint.base_url}/model/{quote(endpoint.upstream_model, safe='')}/"
            + ("converse-stream" if stream else "converse"),
            body=_encoder.encode(body),
            headers=STREAM_HEADERS if stream else JSON_HEADERS,
            stream=stream,
            adapted=tuple(notes),
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Decoder:
        """A fresh decoder for one answer."""
        request_id = headers.get("x-amzn-requestid")
        return StreamDecoder(request_id) if stream else BodyDecoder(request_id)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means."""
        return classify(status, headers, body, now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A Bedrock API key is a bearer token and replaces the signature."""
        return {"authorization": f"Bearer {api_key}"}


def _tool_config(
    request: ChatRequest, endpoint: Endpoint, called: tuple[str, ...], notes: list[Adaptation]
) -> dict[str, Any] | None:
    choice = request.function_call if request.tool_choice is None else request.tool_choice
    tools = request.tools or tuple(Tool(function=function) for function in request.functions or ())
    if choice == "none" and not called:
        if tools:
            notes.append(Adaptation("tools", "dropped", "none of them may be called, and Bedrock cannot say so"))
        return None
    if not tools and not called:
        return None
    if not endpoint.capabilities.tools:
        raise UnsupportedError("this model knows no tools", param="tools")
    config: dict[str, Any] = {"tools": _tool_specs(tools, called, notes)}
    chosen = _tool_choice(choice, notes)
    if chosen is not None:
        config["toolChoice"] = chosen
    if request.parallel_tool_calls is False:
        notes.append(Adaptation("parallel_tool_calls", "dropped", "Bedrock has no such parameter"))
    return config


def _tool_specs(tools: tuple[Tool, ...], called: tuple[str, ...], notes: list[Adaptation]) -> list[dict[str, Any]]:
    """The tools on offer, and those that the conversation calls: Bedrock wants those declared too."""
    specs: list[dict[str, Any]] = []
    declared: set[str] = set()
    for tool in tools:
        if tool.function is None:
            raise UnsupportedError(f"Bedrock knows no tools of the type {tool.type[:40]!r}", param="tools")
        declared.add(tool.function.name)
        specs.append(_tool_spec(tool.function))
        if tool.cache_control is not None:
            specs.append(cache_point(tool.cache_control))
    again = [name for name in called if name not in declared]
    if again:
        notes.append(Adaptation("tools", "folded", "tools that the conversation calls are declared again"))
    return specs + [_tool_spec(Function(name=name)) for name in again]


def _tool_spec(function: Function) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": tool_name(function.name)}
    if function.description:
        spec["description"] = function.description
    spec["inputSchema"] = {"json": function.parameters or {"type": "object", "properties": {}}}
    if function.strict:
        spec["strict"] = True
    return {"toolSpec": spec}


def _tool_choice(choice: str | dict[str, Any] | None, notes: list[Adaptation]) -> dict[str, Any] | None:
    if choice is None or choice == "auto":
        return None
    if choice in ("required", "any"):
        return {"any": {}}
    if choice == "none":
        notes.append(Adaptation("tool_choice", "dropped", "Bedrock cannot forbid tools that the conversation calls"))
        return None
    named = members(choice)
    name = members(named.get("function")).get("name", named.get("name"))
    if not isinstance(name, str):
        raise UnsupportedError(
            "Bedrock knows no such tool_choice: auto, required, none or one function", param="tool_choice"
        )
    return {"tool": {"name": tool_name(name)}}


def _output_config(form: ResponseFormat | None, endpoint: Endpoint) -> dict[str, Any] | None:
    if form is None or form.type == "text":
        return None
    asked = form.json_schema
    if form.type != "json_schema" or asked is None or not endpoint.capabilities.json_schema:
        raise UnsupportedError(
            f"this model on Bedrock has no response_format {form.type[:40]!r}", param="response_format"
        )
    definition = {
        "schema": _encoder.encode(asked.schema if asked.schema is not None else {}).decode(),
        "name": asked.name,
        "description": asked.description,
    }
    given = {name: value for name, value in definition.items() if value}
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": given}}}


def _native(request: ChatRequest, body: dict[str, Any], notes: list[Adaptation]) -> None:
    """Members that only Converse has, and the client's metadata where it fits Bedrock's."""
    for name, value in (request.extra or {}).items():
        if name in NATIVE_MEMBERS:
            body[name] = value
        else:
            notes.append(Adaptation(name, "dropped", "Bedrock has no such parameter"))
    if request.metadata and "requestMetadata" not in body:
        if _fits(request.metadata):
            body["requestMetadata"] = request.metadata
        else:
            notes.append(Adaptation("metadata", "dropped", "more, or other characters, than Bedrock takes"))


def _fits(metadata: dict[str, Any]) -> bool:
    texts = [*metadata, *metadata.values()]
    return (
        len(metadata) <= METADATA_MAX
        and all(metadata)
        and all(isinstance(text, str) and _METADATA_TEXT.fullmatch(text) is not None for text in texts)
    )
