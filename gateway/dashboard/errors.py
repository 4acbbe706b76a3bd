"""Why the dashboard does not answer."""

from typing import ClassVar

from gateway.errors import RefusalError


class SignInRequiredError(RefusalError):
    """Nobody is signed in."""

    code: ClassVar[str] = "sign_in_required"
    status: ClassVar[int] = 401
    type: ClassVar[str] = "authentication_error"


class SignInFailedError(RefusalError):
    """The token is not good here."""

    code: ClassVar[str] = "sign_in_failed"
    status: ClassVar[int] = 401
    type: ClassVar[str] = "authentication_error"


class TooManySignInsError(RefusalError):
    """This address has tried too often."""

    code: ClassVar[str] = "too_many_sign_ins"
    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"


class DashboardBusyError(RefusalError):
    """More look-ups wait than are let wait."""

    code: ClassVar[str] = "dashboard_busy"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class DashboardTimeoutError(RefusalError):
    """A look-up took longer than one may take."""

    code: ClassVar[str] = "dashboard_timeout"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"


class FiguresUnavailableError(RefusalError):
    """The store cannot be read."""

    code: ClassVar[str] = "store_unavailable"
    status: ClassVar[int] = 503
    type: ClassVar[str] = "api_error"
