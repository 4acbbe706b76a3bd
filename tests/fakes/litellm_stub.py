"""A module that stands in for the litellm package: answers as scripted by the model's name, and remembers its calls."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any

PRICE_LIST_AT_HOME = os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP")
telemetry = True
num_retries = 5
drop_params = True
callbacks = ["spy"]
success_callback = ["spy"]
calls: list[dict[str, Any]] = []
events: list[str] = []
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


class Model:
    """Like the package's answers: pydantic models by their one method that matters."""

    def __init__(self, **members: Any) -> None:
        self._members = members

    def model_dump(self) -> dict[str, Any]:
        return self._members


class APIError(Exception):
    """Like the package's exceptions: a status, a message, maybe the vendor's answer."""

    def __init__(self, message: str, status_code: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.response = SimpleNamespace(headers=headers or {})


class BadRequestError(APIError):
    pass


class ContextWindowExceededError(BadRequestError):
    pass


class ContentPolicyViolationError(BadRequestError):
    pass


class UnsupportedParamsError(BadRequestError):
    pass


class AuthenticationError(APIError):
    pass


class NotFoundError(APIError):
    pass


class RateLimitError(APIError):
    pass


class ServiceUnavailableError(APIError):
    pass


class Timeout(APIError):  # noqa: N818  # the package's own name
    pass


class APIConnectionError(APIError):
    pass


class Stream:
    """Chunks, and a word in `events` when somebody lets go of them."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._left = ["Hel", "lo", ""]

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Model:
        if self._mode == "stalls":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                events.append("chunk cancelled")
                raise
        if not self._left:
            raise StopAsyncIteration
        text = self._left.pop(0)
        if self._mode == "breaks" and text == "lo":
            raise ServiceUnavailableError("secret words", 503)
        if not text:
            return Model(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
        return Model(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])

    async def aclose(self) -> None:
        events.append("closed")


async def acompletion(**arguments: Any) -> Any:
    calls.append(arguments)
    events.append("called")
    mode = arguments["model"].partition("/")[2]
    if mode == "hangs":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            events.append("call cancelled")
            raise
    if mode in globals() and mode.endswith(("Error", "Timeout")):
        status = {"RateLimitError": 429, "ServiceUnavailableError": 503, "NotFoundError": 404}.get(mode, 400)
        raise globals()[mode]("what the vendor said", status, {"retry-after": "7"})
    if mode == "odd":
        raise ValueError("secret words")
    if arguments.get("stream"):
        return Stream(mode)
    message = {"role": "assistant", "content": "Hello"}
    return Model(choices=[{"index": 0, "message": message, "finish_reason": "stop"}], usage=USAGE)
