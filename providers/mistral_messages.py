"""A conversation as Mistral's API takes it: closed message shapes, a fixed order of roles, tool ids of nine characters.

The rules are those of https://docs.mistral.ai/api and of the vendor's own `mistral-common` validators. Names that mean
nothing to a model (tool ids, `developer` for `system`) are translated in silence; whatever a model would have read
and now reads differently, or not at all, is an Adaptation. Pure.
"""

import re
import string
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final

from providers.base import Adaptation
from providers.errors import UnsupportedError
from providers.json_values import elements, members
from providers.messages import Message, Part, ToolCall

TOOL_ID_CHARS: Final = 9
BRIDGE: Final = "OK"
"""What the assistant is made to say between a tool's result and a user turn: the two may not touch."""

_TOOL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BASE62 = string.digits + string.ascii_letters
_IMAGE_DETAILS = ("low", "auto", "high")

Json = dict[str, Any]

_REASONING = ("reasoning", "reasoning_content", "reasoning_details")
_FOREIGN = ("annotations", "audio", "cache_control")
_CALLING = ("tool_calls", "tool_call_id", "function_call")
_UNSAYABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "system": ("name", "refusal", *_REASONING, *_FOREIGN, *_CALLING, "prefix"),
    "user": ("name", "refusal", *_REASONING, *_FOREIGN, *_CALLING, "prefix"),
    "assistant": ("name", "tool_call_id", *_FOREIGN),
    "tool": ("refusal", *_REASONING, *_FOREIGN, "tool_calls", "function_call", "prefix"),
}
"""Members for which a role has no place."""


class ToolIds:
    """Tool call ids in nine letters and digits, one to one: what Mistral made stays, others are hashed."""

    __slots__ = ("_short", "_taken")

    def __init__(self, ids: Iterable[str]) -> None:
        self._taken = {known for known in ids if _TOOL_ID.fullmatch(known)}
        self._short = {known: known for known in self._taken}

    def shorten(self, client_id: str) -> str:
        """The nine characters that stand for this id, the same ones every time."""
        known = self._short.get(client_id)
        if known is not None:
            return known
        salt = 0
        while (short := _hashed(client_id, salt)) in self._taken:
            salt += 1
        self._taken.add(short)
        self._short[client_id] = short
        return short

    def originals(self) -> dict[str, str]:
        """The way back: the client's id by the short one."""
        return {short: client_id for client_id, short in self._short.items()}


def _hashed(client_id: str, salt: int) -> str:
    digest = blake2b(client_id.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.to_bytes(8, "big"))
    number = int.from_bytes(digest.digest(), "big")
    characters: list[str] = []
    for _ in range(TOOL_ID_CHARS):
        number, place = divmod(number, 62)
        characters.append(_BASE62[place])
    return "".join(characters)


def translate_messages(
    messages: tuple[Message, ...], extra: Mapping[str, Any], *, thinking: bool, adapted: list[Adaptation]
) -> list[Json]:
    """The conversation in Mistral's form; what changed is added to `adapted`.

    Args:
        messages: As the client sent them.
        extra: Unknown members of the messages, by position as text, as in `ChatRequest.extra["messages"]`.
        thinking: Whether the model takes its own earlier thinking back.
        adapted: Grows by what could not be said as asked.

    Raises:
        UnsupportedError: A message holds something that cannot be said, or nothing is left to answer.
    """
    conversation = _Conversation(messages, thinking=thinking, adapted=adapted)
    for position, message in enumerate(messages):
        conversation.add(message, f"messages[{position}]", members(extra.get(str(position))))
    return conversation.finish()


class _Conversation:
    """The messages so far, in Mistral's form."""

    def __init__(self, messages: tuple[Message, ...], *, thinking: bool, adapted: list[Adaptation]) -> None:
        self._out: list[Json] = []
        self._paths: list[str] = []
        self._adapted = adapted
        self._thinking = thinking
        self._answered = False
        self._results_at = 0
        """Where the next tool result belongs: behind the calls and the results that came already."""
        self._pending: list[tuple[str, str, str]] = []
        """Calls without a result: the client's id, ours, and the function's name."""
        self._ids = ToolIds(_tool_ids(messages))

    def add(self, message: Message, path: str, rest: Json) -> None:
        role = "system" if message.role == "developer" else "tool" if message.role == "function" else message.role
        for name in _UNSAYABLE[role]:
            if getattr(message, name):
                self._note(f"{path}.{name}", "dropped", "Mistral has no place for it")
        for name in rest:
            if name != "content":
                self._note(f"{path}.{name}", "dropped", "Mistral has no place for it")
        sent = message.content
        content: str | list[Json] | None = None
        if sent is not None:
            content = sent if isinstance(sent, str) else self._chunks(sent, role, path, members(rest.get("content")))
        if role == "assistant":
            self._add_assistant(message, content, path)
        elif role == "tool":
            self._add_result(message, content or "", path)
        elif role == "system" and self._answered:
            self._note(path, "folded", "system text after an answer goes as user text")
            self._append({"role": "user", "content": content or ""}, path)
        else:
            self._append({"role": role, "content": content or ""}, path)

    def finish(self) -> list[Json]:
        """The conversation with its end and its joints as they must be."""
        if not self._out:
            raise UnsupportedError("no message with anything in it is left to answer", param="messages")
        last = self._out[-1]
        if last["role"] == "system":
            last["role"] = "user"
            self._note(self._paths[-1], "folded", "a conversation cannot end in system text, so it goes as user text")
        elif last["role"] == "assistant" and "tool_calls" not in last:
            last["prefix"] = True
        for place in range(len(self._out) - 1, 0, -1):
            if self._out[place]["role"] == "user" and self._out[place - 1]["role"] == "tool":
                self._out.insert(place, {"role": "assistant", "content": BRIDGE})
                detail = f"an assistant turn {BRIDGE!r} stands between the tool's result and it"
                self._note(self._paths[place], "folded", detail)
        return self._out

    def _add_assistant(self, message: Message, content: str | list[Json] | None, path: str) -> None:
        if message.refusal:
            self._note(f"{path}.refusal", "dropped" if content else "folded", "Mistral knows no refusals, only text")
            content = content or message.refusal
        content = self._with_thinking(message, content, path)
        calls = message.tool_calls or ()
        if message.function_call is not None and not calls:
            calls = (ToolCall(id=f"{path}.function_call", function=message.function_call),)
        if not content and not calls:
            self._note(path, "dropped", "an assistant turn with nothing in it")
            return
        turn: Json = {"role": "assistant", "content": content or ""}
        if calls:
            self._pending = []
            turn["tool_calls"] = [self._call(call, place, path) for place, call in enumerate(calls)]
        self._append(turn, path)
        self._answered = True
        if calls:
            self._results_at = len(self._out)

    def _with_thinking(self, message: Message, content: str | list[Json] | None, path: str) -> str | list[Json] | None:
        thought = message.reasoning or message.reasoning_content
        if thought and self._thinking:
            chunk = {"type": "thinking", "thinking": [_text(thought)]}
            spoken = [_text(content)] if isinstance(content, str) and content else content or []
            return [chunk, *elements(spoken)]
        for name in _REASONING:
            if getattr(message, name):
                self._note(f"{path}.{name}", "dropped", "earlier thinking is not handed back to this model")
        return content

    def _call(self, call: ToolCall, place: int, path: str) -> Json:
        function = call.function
        if function is None:
            raise UnsupportedError(f"Mistral knows no {call.type} tools", param=f"{path}.tool_calls[{place}]")
        used = {short for _, short, _ in self._pending}
        short = self._ids.shorten(call.id)
        while short in used:  # several calls under one id: their results are told apart by their order
            short = self._ids.shorten(f"{call.id}\0{short}")
        self._pending.append((call.id, short, function.name))
        # Mistral parses the text, so "no arguments" must be an object.
        return {
            "id": short,
            "type": "function",
            "function": {"name": function.name, "arguments": function.arguments or "{}"},
        }

    def _add_result(self, message: Message, content: str | list[Json], path: str) -> None:
        call = self._called(message)
        if call is None:
            self._note(path, "folded", "a tool's result without its call goes as user text")
            name = f" of {message.name}" if message.name else ""
            self._append({"role": "user", "content": _prefixed(f"Result{name}:\n", content)}, path)
            return
        self._pending.remove(call)
        result: Json = {"role": "tool", "content": content, "tool_call_id": call[1]}
        if message.name:
            if _FUNCTION_NAME.fullmatch(message.name):
                result["name"] = message.name
            else:
                self._note(f"{path}.name", "dropped", "not a name that a function may have")
        self._out.insert(self._results_at, result)
        self._paths.insert(self._results_at, path)
        self._results_at += 1

    def _called(self, message: Message) -> tuple[str, str, str] | None:
        """The open call that a result belongs to: by id; without one by name, else the first."""
        if message.tool_call_id is not None:
            return next((call for call in self._pending if call[0] == message.tool_call_id), None)
        named = (call for call in self._pending if call[2] == message.name)
        return next(named, self._pending[0] if self._pending else None)

    def _append(self, turn: Json, path: str) -> None:
        self._out.append(turn)
        self._paths.append(path)

    def _chunks(self, parts: tuple[Part, ...], role: str, path: str, rest: Json) -> list[Json]:
        chunks: list[Json] = []
        for place, part in enumerate(parts):
            where = f"{path}.content[{place}]"
            foreign = members(rest.get(str(place)))
            chunk = _chunk(part, foreign, where)
            if role == "system" and chunk["type"] not in ("text", "thinking"):
                raise UnsupportedError(f"Mistral takes text only in a {role} message, not {part.type}", param=where)
            if part.cache_control:
                self._note(f"{where}.cache_control", "dropped", "Mistral has no place for it")
            for name in foreign:
                if name not in chunk:
                    self._note(f"{where}.{name}", "dropped", "Mistral has no place for it")
            chunks.append(chunk)
        return chunks

    def _note(self, param: str, action: Any, detail: str) -> None:
        self._adapted.append(Adaptation(param, action, detail))


def _tool_ids(messages: tuple[Message, ...]) -> Iterable[str]:
    for message in messages:
        if message.tool_call_id is not None:
            yield message.tool_call_id
        for call in message.tool_calls or ():
            yield call.id


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _prefixed(words: str, content: str | list[Json]) -> str | list[Json]:
    return words + content if isinstance(content, str) else [_text(words), *content]


def _chunk(part: Part, foreign: Json, where: str) -> Json:
    """One content part in Mistral's form. `foreign` are its members that only Mistral knows."""
    if part.type in ("text", "refusal"):
        return _text(part.text or part.refusal or "")
    chunk = _image(part) or _audio(part) or _file(part, foreign) or _native(part.type, foreign)
    if chunk is None:
        raise UnsupportedError(f"Mistral cannot read a part of type {part.type} as it was sent", param=where)
    return chunk


def _image(part: Part) -> Json | None:
    image = part.image_url
    if part.type != "image_url" or image is None:
        return None
    if isinstance(image, str):
        return {"type": "image_url", "image_url": image}
    url, detail = image.get("url"), image.get("detail")
    if not isinstance(url, str):
        return None
    return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail in _IMAGE_DETAILS else {})}}


def _audio(part: Part) -> Json | None:
    data = (part.input_audio or {}).get("data")
    if part.type != "input_audio" or not isinstance(data, str):
        return None
    return {"type": "input_audio", "input_audio": data}


def _file(part: Part, foreign: Json) -> Json | None:
    """A file: OpenAI puts its bytes in the request, Mistral takes them as the URL of a document."""
    if part.type != "file":
        return None
    sent = part.file or {}
    data, name, known = sent.get("file_data"), sent.get("filename"), foreign.get("file_id", sent.get("file_id"))
    if isinstance(data, str):
        document = {"type": "document_url", "document_url": data}
        return {**document, "document_name": name} if isinstance(name, str) else document
    return {"type": "file", "file_id": known} if isinstance(known, str) and _UUID.fullmatch(known) else None


def _native(kind: str, foreign: Json) -> Json | None:
    """Parts that only Mistral has, checked: its request type refuses a wrong one as a whole."""
    if kind == "document_url" and isinstance(foreign.get("document_url"), str):
        name = foreign.get("document_name")
        named = {"document_name": name} if isinstance(name, str) else {}
        return {"type": kind, "document_url": foreign["document_url"], **named}
    if kind == "reference":
        ids = elements(foreign.get("reference_ids"))
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in ids)
        return {"type": kind, "reference_ids": ids} if whole else None
    if kind == "thinking":
        thought = foreign.get("thinking")
        texts = [thought] if isinstance(thought, str) else [members(one).get("text") for one in elements(thought)]
        return {"type": kind, "thinking": [_text(text) for text in texts if isinstance(text, str)]}
    return None
