"""What a client says of its own patience in its headers: how long it waits, and whether it has asked before.

`x-stainless-*` is what OpenAI's own SDKs send: https://github.com/openai/openai-python
"""

import math
from collections.abc import Mapping
from typing import Final

from gateway.attempts import NO_HINTS, Hints
from gateway.bill import Origin
from gateway.ledger.entry import clipped, kept_tags

TIMEOUT_MIN_S: Final = 0.1
TIMEOUT_MAX_S: Final = 3600.0
RETRIES_MAX: Final = 100
VALUE_MAX_BYTES: Final = 32
"""Numbers longer than this are none."""

_TIMEOUT: Final = b"x-request-timeout-ms"
_RETRIES: Final = b"x-stainless-retry-count"
_READ_TIMEOUT: Final = b"x-stainless-read-timeout"
_TIMEOUT_OF_OLD: Final = b"x-stainless-timeout"
_SESSION: Final = b"x-session-id"


def read_hints(fields: Mapping[bytes, bytes], *, stream: bool) -> Hints:
    """What the headers say. Whatever makes no sense is no hint.

    An SDK's read timeout is for the time between two pieces of an answer, so it limits only one that comes in one.
    """
    timeout = fields.get(_TIMEOUT)
    retries = fields.get(_RETRIES)
    session = fields.get(_SESSION)
    reading = old = None
    if not stream:
        reading, old = fields.get(_READ_TIMEOUT), fields.get(_TIMEOUT_OF_OLD)
    if timeout is reading is old is session is None and (retries is None or retries == b"0"):
        return NO_HINTS
    limits_s = [_seconds(value) for value in (reading, old) if value is not None]
    milliseconds = None if timeout is None else _number(timeout)
    limits_s.append(None if milliseconds is None else _bounded(milliseconds / 1000))
    known_s = [limit_s for limit_s in limits_s if limit_s is not None]
    count = None if retries is None else _number(retries)
    return Hints(
        total_timeout_s=min(known_s) if known_s else None,
        retries=0 if count is None else max(0, min(int(count), RETRIES_MAX)),
        session=None if session is None else session.decode("latin-1"),
    )


class Sender:
    """Who asks, by the headers, for the ledger: what an application says of itself is kept as it is, cut to a bound."""

    __slots__ = ("_app", "_referer", "_tags", "_traceparent")

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        title = fields.get(b"x-openrouter-title") or fields.get(b"x-title")
        referer = fields.get(b"http-referer") or fields.get(b"referer")
        tags = fields.get(b"x-mixgate-tags")
        traceparent = fields.get(b"traceparent")
        self._app = "" if title is None else _text(title)
        self._referer = "" if referer is None else _text(referer)
        self._traceparent = "" if traceparent is None else _text(traceparent)
        self._tags: tuple[str, ...] = (
            () if tags is None else kept_tags([tag.strip() for tag in _decode(tags).split(",")])
        )

    def origin(
        self, caller: str, key_id: str, surface: str, generation_id: str, user: str | None, session: str | None
    ) -> Origin:
        """Where a request of theirs comes from."""
        return Origin(
            caller=caller,
            key_id=key_id,
            surface=surface,
            generation_id=generation_id,
            app=self._app,
            referer=self._referer,
            user="" if user is None else clipped(user),
            session="" if session is None else clipped(session),
            traceparent=self._traceparent,
            tags=self._tags,
        )


def _text(value: bytes) -> str:
    return clipped(_decode(value).strip())


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _seconds(value: bytes) -> float | None:
    seconds = _number(value)
    return None if seconds is None else _bounded(seconds)


def _bounded(seconds: float) -> float | None:
    return None if seconds <= 0 else min(max(seconds, TIMEOUT_MIN_S), TIMEOUT_MAX_S)


def _number(value: bytes) -> float | None:
    try:
        number = float(value) if len(value) <= VALUE_MAX_BYTES else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
