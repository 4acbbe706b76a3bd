"""Which request is being worked on: what the log adds to every line that is written meanwhile."""

from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final[ContextVar[str]] = ContextVar("mixgate.request_id", default="")
"""The generation id; empty outside a request. Tasks that a request starts inherit it."""
