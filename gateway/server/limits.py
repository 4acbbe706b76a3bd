"""Every bound of the HTTP edge, each a named value with its unit."""

from msgspec import Struct

KIB = 1024
MIB = 1024 * KIB

REQUEST_LINE_MAX_BYTES = 8 * KIB
HEADER_LINE_MAX_BYTES = 8 * KIB
HEADERS_MAX_COUNT = 64
HEAD_MAX_BYTES = 32 * KIB
"""Request line, header lines and the empty line together."""
CONTENT_LENGTH_MAX_DIGITS = 18
"""More digits than any body has; keeps `int()` away from hostile numbers."""


class Limits(Struct, frozen=True):
    """How long and how much a client may take. Shortened by tests, never by a request."""

    head_s: float = 10.0
    """From the connection, or from the first byte of a later request, to the end of its headers."""
    body_s: float = 30.0
    """From the end of the headers to the end of the body, plus the time that its bytes earn."""
    body_bytes_per_s: int = 256 * KIB
    """Each so many bytes received earn the body one second more."""
    idle_s: float = 75.0
    """A keep-alive connection between two requests."""
    write_stall_s: float = 30.0
    """A client that reads nothing at all while our buffer for it is full."""
    linger_s: float = 2.0
    """After a refusal: how long what the client still sends is thrown away, so that it can read the refusal."""
    linger_max_bytes: int = 64 * MIB
    sweep_s: float = 0.5
    """How often the deadlines are looked at; a connection is cut at most two such periods late, never early."""
    body_max_bytes: int = 20 * MIB
    bodies_max_bytes: int = 256 * MIB
    """All bodies together that are still being received."""
    pipeline_max_bytes: int = 64 * KIB
    """Bytes kept of later requests while one is being answered; reading pauses beyond."""
    unread_max_bytes: int = 64 * KIB
    """Body bytes received before the application asks for the body; reading pauses beyond."""
    connections_max: int = 8192


DEFAULT_LIMITS = Limits()
