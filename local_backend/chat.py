"""From messages to prompt tokens, with the chat template that the GGUF carries.

The template comes out of a downloaded file, so it runs in Jinja's immutable sandbox. What users wrote never takes part
in the rendering: a sentinel stands for each message, and the text takes its place afterwards, where control tokens that
are spelled out in it stay plain text. Only the template's own words can become control tokens.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import Struct

from local_backend.errors import InvalidRequestError

_SYSTEM_ROLES = frozenset({"system", "developer"})
_ROLES = _SYSTEM_ROLES | {"user", "assistant"}
_TURN_GAP = "\n\n"
_MARKER = re.compile(r"\[/?[A-Z][A-Z_]*\]|<\|[^\s|<>]{1,40}\|>|</?[a-z_]{1,24}>|<</?SYS>>")
"""Words that templates mark turns with. Some vocabularies have no control token for them, so that a user's copy of one
would be tokenised like the template's. Only the ones that a template really has are looked for in what people write."""


class Turn(Struct, frozen=True):
    """One message: who, and what."""

    role: str
    content: str


class Segment(Struct, frozen=True, gc=False):
    """A stretch of the prompt. `trusted` is the template's own text; the rest is what people wrote."""

    text: str
    trusted: bool


class Tokens(Protocol):
    """What chat rendering needs of a vocabulary."""

    bos: int
    eos: int
    adds_bos: bool
    control: Mapping[str, int]
    special: Mapping[str, int]

    def text(self, token: int) -> str:
        """A token as the file spells it."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Plain text's tokens."""
        ...


class _TemplateRefusalError(TemplateError):
    """The template called `raise_exception`."""


class ChatTemplate:
    """A GGUF's chat template, ready to turn conversations into tokens.

    Args:
        source: The Jinja text.
        vocabulary: The model's tokens.

    Raises:
        InvalidRequestError: The template does not compile.
    """

    def __init__(self, source: str, vocabulary: Tokens) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        functions: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _now}
        try:
            self._template = environment.from_string(source, globals=functions)
        except TemplateError as error:
            raise InvalidRequestError(f"the model file's chat template does not compile: {error}") from error
        self._vocabulary = vocabulary
        self._bos_text = vocabulary.text(vocabulary.bos)
        self._eos_text = vocabulary.text(vocabulary.eos)
        self._nonce = secrets.token_hex(8)
        self._sentinel = re.compile(f"\ue000{self._nonce}:([0-9]+)\ue001")
        spelled = sorted(vocabulary.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, spelled))) if spelled else None
        guarded = {*vocabulary.control, *(word for word in spelled if word in source), *_MARKER.findall(source)}
        self._guarded = (
            re.compile("|".join(map(re.escape, sorted(guarded, key=len, reverse=True)))) if guarded else None
        )

    def tokens(self, messages: Sequence[Turn], *, continue_last: bool = False) -> list[int]:
        """The prompt for a conversation.

        Args:
            messages: What was said.
            continue_last: The last message is the assistant's and is to be continued.

        Raises:
            InvalidRequestError: An unknown role, or a conversation that the template cannot express.
        """
        return self.tokenize(self.segments(messages, continue_last=continue_last))

    def segments(self, messages: Sequence[Turn], *, continue_last: bool = False) -> list[Segment]:
        """The prompt as stretches of template text and people's text."""
        turns = merge_turns(messages)
        if continue_last and turns[-1].role != "assistant":
            raise InvalidRequestError("only an assistant message can be continued", param="messages")
        refusal = "it leaves a message out"
        for candidate in (turns, fold_system(turns)):
            try:
                segments = self._render(candidate, continue_last=continue_last)
            except TemplateError as error:
                refusal = str(error) or type(error).__name__
            else:
                if segments is not None:
                    return segments
        raise InvalidRequestError(f"the model's chat template refuses this conversation: {refusal}", param="messages")

    def _render(self, turns: Sequence[Turn], *, continue_last: bool) -> list[Segment] | None:
        """The segments, or None when the template left a message out or said one twice."""
        stand_ins = [
            {"role": turn.role, "content": f"\ue000{self._nonce}:{number}\ue001"} for number, turn in enumerate(turns)
        ]
        try:
            text = self._template.render(
                messages=stand_ins,
                bos_token=self._bos_text,
                eos_token=self._eos_text,
                add_generation_prompt=not continue_last,
                tools=None,
                documents=None,
            )
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise _TemplateRefusalError(f"{type(error).__name__}: {error}") from error
        parts = self._sentinel.split(text)
        if [int(number) for number in parts[1::2]] != list(range(len(turns))):
            return None
        segments = [
            Segment(turns[int(part)].content, trusted=False) if at % 2 else Segment(part, trusted=True)
            for at, part in enumerate(parts)
        ]
        return segments[:-1] if continue_last else segments

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """The segments' tokens, with the beginning-of-text token in front exactly once where the model wants it."""
        vocabulary = self._vocabulary
        tokens: list[int] = []
        run = ""
        for segment in segments:
            for text, token in self._cut(segment):
                run += text
                if token is None:
                    continue
                if run:
                    tokens += vocabulary.tokenize(run)
                    run = ""
                if token >= 0:
                    tokens.append(token)
        if run:
            tokens += vocabulary.tokenize(run)
        if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
            tokens.insert(0, vocabulary.bos)
        return tokens

    def _cut(self, segment: Segment) -> list[tuple[str, int | None]]:
        """Plain text, each stretch followed by a control token, by a bare border (-1) or by nothing (None)."""
        pattern = self._special if segment.trusted else self._guarded
        if pattern is None:
            return [(segment.text, None)]
        cuts: list[tuple[str, int | None]] = []
        start = 0
        for match in pattern.finditer(segment.text):
            if segment.trusted:
                cuts.append((segment.text[start : match.start()], self._vocabulary.special[match[0]]))
                start = match.end()
            else:
                # A border inside the word: the same text, but never the token or the tokens that the template writes.
                cuts.append((segment.text[start : match.start() + 1], -1))
                start = match.start() + 1
        cuts.append((segment.text[start:], None))
        return cuts


def merge_turns(messages: Sequence[Turn]) -> list[Turn]:
    """System messages joined to one at the front, then turns of one role in a row joined, so that roles alternate.

    A conversation that does not open with a user gets an empty user turn there, since templates insist on one.

    Raises:
        InvalidRequestError: No message, or an unknown role.
    """
    if not messages:
        raise InvalidRequestError("messages is empty", param="messages")
    system: list[str] = []
    turns: list[Turn] = []
    for message in messages:
        if message.role not in _ROLES:
            raise InvalidRequestError(f"the local model does not know the role {message.role!r}", param="messages")
        if message.role in _SYSTEM_ROLES:
            system.append(message.content)
        elif turns and turns[-1].role == message.role:
            turns[-1] = Turn(message.role, turns[-1].content + _TURN_GAP + message.content)
        else:
            turns.append(Turn(message.role, message.content))
    if not turns or turns[0].role != "user":
        turns.insert(0, Turn("user", ""))
    if system:
        turns.insert(0, Turn("system", _TURN_GAP.join(system)))
    return turns


def fold_system(turns: Sequence[Turn]) -> list[Turn]:
    """The system text put in front of the first user turn, for templates that know no system role."""
    if turns[0].role != "system":
        return list(turns)
    first = turns[1]
    joined = turns[0].content + _TURN_GAP + first.content if first.content else turns[0].content
    return [Turn("user", joined), *turns[2:]]


def _refuse(message: str = "") -> None:
    raise _TemplateRefusalError(message)


def _now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)


def parse_turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Turns out of decoded JSON messages whose content is a string.

    Raises:
        InvalidRequestError: A message without role or text.
    """
    turns: list[Turn] = []
    for position, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if content is None and role == "assistant":
            content = ""
        if not isinstance(role, str) or not isinstance(content, str):
            raise InvalidRequestError(f"messages[{position}] needs a role and a text content", param="messages")
        turns.append(Turn(role, content))
    return turns
