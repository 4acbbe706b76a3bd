"""An app's view of an answer: it reads the bytes that it was sent, as any client of the OpenAI API would."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from providers.json_values import elements, members
from providers.sse import SseParser

OK: Final = 200
DONE: Final = b"[DONE]"


class Seen(Struct, frozen=True, kw_only=True):
    """What an app has seen of one answer."""

    status: int
    body: bytes
    seconds: float = 0.0
    text: str = ""
    reason: str | None = None
    """The finish reason."""
    model: str | None = None
    tokens: tuple[int, int] | None = None
    """Of the prompt and of the answer, as told by the usage."""
    error: str | None = None
    """The code of an error."""
    message: str | None = None
    """Its words."""
    ended: bool = False
    """The stream had its end mark, once, and nothing behind it."""

    @property
    def complete(self) -> bool:
        """Whether an app takes this for a whole answer."""
        return self.status == OK and self.error is None and self.reason is not None and self.ended


def read_answer(status: int, body: bytes, seconds: float) -> Seen:
    """What the bytes of a response say."""
    if status != OK:
        said = members(members(_json(body)).get("error"))
        return Seen(
            status=status,
            body=body,
            seconds=seconds,
            error=_text(said.get("code")) or "unknown",
            message=_text(said.get("message")),
        )
    parser = SseParser()
    payloads = [*parser.feed(body), *parser.finish()]
    chunks = [members(_json(payload)) for payload in payloads if payload != DONE]
    choices = [members(choice) for chunk in chunks for choice in elements(chunk.get("choices"))]
    reasons = [text for choice in choices if (text := _text(choice.get("finish_reason")))]
    errors = [members(chunk["error"]) for chunk in chunks if "error" in chunk]
    usages = [usage for chunk in chunks if (usage := members(chunk.get("usage")))]
    return Seen(
        status=status,
        body=body,
        seconds=seconds,
        text="".join(_text(members(choice.get("delta")).get("content")) or "" for choice in choices),
        reason=reasons[0] if len(reasons) == 1 else None,
        model=next((text for chunk in chunks if (text := _text(chunk.get("model")))), None),
        tokens=_tokens(usages[-1]) if usages else None,
        error=(_text(errors[0].get("code")) or "unknown") if errors else None,
        message=_text(errors[0].get("message")) if errors else None,
        ended=payloads.count(DONE) == 1 and payloads[-1] == DONE,
    )


def _tokens(usage: dict[str, Any]) -> tuple[int, int] | None:
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (read, written) if isinstance(read, int) and isinstance(written, int) else None


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
