"""Everything the local backend refuses or fails at while serving, as one small tree. Files have their own: file_errors.

    LocalError
    ├── InvalidRequestError     the request itself is wrong: messages, parameters, schema
    ├── ContextLengthError      prompt and answer do not fit the slot
    ├── UnknownModelError       no local model has this name
    ├── QueueFullError          too many are waiting, or the wait would be too long
    ├── QueueDeadlineError      the client's deadline passed while waiting
    ├── NotReadyError           the model is starting, off or refused
    ├── WorkerCrashedError      the worker process died
    └── EngineError             the engine could not compute

Each class has the stable `code` that goes on the wire and the HTTP `status` it maps to.
"""

from typing import ClassVar

MESSAGE_MAX_CHARS = 2000


class LocalError(Exception):
    """Something the local backend says no to.

    Args:
        message: What happened, whose fault, what to do.
        param: The request member at fault.
        retry_after_s: When asking again makes sense, in seconds.
    """

    code: ClassVar[str] = "local_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message[:MESSAGE_MAX_CHARS])
        self.message = message[:MESSAGE_MAX_CHARS]
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequestError(LocalError):
    """The request itself is wrong: messages, parameters, schema."""

    code: ClassVar[str] = "invalid_request"
    status: ClassVar[int] = 400


class ContextLengthError(LocalError):
    """Prompt and answer do not fit the slot."""

    code: ClassVar[str] = "context_length_exceeded"
    status: ClassVar[int] = 400


class UnknownModelError(LocalError):
    """No local model has this name."""

    code: ClassVar[str] = "local_unknown_model"
    status: ClassVar[int] = 404


class QueueFullError(LocalError):
    """Too many are waiting, or the wait would be longer than the client has."""

    code: ClassVar[str] = "local_queue_full"
    status: ClassVar[int] = 503


class QueueDeadlineError(LocalError):
    """The client's deadline passed while the request waited for a slot."""

    code: ClassVar[str] = "local_queue_deadline"
    status: ClassVar[int] = 503


class NotReadyError(LocalError):
    """The model is starting, off or refused."""

    code: ClassVar[str] = "local_not_ready"
    status: ClassVar[int] = 503


class WorkerCrashedError(LocalError):
    """The worker process died."""

    code: ClassVar[str] = "local_worker_crashed"
    status: ClassVar[int] = 503


class EngineError(LocalError):
    """The engine could not compute the answer."""

    code: ClassVar[str] = "local_engine_failed"
    status: ClassVar[int] = 500
