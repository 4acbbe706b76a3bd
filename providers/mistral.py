"""Mistral's own API (La Plateforme). Its request type is closed at every level: a member it does not know is a 422.

So only what its published schema has is sent, translated where it has another name for it, and what cannot be said
is recorded as an Adaptation. Answers are OpenAI's with additions that the shared codec reads.
https://docs.mistral.ai/api/#tag/chat; `reference/providers.md` section 1.3 says what else was seen.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.base import NO_HEADERS, Adaptation, Decoder, Endpoint, WireRequest
from providers.errors import ProviderError, UnsupportedError
from providers.json_values import elements, members
from providers.messages import ChatRequest, Function, ResponseFormat, Tool
from providers.mistral_errors import classify, classify_in_band
from providers.mistral_messages import translate_messages
from providers.openai_decoder import BodyDecoder, StreamDecoder

TEMPERATURE_MAX: Final = 1.5
TOOLS_MAX: Final = 128
SEED_MAX: Final = 2**63 - 1
JSON_HINT: Final = "Answer in JSON."

_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_encoder = msgspec.json.Encoder()
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
_SAME = ("top_p", "n", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "metadata", "prompt_cache_key")
"""Members that mean the same there under the same name."""
_FOREIGN: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("top_k", (0, -1)),
    ("min_p", (0,)),
    ("top_a", (0,)),
    ("repetition_penalty", (1,)),
    ("logit_bias", ({},)),
    ("logprobs", (False,)),
    ("top_logprobs", (0,)),
    ("verbosity", ("medium",)),
    ("modalities", (["text"], [])),
    ("audio", ()),
    ("web_search_options", ()),
    ("service_tier", ("auto", "default")),
    ("store", (False,)),
    ("user", ()),
    ("safety_identifier", ()),
    ("cache_control", ()),
    ("plugins", ([],)),
    ("transforms", ([],)),
)
"""Members that Mistral does not have, and the values under which leaving them out changes nothing."""
_EFFORTS: Mapping[str, str] = {"none": "none", "minimal": "none"}
"""Mistral's two levels of thinking, by OpenAI's names; every other one is `high`."""

Json = dict[str, Any]


class Mistral:
    """Speaks to api.mistral.ai, or to a private deployment of the same."""

    name = "mistral"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The request in Mistral's closed form.

        Raises:
            UnsupportedError: It asks for something that cannot be left out without changing what is meant.
        """
        adapted: list[Adaptation] = []
        extra = members(request.extra)
        thinking = endpoint.capabilities.reasoning
        body: Json = {
            "model": endpoint.upstream_model,
            "messages": translate_messages(
                request.messages, members(extra.get("messages")), thinking=thinking, adapted=adapted
            ),
        }
        if stream:
            body["stream"] = True
        for name in _SAME:
            if (value := getattr(request, name)) is not None:
                body[name] = value
        _sampling(request, body, adapted)
        _tools(request, body, adapted)
        _format(request.response_format, body, adapted)
        _reasoning(request, body, adapted, thinking=thinking)
        _native(extra, body, adapted)
        for name, idle in _FOREIGN:
            value = getattr(request, name)
            if value is not None and value not in idle:
                adapted.append(Adaptation(name, "dropped", "Mistral has no place for it"))
        return WireRequest(
            url=f"{endpoint.base_url}/chat/completions",
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
        return StreamDecoder(classify_in_band) if stream else BodyDecoder(classify_in_band)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means."""
        return classify(status, headers, body, now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {api_key}"}


def _sampling(request: ChatRequest, body: Json, adapted: list[Adaptation]) -> None:
    """Temperature, limit, seed and stops: other names, other bounds."""
    temperature = request.temperature
    if temperature is not None:
        if temperature > TEMPERATURE_MAX:
            adapted.append(Adaptation("temperature", "clamped", f"to {TEMPERATURE_MAX}"))
            temperature = TEMPERATURE_MAX
        body["temperature"] = temperature
    if (limit := request.output_limit_tokens) is not None:
        body["max_tokens"] = limit
    if (seed := request.seed) is not None:
        body["random_seed"] = seed & SEED_MAX
        if seed < 0:
            adapted.append(Adaptation("seed", "clamped", f"no negative seeds: {seed & SEED_MAX} stands for it"))
    if request.stop:  # an empty list is refused
        body["stop"] = request.stop
    if request.prediction is not None:
        if (text := _prediction(request.prediction)) is None:
            adapted.append(Adaptation("prediction", "dropped", "only text can be predicted"))
        else:
            body["prediction"] = {"type": "content", "content": text}


def _prediction(prediction: Json) -> str | None:
    content = prediction.get("content")
    if isinstance(content, str):
        return content
    texts = [members(part).get("text") for part in elements(content)]
    return "".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None


def _tools(request: ChatRequest, body: Json, adapted: list[Adaptation]) -> None:
    if request.functions and not request.tools:
        # Sent as tools, the answer would call tools, which a client of `functions` does not look for.
        raise UnsupportedError("Mistral has tools, not functions; ask with `tools`", param="functions")
    if request.functions:
        adapted.append(Adaptation("functions", "dropped", "`tools` stand for them"))
    tools = list(_offered(request.tools or (), adapted))
    if len(tools) > TOOLS_MAX:
        raise UnsupportedError(f"Mistral takes at most {TOOLS_MAX} tools, not {len(tools)}", param="tools")
    choice = _choice(request.tool_choice)
    if isinstance(choice, tuple):  # only some of them are allowed
        choice, allowed = choice
        tools = [tool for tool in tools if tool["function"]["name"] in allowed]
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
    elif choice not in (None, "auto", "none"):
        adapted.append(Adaptation("tool_choice", "dropped", "there is no tool to choose"))


def _offered(tools: tuple[Tool, ...], adapted: list[Adaptation]) -> list[Json]:
    offered: list[Json] = []
    for place, tool in enumerate(tools):
        if tool.function is None or tool.type != "function":
            adapted.append(Adaptation(f"tools[{place}]", "dropped", f"Mistral has no {tool.type} tool"))
            continue
        if tool.cache_control:
            adapted.append(Adaptation(f"tools[{place}].cache_control", "dropped", "Mistral has no place for it"))
        offered.append({"type": "function", "function": _function(tool.function)})
    return offered


def _function(function: Function) -> Json:
    """A function; parameters are required even where there are none."""
    offered: Json = {"name": function.name, "parameters": function.parameters or _NO_PARAMETERS}
    if function.description is not None:
        offered["description"] = function.description
    if function.strict is not None:
        offered["strict"] = function.strict
    return offered


def _choice(choice: str | Json | None) -> str | Json | tuple[str, frozenset[str]] | None:
    """Mistral's form of a tool choice, with the names that are allowed where only some are.

    Raises:
        UnsupportedError: It is none that Mistral knows.
    """
    if choice is None or (isinstance(choice, str) and choice in ("auto", "none", "any", "required")):
        return choice
    said = members(choice)
    name = members(said.get("function")).get("name")
    if said.get("type", "function") == "function" and isinstance(name, str):
        return {"type": "function", "function": {"name": name}}
    allowed = members(said.get("allowed_tools"))
    mode = allowed.get("mode", "auto")
    if said.get("type") == "allowed_tools" and mode in ("auto", "required"):
        names = (members(members(tool).get("function")).get("name") for tool in elements(allowed.get("tools")))
        return str(mode), frozenset(name for name in names if isinstance(name, str))
    raise UnsupportedError("Mistral knows no such tool_choice", param="tool_choice")


def _format(wanted: ResponseFormat | None, body: Json, adapted: list[Adaptation]) -> None:
    """The form of the answer.

    Raises:
        UnsupportedError: It is one that Mistral does not know.
    """
    if wanted is None or wanted.type == "text":
        return
    if wanted.type not in ("json_object", "json_schema"):
        raise UnsupportedError(f"Mistral cannot answer as {wanted.type}", param="response_format")
    described = wanted.json_schema
    schema = wanted.schema if described is None else described.schema
    if schema is not None:
        format_: Json = {"name": "answer" if described is None else described.name, "schema": schema}
        if described is not None and described.description is not None:
            format_["description"] = described.description
        if described is not None and described.strict is not None:
            format_["strict"] = described.strict
        body["response_format"] = {"type": "json_schema", "json_schema": format_}
        return
    if wanted.type == "json_schema":
        adapted.append(Adaptation("response_format", "folded", "without a schema it is json_object"))
    body["response_format"] = {"type": "json_object"}
    messages: list[Json] = body["messages"]
    if not any(_says_json(message["content"]) for message in messages):
        # Without the word in the prompt a model in JSON mode may write blanks without end.
        messages.insert(0, {"role": "system", "content": JSON_HINT})
        adapted.append(Adaptation("response_format", "folded", f"system text {JSON_HINT!r} was put in front"))


def _says_json(content: Any) -> bool:
    if isinstance(content, str):
        return "json" in content.lower()
    return any(_says_json(part["text"]) for part in content if part["type"] == "text")


def _reasoning(request: ChatRequest, body: Json, adapted: list[Adaptation], *, thinking: bool) -> None:
    """OpenAI's and OpenRouter's ways to ask for thinking, on Mistral's two levels."""
    asked = request.reasoning or {}
    effort = request.reasoning_effort or asked.get("effort")
    if effort is None and "enabled" in asked:
        effort = "high" if asked["enabled"] else "none"
    param = "reasoning_effort" if request.reasoning_effort else "reasoning"
    adapted += [
        Adaptation(f"reasoning.{name}", "dropped", "Mistral has no place for it")
        for name in asked
        if name not in ("effort", "enabled")
    ]
    if not isinstance(effort, str):
        return
    level = _EFFORTS.get(effort, "high")
    if not thinking:
        if level != "none":
            adapted.append(Adaptation(param, "dropped", "this model is not known to think"))
        return
    body["reasoning_effort"] = level
    if level != effort:
        adapted.append(Adaptation(param, "clamped", f"to {level!r}: Mistral has two levels"))


def _native(extra: Json, body: Json, adapted: list[Adaptation]) -> None:
    """Members that only Mistral has go through where they are sound; what nobody knows does not."""
    for name, value in extra.items():
        if name == "random_seed" and type(value) is int and 0 <= value <= SEED_MAX:
            body.setdefault(name, value)
        elif (
            (name == "safe_prompt" and isinstance(value, bool))
            or (name == "prompt_mode" and value == "reasoning")
            or (name == "guardrails" and elements(value) and all(map(members, elements(value))))
        ):
            body[name] = value
        elif name not in ("messages", "stream_options"):
            adapted.append(Adaptation(name, "dropped", "Mistral has no place for it"))
