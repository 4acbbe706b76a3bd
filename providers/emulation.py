"""Tools and JSON for models that have neither: asked for in words, read out of the text, judged by JSON Schema.

Pure. `emulate` turns a request into one the endpoint can take; `Emulation.settle` turns the whole text that came back
into the answer that was asked for, or into a request that gives the model one chance to mend it. Where the endpoint can
hold its output to a schema (our own worker's grammar), the words are still said and the schema does the rest.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from providers.base import Capabilities
from providers.errors import ServerError
from providers.json_values import elements, members
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    Event,
    JsonSchema,
    Message,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCallDelta,
)

Emulated: TypeAlias = Literal["tools", "json"]
Validate: TypeAlias = Callable[[Any, Any], str | None]
"""(value, JSON Schema) -> what is wrong with the value, or None."""

BAD_REPLY_MAX_CHARS: Final = 4000
"""How much of a bad reply is shown to the model again."""
SCANNED_MAX: Final = 50
"""Opening braces looked at when JSON is searched in prose."""
ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}


class Repair(Struct, frozen=True):
    """The reply was not what was asked for; this request asks once more."""

    request: ChatRequest
    reason: str


class Emulation(Struct, frozen=True):
    """One answer that is being emulated."""

    request: ChatRequest
    """What the endpoint is asked."""
    emulated: tuple[Emulated, ...]
    original: ChatRequest
    repaired: bool = False

    def settle(self, events: Sequence[Event], validate: Validate) -> "list[Event] | Repair":
        """The answer as it was asked for, out of all events of the endpoint's own answer.

        Gives a Repair where a choice is not valid and none has been asked for yet, and an AnswerFailed after that. An
        answer that was cut by its length limit is handed on as it is: what is missing cannot be judged.
        """
        texts: dict[int, str] = {}
        for event in events:
            if isinstance(event, TextDelta):
                texts[event.choice] = texts.get(event.choice, "") + event.text
        cut = {event.choice for event in events if isinstance(event, ChoiceFinished) and event.reason == "length"}
        settled: dict[int, list[Event]] = {}
        for choice, text in texts.items():
            if choice in cut:
                continue
            outcome = self._choice(text, choice, validate)
            if isinstance(outcome, str):
                return self._refused(text, outcome)
            settled[choice] = outcome
        return _replaced(events, settled)

    def _choice(self, text: str, choice: int, validate: Validate) -> list[Event] | str:
        """The events of one choice, or what is wrong with its text."""
        if "tools" in self.emulated:
            return _read_tools(text, choice, self.original, validate)
        value, problem = find_json(text)
        if problem is not None:
            return problem
        if problem := validate(value, wanted_schema(self.original)):
            return problem
        return [TextDelta(json.dumps(value, ensure_ascii=False), choice), ChoiceFinished("stop", choice)]

    def _refused(self, text: str, reason: str) -> "list[Event] | Repair":
        if self.repaired:
            return [AnswerFailed(ServerError(f"the model did not give the form that was asked for: {reason[:300]}"))]
        again = (
            Message(role="assistant", content=text[:BAD_REPLY_MAX_CHARS] or "(nothing)"),
            Message(role="user", content=f"That is not valid: {reason[:500]}. Reply again with the JSON alone."),
        )
        return Repair(msgspec.structs.replace(self.request, messages=(*self.request.messages, *again)), reason)


def emulate(request: ChatRequest, capabilities: Capabilities) -> Emulation | None:
    """How an endpoint with these capabilities can be asked, or None where it can do all of it itself."""
    emulated: list[Emulated] = []
    asked = request
    form = request.response_format
    if offers_tools(request) and not capabilities.tools:
        emulated.append("tools")
        asked = _ask_for_tools(request, capabilities)
    elif form is not None and form.type in ("json_object", "json_schema") and not getattr(capabilities, form.type):
        emulated.append("json")
        asked = _ask_for_json(request, capabilities)
    return Emulation(asked, tuple(emulated), request) if emulated else None


def offers_tools(request: ChatRequest) -> bool:
    """Whether the model is to know of tools at all."""
    return bool(request.tools) and request.tool_choice != "none"


def wanted_schema(request: ChatRequest) -> dict[str, Any]:
    """The schema that the answer must satisfy."""
    form = request.response_format
    if form is None:
        return {}
    if form.json_schema is not None and form.json_schema.schema is not None:
        return form.json_schema.schema
    return form.schema or ANY_OBJECT


# --- asking ---


def _ask_for_json(request: ChatRequest, capabilities: Capabilities) -> ChatRequest:
    schema = wanted_schema(request)
    words = "Reply with one JSON value and nothing else: no explanation, no code fence."
    if schema != ANY_OBJECT:
        words += f" It must satisfy this JSON Schema: {json.dumps(schema, ensure_ascii=False)}"
    messages = _with_system(request.messages, words)
    form = ResponseFormat(type="json_object") if capabilities.json_object else None
    return msgspec.structs.replace(request, messages=messages, response_format=form)


def _ask_for_tools(request: ChatRequest, capabilities: Capabilities) -> ChatRequest:
    tools = [tool for tool in request.tools or () if tool.function is not None]
    must = _forced(request, tools)
    described = json.dumps([_described(tool) for tool in tools], ensure_ascii=False)
    form = '{"tool_calls": [{"name": "<function name>", "arguments": {<its arguments>}}]}'
    otherwise = (
        f"You must call {must[0] if len(must) == 1 else 'at least one of them'} now."
        if must
        else 'If none is needed, reply with {"content": "<your answer>"} instead.'
    )
    words = f"You can call these functions: {described}\nTo call, reply with one JSON object alone: {form} {otherwise}"
    if request.parallel_tool_calls is False:
        words += " Call one function at most."
    response_format = None
    if capabilities.json_schema:
        response_format = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=_reply_schema(request)))
    return msgspec.structs.replace(
        request,
        messages=_with_system(tuple(_in_words(message) for message in request.messages), words),
        tools=None,
        tool_choice=None,
        parallel_tool_calls=None,
        response_format=response_format,
    )


def _forced(request: ChatRequest, tools: Sequence[Tool]) -> list[str]:
    """The names of which one must be called; none where the model may choose not to."""
    choice = request.tool_choice
    if isinstance(choice, dict):
        return [str(members(choice.get("function")).get("name", ""))]
    if choice == "required":
        return [tool.function.name for tool in tools if tool.function is not None]
    return []


def _described(tool: Tool) -> dict[str, Any]:
    function = tool.function
    assert function is not None  # noqa: S101 (the caller left the others out)
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or ANY_OBJECT,
    }


def _reply_schema(request: ChatRequest) -> dict[str, Any]:
    """What a reply may be: calls, or an answer in words where none is forced."""
    tools = [tool for tool in request.tools or () if tool.function is not None]
    must = _forced(request, tools)
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": tool.function.parameters or ANY_OBJECT},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
        if tool.function is not None and (not must or tool.function.name in must)
    ]
    listed: dict[str, Any] = {
        "type": "array",
        "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
        "minItems": 1,
    }
    listed["maxItems"] = 1 if request.parallel_tool_calls is False or must else 8
    called = _object("tool_calls", listed)
    return called if must else {"anyOf": [called, _object("content", {"type": "string"})]}


def _object(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


def _with_system(messages: tuple[Message, ...], words: str) -> tuple[Message, ...]:
    """The words behind the system's own, or as a system message of their own."""
    first = messages[0]
    if first.role in ("system", "developer") and isinstance(first.content, str):
        joined = msgspec.structs.replace(first, content=f"{first.content}\n\n{words}")
        return (joined, *messages[1:])
    return (Message(role="system", content=words), *messages)


def _in_words(message: Message) -> Message:
    """Calls and results of earlier turns as text, for a model that knows neither."""
    if message.role == "tool":
        content = message.content if isinstance(message.content, str) else _text(message)
        return Message(role="user", content=f"Result of the call {message.tool_call_id or ''}: {content}")
    if message.tool_calls:
        calls = [
            {"name": call.function.name, "arguments": _parsed(call.function.arguments)}
            for call in message.tool_calls
            if call.function is not None
        ]
        return Message(role="assistant", content=json.dumps({"tool_calls": calls}, ensure_ascii=False))
    return message


def _text(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(part.text for part in content if part.text)


# --- reading ---


def _read_tools(text: str, choice: int, request: ChatRequest, validate: Validate) -> list[Event] | str:
    must = _forced(request, [tool for tool in request.tools or () if tool.function is not None])
    value, problem = find_json(text)
    calls = _calls_in(value)
    if calls is None:
        if must:
            return problem or 'the reply has no "tool_calls"'
        said = members(value).get("content")
        return [TextDelta(said if isinstance(said, str) else text, choice), ChoiceFinished("stop", choice)]
    known = {tool.function.name: tool.function for tool in request.tools or () if tool.function is not None}
    events: list[Event] = []
    for place, (name, arguments) in enumerate(calls):
        if name not in known or (must and name not in must):
            return f"there is no function called {name[:100]!r}"
        if complaint := validate(arguments, known[name].parameters or ANY_OBJECT):
            return f"the arguments of {name}: {complaint}"
        written = json.dumps(arguments, ensure_ascii=False)
        events.append(ToolCallDelta(place, choice, _call_id(text, choice, place), name, written))
    events.append(ChoiceFinished("tool_calls", choice))
    return events


def _calls_in(value: Any) -> list[tuple[str, Any]] | None:
    """The calls that a reply makes, in any of the forms that models use; None where it makes none."""
    told = members(value)
    listed = told.get("tool_calls") if "tool_calls" in told else value
    if "name" in told and "tool_calls" not in told:
        listed = [told]
    calls: list[tuple[str, Any]] = []
    for call in map(members, elements(listed)):
        function = members(call.get("function")) or call
        name = function.get("name")
        if not isinstance(name, str):
            return None
        arguments = function.get("arguments", function.get("parameters", {}))
        calls.append((name, _parsed(arguments) if isinstance(arguments, str) else arguments))
    return calls or None


def find_json(text: str) -> tuple[Any, str | None]:
    """The first JSON object or array in a text (fenced, or with words around it), or why there is none."""
    stripped = text.strip()
    try:
        return json.loads(stripped), None
    except (ValueError, RecursionError):
        pass
    decoder = json.JSONDecoder()
    at = -1
    for _ in range(SCANNED_MAX):
        found = [place for place in (stripped.find("{", at + 1), stripped.find("[", at + 1)) if place >= 0]
        if not found:
            break
        at = min(found)
        try:
            return decoder.raw_decode(stripped, at)[0], None
        except (ValueError, RecursionError):
            continue
    return None, "the reply holds no valid JSON"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _call_id(text: str, choice: int, place: int) -> str:
    """An id that is the same for the same reply: nine letters and digits, which every provider takes back."""
    return hashlib.sha256(f"{choice}/{place}/{text}".encode("utf-8", "replace")).hexdigest()[:9]


def _replaced(events: Sequence[Event], settled: dict[int, list[Event]]) -> list[Event]:
    """The events with each settled choice's text and finish replaced by what it was read as."""
    replaced: list[Event] = []
    for event in events:
        if not isinstance(event, TextDelta | ChoiceFinished) or event.choice not in settled:
            replaced.append(event)
        elif isinstance(event, ChoiceFinished):
            replaced.extend(settled[event.choice])
    return replaced
