"""Exact prompt counts for Mixtral, offline: SentencePiece with the template overhead of both generations.

The vocabularies come with the `mistral-common` package (extra `tokens`), of which only the data files are read. What is
counted is what that package's own encoder makes of the same conversation:

* v1 (8x7B): `[INST]` is ordinary text, system text goes before the first user text, tools do not exist;
* v3 (8x22B): control tokens, system text goes before the last user text, tools are listed before the last user turn.
"""

import asyncio
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from providers.json_values import members
from providers.messages import ChatRequest, Message, Tool, ToolCall

Template = Literal["v1", "v3"]

VOCABULARIES: Final[dict[Template, str]] = {
    "v1": "tokenizer.model.v1",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
}
PIECE_CHARS: Final = 4096
"""Text is encoded in pieces of about this length: SentencePiece keeps the interpreter to itself for 1 ms each."""
INLINE_MAX_CHARS: Final = 8192
"""Longer prompts are counted in a thread."""


def template_of(model: str) -> Template | None:
    """The generation that a model's name says it is of; None: none that is known here."""
    name = model.lower()
    if "mixtral" not in name:
        return None
    return "v1" if "8x7b" in name else "v3" if "8x22b" in name else None


def vocabulary_file(template: Template) -> Path | None:
    """Where the vocabulary is, or None when the extra is not installed. Imports nothing."""
    try:
        package = importlib.util.find_spec("mistral_common")
    except ModuleNotFoundError:
        return None
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        file = Path(folder) / "data" / VOCABULARIES[template]
        if file.is_file():
            return file
    return None


class _Processor(Protocol):
    def encode(self, text: str) -> list[int]: ...


class MixtralTokenizer:
    """Counts prompts for one generation of Mixtral.

    Args:
        template: Which generation.
        count_text: Tokens of one text, without any special token.
    """

    def __init__(self, template: Template, count_text: Callable[[str], int]) -> None:
        self.template: Template = template
        self._count_text = count_text

    def count(self, request: ChatRequest) -> int:
        """Exactly how many tokens the prompt is."""
        texts, specials = render(request, self.template)
        return specials + sum(self._count_text(text) for text in texts)

    async def count_off_loop(self, request: ChatRequest) -> int:
        """The same, in a thread when the prompt is long."""
        texts, _ = render(request, self.template)
        if sum(map(len, texts)) <= INLINE_MAX_CHARS:
            return self.count(request)
        return await asyncio.to_thread(self.count, request)


def load_tokenizer(template: Template) -> MixtralTokenizer | None:
    """The tokenizer, or None when its vocabulary or SentencePiece is not installed. Takes some 60 ms."""
    file = vocabulary_file(template)
    if file is None:
        return None
    try:
        sentencepiece: Any = importlib.import_module("sentencepiece")
    except ModuleNotFoundError:
        return None
    processor: _Processor = sentencepiece.SentencePieceProcessor(model_file=str(file))

    def count_text(text: str) -> int:
        return sum(len(processor.encode(piece)) - surplus for piece, surplus in pieces(text))

    return MixtralTokenizer(template, count_text)


def pieces(text: str) -> Iterator[tuple[str, int]]:
    """Pieces of a text that encode to the same tokens as the whole, and how many tokens too many each gives.

    SentencePiece puts a space before every text it is given, and no vocabulary piece reaches over a single space or a
    line break. So a cut at a lone space lets that space be the one put there, and a cut before a line break costs one
    token more, the space put before it.
    """
    surplus = 0
    while len(text) > PIECE_CHARS:
        at = _cut(text)
        if at < 0:
            break
        yield text[:at], surplus
        if text[at] == " ":
            text, surplus = text[at + 1 :], 0
        else:
            text, surplus = text[at:], 1
    yield text, surplus


def _cut(text: str) -> int:
    """Where to cut: the first lone space or line break from PIECE_CHARS on; -1 where there is none."""
    at = PIECE_CHARS
    while (at := _next_break(text, at)) >= 0:
        alone = at + 1 < len(text) and not text[at - 1].isspace() and not text[at + 1].isspace()
        if alone:
            return at
        at += 1
    return -1


def _next_break(text: str, start: int) -> int:
    found = [at for at in (text.find(" ", start), text.find("\n", start)) if at >= 0]
    return min(found) if found else -1


def render(request: ChatRequest, template: Template) -> tuple[list[str], int]:
    """The texts that are encoded each on its own, and how many special tokens stand around them."""
    system = "\n\n".join(_text(message) for message in request.messages if _is_system(message) and _text(message))
    turns = _turns(request.messages)
    if template == "v1":
        return _render_v1(turns, system)
    return _render_v3(turns, system, request.tools or ())


def _render_v1(turns: list[list[Message]], system: str) -> tuple[list[str], int]:
    texts: list[str] = []
    specials = 1
    first = True
    for turn in turns:
        content = _joined(turn)
        if turn[0].role == "assistant":
            texts.append(content)
            specials += not turn[-1].prefix
        elif turn[0].role == "user":
            texts.append(f"[INST] {system}\n\n{content} [/INST]" if first and system else f"[INST] {content} [/INST]")
            first = False
    return texts, specials


def _render_v3(turns: list[list[Message]], system: str, tools: tuple[Tool, ...]) -> tuple[list[str], int]:
    texts: list[str] = []
    specials = 1
    users = [place for place, turn in enumerate(turns) if turn[0].role == "user"]
    for place, turn in enumerate(turns):
        match turn[0].role:
            case "user":
                content = _joined(turn)
                last = place == users[-1]
                if last and tools:
                    texts.append(json.dumps([_tool(tool) for tool in tools], ensure_ascii=False))
                    specials += 2
                texts.append(f"{system}\n\n{content}" if last and system else content)
                specials += 2
            case "assistant":
                calls = [call for message in turn for call in message.tool_calls or ()]
                texts.append(
                    json.dumps([_call(call) for call in calls], ensure_ascii=False)
                    if calls
                    else (_joined(turn).rstrip(" "))
                )
                specials += bool(calls) + (not turn[-1].prefix)
            case _:
                texts.extend(_tool_result(message) for message in turn)
                specials += 2 * len(turn)
    return texts, specials


def _turns(messages: tuple[Message, ...]) -> list[list[Message]]:
    """Messages without the system's, neighbours of one role together, beginning with a user."""
    turns: list[list[Message]] = []
    previous = ""
    for message in messages:
        role = "system" if _is_system(message) else message.role
        if role != "system":
            if role == previous:
                turns[-1].append(message)
            else:
                turns.append([message])
        previous = role
    if not turns or turns[0][0].role != "user":
        turns.insert(0, [Message(role="user", content="")])
    return turns


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")


def _joined(turn: list[Message]) -> str:
    return "\n\n".join(text for text in map(_text, turn) if text)


def _text(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(part.text for part in content if part.text)


def _parsed(text: str) -> Any:
    """JSON text as its value, anything else as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _tool(tool: Tool) -> dict[str, Any]:
    function = members(msgspec.to_builtins(tool.function)) if tool.function is not None else {}
    return {
        "type": tool.type,
        "function": {
            "name": function.get("name", ""),
            "description": function.get("description") or "",
            "parameters": function.get("parameters") or {},
        },
    }


def _call(call: ToolCall) -> dict[str, Any]:
    function = call.function
    told: dict[str, Any] = {
        "name": function.name if function is not None else "",
        "arguments": _parsed(function.arguments) if function is not None else {},
    }
    if call.id and call.id != "null":
        told["id"] = call.id
    return told


def _tool_result(message: Message) -> str:
    result = {"content": _parsed(_text(message)), "call_id": message.tool_call_id}
    return json.dumps(result, ensure_ascii=False)
