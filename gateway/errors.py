"""What the gateway itself refuses, as branches of the one tree in `providers.errors`.

    MixgateError
    ├── ConfigError                providers.yaml cannot be used (never reaches a client)
    └── RefusalError               a request that we do not pass on
        ├── InvalidRequestError    the body is not what the API takes
        ├── PayloadTooLargeError   over a bound of ours
        ├── AuthenticationError    no client key, or not a good one
        ├── ForbiddenError         this caller may not do this
        ├── NotFoundError          no such HTTP path
        ├── MethodNotAllowedError  the path is right, the method is not
        ├── ModelNotFoundError     no Model of that name
        ├── CapabilityError        nothing that is on can do what is asked
        ├── PromptTooLongError     the prompt fits nowhere
        ├── NoEndpointError        a known Model with nothing on to serve it
        ├── RestingError           everything that could answer was asked to be left alone for a while
        ├── OverCapacityError      we are full
        ├── KeyOverLimitError      one client key has all that one may have
        ├── RateLimitError         a client key asks more often than it may
        ├── QuotaError             a client key's budget is spent
        ├── KeysUnavailableError   client keys could not be changed, or what is left of a budget not be known
        ├── BudgetHeldError        what is left of it is reserved for requests on their way
        ├── LedgerUnavailableError what it costs could not be written down
        └── ShuttingDownError      we are draining

Refusals of the HTTP edge itself are in gateway/server/refusals.py.
"""

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from providers.errors import (
    BadRequestError,
    ConnectError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    MixgateError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    RegionError,
    ServerError,
    Source,
    StalledError,
    TruncatedError,
    UnknownModelError,
    UnsupportedError,
)


class ConfigProblem(Struct, frozen=True):
    """One complaint about a configuration file, with where it is and what to do."""

    where: str
    """`file:line`, or the file alone where no line is to blame."""
    message: str
    fix: str

    def __str__(self) -> str:
        """As one line for a terminal."""
        return f"{self.where}: {self.message}\n    fix: {self.fix}"


class ConfigError(MixgateError):
    """providers.yaml cannot be used; `problems` says all that is wrong at once."""

    code: ClassVar[str] = "config_invalid"

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class RefusalError(MixgateError):
    """A request that we do not pass on."""

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"


class InvalidRequestError(RefusalError):
    """The body is not what the API takes; `param` names the member."""

    code: ClassVar[str] = "invalid_request"


class PayloadTooLargeError(RefusalError):
    """The request is over a bound of ours."""

    code: ClassVar[str] = "payload_too_large"
    status: ClassVar[int] = 413


class AuthenticationError(RefusalError):
    """No client key, or not a good one."""

    code: ClassVar[str] = "invalid_api_key"
    status: ClassVar[int] = 401
    type: ClassVar[str] = "authentication_error"


class ForbiddenError(RefusalError):
    """This caller may not do this."""

    code: ClassVar[str] = "forbidden"
    status: ClassVar[int] = 403
    type: ClassVar[str] = "permission_error"


class NotFoundError(RefusalError):
    """No such HTTP path."""

    code: ClassVar[str] = "not_found"
    status: ClassVar[int] = 404


class MethodNotAllowedError(RefusalError):
    """The path is right, the method is not."""

    code: ClassVar[str] = "method_not_allowed"
    status: ClassVar[int] = 405


class ModelNotFoundError(RefusalError):
    """No Model of that name; the message offers near ones."""

    code: ClassVar[str] = "model_not_found"
    status: ClassVar[int] = 404


class NoEndpointError(RefusalError):
    """A known Model with nothing on to serve it; the message says what to set."""

    code: ClassVar[str] = "no_endpoint_available"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class CapabilityError(RefusalError):
    """Nothing that is on can do what is asked (tools, a modality); the message says what each Endpoint lacks."""

    code: ClassVar[str] = "unsupported"


class RestingError(RefusalError):
    """Everything that could answer failed too often or asked to be left alone; `retry_after_s` says for how long."""

    code: ClassVar[str] = "temporarily_unavailable"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class PromptTooLongError(RefusalError):
    """The prompt, with the answer asked for, fits nowhere; the message has the numbers and what would fit."""

    code: ClassVar[str] = "context_length_exceeded"


class OverCapacityError(RefusalError):
    """We are full; `retry_after_s` says when to come back."""

    code: ClassVar[str] = "gateway_overloaded"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class KeyOverLimitError(RefusalError):
    """One client key has as many requests on their way as one may have."""

    code: ClassVar[str] = "key_over_limit"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"


class LedgerUnavailableError(RefusalError):
    """What a request costs could neither be noted in the journal nor in the store, so nothing that costs is sent."""

    code: ClassVar[str] = "ledger_unavailable"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class RateLimitError(RefusalError):
    """A client key asks more often, or for more tokens, than it may; `headers` have the numbers."""

    code: ClassVar[str] = "rate_limit_exceeded"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"

    def __init__(
        self, message: str, *, retry_after_s: float | None, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.headers = tuple(headers)
        """`x-ratelimit-*`."""


class QuotaError(RefusalError):
    """A client key's budget, or its team's, is spent; the message has the numbers. Asking again does not help."""

    code: ClassVar[str] = "insufficient_quota"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "insufficient_quota"


class UnaffordableError(ProviderError):
    """An Endpoint that is not asked, because what is left of the caller's budget does not cover it; another may do."""

    code: ClassVar[str] = "insufficient_quota"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "insufficient_quota"
    source: ClassVar[Source] = "gateway"


class BudgetHeldError(RefusalError):
    """What is left of a client key's budget is reserved for requests on their way; some of it will be free again."""

    code: ClassVar[str] = "budget_reserved"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"


class KeysUnavailableError(RefusalError):
    """A change of client keys could not be written, so there is none; or nobody can say now what a budget has left."""

    code: ClassVar[str] = "keys_unavailable"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class IdempotencyConflictError(RefusalError):
    """A call with this `Idempotency-Key` is still being answered; asking again later gives its answer."""

    code: ClassVar[str] = "idempotency_in_flight"
    status: ClassVar[int] = 409


class IdempotencyMismatchError(RefusalError):
    """An `Idempotency-Key` that was used for another call."""

    code: ClassVar[str] = "idempotency_mismatch"
    status: ClassVar[int] = 422


class ShuttingDownError(RefusalError):
    """We are draining; another replica, or the next start, will answer."""

    code: ClassVar[str] = "server_shutdown"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


_USEFULNESS: tuple[type[ProviderError], ...] = (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    UnsupportedError,
    RateLimitedError,
    OverloadedError,
    FirstTokenTimeoutError,
    StalledError,
    TruncatedError,
    ServerError,
    RegionError,
    UnknownModelError,
    CredentialsError,
    ConnectError,
)


def most_useful(errors: Sequence[ProviderError]) -> MixgateError:
    """Of the errors of all Attempts, the one that tells the client most about what to do."""

    def rank(error: ProviderError) -> int:
        return next((place for place, kind in enumerate(_USEFULNESS) if isinstance(error, kind)), len(_USEFULNESS))

    return min(errors, key=rank)
