"""Why a request cannot be explained."""

from typing import ClassVar

from providers.errors import MixgateError


class ExplainError(MixgateError):
    """There is nothing to explain by; the message says why and what to do."""

    code: ClassVar[str] = "not_explained"


class UnreadableRecordError(ExplainError):
    """What is stored is not what this version stores."""

    code: ClassVar[str] = "record_unreadable"
