"""Prompt caches: which Endpoint has the start of a conversation in its cache, so that the next turn may go there.

After OpenRouter's sticky routing: the key is caller, model and conversation; a conversation is its session, else its
`prompt_cache_key`, else its first instructions and first message. Only a saving is at stake: whoever is warm and cannot
answer is passed over. https://openrouter.ai/docs/guides/best-practices/prompt-caching
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from providers.base import Endpoint
from providers.messages import ChatRequest, Message

IDLE_MAX_S: Final = 600.0
"""How long after its last use a prompt is taken to be in a cache still."""
CONVERSATIONS_MAX: Final = 10_000
"""Conversations remembered; the one that rested longest is forgotten."""
CACHED_MIN_TOKENS: Final = 1024
"""No vendor's cache takes shorter prompts."""
HASHED_MAX_CHARS: Final = 16 * 1024
"""As much of a message as tells conversations apart; those that begin alike so far share their cache anyway."""

_INSTRUCTING: Final = ("system", "developer")
_KEY_BYTES: Final = 16


class WarmPlace(Struct, frozen=True, gc=False):
    """Where the start of a conversation is cached."""

    endpoint: str
    tokens: int
    """How long that start is."""
    used_s: float
    """Monotonic clock: the last use."""


def conversation_key(
    request: ChatRequest, *, caller: str, model: str, session: str | None, prompt_tokens: int
) -> bytes | None:
    """What a conversation is remembered by; None where no cache could serve it.

    Args:
        request: The request.
        caller: The client key's id: one client's cache is none of another's business.
        model: The Route's name.
        session: As `preferences.read_session` gives it.
        prompt_tokens: Its estimated length.
    """
    named = session or request.prompt_cache_key
    if named is None and prompt_tokens < CACHED_MIN_TOKENS:
        return None
    hashed = blake2b(digest_size=_KEY_BYTES)
    hashed.update(f"{len(caller)}:{caller}{len(model)}:{model}".encode("utf-8", "replace"))
    if named is not None:
        hashed.update(b"session" if session else b"key")
        hashed.update(named.encode("utf-8", "replace"))
        return hashed.digest()
    for message in _first(request.messages):
        text = _text(message)
        hashed.update(f"{message.role}{len(text)}:{text}".encode("utf-8", "replace"))
    return hashed.digest()


def tokens_warmed(endpoint: Endpoint, *, prompt_tokens: int, cached_tokens: int | None, session: bool) -> int | None:
    """How much of a prompt an answered request left in its Endpoint's cache; None where that is not worth a return.

    It is worth one once the cache was hit, or from the first success on in a session, unless what is read from there
    is known to cost no less.

    Args:
        endpoint: Who answered.
        prompt_tokens: Length of the prompt.
        cached_tokens: How much of it was read from the cache, if the provider said so.
        session: Whether the client named a session.
    """
    if not cached_tokens and not session:
        return None
    price = endpoint.price
    if price is not None and price.input_in_pusd and price.cache_read_in_pusd is not None:
        return prompt_tokens if price.cache_read_in_pusd < price.input_in_pusd else None
    return prompt_tokens


class Warmth:
    """Remembers warm places of a bounded number of conversations. Reads no clock."""

    __slots__ = ("_most", "_places")

    def __init__(self, conversations_max: int = CONVERSATIONS_MAX) -> None:
        self._most = conversations_max
        self._places: OrderedDict[bytes, WarmPlace] = OrderedDict()

    def __len__(self) -> int:
        """How many conversations are remembered, those past their time included."""
        return len(self._places)

    def remember(self, key: bytes, endpoint_id: str, tokens: int, now_s: float) -> None:
        """A prompt of that conversation was just answered there, and `tokens` of it are in the cache."""
        self._places[key] = WarmPlace(endpoint_id, tokens, now_s)
        self._places.move_to_end(key)
        if len(self._places) > self._most:
            self._places.popitem(last=False)

    def find(self, key: bytes, now_s: float) -> tuple[str, int] | None:
        """Whose cache has the start of that conversation, and how many tokens of it."""
        place = self._places.get(key)
        if place is None:
            return None
        if now_s - place.used_s > IDLE_MAX_S:
            del self._places[key]
            return None
        return place.endpoint, place.tokens


def _first(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The first instructions and the first message that is none, as far as there are any."""
    instructions = other = None
    for message in messages:
        if message.role not in _INSTRUCTING:
            other = message
            break
        instructions = instructions or message
    return tuple(message for message in (instructions, other) if message is not None)


def _text(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return (content or "")[:HASHED_MAX_CHARS]
    text = ""
    for part in content:
        text += (part.text if part.text is not None else f"{part.type}{part.image_url}")[: HASHED_MAX_CHARS - len(text)]
        if len(text) >= HASHED_MAX_CHARS:
            break
    return text
