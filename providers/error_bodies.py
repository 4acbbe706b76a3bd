"""What every dialect's table of errors begins and ends with: a body read within bounds, a status, words for the client.

Pure. What a vendor's own codes and wording mean is the dialect's business.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.errors import (
    BadRequestError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    GarbledError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
)

BODY_READ_MAX_BYTES: Final = 64 * 1024
"""An error that needs more than this to say is not read further."""

_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    400: BadRequestError,
    401: CredentialsError,
    402: CredentialsError,
    403: CredentialsError,
    404: UnknownModelError,
    408: FirstTokenTimeoutError,
    409: OverloadedError,
    413: ContextLengthError,
    422: BadRequestError,
    424: ServerError,
    425: OverloadedError,
    429: RateLimitedError,
    503: OverloadedError,
    504: ServerError,
    524: FirstTokenTimeoutError,
    529: OverloadedError,
}


def read_json(body: bytes) -> Any:
    """What the JSON of a body says; None where it is none."""
    try:
        return msgspec.json.decode(body[:BODY_READ_MAX_BYTES])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def kind_of_status(status: int) -> type[ProviderError]:
    """What a status other than 2xx means where nothing else is known."""
    if status < 400:
        return GarbledError  # a redirect or another answer that no chat API gives
    return _BY_STATUS.get(status, ServerError if status >= 500 else BadRequestError)


def words_for(status: int, said: str, body: bytes, kind: type[ProviderError]) -> str:
    """Words for the client. What a provider says of its own failure (5xx) or of our key is not ours to spread.

    Args:
        status: Of the answer.
        said: The provider's own words; empty where there are none.
        body: What they came in.
        kind: What it was found to be.
    """
    if status >= 500:
        return f"the provider failed with HTTP {status}"
    if status < 400:
        return f"the provider answered HTTP {status} instead of an answer; redirects are not followed"
    if issubclass(kind, CredentialsError):
        return f"the provider did not accept our credentials (HTTP {status}): its key or credit needs the operator"
    return said or f"the provider answered HTTP {status}{_page(body, ' with a web page')}"


def no_answer(body: bytes, missing: str) -> str:
    """Words for a 200 whose body is something else than what was due, as in `a chat completion`."""
    if not body.strip():
        return "the provider answered 200 with an empty body"
    return f"the provider answered 200 with {_page(body, 'a web page') or f'something that is not {missing}'}"


def _page(body: bytes, words: str) -> str:
    return words if body.lstrip()[:1] == b"<" else ""
