"""`Idempotency-Key`: a client that does not know what became of its call may send it again, and pays for it once.

For calls that are answered in one piece. The answer is kept for a day and given again byte for byte; it is completed
even where the client has left, so that it is there when the client comes back. Errors are not kept: after one the call
may be made anew.
"""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from gateway.cache.store import AnswerStore
from gateway.errors import IdempotencyConflictError, IdempotencyMismatchError, InvalidRequestError
from gateway.server.client import whole_sender
from gateway.server.scope import FIELDS, ON_DISCONNECT, SEND_WHOLE, App, Message, Receive, Scope, Send

IDEMPOTENCY_KEY: Final = b"idempotency-key"
KEY_MAX_CHARS: Final = 255
KEPT_S: Final = 86_400
"""How long the answer to an `Idempotency-Key` is given again."""
CONFLICT_RETRY_S: Final = 1.0
"""When to come back while the first call is still being answered."""

_OK: Final = 200
_REPLAYED: Final = b"idempotent-replayed: true\r\n"
_IGNORED: Final = (b"x-mixgate-idempotency", b"ignored: the answer is a stream")
_PASSING: Final = b"x-ratelimit-"
_FIRST_PRINTABLE, _DELETE = 0x20, 0x7F


class _Mode(Struct):
    stream: bool | None = None


class _Kept(Struct, array_like=True):
    """An answer as it was sent."""

    call: bytes
    """Digest of the path and the body that it answers."""
    block: bytes
    """Its headers."""
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Kept).decode
_mode: Final = msgspec.json.Decoder(_Mode).decode


class Idempotency:
    """Answers calls that may be sent again. Belongs to one event loop.

    Args:
        answers: Where answers are kept.
        unix_time_s: The wall clock.
    """

    def __init__(self, answers: AnswerStore, unix_time_s: Callable[[], float] = time.time) -> None:
        self._answers = answers
        self._unix_time_s = unix_time_s
        self._running: dict[tuple[str, str], bytes] = {}
        """Calls that are being answered in this process, and the digests of what they ask."""

    async def answer(self, scope: Scope, receive: Receive, send: Send, app: App, tenant: str) -> None:
        """Answer a call that has the header: as it was answered before, or by `app`.

        Args:
            scope: Of the call.
            receive: Its body.
            send: Its answer.
            app: Answers it where it is new.
            tenant: Whose it is: two tenants' keys have nothing in common.

        Raises:
            InvalidRequestError: The key cannot be one.
            IdempotencyConflictError: The same call is being answered.
            IdempotencyMismatchError: The key was used for another one.
        """
        key = _read_key(scope[FIELDS][IDEMPOTENCY_KEY])
        body = await _read_body(receive)
        fields = {name: value for name, value in scope[FIELDS].items() if name != IDEMPOTENCY_KEY}
        scope = {**scope, FIELDS: fields}
        if _is_stream(body):
            await app(scope, _given(body), _noting(send))
            return
        whose = f"idempotency:{tenant}"
        name = sha256(key).hexdigest()
        call = sha256(b"%b\n%b" % (scope["path"].encode(), body)).digest()
        running = self._running.get((whose, name))
        if running is not None:
            _check(running, call)
            raise IdempotencyConflictError(
                "a call with this Idempotency-Key is being answered; ask again in a moment",
                retry_after_s=CONFLICT_RETRY_S,
            )
        self._running[whose, name] = call
        try:
            kept = await self._find(whose, name)
            if kept is None:
                await self._answer_new(scope, body, send, app, (whose, name, call))
                return
        finally:
            del self._running[whose, name]
        _check(kept.call, call)
        await whole_sender(scope, send)(_OK, kept.block + _REPLAYED, kept.body)

    async def _find(self, whose: str, name: str) -> _Kept | None:
        data = await self._answers.get(whose, name, self._unix_time_s())
        if data is None:
            return None
        try:
            return _decode(data)
        except msgspec.DecodeError:
            return None  # of another version

    async def _answer_new(self, scope: Scope, body: bytes, send: Send, app: App, place: tuple[str, str, bytes]) -> None:
        """Have it answered, whether or not the client stays for it."""
        whose, name, call = place
        send_whole = whole_sender(scope, send)

        async def keep(status: int, block: bytes, answer: bytes) -> None:
            if status == _OK:
                data = _encode(_Kept(call, _lasting(block), answer))
                self._answers.put(whose, name, data, KEPT_S, self._unix_time_s())
            await send_whole(status, block, answer)

        await app({**scope, SEND_WHOLE: keep, ON_DISCONNECT: None}, _given(body), send)


def _read_key(value: bytes) -> bytes:
    """The key of a call.

    Raises:
        InvalidRequestError: It cannot be one.
    """
    if not 0 < len(value) <= KEY_MAX_CHARS or any(byte < _FIRST_PRINTABLE or byte == _DELETE for byte in value):
        raise InvalidRequestError(
            f"an Idempotency-Key has 1 to {KEY_MAX_CHARS} characters and no control characters", param="idempotency-key"
        )
    return value


def _check(before: bytes, call: bytes) -> None:
    if before != call:
        raise IdempotencyMismatchError(
            "this Idempotency-Key was used for a call with another body or path; use another key for another call",
            param="idempotency-key",
        )


def _lasting(block: bytes) -> bytes:
    """Headers without what holds for that moment alone."""
    if _PASSING not in block:
        return block
    return b"".join(b"%b\r\n" % line for line in block.split(b"\r\n") if line and not line.startswith(_PASSING))


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_stream(body: bytes) -> bool:
    try:
        return bool(_mode(body).stream)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # whatever it is, it is refused by whoever reads all of it


def _given(body: bytes) -> Receive:
    """A `receive` that has the body already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _noting(send: Send) -> Send:
    """A `send` that says that the header was not heeded."""

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), _IGNORED]
        await send(message)

    return noting
