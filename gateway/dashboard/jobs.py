"""What the gateway and the process beside it say to each other: one job, one reply, each a frame on a pipe."""

import struct
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.dashboard.answers import Reply
from gateway.dashboard.roles import Role
from gateway.observation import Observation, Quantiles

HEAD: Final = struct.Struct("!I")
"""The length of what follows."""
FRAME_MAX_BYTES: Final = 64 * 1024 * 1024
"""One job, or its reply."""
CHART: Final = "chart"
WHAT_IF: Final = "what-if"
OVERVIEW: Final = "overview"
ENDPOINTS: Final = "endpoints"


class Seen(Struct, frozen=True):
    """One Endpoint, as the event loop knows it."""

    id: str
    model: str
    provider: str
    context_tokens: int | None
    state: str
    off: str | None
    """Why it cannot answer now."""
    observation: Observation
    pace: Quantiles | None
    """Tokens per second."""


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look-up."""

    number: int
    what: str
    """Its path below the API."""
    query: bytes = b""
    role: Role = "viewer"
    unix_s: float = 0.0
    now_s: float = 0.0
    """The monotonic clock of the gateway."""
    labels: dict[str, str] = {}
    """Names of keys, by their public id."""
    seen: tuple[Seen, ...] = ()
    facts: dict[str, Any] = {}
    """Members of an overview that only the gateway knows."""
    body: bytes = b""
    """Of a chart, or a configuration."""


class Done(Struct, frozen=True):
    """What came of it."""

    number: int
    reply: Reply


_encode: Final = msgspec.msgpack.Encoder().encode


def frame(message: Job | Done) -> bytes:
    """A message as it goes over the pipe."""
    data = _encode(message)
    return HEAD.pack(len(data)) + data
