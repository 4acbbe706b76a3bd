"""Middle-out: cuts the middle out of a prompt that is too long, so that its beginning and its end still fit.

Whole turns go first, out of the middle; a text is cut in its own middle, with a mark that the model sees, when it is
most of the prompt or when nothing else is left to cut, the instructions last of all. A call of a tool and its result
stay or go together. After https://openrouter.ai/docs/guides/features/message-transforms
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from providers.json_values import members
from providers.messages import MESSAGES_MAX, ChatRequest, Message

MARK: Final = "\n\n[... {} characters left out here ...]\n\n"
"""Stands where a text was cut, for the model to see."""
TEXT_MIN_CHARS: Final = 200
"""What is left of a text at least, half from its beginning and half from its end."""
_INSTRUCTING: Final = ("system", "developer")
_ANSWERING: Final = ("tool", "function")

Fits: TypeAlias = Callable[[ChatRequest], bool]
Place: TypeAlias = tuple[int, int | None]
"""A text: the message's position, and the part's where its content is a list."""


class Compressed(Struct, frozen=True):
    """A request that fits, and what it took."""

    request: ChatRequest
    dropped_messages: int = 0
    """Messages that are gone."""
    cut_texts: int = 0
    """Texts that lost their middle."""


def compress(request: ChatRequest, fits: Fits, *, messages_max: int = MESSAGES_MAX) -> Compressed | None:
    """The request with as little cut out of its middle as makes it fit; None where nothing can.

    The instructions at the beginning, the last message of the user and the last turn stay, if perhaps cut themselves.

    Args:
        request: Any request.
        fits: Whether a request is short enough. Asked some 15 to 60 times.
        messages_max: The most messages that are taken.
    """
    if len(request.messages) <= messages_max and fits(request):
        return Compressed(request)
    fixed, loose = _units(request.messages)
    giant = _giant(request.messages) if len(request.messages) <= messages_max else None
    if giant is not None and giant[0] not in fixed:
        found = _cut(request, (giant,), fits)
        if found is not None:
            return found
    found = _drop(request, fixed, loose, fits, messages_max)
    if found is None and giant is not None:
        found = _cut(request, (giant,), fits)
    if found is not None or len(fixed) > messages_max:
        return found
    bare = _keeping(request, fixed)
    dropped = len(request.messages) - len(fixed)
    places = _texts(bare.messages)
    spoken = tuple(place for place in places if bare.messages[place[0]].role not in _INSTRUCTING)
    for choice in (spoken, places):
        found = _cut(bare, choice, fits)
        if found is not None:
            return replace(found, dropped_messages=dropped)
    return None


def _drop(
    request: ChatRequest, fixed: Sequence[int], loose: Sequence[Sequence[int]], fits: Fits, messages_max: int
) -> Compressed | None:
    """Without as few turns as makes it fit, taken from the middle."""

    def without(count: int) -> ChatRequest:
        kept = len(loose) - count
        # The odd one stays at the beginning: a conversation begins with its user.
        head, tail = loose[: (kept + 1) // 2], loose[len(loose) - kept // 2 :]
        return _keeping(request, sorted([*fixed, *(index for unit in (*head, *tail) for index in unit)]))

    found = _least(len(loose), without, lambda tried: len(tried.messages) <= messages_max and fits(tried))
    return None if found is None else Compressed(found, len(request.messages) - len(found.messages))


def _cut(request: ChatRequest, places: Sequence[Place], fits: Fits) -> Compressed | None:
    """With as little as makes it fit cut out of the longest of these texts."""
    longest = max((len(_text(request.messages, place)) for place in places), default=0)
    steps = max(0, longest - TEXT_MIN_CHARS)
    if not steps:
        return None

    def shortened(count: int) -> ChatRequest:
        return replace(request, messages=_shorten(request.messages, places, longest - count))

    found = _least(steps, shortened, fits)
    if found is None:
        return None
    cut = sum(_text(request.messages, place) != _text(found.messages, place) for place in places)
    return Compressed(found, cut_texts=cut)


def _least(most: int, make: Callable[[int], ChatRequest], fits: Fits) -> ChatRequest | None:
    """What is made with the least number, 1 to `most`, that fits, if more fits better. Whatever is returned fits."""
    low, high, best = 1, most, None
    if most:
        tried = make(most)  # the most that can be done, first: mostly it is not enough, or there is much to spare
        if not fits(tried):
            return None
        best = tried
    while low < high:
        middle = (low + high) // 2
        tried = make(middle)
        if fits(tried):
            best, high = tried, middle
        else:
            low = middle + 1
    return best


def _units(messages: Sequence[Message]) -> tuple[list[int], list[list[int]]]:
    """The positions that stay, and those that may go, in groups that go together."""
    starts: list[int] = []
    calls: dict[str, int] = {}
    for position, message in enumerate(messages):
        starts.append(position)
        for call in message.tool_calls or ():
            calls[call.id] = position
        if message.role in _ANSWERING:
            asked = calls.get(message.tool_call_id or "", position - 1)
            while starts[-1] > max(asked, 0):
                starts.pop()
    staying = _staying(messages)
    fixed: list[int] = []
    loose: list[list[int]] = []
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        unit = list(range(start, end))
        if staying.isdisjoint(unit):
            loose.append(unit)
        else:
            fixed.extend(unit)
    return fixed, loose


def _staying(messages: Sequence[Message]) -> set[int]:
    instructions = [position for position, message in enumerate(messages) if message.role in _INSTRUCTING]
    leading = [position for count, position in enumerate(instructions) if count == position]
    users = [position for position, message in enumerate(messages) if message.role == "user"]
    return {*leading, *instructions[:1], *users[-1:], len(messages) - 1}


def _giant(messages: Sequence[Message]) -> Place | None:
    """The text that is more than half of all, if it may be cut before turns go."""
    places = [place for place in _texts(messages) if messages[place[0]].role not in _INSTRUCTING]
    if not places:
        return None
    sizes = {place: len(_text(messages, place)) for place in places}
    largest = max(places, key=lambda place: sizes[place])
    return largest if 2 * sizes[largest] > sum(sizes.values()) and sizes[largest] > TEXT_MIN_CHARS else None


def _texts(messages: Sequence[Message]) -> list[Place]:
    """Every text that may be cut: not what the model is to go on from, and not the arguments of calls."""
    places: list[Place] = []
    for position, message in enumerate(messages):
        if message.role == "assistant" and position == len(messages) - 1:
            continue
        if isinstance(message.content, str):
            places.append((position, None))
        else:
            places += [(position, index) for index, part in enumerate(message.content or ()) if part.text]
    return places


def _text(messages: Sequence[Message], place: Place) -> str:
    content = messages[place[0]].content
    if content is None or isinstance(content, str) or place[1] is None:
        return content if isinstance(content, str) else ""
    return content[place[1]].text or ""


def _shorten(messages: Sequence[Message], places: Iterable[Place], limit: int) -> tuple[Message, ...]:
    """The messages with at most `limit` characters, and a mark, in each of these texts."""
    result = list(messages)
    for position, index in places:
        text = _text(messages, (position, index))
        short = _without_middle(text, limit)
        if short is text:
            continue
        message = result[position]
        content = message.content
        if index is None or content is None or isinstance(content, str):
            result[position] = replace(message, content=short)
        else:
            parts = (*content[:index], replace(content[index], text=short), *content[index + 1 :])
            result[position] = replace(message, content=parts)
    return tuple(result)


def _without_middle(text: str, limit: int) -> str:
    left_out = len(text) - limit
    mark = MARK.format(left_out)
    if left_out <= len(mark):  # a mark longer than what it stands for saves nothing
        return text
    return text[: (limit + 1) // 2] + mark + text[len(text) - limit // 2 :]


def _keeping(request: ChatRequest, positions: Sequence[int]) -> ChatRequest:
    """The request with only the messages at these positions, and what belongs to them."""
    messages = tuple(request.messages[position] for position in positions)
    return replace(request, messages=messages, extra=_moved(request.extra, positions))


def _moved(extra: Mapping[str, Any] | None, positions: Sequence[int]) -> Mapping[str, Any] | None:
    """Unknown members, which are kept by their messages' positions, at their messages' new positions."""
    if not extra or not (of_messages := members(extra.get("messages"))):
        return extra
    moved = {str(new): of_messages[str(old)] for new, old in enumerate(positions) if str(old) in of_messages}
    rest = {name: value for name, value in extra.items() if name != "messages"}
    return {**rest, "messages": moved} if moved else rest or None
