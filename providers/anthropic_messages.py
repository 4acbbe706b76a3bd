"""A conversation in OpenAI's words as Anthropic's: system blocks apart, user and assistant in turn, blocks inside.

https://platform.claude.com/docs/en/build-with-claude/working-with-messages says what a turn may hold. Tool results
belong to the user's turn and stand first in it; blank text is refused; a conversation begins with the user.
"""

import re
from typing import Any, Literal
from zlib import crc32

import msgspec

from providers.anthropic_media import document_block, image_block
from providers.base import Adaptation
from providers.errors import UnsupportedError
from providers.json_values import members
from providers.messages import Message, Part, ToolCall

OPENING_TEXT = "(The user has said nothing yet.)"
"""Stands for the user where a conversation begins with the assistant, which Anthropic does not take."""
THINKING_FORMATS = (None, "anthropic-claude-v1")
"""Whose `reasoning_details` carry a signature that Anthropic accepts; other providers' blocks mean nothing there."""
CACHE_LIFETIMES = ("5m", "1h")
RAW_ARGUMENTS = "_raw"
"""Holds the text of tool arguments that are no JSON object. What follows in the conversation is mostly the tool's
complaint about exactly that text, and the model can only do better if it sees what it wrote."""

Block = dict[str, Any]
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_ID = re.compile(r"[^a-zA-Z0-9_-]")
_ID_KEPT_CHARS = 48


class Conversation:
    """The turns so far, and what had to be changed on the way. Add messages in order, then `close`."""

    __slots__ = ("_late_system", "_legacy_id", "_place", "adapted", "system", "turns")

    def __init__(self, adapted: list[Adaptation], *, late_system: bool) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self.adapted = adapted
        self._late_system = late_system
        self._place = 0
        self._legacy_id = "function_call"

    def add(self, messages: tuple[Message, ...]) -> None:
        """Take these messages in.

        Raises:
            UnsupportedError: One holds something that cannot be said to Anthropic (audio, an unknown part).
        """
        for place, message in enumerate(messages):
            self._place = place
            if message.name is not None and message.role != "function":
                self._note("name", "dropped", "Anthropic has no names for speakers")
            role = message.role
            if role == "user":
                self._append("user", self._content(message))
            elif role == "assistant":
                self._append("assistant", self._assistant(message))
            elif role in ("tool", "function"):
                self._append_result(self._tool_result(message))
            else:
                self._add_system(message)

    def close(self) -> None:
        """Put what was gathered into the form that Anthropic insists on.

        Raises:
            UnsupportedError: Nothing was said at all.
        """
        if not self.turns:
            if not self.system:
                raise UnsupportedError("Anthropic takes no conversation without any text", param="messages")
            self.turns.append({"role": "user", "content": self.system})
            self.system = []
            self.adapted.append(Adaptation("messages", "folded", "instructions alone go as the user's turn"))
        if self.turns[0]["role"] != "user":
            self.turns.insert(0, {"role": "user", "content": OPENING_TEXT})
            self.adapted.append(Adaptation("messages[0]", "folded", "a user's turn was put before the assistant's"))
        for turn in self.turns:
            content = turn["content"]
            if turn["role"] == "user" and not isinstance(content, str):
                # Results have to stand first; sorting keeps the order of everything else.
                _blocks(content).sort(key=_comes_later)
        self._trim_prefill()

    @property
    def prefilled(self) -> bool:
        """Whether the conversation ends with text of the assistant's to go on from."""
        last = self.turns[-1]
        if last["role"] != "assistant":
            return False
        return isinstance(last["content"], str) or last["content"][-1]["type"] == "text"

    @property
    def in_unsigned_tool_loop(self) -> bool:
        """Whether tool results answer an assistant turn whose thinking was not handed back with it."""
        if len(self.turns) < 2 or isinstance(self.turns[-1]["content"], str):
            return False
        if self.turns[-1]["content"][0]["type"] != "tool_result":
            return False
        asked = self.turns[-2]["content"]
        return isinstance(asked, str) or asked[0]["type"] not in ("thinking", "redacted_thinking")

    def _note(self, what: str, action: Literal["dropped", "folded", "merged"], detail: str) -> None:
        self.adapted.append(Adaptation(f"messages[{self._place}].{what}", action, detail))

    def _append(self, role: str, content: str | list[Block]) -> None:
        if not content:
            return
        last = self.turns[-1] if self.turns else None
        if last is None or last["role"] != role:
            self.turns.append({"role": role, "content": content})
            return
        before = _blocks(last["content"])
        if before[-1]["type"] != "tool_result":
            self._note("role", "merged", f"joined with the {role} turn before it")
        before += _blocks(content)
        last["content"] = before

    def _append_result(self, block: Block) -> None:
        last = self.turns[-1] if self.turns else None
        if last is None or last["role"] != "user":
            self.turns.append({"role": "user", "content": [block]})
        else:
            last["content"] = before = _blocks(last["content"])
            before.append(block)

    def _add_system(self, message: Message) -> None:
        blocks = _blocks(self._content(message))
        if not blocks:
            return
        if not self.turns:
            self.system += blocks
        elif self._late_system:
            self.turns.append({"role": "system", "content": blocks})
        else:
            self.system += blocks
            self._note("role", "folded", "instructions in mid-conversation went into the system prompt")

    def _trim_prefill(self) -> None:
        """Text to go on from may not end in white space."""
        if not self.prefilled:
            return
        last = self.turns[-1]
        content = last["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        if text == (trimmed := text.rstrip()):
            return
        if isinstance(content, str):
            last["content"] = trimmed
        else:
            content[-1]["text"] = trimmed
        self._note("content", "dropped", "white space at the end of the text to go on from")

    def _content(self, message: Message) -> str | list[Block]:
        """A message's content as one text, or as blocks where it is more than that. Empty where nothing is left."""
        content = message.content
        if content is None:
            content = message.refusal or ""
        if isinstance(content, str):
            if not content or content.isspace():
                return ""
            if message.cache_control is None:
                return content
            blocks: list[Block] = [{"type": "text", "text": content}]
        else:
            blocks = [block for part in content if (block := self._part(part, message.role)) is not None]
        self._mark(blocks, message.cache_control)
        return blocks

    def _part(self, part: Part, role: str) -> Block | None:
        if part.type == "text" or part.refusal is not None:
            text = part.text or part.refusal or ""
            block: Block | None = {"type": "text", "text": text} if text and not text.isspace() else None
        elif role in ("system", "developer", "assistant"):
            raise UnsupportedError(f"Anthropic takes only text from the {role}, not {part.type}", param="messages")
        elif part.type == "image_url":
            block = image_block(part.image_url)
        elif part.type == "file":
            block = document_block(members(part.file))
        else:
            raise UnsupportedError(f"Anthropic takes no {part.type[:64]}", param="messages")
        if block is not None and part.cache_control is not None:
            self._mark([block], part.cache_control)
        return block

    def _mark(self, blocks: list[Block], cache_control: dict[str, Any] | None) -> None:
        """A message's own cache mark goes on its last block that can carry one."""
        if cache_control is None:
            return
        mark = cache_mark(cache_control)
        for block in reversed(blocks):
            if mark is not None and block["type"] not in ("thinking", "redacted_thinking"):
                block["cache_control"] = mark
                return
        self._note("cache_control", "dropped", "there is nothing here that it could mark, or it is of another kind")

    def _assistant(self, message: Message) -> str | list[Block]:
        content = self._content(message)
        calls = message.tool_calls or ()
        if message.audio is not None:
            self._note("audio", "dropped", "Anthropic takes no audio")
        if message.reasoning_details is None and (message.reasoning or message.reasoning_content):
            self._note("reasoning", "dropped", "thinking can only go back with its signature (reasoning_details)")
        if not calls and message.reasoning_details is None and message.function_call is None:
            return content
        blocks = self._thinking(message.reasoning_details or []) + _blocks(content)
        blocks += [self._tool_use(call) for call in calls]
        if message.function_call is not None:
            self._legacy_id = f"function_call_{self._place}"
            blocks.append(self._tool_use(ToolCall(id=self._legacy_id, function=message.function_call)))
        if calls and message.cache_control is not None:
            self._mark(blocks, message.cache_control)
        return blocks

    def _thinking(self, details: list[Any]) -> list[Block]:
        """Thinking blocks out of `reasoning_details`. A streamed block's pieces, which clients just append, are one."""
        blocks: list[Block] = []
        text: list[str] = []
        index: object = None
        lost = False
        for detail in map(members, details):
            if detail.get("format") not in THINKING_FORMATS:
                lost = True
                continue
            if detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
                blocks.append({"type": "redacted_thinking", "data": detail["data"]})
            if detail.get("type") != "reasoning.text":
                continue
            if detail.get("index") != index:
                lost |= bool(text)
                text.clear()
            index = detail.get("index")
            text.append(detail.get("text") or "")
            if isinstance(signature := detail.get("signature"), str) and signature:
                blocks.append({"type": "thinking", "thinking": "".join(text), "signature": signature})
                text.clear()
        if lost or text:
            self._note("reasoning_details", "dropped", "blocks without a signature of Anthropic's own")
        return blocks

    def _tool_use(self, call: ToolCall) -> Block:
        function = call.function
        if function is None:
            raise UnsupportedError(f"Anthropic takes no tool call of type {call.type[:64]}", param="messages")
        block: Block = {"type": "tool_use", "id": tool_id(call.id), "name": function.name}
        text = function.arguments.strip() or "{}"
        try:
            msgspec.json.decode(text, type=dict[str, Any])
            block["input"] = msgspec.Raw(text.encode())  # as it stands: no number changes on the way
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            block["input"] = {RAW_ARGUMENTS: function.arguments}
            self._note("tool_calls", "folded", f"arguments that are no JSON object went as text in {RAW_ARGUMENTS!r}")
        return block

    def _tool_result(self, message: Message) -> Block:
        given = message.tool_call_id if message.role == "tool" else self._legacy_id
        block: Block = {"type": "tool_result", "tool_use_id": tool_id(given or "")}
        content = message.content
        if isinstance(content, str):
            if content:
                block["content"] = content
        elif content is not None:
            parts = [part for item in content if (part := self._part(item, message.role)) is not None]
            if parts:
                block["content"] = parts
        self._mark([block], message.cache_control)
        return block


def tool_id(given: str) -> str:
    """The same id where Anthropic takes it (letters, digits, `_` and `-`), else one made of it, always the same."""
    if _ID.fullmatch(given):
        return given
    return f"{_NOT_ID.sub('_', given)[:_ID_KEPT_CHARS]}_{crc32(given.encode()):08x}"


def cache_mark(cache_control: dict[str, Any]) -> dict[str, Any] | None:
    """A cache mark as Anthropic knows it, or None where this is none."""
    if cache_control.get("type") != "ephemeral":
        return None
    lifetime = cache_control.get("ttl")
    return {"type": "ephemeral", **({"ttl": lifetime} if lifetime in CACHE_LIFETIMES else {})}


def _comes_later(block: Block) -> bool:
    return bool(block["type"] != "tool_result")


def _blocks(content: str | list[Block]) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content
