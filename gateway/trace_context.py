"""W3C trace context: which trace a request belongs to, and what its providers are told of it.

https://www.w3.org/TR/trace-context/. Ids follow from the generation id, so that nothing has to be kept until the spans
are made at the end of the request. `tracestate` is neither read nor sent: it is the business of whoever wrote it.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

from msgspec import Struct

TRACEPARENT: Final = "traceparent"
TRACEPARENT_MAX_CHARS: Final = 128
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SHARE_BITS: Final = 56


class TraceContext(Struct, frozen=True, gc=False):
    """Where a request stands in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    parent_id: str | None
    """16 of them: the client's span; None: the trace begins here."""
    sampled: bool
    """Whether its spans are exported."""


class Propagator:
    """Decides what is traced.

    Args:
        sample: Share of the traces begun here that are exported, 0 to 1. Others are, or are not, as their clients say.
    """

    __slots__ = ("_limit",)

    def __init__(self, sample: float) -> None:
        self._limit = round(sample * (1 << _SHARE_BITS))

    def context(self, generation_id: str, traceparent: str) -> TraceContext:
        """Of one request.

        Args:
            generation_id: The request's id.
            traceparent: The client's header; what is none counts as not sent.
        """
        given = read_traceparent(traceparent) if traceparent else None
        if given is not None:
            return given
        digest = blake2b(generation_id.encode(), digest_size=16)
        share = int.from_bytes(digest.digest()[-_SHARE_BITS // 8 :])
        return TraceContext(digest.hexdigest(), None, share < self._limit)


def trace_headers(
    propagator: Propagator | None, generation_id: str, traceparent: str
) -> Callable[[int], Mapping[str, str]] | None:
    """What each Attempt of a request tells its provider, by the Attempt's number; None: nothing."""
    if propagator is None:
        return None
    context = propagator.context(generation_id, traceparent)
    flags = "01" if context.sampled else "00"

    def of(number: int) -> Mapping[str, str]:
        return {TRACEPARENT: f"00-{context.trace_id}-{span_id(generation_id, number)}-{flags}"}

    return of


def span_id(generation_id: str, number: int) -> str:
    """The id of an Attempt's span; that of the request itself under number 0."""
    return blake2b(f"{generation_id}/{number}".encode(), digest_size=8).hexdigest()


def read_traceparent(text: str) -> TraceContext | None:
    """What a header says; None where it says nothing that the standard knows."""
    found = _FORM.fullmatch(text) if len(text) <= TRACEPARENT_MAX_CHARS else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, parent_id, bool(int(flags, 16) & 1))
