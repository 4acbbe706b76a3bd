"""Tools and JSON for models that have neither: asked for in words, read out of the text, judged by JSON Schema.

Pure. `emulate` turns a request into one the endpoint can take; `Emulation.settle` turns the whole text that came back
into the answer that was asked for, or into a request that gives the model one chance to mend it. Where the endpoint can
hold its output to a schema (our own worker's grammar), the words are still said and the schema does the rest.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
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
    RefusalDelta,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCallDelta,
)
from providers.replies import NO_JSON, calls_in, json_values, parse_json, write_json

Emulated: TypeAlias = Literal["tools", "json"]
Validate: TypeAlias = Callable[[Any, Any], str | None]
"""(value, JSON Schema) -> what is wrong with the value, or None."""

BAD_REPLY_MAX_CHARS: Final = 4000
"""How much of a bad reply is shown to the model again."""
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
        reasons: dict[int, str] = {}
        told_otherwise: set[int] = set()
        for event in events:
            if isinstance(event, TextDelta):
                texts[event.choice] = texts.get(event.choice, "") + event.text
            elif isinstance(event, ChoiceFinished):
                reasons[event.choice] = event.reason
            elif isinstance(event, ToolCallDelta | RefusalDelta):
                told_otherwise.add(event.choice)
        settled: dict[int, list[Event]] = {}
        for choice, reason in reasons.items():
            if reason in ("length", "content_filter") or choice in told_otherwise:
                continue
            text = texts.get(choice, "")
            outcome = self._choice(text, choice, validate)
            if isinstance(outcome, str):
                return self._refused(text, outcome)
            settled[choice] = outcome
        return _replaced(events, settled)

    def _choice(self, text: str, choice: int, validate: Validate) -> list[Event] | str:
        """The events of one choice, or what is wrong with its text."""
        if "tools" in self.emulated:
            return _read_tools(text, choice, self.original, validate)
        written, problem = _fitting(json_values(text), wanted_schema(self.original), validate)
        return problem if written is None else [TextDelta(written, choice), ChoiceFinished("stop", choice)]

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
    elif form is not None and wants_json(request) and not getattr(capabilities, form.type):
        emulated.append("json")
        asked = _ask_for_json(request, capabilities)
    return Emulation(asked, tuple(emulated), request) if emulated else None


def offers_tools(request: ChatRequest) -> bool:
    """Whether the model is to know of tools at all."""
    return bool(request.tools) and request.tool_choice != "none"


def wants_json(request: ChatRequest) -> bool:
    """Whether words alone are no answer."""
    return request.response_format is not None and request.response_format.type in ("json_object", "json_schema")


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
    if wants_json(request) and not must:
        schema = json.dumps(wanted_schema(request), ensure_ascii=False)
        otherwise = f'If none is needed, reply with {{"content": ...}}, its value being JSON of this schema: {schema}'
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
    """What a reply may be: calls, or an answer where none is forced."""
    tools = [tool for tool in request.tools or () if tool.function is not None]
    must = _forced(request, tools)
    defined: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for tool in tools:
        function = tool.function
        if function is None or (must and function.name not in must):
            continue
        arguments = _moved(function.parameters or ANY_OBJECT, f"call{len(calls)}", defined)
        called = {"name": {"const": function.name}, "arguments": arguments}
        form: dict[str, Any] = {"type": "object", "properties": called, "required": ["name", "arguments"]}
        calls.append({**form, "additionalProperties": False})
    listed: dict[str, Any] = {
        "type": "array",
        "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
        "minItems": 1,
    }
    listed["maxItems"] = 1 if request.parallel_tool_calls is False or must else 8
    schema = _object("tool_calls", listed)
    if not must:
        said = _moved(wanted_schema(request), "content", defined) if wants_json(request) else {"type": "string"}
        schema = {"anyOf": [schema, _object("content", said)]}
    return {**schema, "$defs": defined} if defined else schema


def _moved(schema: dict[str, Any], name: str, defined: dict[str, Any]) -> dict[str, Any]:
    """A schema for use inside another one. Where it refers to itself, it goes into the `$defs` of the other."""
    if '"$ref"' not in json.dumps(schema):
        return schema
    defined[name] = _rebased(schema, f"#/$defs/{name}")
    return {"$ref": f"#/$defs/{name}"}


def _rebased(node: Any, root: str) -> Any:
    """The same with every reference into itself (`#...`) starting from where its root is now."""
    if told := members(node):
        return {
            key: root + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _rebased(value, root)
            for key, value in told.items()
        }
    parts = elements(node)
    return [_rebased(value, root) for value in parts] if parts else node


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
            {"name": call.function.name, "arguments": parse_json(call.function.arguments)}
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
    values = list(json_values(text))
    for value in values:
        calls = calls_in(value)
        if isinstance(calls, str):
            return calls
        if calls:
            return _called(calls, text, choice, request, validate)
    if must:
        return 'the reply has no "tool_calls"' if values else NO_JSON
    if '"tool_calls"' in text and not values:
        return f'{NO_JSON}, though it begins with "tool_calls"'
    return _said(text, values, choice, request, validate)


def _called(
    calls: list[tuple[str, Any]], text: str, choice: int, request: ChatRequest, validate: Validate
) -> list[Event] | str:
    """The events of these calls, or what is wrong with one of them."""
    must = _forced(request, [tool for tool in request.tools or () if tool.function is not None])
    known = {tool.function.name: tool.function for tool in request.tools or () if tool.function is not None}
    if request.parallel_tool_calls is False and len(calls) > 1:
        return f"{len(calls)} functions are called, and only one may be"
    events: list[Event] = []
    for place, (name, arguments) in enumerate(calls):
        if name not in known or (must and name not in must):
            return f"there is no function called {name[:100]!r}"
        written, problem = _fitting((arguments,), known[name].parameters or ANY_OBJECT, validate)
        if written is None:
            return f"the arguments of {name}: {problem}"
        events.append(ToolCallDelta(place, choice, _call_id(text, choice, place), name, written))
    events.append(ChoiceFinished("tool_calls", choice))
    return events


def _said(text: str, values: Sequence[Any], choice: int, request: ChatRequest, validate: Validate) -> list[Event] | str:
    """The events of an answer without calls, or what is wrong with it."""
    contents = [value["content"] for value in map(members, values) if "content" in value]
    if wants_json(request):
        offered = [parse_json(content) if isinstance(content, str) else content for content in contents]
        written, problem = _fitting((*offered, *values), wanted_schema(request), validate)
        return problem if written is None else [TextDelta(written, choice), ChoiceFinished("stop", choice)]
    said = contents[0] if contents and isinstance(contents[0], str) else text
    return [TextDelta(said, choice), ChoiceFinished("stop", choice)]


def _fitting(values: Iterable[Any], schema: Any, validate: Validate) -> tuple[str | None, str]:
    """The first of these values that satisfies the schema, as JSON text; else what is wrong with the first."""
    problem = ""
    for value in values:
        written = write_json(value)
        found = "it holds half of a character" if written is None else validate(value, schema)
        if found is None:
            return written, ""
        problem = problem or found
    return None, problem or NO_JSON


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
