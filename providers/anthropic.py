"""The Anthropic dialect: chat requests in OpenAI's words as calls of `/v1/messages`.

https://platform.claude.com/docs/en/api/messages. Anthropic refuses members it does not know, so everything is said in
its own words or not at all, and what is not said is told as an Adaptation.

Beyond what a chat request can ask, and so not spoken: MCP servers, containers, context editing, task budgets, tools
loaded while a conversation runs, results marked as errors, and the history of tools that Anthropic runs itself (their
definitions do pass, as tools of a dated type).
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from providers.anthropic_decoder import MessageDecoder, StreamDecoder
from providers.anthropic_errors import classify
from providers.anthropic_messages import Conversation, cache_mark
from providers.anthropic_thinking import NO_THINKING, Thinking, by_budget, by_effort, read_wish
from providers.base import NO_HEADERS, Adaptation, Decoder, Endpoint, WireRequest
from providers.errors import ProviderError, UnsupportedError
from providers.json_values import elements, members
from providers.messages import ChatRequest, Function, Tool

API_VERSION = "2023-06-01"
"""The version whose older models still take temperature, top_p and top_k; 2026-10-21 only forbids more."""
DEFAULT_OUTPUT_TOKENS = 4096
"""Anthropic insists on an output limit; this one holds where neither the client nor the Endpoint has any."""
TEMPERATURE_MAX = 1.0
THINKING_TOP_P_MIN = 0.95
USER_ID_MAX_CHARS = 256
EXTRAS_TOLD_MAX = 32
"""Unknown members named one by one; a hostile body could hold many more."""
EXTRAS_DEPTH_MAX = 4
PARAM_MAX_CHARS = 128

_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "anthropic-version": API_VERSION,
}
_NOT_NAME = re.compile(r"[^a-zA-Z0-9_.-]")
_DATED = re.compile(r"[a-z0-9_]+_20\d{6}")
"""Types of tools that Anthropic runs itself end in a date, `web_search_20250305`."""
_EMPTY_SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}
_SERVICE_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
_NEUTRAL: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("n", (1,)),
    ("seed", ()),
    ("logprobs", (False,)),
    ("top_logprobs", ()),
    ("logit_bias", ({},)),
    ("presence_penalty", (0,)),
    ("frequency_penalty", (0,)),
    ("repetition_penalty", (1,)),
    ("min_p", (0,)),
    ("top_a", (0,)),
    ("verbosity", ()),
    ("modalities", (["text"],)),
    ("audio", ()),
    ("prediction", ()),
    ("web_search_options", ()),
    ("store", (False,)),
    ("prompt_cache_key", ()),
)
"""Members that Anthropic has no word for, with the values that ask for nothing."""

_encoder = msgspec.json.Encoder()


class Anthropic:
    """Speaks to api.anthropic.com, or to anything else that answers `/messages`."""

    name = "anthropic"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The request as Anthropic takes it.

        Raises:
            UnsupportedError: It holds what Anthropic cannot be told (audio, an unknown file), nothing at all, or text
                to go on from where the model does not.
        """
        adapted: list[Adaptation] = []
        talk = Conversation(adapted, late_system=endpoint.quirks.late_system)
        talk.add(request.messages)
        talk.close()
        if talk.prefilled and not endpoint.capabilities.prefill:
            raise UnsupportedError("this model does not go on from a given text", param="messages")
        limit_tokens = _output_limit(request, endpoint, adapted)
        body: dict[str, Any] = {
            "model": endpoint.upstream_model,
            "max_tokens": limit_tokens,
            "messages": talk.turns,
        }
        if talk.system:
            body["system"] = talk.system
        if stream:
            body["stream"] = True
        _add_tools(request, endpoint, body, adapted)
        thinking = _thinking(request, endpoint, limit_tokens, _obstacle(talk, body), adapted)
        _add_output_config(request, endpoint, thinking, talk, body, adapted)
        _add_stops(request, body, adapted)
        _add_sampling(request, endpoint, thinking, body, adapted)
        _add_account(request, body, adapted)
        _tell_dropped(request, adapted)
        return WireRequest(
            url=f"{endpoint.base_url}/messages",
            body=_encoder.encode(body),
            headers=_HEADERS,
            stream=stream,
            adapted=tuple(adapted),
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,  # noqa: ARG002 (part of the seam)
    ) -> Decoder:
        """A fresh decoder for one answer."""
        return StreamDecoder() if stream else MessageDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means."""
        return classify(status, headers, body, now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """The header of Anthropic's own; it wins over a bearer token where both are sent."""
        return {"x-api-key": api_key}


def _output_limit(request: ChatRequest, endpoint: Endpoint, adapted: list[Adaptation]) -> int:
    """The output limit to send, in tokens: the client's, within the Endpoint's, or a default."""
    most = endpoint.max_output_tokens
    wanted = request.output_limit_tokens
    if wanted is None:
        return most or DEFAULT_OUTPUT_TOKENS
    if most is not None and wanted > most:
        adapted.append(Adaptation("max_tokens", "clamped", f"to {most}, the most that this model writes"))
        return most
    return wanted


def _add_tools(request: ChatRequest, endpoint: Endpoint, body: dict[str, Any], adapted: list[Adaptation]) -> None:
    strict = endpoint.capabilities.json_schema
    tools: list[dict[str, Any]] = []
    given = members(request.extra).get("tools")
    for place, tool in enumerate(request.tools or ()):
        if tool.type == "function" and tool.function is not None:
            described = _tool(tool.function, strict=strict, place=place, adapted=adapted)
            _mark(described, tool.cache_control, f"tools[{place}].", adapted)
            tools.append(described)
        elif (own := _own_tool(tool, members(given).get(str(place)))) is not None:
            tools.append(own)
        else:
            adapted.append(Adaptation(f"tools[{place}]", "dropped", f"no tool of type {tool.type[:64]!r} there"))
    for place, function in enumerate(request.functions or ()):
        tools.append(_tool(function, strict=strict, place=place, adapted=adapted))
    choice = _tool_choice(request, tools, adapted)
    if not tools:
        return
    body["tools"] = tools
    if request.parallel_tool_calls is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice


def _tool(function: Function, *, strict: bool, place: int, adapted: list[Adaptation]) -> dict[str, Any]:
    schema = function.parameters or _EMPTY_SCHEMA
    tool: dict[str, Any] = {
        "name": function.name,
        "input_schema": schema if schema.get("type") == "object" else {**schema, "type": "object"},
    }
    if function.description:
        tool["description"] = function.description
    if function.strict and strict:
        tool["strict"] = True
    elif function.strict:
        adapted.append(Adaptation(f"tools[{place}].function.strict", "dropped", "this model does not hold to schemas"))
    return tool


def _own_tool(tool: Tool, rest: object) -> dict[str, Any] | None:
    """A tool that Anthropic runs itself, passed on as the client wrote it; None where it is no such tool."""
    own = members(rest)
    if not _DATED.fullmatch(tool.type) or not isinstance(own.get("name"), str):
        return None
    return {**own, "type": tool.type}


def _tool_choice(request: ChatRequest, tools: list[dict[str, Any]], adapted: list[Adaptation]) -> dict[str, Any] | None:
    """Anthropic's `tool_choice`; None for its default, and where there is no tool to choose."""
    wish = request.tool_choice if request.tool_choice is not None else request.function_call
    param = "tool_choice" if request.tool_choice is not None else "function_call"
    if wish is None or (not tools and wish in ("auto", "none")):
        return None
    said = members(wish)
    if said.get("type") == "allowed_tools":  # OpenAI's way of offering fewer tools than are described
        allowed = members(said.get("allowed_tools"))
        names = {members(members(entry).get("function")).get("name") for entry in elements(allowed.get("tools"))}
        tools[:] = [tool for tool in tools if tool["name"] in names]
        wish = str(allowed.get("mode", "auto"))
        said = {}
    name = members(said.get("function")).get("name", said.get("name"))
    if tools and isinstance(wish, str) and wish in ("auto", "none", "required"):
        return {"type": "any" if wish == "required" else wish}
    if isinstance(name, str) and any(tool["name"] == name for tool in tools):
        return {"type": "tool", "name": name}
    adapted.append(Adaptation(param, "dropped", "it names no tool that is on offer there"))
    return None


def _obstacle(talk: Conversation, body: dict[str, Any]) -> str | None:
    """Why a model with a thinking budget cannot think about this, in words."""
    if members(body.get("tool_choice")).get("type") in ("any", "tool"):
        return "this model cannot think where it must call a tool"
    if talk.prefilled:
        return "this model cannot think where it goes on from a given text"
    if talk.in_unsigned_tool_loop:
        return "the thinking before the tool calls was not handed back (reasoning_details)"
    return None


def _thinking(
    request: ChatRequest, endpoint: Endpoint, limit_tokens: int, obstacle: str | None, adapted: list[Adaptation]
) -> Thinking:
    wish = read_wish(request, adapted)
    if wish is None:
        return NO_THINKING
    if not endpoint.capabilities.reasoning:
        if wish.on:
            adapted.append(Adaptation("reasoning", "dropped", "this model does not think"))
        return NO_THINKING
    if endpoint.quirks.thinking == "effort":
        return by_effort(wish, adapted)
    return by_budget(wish, limit_tokens=limit_tokens, obstacle=obstacle, adapted=adapted)


def _add_output_config(
    request: ChatRequest,
    endpoint: Endpoint,
    thinking: Thinking,
    talk: Conversation,
    body: dict[str, Any],
    adapted: list[Adaptation],
) -> None:
    """Thinking, effort, and the form of the answer."""
    if thinking.thinking is not None:
        body["thinking"] = thinking.thinking
    config: dict[str, Any] = {}
    if thinking.effort is not None:
        config["effort"] = thinking.effort
    wanted = request.response_format
    if wanted is not None and wanted.type != "text":
        schema = wanted.json_schema.schema if wanted.json_schema is not None else wanted.schema
        if schema is None or wanted.type not in ("json_schema", "json_object"):
            adapted.append(Adaptation("response_format", "dropped", "Anthropic holds to a JSON Schema, nothing else"))
        elif not endpoint.capabilities.json_schema:
            adapted.append(Adaptation("response_format", "dropped", "this model does not hold to schemas"))
        elif talk.prefilled:
            adapted.append(Adaptation("response_format", "dropped", "not with a given text to go on from"))
        else:
            config["format"] = {"type": "json_schema", "schema": schema}
    if config:
        body["output_config"] = config


def _add_sampling(
    request: ChatRequest, endpoint: Endpoint, thinking: Thinking, body: dict[str, Any], adapted: list[Adaptation]
) -> None:
    """Temperature, top_p and top_k, as far as this model and its thinking let them be chosen."""
    temperature, top_p = request.temperature, request.top_p
    top_k = request.top_k if request.top_k is not None and request.top_k > 0 else None
    if temperature is None and top_p is None and top_k is None:
        return
    chosen: dict[str, float | None] = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    refused = "not while it thinks"
    if not endpoint.quirks.sampling:
        kept, refused = dict[str, float | None](), "this model takes no sampling parameters"
    elif thinking.on:
        kept = {"temperature": 1.0} if temperature == 1 else {}
        if top_p is not None and top_p >= THINKING_TOP_P_MIN and not kept:
            kept["top_p"] = top_p
    else:
        kept = dict(chosen)
        if temperature is not None:
            kept["temperature"] = min(temperature, TEMPERATURE_MAX)
            if temperature > TEMPERATURE_MAX:
                adapted.append(Adaptation("temperature", "clamped", f"to {TEMPERATURE_MAX:g}"))
            del kept["top_p"]  # models since 4.1 refuse the two together
            refused = "not beside a temperature"
    for name, value in chosen.items():
        if kept.get(name) is not None:
            body[name] = kept[name]
        elif value is not None and not (name == "top_p" and value == 1):  # a top_p of 1 asks for nothing
            adapted.append(Adaptation(name, "dropped", refused))


def _add_stops(request: ChatRequest, body: dict[str, Any], adapted: list[Adaptation]) -> None:
    if request.stop is None:
        return
    given = [request.stop] if isinstance(request.stop, str) else request.stop
    if stops := [stop for stop in given if stop and not stop.isspace()]:
        body["stop_sequences"] = stops
    if len(stops) < len(given):
        adapted.append(Adaptation("stop", "dropped", "Anthropic does not stop at white space alone"))


def _add_account(request: ChatRequest, body: dict[str, Any], adapted: list[Adaptation]) -> None:
    """Who asks, at what service, and what is to be cached."""
    user = request.user or request.safety_identifier or members(request.metadata).get("user_id")
    if isinstance(user, str):
        if len(user) <= USER_ID_MAX_CHARS and "@" not in user:
            body["metadata"] = {"user_id": user}
        else:  # it answers 400 to what looks like an address
            adapted.append(Adaptation("user", "dropped", "Anthropic takes an opaque id, no address"))
    if request.metadata and request.metadata.keys() != {"user_id"}:
        adapted.append(Adaptation("metadata", "dropped", "Anthropic takes a user's id and nothing else"))
    if request.service_tier is not None:
        if (tier := _SERVICE_TIERS.get(request.service_tier)) is not None:
            body["service_tier"] = tier
        else:
            adapted.append(Adaptation("service_tier", "dropped", "there is no such tier"))
    _mark(body, request.cache_control, "", adapted)


def _mark(thing: dict[str, Any], wish: dict[str, Any] | None, where: str, adapted: list[Adaptation]) -> None:
    """Put a cache mark on a tool or on the whole request."""
    if wish is None:
        return
    if (mark := cache_mark(wish)) is not None:
        thing["cache_control"] = mark
    else:
        adapted.append(Adaptation(f"{where}cache_control", "dropped", "no kind of mark that Anthropic knows"))


def _tell_dropped(request: ChatRequest, adapted: list[Adaptation]) -> None:
    for name, neutral in _NEUTRAL:
        value = getattr(request, name)
        if value is not None and value not in neutral:
            adapted.append(Adaptation(name, "dropped", "Anthropic has nothing like it"))
    if request.extra:
        own = {(str(place),) for place, tool in enumerate(request.tools or ()) if _DATED.fullmatch(tool.type)}
        paths = (path for path in _paths(request.extra) if path[0] != "tools" or path[1:2] not in own)
        adapted += [
            # Names of a client's choosing end up in a header: nothing but what a name is made of.
            Adaptation(_NOT_NAME.sub("_", ".".join(path)[:PARAM_MAX_CHARS]), "dropped", "unknown to Anthropic")
            for path in islice(paths, EXTRAS_TOLD_MAX)
        ]


def _paths(extra: Mapping[str, Any], way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The ways to the unknown members: `("tools", "0", "hint")`. What nests deeper is named by its outer parts."""
    for name, rest in extra.items():
        path = (*way, name)
        if (nested := members(rest)) and len(path) < EXTRAS_DEPTH_MAX:
            yield from _paths(nested, path)
        else:
            yield path
