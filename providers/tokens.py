"""How many tokens a prompt will be: a cheap bound first, an estimate for most, and what a provider's own counts teach.

The exact count for Mixtral is in providers/mixtral_tokenizer.py: it costs milliseconds, so it is for near a limit.
"""

from typing import Final

import msgspec
from msgspec import Struct

from providers.messages import ChatRequest, Message

MESSAGE_OVERHEAD_TOKENS: Final = 5
"""Control tokens and separators around one message, over both Mixtral templates."""
PROMPT_OVERHEAD_TOKENS: Final = 3
ESTIMATE_MAX_PER_BYTE: Final = 2
"""The most that one byte of ASCII counts for in an estimate: a line end."""
IMAGE_TOKENS: Final = 1024
"""What an image counts for where nobody says better; vision models charge a few hundred to some thousands."""

_LETTERS = bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B))
_CAPITALS = bytes(range(0x41, 0x5B))
_DIGITS = b"0123456789"
_CONTINUATION = bytes(range(0x80, 0xC0))
_LEAD_OF_2 = bytes(range(0xC0, 0xE0))
_LEAD_OF_3 = bytes(range(0xE0, 0xF0))
_LEAD_OF_4 = bytes(range(0xF0, 0x100))

# Thousandths of a token per character of each kind: fitted by least squares to Mixtral's two SentencePiece vocabularies
# on prose in 28 languages, Python and C source, and JSON, then raised by 15 % to err on the safe side.
_WEIGHTS: Final = (
    (_LETTERS, 290),
    (_CAPITALS, 600),
    (_DIGITS, 1350),
    (b"\n", 2000),
    (b" ", 90),
    (_LEAD_OF_2, 850),
    (_LEAD_OF_3, 1350),
    (_LEAD_OF_4, 4500),
)
_OTHER_WEIGHT: Final = 720
_COUNTED_ONCE = _LETTERS + _DIGITS + b"\n " + _CONTINUATION + _LEAD_OF_2 + _LEAD_OF_3 + _LEAD_OF_4

_encode = msgspec.json.Encoder().encode


def estimate_text(text: str | bytes) -> int:
    """About how many tokens a text is: 0.9 to 1.5 times the truth on prose and code, counted by kinds of characters."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    size = len(data)
    thousandths = len(data.translate(None, _COUNTED_ONCE)) * _OTHER_WEIGHT
    for kind, weight in _WEIGHTS:
        thousandths += (size - len(data.translate(None, kind))) * weight
    return -(-thousandths // 1000)


def bound_text(text: str) -> int:
    """No text has more tokens than UTF-8 bytes: each byte has a token of its own in the worst case."""
    return len(text.encode("utf-8", "replace"))


def estimate_request(request: ChatRequest) -> int:
    """About how many tokens the prompt of a request is, tools and images included."""
    total = sum(_estimate_message(message) for message in request.messages) + PROMPT_OVERHEAD_TOKENS
    for described in (request.tools, request.functions, request.response_format):
        if described:
            total += estimate_text(_encode(described))
    return total


def output_limit(request: ChatRequest) -> int | None:
    """As `ChatRequest.output_limit_tokens`, for compiled modules, to which a call of that is dear."""
    limit = request.max_completion_tokens
    return request.max_tokens if limit is None else limit


def plain_size(request: ChatRequest) -> int | None:
    """How many bytes the text of a prompt has that is nothing but ASCII text; None: there is more to it."""
    if request.tools or request.functions or request.response_format is not None:
        return None
    size_bytes = 0
    for message in request.messages:
        content = message.content
        if type(content) is not str or message.tool_calls or not content.isascii():
            return None
        size_bytes += len(content)
    return size_bytes


def guess_by_size(size_bytes: int, messages: int) -> int:
    """About how many tokens so much ASCII text is: 1.0 to 1.2 times the truth on English prose, too few on digits.

    Costs next to nothing, so it is for prompts so far from every limit that only their expected price depends on it.
    """
    return size_bytes * 2 // 7 + messages * MESSAGE_OVERHEAD_TOKENS + PROMPT_OVERHEAD_TOKENS


def most_by_size(size_bytes: int, messages: int) -> int:
    """`estimate_request` is never above this for a prompt of `plain_size`."""
    return size_bytes * ESTIMATE_MAX_PER_BYTE + messages * (MESSAGE_OVERHEAD_TOKENS + 1) + PROMPT_OVERHEAD_TOKENS


def _estimate_message(message: Message) -> int:
    total = MESSAGE_OVERHEAD_TOKENS
    content = message.content
    if isinstance(content, str):
        total += estimate_text(content)
    elif content is not None:
        for part in content:
            total += estimate_text(part.text or part.refusal or "")
            if part.type not in ("text", "refusal"):
                total += IMAGE_TOKENS
    if message.tool_calls:
        total += estimate_text(_encode(message.tool_calls))
    return total


class Correction(Struct, frozen=True, gc=False):
    """What a model's own counts have been beside our estimates: their ratio, learnt slowly and kept within bounds."""

    ratio: float = 1.0
    samples: int = 0

    def learn(self, estimated_tokens: int, counted_tokens: int) -> "Correction":
        """With one more answer's usage. Small prompts say little about text, so they are passed over."""
        if estimated_tokens < SAMPLE_MIN_TOKENS or counted_tokens <= 0:
            return self
        seen = min(max(counted_tokens / estimated_tokens, RATIO_MIN), RATIO_MAX)
        weight = max(1 / (self.samples + 1), LEARNING_RATE_MIN)
        return Correction(self.ratio + (seen - self.ratio) * weight, min(self.samples + 1, 1_000_000))

    def apply(self, estimated_tokens: int) -> int:
        """The estimate as this model would count it."""
        return round(estimated_tokens * self.ratio)


SAMPLE_MIN_TOKENS: Final = 50
RATIO_MIN: Final = 0.5
RATIO_MAX: Final = 2.0
LEARNING_RATE_MIN: Final = 0.05
