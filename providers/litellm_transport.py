"""The Transport of the `litellm` dialect: calls the library in a thread with an event loop of its own.

The library takes seconds and some 190 MB to import, so that it is loaded with the first request that needs it, and
never on the thread that serves. It gets the key and the base URL of the configuration, and nothing else that decides
where a request goes; its own retries, callbacks, telemetry and logging of content are off.
"""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from providers.base import WireRequest
from providers.errors import ConnectError, GarbledError
from providers.http_connection import BODY_MAX_BYTES, STREAM_MAX_BYTES
from providers.json_values import members
from providers.litellm import SCHEME, SENT
from providers.litellm_library import PACKAGE, load_library

CALL_TIMEOUT_S: Final = 600.0
"""What the library may take at most; the engine's own limits are shorter."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long closing waits for a library that is in the middle of something it cannot leave."""
MESSAGE_MAX_CHARS: Final = 2000
RETRY_AFTER_MAX_CHARS: Final = 64

_BEARER: Final = "Bearer "
_T = TypeVar("_T")
_encoder = msgspec.json.Encoder(enc_hook=str)

# By the names of the library's classes: it is not there to import them from. Its subclasses say more than its statuses.
_CODES: Final[Mapping[str, tuple[int, str]]] = {
    "ContextWindowExceededError": (400, "context_length_exceeded"),
    "ContentPolicyViolationError": (400, "content_policy_violation"),
    "UnsupportedParamsError": (400, "unsupported_parameter"),
    "AuthenticationError": (401, "authentication"),
    "PermissionDeniedError": (403, "authentication"),
    "NotFoundError": (404, "model_not_found"),
    "Timeout": (408, "timeout"),
    "RateLimitError": (429, "rate_limit_exceeded"),
    "ServiceUnavailableError": (503, "provider_overloaded"),
}
_UNREACHED: Final = frozenset({"APIConnectionError", "ConnectError", "ConnectionError"})


class LitellmTransport:
    """Carries requests by calling the library.

    Args:
        package: The module to import; for tests.
    """

    def __init__(self, package: str = PACKAGE) -> None:
        self._package = package
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._library: Any = None

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> "LitellmResponse":  # noqa: ARG002 (part of the seam; the library has no such limit)
        """Call, and return once the answer begins (stream) or is complete (not stream).

        Raises:
            ProviderError: ConnectError where the vendor, or the library, is out of reach; GarbledError.
        """
        arguments = _arguments(request)
        try:
            answer = await self._there(self._call(arguments))
        except ConnectError:
            raise
        except Exception as error:  # noqa: BLE001 (the library's exceptions have no root of their own)
            return _failed(error, self)
        if request.stream:
            return LitellmResponse(200, {"content-type": "text/event-stream"}, self, chunks=aiter(answer))
        body = _json(answer)
        if len(body) > BODY_MAX_BYTES:
            raise GarbledError("the provider's answer is over the size limit")
        return LitellmResponse(200, {"content-type": "application/json"}, self, body=body)

    async def aclose(self) -> None:
        """Stop the thread. Calls that are still running end with it."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            await asyncio.to_thread(thread.join, CLOSE_TIMEOUT_S)  # the process may end without it

    async def next_chunk(self, chunks: Any) -> bytes:
        """The next event of a stream as bytes, or its end.

        Raises:
            ConnectError: The transport was closed.
        """
        return await self._there(_next(chunks))

    def drop(self, chunks: Any) -> None:
        """Let go of a stream that nobody reads on."""
        if self._loop is not None and (close := getattr(chunks, "aclose", None)) is not None:
            asyncio.run_coroutine_threadsafe(_close(close), self._loop)

    async def _there(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run on the library's loop; a cancellation here is one there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running()))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="litellm", daemon=True)
                self._thread.start()
            return self._loop

    async def _call(self, arguments: dict[str, Any]) -> Any:
        if self._library is None:
            self._library = load_library(self._package)
        return await self._library.acompletion(**arguments)


class LitellmResponse:
    """One answer of the library, as the bytes that OpenAI would have sent."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        transport: LitellmTransport,
        *,
        body: bytes | None = None,
        chunks: Any = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._transport = transport
        self._chunks = chunks
        self._left_bytes = STREAM_MAX_BYTES

    async def read(self) -> bytes:
        """The next event, `b""` after the last.

        Raises:
            ProviderError: GarbledError when the size limit was passed.
        """
        if self._chunks is None:
            return b""
        data = await self._transport.next_chunk(self._chunks)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self.close()
            raise GarbledError("the provider's answer is over the size limit")
        if not data:
            self._chunks = None
        return data

    def close(self, *, ended: bool = False) -> None:  # noqa: ARG002 (part of the seam)
        """Stop reading; what is under way is cancelled."""
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            self._transport.drop(chunks)


def _arguments(request: WireRequest) -> dict[str, Any]:
    """The call's arguments: what the dialect wrote, and what the configuration says of key and place."""
    written = members(msgspec.json.decode(request.body))
    arguments = {name: value for name, value in written.items() if name in SENT}
    arguments |= {"num_retries": 0, "max_retries": 0, "timeout": CALL_TIMEOUT_S, "caching": False, "no-log": True}
    authorization = request.headers.get("authorization", "")
    if authorization.startswith(_BEARER):
        arguments["api_key"] = authorization.removeprefix(_BEARER)
    if base_url := request.url.removeprefix(SCHEME):
        arguments["api_base"] = base_url
    return arguments


async def _next(chunks: Any) -> bytes:
    if chunks is None:
        return b""
    try:
        chunk = await anext(chunks, None)
    except Exception as error:  # noqa: BLE001 (as in send; the head is out, so it is told in the stream)
        return b"data: %b\n\ndata: [DONE]\n\n" % _error_body(error)[1]
    return b"" if chunk is None else b"data: %b\n\n" % _json(chunk)


async def _close(close: Any) -> None:
    try:
        await close()
    except Exception:
        logging.getLogger("mixgate").debug("a litellm stream did not close", exc_info=True)


def _json(answer: Any) -> bytes:
    """One of the library's objects, which are pydantic models, as JSON."""
    return _encoder.encode(answer.model_dump())


def _failed(error: Exception, transport: LitellmTransport) -> LitellmResponse:
    """An exception as the answer that it was made of.

    Raises:
        ConnectError: There was no answer.
    """
    if _UNREACHED & {kind.__name__ for kind in type(error).__mro__}:
        raise ConnectError("the litellm library cannot reach the provider") from error
    status, body = _error_body(error)
    headers = {"content-type": "application/json"}
    given = getattr(getattr(error, "response", None), "headers", None)
    after = given.get("retry-after") if given is not None and hasattr(given, "get") else None
    if isinstance(after, str) and len(after) <= RETRY_AFTER_MAX_CHARS:
        headers["retry-after"] = after
    return LitellmResponse(status, headers, transport, body=body)


def _error_body(error: Exception) -> tuple[int, bytes]:
    """Status and body by the library's class, else by the status that it carries."""
    names = [kind.__name__ for kind in type(error).__mro__]
    stated = getattr(error, "status_code", None)
    status, code = next((_CODES[name] for name in names if name in _CODES), (stated, None))
    if not isinstance(status, int) or not 400 <= status <= 599:
        status = 500
    said = getattr(error, "message", None)
    message = said[:MESSAGE_MAX_CHARS] if isinstance(said, str) else names[0]
    # The status stands in the body too: inside a stream there is nothing else to tell it by.
    body = {"message": message, "code": status, "type": names[0], **({"error_type": code} if code else {})}
    return status, _encoder.encode({"error": body})


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
