"""Everything that can go wrong with a provider, as one tree.

    MixgateError
    ├── ProviderError              a provider, or the way to it, failed
    │   ├── ConnectError           nothing answered: DNS, refused, TLS
    │   │   └── ResetError         it took the connection and dropped it without a word
    │   ├── OverloadedError        it answered that it is too busy
    │   ├── RateLimitedError       it answered that we ask too often
    │   ├── ServerError            it broke: 5xx, an error inside a 200, an empty answer
    │   │   └── GarbledError       it answered something that is not its own protocol
    │   │       └── AnswerElsewhereError  it left the answer at a URL
    │   ├── FirstTokenTimeoutError it took the request and said nothing in time
    │   ├── StalledError           it stopped talking in the middle
    │   ├── TruncatedError         it hung up before the answer was complete
    │   ├── CredentialsError       our key, credit or permission is not good there
    │   ├── UnknownModelError      it does not know the model we asked for
    │   ├── RegionError            it does not serve us here
    │   ├── ContextLengthError     the prompt does not fit there
    │   ├── UnsupportedError       it cannot do something that was asked
    │   ├── ContentPolicyError     it refused what was said
    │   └── BadRequestError        it finds the request itself wrong
    └── (gateway.errors)           our own refusals

Each class has a stable `code` (shown to clients, used as a metric label), the HTTP `status` a client sees when this
error is the final word, the OpenAI error `type`, and `retryable`: whether another endpoint may do better.
"""

from typing import ClassVar, Literal

Source = Literal["gateway", "provider"]
MESSAGE_MAX_CHARS = 2000


class MixgateError(Exception):
    """An error with something to say to the client."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    source: ClassVar[Source] = "gateway"
    retryable: ClassVar[bool] = False
    generation_id: str = ""
    """The request whose record says why, where it was refused before anybody was asked."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message[:MESSAGE_MAX_CHARS])
        self.message = message[:MESSAGE_MAX_CHARS]
        self.param = param
        self.retry_after_s = retry_after_s


class ProviderError(MixgateError):
    """A provider, or the way to it, failed.

    Args:
        message: What happened, fit for a client to read: no raw body of a 5xx, no credential.
        upstream_status: The HTTP status the provider answered, if it did.
        upstream_code: The provider's own code or type for the error.
        request_id: The provider's id for the exchange, for a support ticket.
        retry_after_s: How long the provider asks us to stay away, in seconds.
        param: The request member it complains of.
    """

    code: ClassVar[str] = "provider_error"
    status: ClassVar[int] = 502
    source: ClassVar[Source] = "provider"
    retryable: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        upstream_code: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.upstream_status = upstream_status
        self.upstream_code = upstream_code
        self.request_id = request_id


class ConnectError(ProviderError):
    """Nothing answered: DNS, refused, TLS."""

    code: ClassVar[str] = "connect_failed"


class ResetError(ConnectError):
    """It took the connection, and dropped it before any byte of an answer."""

    code: ClassVar[str] = "connection_reset"


class OverloadedError(ProviderError):
    """It answered that it is too busy (503, 529, a full local queue)."""

    code: ClassVar[str] = "provider_overloaded"
    status: ClassVar[int] = 503


class RateLimitedError(ProviderError):
    """It answered that we ask too often (429)."""

    code: ClassVar[str] = "rate_limited"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"


class ServerError(ProviderError):
    """It broke: 5xx, an error inside a 200, an empty answer."""

    code: ClassVar[str] = "provider_error"


class GarbledError(ServerError):
    """It answered something that is not its own protocol: HTML, bad JSON, a body over every bound."""

    code: ClassVar[str] = "provider_garbled"


class AnswerElsewhereError(GarbledError):
    """It left the answer at a URL that is not configured for it.

    A decoder fails with this; the engine fetches the answer where it may, once and without credentials, or lets the
    error stand. So a URL that nobody looks at is a failure, never a request.
    """

    code: ClassVar[str] = "answer_elsewhere"

    def __init__(self, url: str) -> None:
        super().__init__("the provider left its answer at a place that is not configured for it")
        self.url = url


class FirstTokenTimeoutError(ProviderError):
    """It took the request and said nothing in time."""

    code: ClassVar[str] = "first_token_timeout"
    status: ClassVar[int] = 504


class StalledError(ProviderError):
    """It stopped talking in the middle of the answer."""

    code: ClassVar[str] = "provider_stalled"
    status: ClassVar[int] = 504


class TruncatedError(ProviderError):
    """It hung up before the answer was complete. Never a success, whatever text came before."""

    code: ClassVar[str] = "answer_truncated"


class CredentialsError(ProviderError):
    """Our key, credit or permission is not good there (401, 402, 403 on the key). The operator must act."""

    code: ClassVar[str] = "provider_credentials"


class UnknownModelError(ProviderError):
    """It does not know the model that our configuration names. The operator must act."""

    code: ClassVar[str] = "provider_unknown_model"


class RegionError(ProviderError):
    """It does not serve us in this region."""

    code: ClassVar[str] = "provider_region"
    status: ClassVar[int] = 403


class ContextLengthError(ProviderError):
    """The prompt does not fit there. Only a larger context helps."""

    code: ClassVar[str] = "context_length_exceeded"
    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"


class UnsupportedError(ProviderError):
    """It cannot do something that was asked (tools, a modality, a parameter); another endpoint may."""

    code: ClassVar[str] = "unsupported"
    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"


class ContentPolicyError(ProviderError):
    """It refused what was said. Not to be shopped around."""

    code: ClassVar[str] = "content_policy_violation"
    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"
    retryable: ClassVar[bool] = False


class BadRequestError(ProviderError):
    """It finds the request itself wrong; every other provider would too."""

    code: ClassVar[str] = "invalid_request"
    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"
    retryable: ClassVar[bool] = False
