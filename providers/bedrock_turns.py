"""A chat's messages as the turns that Bedrock's Converse takes.

Its rules, beyond the service model: the first turn is the user's, roles alternate, no text is blank, results of tools
are the user's and answer the calls of the turn before. So neighbours of one role are merged, blank text and empty turns
are left out, system text goes where the model takes it, and nothing is invented. Pure.
"""

import hashlib
import re
from typing import Any, Final, cast

import msgspec

from providers.base import Adaptation, Endpoint
from providers.bedrock_media import document_block, image_block
from providers.errors import UnsupportedError
from providers.json_values import elements, members
from providers.messages import ChatRequest, FunctionCall, Message, Part

_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
BLANK_LINE: Final = "\n\n"


class Conversation(msgspec.Struct, frozen=True):
    """What the model is told: system blocks, and turns that alternate from the user's first."""

    system: list[dict[str, Any]]
    turns: list[dict[str, Any]]
    tools_called: tuple[str, ...]
    """Names of tools that the turns call: Bedrock wants them declared for as long as the calls are in sight."""


def conversation(request: ChatRequest, endpoint: Endpoint, notes: list[Adaptation]) -> Conversation:
    """The messages in Bedrock's form; what had to change is added to `notes`.

    Raises:
        UnsupportedError: Something cannot be said to this model: an image, a tool call, a first turn of the assistant.
    """
    writer = _Writer(endpoint, notes)
    for place, message in enumerate(request.messages):
        writer.add(message, place)
    return writer.finish()


def tool_name(name: str) -> str:
    """The name as it is.

    Raises:
        UnsupportedError: Bedrock has no way to spell it.
    """
    if _TOOL_NAME.fullmatch(name) is None:
        raise UnsupportedError(
            f"Bedrock cannot spell the tool name {name[:80]!r}: 1 to 64 of a-z, A-Z, 0-9, _ and -", param="tools"
        )
    return name


class _Writer:
    """Builds one conversation, message by message."""

    def __init__(self, endpoint: Endpoint, notes: list[Adaptation]) -> None:
        self._can = endpoint.capabilities
        self._caches = endpoint.price is not None and (
            endpoint.price.cache_read_in_pusd is not None or endpoint.price.cache_write_in_pusd is not None
        )
        self._notes = notes
        self._system: list[dict[str, Any]] = []
        self._turns: list[dict[str, Any]] = []
        self._documents: set[str] = set()
        self._tools_called: dict[str, None] = {}
        self._calls_without_id = 0

    def add(self, message: Message, place: int) -> None:
        """One more message."""
        where = f"messages[{place}]"
        role = message.role
        if role in ("system", "developer"):
            blocks = self._content(message, where)
            if any("text" not in block and "cachePoint" not in block for block in blocks):
                raise UnsupportedError("Bedrock's system text is text alone", param="messages")
            self._system += blocks
            if place and self._turns:
                self._notes.append(Adaptation(where, "folded", "into the system text at the beginning"))
            return
        if message.name is not None and role != "function":
            self._notes.append(Adaptation(f"{where}.name", "dropped", "Bedrock's turns have no names"))
        if role == "user":
            self._append("user", self._content(message, where), where)
        elif role == "assistant":
            self._append("assistant", self._assistant(message, where), where)
        else:
            self._append("user", [self._result(message, where)], where)

    def finish(self) -> Conversation:
        """The whole conversation.

        Raises:
            UnsupportedError: It does not begin with the user, or ends with the assistant where that is not taken.
        """
        system, turns = self._system, self._turns
        if system and (not self._can.system or not turns or turns[0]["role"] != "user"):
            turns = _fold(system, turns)
            self._notes.append(Adaptation("messages", "folded", "system text into the first user turn"))
            system = []
        if not turns:
            raise UnsupportedError("nothing but blank messages, which Bedrock does not take", param="messages")
        if turns[0]["role"] != "user":
            raise UnsupportedError("Bedrock wants the user to speak first", param="messages")
        if turns[-1]["role"] == "assistant" and not self._can.prefill:
            raise UnsupportedError("this model cannot go on from a beginning of its answer", param="messages")
        return Conversation(system, turns, tuple(self._tools_called))

    def _append(self, role: str, blocks: list[dict[str, Any]], where: str) -> None:
        if not blocks:
            self._notes.append(Adaptation(where, "dropped", "Bedrock takes no empty turn"))
            return
        if not self._turns or self._turns[-1]["role"] != role:
            self._turns.append({"role": role, "content": blocks})
            return
        held: list[dict[str, Any]] = self._turns[-1]["content"]
        if "toolResult" not in blocks[0]:
            self._notes.append(Adaptation(where, "merged", f"with the {role}'s turn before it: roles alternate here"))
        _join(held, blocks)

    def _content(self, message: Message, where: str) -> list[dict[str, Any]]:
        content = message.content
        if content is None or isinstance(content, str):
            return [{"text": content}] if content and not content.isspace() else []
        blocks: list[dict[str, Any]] = []
        for number, part in enumerate(content):
            block = self._part(part)
            if block is None:
                self._notes.append(Adaptation(f"{where}.content[{number}]", "dropped", "blank text"))
                continue
            blocks.append(block)
            self._cache(part.cache_control, blocks, f"{where}.content[{number}]")
        if blocks:
            self._cache(message.cache_control, blocks, where)
        return blocks

    def _part(self, part: Part) -> dict[str, Any] | None:
        if part.type in ("text", "refusal", "input_text", "output_text"):
            text = part.refusal if part.type == "refusal" else part.text
            return {"text": text} if text and not text.isspace() else None
        if part.type == "image_url":
            if not self._can.vision:
                raise UnsupportedError("this model takes no images", param="messages")
            return image_block(part)
        if part.type == "file":
            return document_block(part, self._documents)
        raise UnsupportedError(f"Bedrock takes no content of the type {part.type[:40]!r}", param="messages")

    def _cache(self, control: dict[str, Any] | None, blocks: list[dict[str, Any]], where: str) -> None:
        if control is None:
            return
        if not self._caches:
            self._notes.append(Adaptation(f"{where}.cache_control", "dropped", "this model keeps no prompt cache"))
            return
        blocks.append(cache_point(control))

    def _assistant(self, message: Message, where: str) -> list[dict[str, Any]]:
        blocks = self._reasoning(message, where) + self._content(message, where)
        if message.refusal and not message.refusal.isspace():
            blocks.append({"text": message.refusal})
        if message.audio is not None:
            self._notes.append(Adaptation(f"{where}.audio", "dropped", "Bedrock takes no audio of its own making back"))
        for number, call in enumerate(message.tool_calls or ()):
            if call.function is not None:
                blocks.append(self._call(call.id, call.function, f"{where}.tool_calls[{number}]"))
        if message.function_call is not None:
            self._calls_without_id += 1
            blocks.append(
                self._call(f"function_{self._calls_without_id}", message.function_call, f"{where}.function_call")
            )
        return blocks

    def _reasoning(self, message: Message, where: str) -> list[dict[str, Any]]:
        """Signed thinking goes back as it came; a model checks it. Other thinking is not taken."""
        if message.reasoning_details is None and not message.reasoning and not message.reasoning_content:
            return []
        blocks = reasoning_blocks(message.reasoning_details) if self._can.reasoning else []
        if not blocks:
            self._notes.append(Adaptation(f"{where}.reasoning", "dropped", "only signed thinking can be handed back"))
        return blocks

    def _call(self, call_id: str, function: FunctionCall, where: str) -> dict[str, Any]:
        if not self._can.tools:
            raise UnsupportedError(
                "this model knows no tools, and the conversation has calls of them", param="messages"
            )
        name = tool_name(function.name)
        self._tools_called[name] = None
        try:
            arguments: Any = msgspec.json.decode(function.arguments or "{}")
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            self._notes.append(
                Adaptation(f"{where}.arguments", "folded", "not a JSON object: sent as text under one member")
            )
            arguments = {"arguments": function.arguments}
        return {"toolUse": {"toolUseId": _call_id(call_id), "name": name, "input": cast("dict[str, Any]", arguments)}}

    def _result(self, message: Message, where: str) -> dict[str, Any]:
        if not self._can.tools:
            raise UnsupportedError(
                "this model knows no tools, and the conversation has results of them", param="messages"
            )
        call_id = message.tool_call_id or f"function_{self._calls_without_id}"
        content = self._content(message, where)
        blocks = [block for block in content if "cachePoint" not in block]
        return {"toolResult": {"toolUseId": _call_id(call_id), "content": blocks}}


def cache_point(control: dict[str, Any]) -> dict[str, Any]:
    """A block that says: keep what came so far."""
    ttl = control.get("ttl")
    return {"cachePoint": {"type": "default", "ttl": ttl} if ttl in ("5m", "1h") else {"type": "default"}}


def reasoning_blocks(details: list[Any] | None) -> list[dict[str, Any]]:
    """The thinking that `reasoning_details` keeps: signed text, pieces of one index joined, and sealed data."""
    texts: dict[Any, dict[str, str]] = {}
    blocks: list[dict[str, Any]] = []
    for entry in map(members, elements(details)):
        text, signature, data = entry.get("text"), entry.get("signature"), entry.get("data")
        if entry.get("type") == "reasoning.encrypted" and isinstance(data, str):
            blocks.append({"reasoningContent": {"redactedContent": data}})
        elif entry.get("type") == "reasoning.text":
            index = entry.get("index")
            key = index if isinstance(index, int) else len(texts)
            if key not in texts:
                texts[key] = {"text": "", "signature": ""}
                blocks.append({"reasoningContent": {"reasoningText": texts[key]}})
            texts[key]["text"] += text if isinstance(text, str) else ""
            texts[key]["signature"] += signature if isinstance(signature, str) else ""
    return [block for block in blocks if _sealed(block["reasoningContent"])]


def _sealed(content: dict[str, Any]) -> bool:
    return "redactedContent" in content or bool(content["reasoningText"]["signature"])


def _call_id(call_id: str) -> str:
    """The id, or where Bedrock cannot spell it one made of it, the same for the call and its result."""
    if _CALL_ID.fullmatch(call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _join(held: list[dict[str, Any]], blocks: list[dict[str, Any]]) -> None:
    """Add blocks to a turn; text meets text with a blank line between."""
    if "text" in held[-1] and "text" in blocks[0]:
        held[-1] = {"text": held[-1]["text"] + BLANK_LINE + blocks[0]["text"]}
        blocks = blocks[1:]
    held.extend(blocks)


def _fold(system: list[dict[str, Any]], turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns with the system text at the beginning of the first one, which is the user's."""
    text = BLANK_LINE.join(block["text"] for block in system if "text" in block)
    blocks: list[dict[str, Any]] = [{"text": text}, *(block for block in system if "text" not in block)]
    if turns and turns[0]["role"] == "user":
        _join(blocks, turns[0]["content"])
        return [{"role": "user", "content": blocks}, *turns[1:]]
    return [{"role": "user", "content": blocks}, *turns]
