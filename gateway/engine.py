"""One request: Plan -> Attempts -> Events. The only control flow over attempts.

The commit point is the first content event handed to the client of a stream; `Answer.committed` is that one boolean.
Before it a retryable failure moves on to the next candidate and nothing of the failed attempt is seen; after it a
failure ends the answer with an error, never with silence. A whole answer is handed over at its end, so it commits last.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.attempts import ATTEMPTS_MAX, Attempt, Limits, Outcome
from gateway.errors import InvalidRequestError, NoEndpointError, most_useful
from gateway.routing.plan import Plan
from gateway.upstream import Upstream
from gateway.watch import Watch
from providers.base import Decoder, Endpoint, WireRequest, WireResponse
from providers.elsewhere import may_follow
from providers.emulation import Emulation, Repair, emulate
from providers.errors import (
    AnswerElsewhereError,
    FirstTokenTimeoutError,
    GarbledError,
    ProviderError,
    ServerError,
    StalledError,
    TruncatedError,
)
from providers.json_values import count_structure
from providers.messages import CONTENT_EVENTS, AnswerFailed, ChatRequest, ChoiceFinished, Event, UsageReported
from providers.schema_validation import BadSchemaError, complaint

ERROR_BODY_MAX_BYTES: Final = 64 * 1024
HELD_EVENTS_MAX: Final = 200_000
"""Events of a stream that are kept back before any may be sent."""
BODY_MAX_BYTES: Final = 32 * 1024 * 1024
BODY_STRUCTURE_MAX: Final = 1_000_000
"""Commas, braces and brackets in a whole body. Three bytes of JSON can take a hundred bytes of memory."""


class Answer:
    """The answer to one request, on its way through its Plan. Call `next` until it gives nothing."""

    __slots__ = (
        "_complete",
        "_decoder",
        "_emulation",
        "_errors",
        "_failure",
        "_held",
        "_left",
        "_limits",
        "_position",
        "_repair",
        "_response",
        "_unfinished",
        "_unix_time_s",
        "_upstreams",
        "_watch",
        "attempts",
        "committed",
        "plan",
        "request",
        "stream",
    )

    def __init__(
        self,
        request: ChatRequest,
        plan: Plan,
        upstreams: Mapping[str, Upstream],
        *,
        limits: Limits,
        unix_time_s: Callable[[], float],
        loop: asyncio.AbstractEventLoop | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.request = request
        self.plan = plan
        self.stream = bool(request.stream)
        self.attempts: list[Attempt] = []
        self.committed = False
        self._upstreams = upstreams
        self._limits = limits
        self._unix_time_s = unix_time_s
        self._watch = Watch(limits.total_timeout_s, loop or asyncio.get_running_loop(), task)
        self._position = 0
        self._response: WireResponse | None = None
        self._decoder: Decoder | None = None
        self._emulation: Emulation | None = None
        self._repair: Emulation | None = None
        self._held: list[Event] = []
        self._errors: list[ProviderError] = []
        self._failure: ProviderError | None = None
        self._complete = False
        self._unfinished = 0
        self._left: _Allowance | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The Endpoint that is answering, or answered last."""
        return self.attempts[-1].endpoint

    @property
    def complete(self) -> bool:
        """Whether the events handed over last were the last ones."""
        return self._complete

    @property
    def skipped_chunks(self) -> int:
        """Unreadable chunks that were passed over in this answer."""
        return 0 if self._decoder is None else self._decoder.skipped_chunks

    async def next(self) -> Sequence[Event]:
        """The next events of the answer; none when it is complete.

        Raises:
            MixgateError: No candidate could answer, or the answer broke off after it was committed.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return ()
            if self._response is None:
                await self._open_next()
                continue
            events = await self._read()
            if events and isinstance(events[-1], AnswerFailed):
                self._end_failed(events.pop())
                if not self.committed:
                    self._held.clear()
                    continue
            if self._held or not self.committed:
                events = self._hold(events)
                if events and isinstance(events[-1], AnswerFailed):  # an emulation that came to nothing
                    self._complete = False
                    self._end_failed(events.pop())
                    continue
            if events:
                return events

    def close(self) -> None:
        """Stop, wherever it is. Idempotent. A client that left is nobody's failure."""
        self._watch.disarm()
        if self._response is not None:
            self._response.close()
            self._response = None
        if self.attempts and self.attempts[-1].outcome == "running":
            self._settle("cancelled", "cancelled")

    def _hold(self, events: list[Event]) -> list[Event]:
        """Keep events back until there is content to commit to (stream) or the answer is complete (whole, emulated)."""
        self._held.extend(events)
        if self._complete:
            return self._settle_held()
        if len(self._held) > HELD_EVENTS_MAX:
            self._held.clear()
            return [AnswerFailed(GarbledError("the provider sent too many steps of an answer"))]
        streaming = self.stream and self._emulation is None
        if streaming and any(isinstance(event, CONTENT_EVENTS) for event in events):
            self.committed = True
            if self._unfinished > 0:
                self._watch.arm(self._limits.idle_timeout_s, StalledError)
            held, self._held = self._held, []
            return held
        return []

    def _settle_held(self) -> list[Event]:
        """All events of a complete answer; nothing where its emulation wants to ask once more."""
        held, self._held = self._held, []
        if self._emulation is None:
            self.committed = True
            return held
        try:
            settled = self._emulation.settle(held, complaint)
        except BadSchemaError as error:
            param = "tools" if "tools" in self._emulation.emulated else "response_format"
            raise InvalidRequestError(str(error), param=param) from error
        if isinstance(settled, Repair):
            self._repair = msgspec.structs.replace(self._emulation, request=settled.request, repaired=True)
            self._complete = False
            return []
        self.committed = not (settled and isinstance(settled[-1], AnswerFailed))
        return settled

    async def _open_next(self) -> None:
        """Start the next Attempt.

        Raises:
            MixgateError: There is none left.
        """
        endpoint = self._next_endpoint()
        upstream = self._upstreams[endpoint.id]
        emulation = self._emulation
        asked = self.request if emulation is None else emulation.request
        attempt = Attempt(len(self.attempts) + 1, endpoint, self._watch.now_s())
        attempt.emulated = () if emulation is None else emulation.emulated
        self.attempts.append(attempt)
        try:
            wire = upstream.authorize(upstream.dialect.encode(asked, endpoint, stream=self.stream))
            attempt.adapted = wire.adapted
            if upstream.signer is not None:
                wire = await upstream.signer.sign(wire, now_unix_s=self._unix_time_s())
            response = await self._send(wire, upstream)
        except ProviderError as error:
            self._end_failed(AnswerFailed(error))
            return
        attempt.upstream_status = response.status
        upstream.note_limits(response.headers, attempt.started_s, self._unix_time_s)
        if 200 <= response.status < 300:
            self._response = response
            self._unfinished = asked.n or 1
            # A server that answers a stream's request with one JSON body is understood all the same.
            as_stream = self.stream and not response.headers.get("content-type", "").startswith("application/json")
            self._left = None if as_stream or response.body is not None else _Allowance()
            self._decoder = upstream.dialect.decoder(endpoint, stream=as_stream, headers=response.headers)
            return
        self._response = response
        body = await self._read_error(response)
        meaning = upstream.dialect.error(response.status, response.headers, body, now_unix_s=self._unix_time_s())
        self._end_failed(AnswerFailed(meaning))

    def _next_endpoint(self) -> Endpoint:
        """Whom to ask now: the same again for a repair, else the next candidate.

        Raises:
            MixgateError: There is none left.
        """
        if self._repair is not None:
            self._emulation, self._repair = self._repair, None
            return self.endpoint
        candidates = self.plan.candidates
        if self._position >= min(len(candidates), ATTEMPTS_MAX) or (self._errors and self._watch.is_over()):
            raise most_useful(self._errors) if self._errors else NoEndpointError("nothing is left to ask")
        endpoint = candidates[self._position]
        self._position += 1
        self._emulation = emulate(self.request, endpoint.capabilities) if self.plan.emulate else None
        return endpoint

    async def _send(self, wire: WireRequest, upstream: Upstream) -> WireResponse:
        others = self._position < min(len(self.plan.candidates), ATTEMPTS_MAX)
        limits = self._limits
        if not wire.stream:
            limit_s = limits.whole_timeout_s
        else:
            limit_s = limits.first_token_timeout_s if others else limits.last_first_token_timeout_s
        self._watch.arm(limit_s, FirstTokenTimeoutError)
        sending = upstream.transport.send(wire, connect_timeout_s=upstream.connect_timeout_s)
        return await self._watch.guard(sending)

    async def _read(self) -> list[Event]:
        """The next events of the running Attempt."""
        response, decoder = self._response, self._decoder
        assert response is not None  # noqa: S101 (next() opened it)
        assert decoder is not None  # noqa: S101 (next() opened it)
        data = response.body
        if data is not None:
            if len(data) > BODY_STRUCTURE_MAX and not _Allowance().covers(data):
                return [AnswerFailed(GarbledError(_TOO_MUCH))]
            events = decoder.feed(data)
        else:
            try:
                data = await self._watch.guard(response.read())
            except ProviderError as error:
                if self._unfinished > 0:
                    return [AnswerFailed(error)]
                data = b""  # every choice has its finish reason: nothing that matters can be missing
            if self._left is not None and not self._left.covers(data):
                return [AnswerFailed(GarbledError(_TOO_MUCH))]
            events = decoder.feed(data) if data else []
            if events and self._unfinished > 0:
                self._note_progress(events)
            if data and not decoder.ended:
                return events
        failure = self._end_of_body(decoder, events)
        if failure is not None and isinstance(failure.error, AnswerElsewhereError):
            return events[:-1] + await self._follow(failure.error)
        if failure is None:
            response.close(ended=True)
            self._response = None
            self._complete = True
            self._watch.disarm()
            self._settle("ok", None)
        return events

    def _end_of_body(self, decoder: Decoder, events: list[Event]) -> AnswerFailed | None:
        """Add what the end of the body means to `events`; gives the failure among them, if there is one."""
        last = decoder.finish()
        events += last
        if events and isinstance(events[-1], AnswerFailed):
            return events[-1]
        if not self._misses_choices(decoder, last):
            return None
        failure = AnswerFailed(TruncatedError("the provider's stream ended before every choice was complete"))
        events.append(failure)
        return failure

    def _misses_choices(self, decoder: Decoder, last: list[Event]) -> bool:
        """Whether a stream of several choices stopped, without saying that this was all, before each had its end."""
        if not self.stream or decoder.ended or (self.request.n or 1) == 1:
            return False
        if any(one.param == "n" and one.action == "dropped" for one in self.attempts[-1].adapted):
            return False
        return self._unfinished > sum(type(event) is ChoiceFinished for event in last)

    def _note_progress(self, events: list[Event]) -> None:
        """The provider goes on; once every choice is finished, only the end may still come, and soon."""
        self._watch.progress()
        # While several choices run, the end of one may come before more of another.
        if self._unfinished > 1 or type(events[-1]) in _MAY_FINISH:
            self._unfinished -= sum(type(event) is ChoiceFinished for event in events)
            if self._unfinished <= 0:
                self._watch.arm(self._limits.after_finish_timeout_s, StalledError)

    async def _follow(self, elsewhere: AnswerElsewhereError) -> list[Event]:
        """Go on reading at a URL that the provider gave: once, and only where it is configured to leave answers."""
        attempt = self.attempts[-1]
        if attempt.followed or not may_follow(elsewhere.url, attempt.endpoint):
            return [AnswerFailed(elsewhere)]
        attempt.followed = True
        upstream = self._upstreams[attempt.endpoint.id]
        if self._response is not None:
            self._response.close(ended=True)
        # Without our key: whoever keeps the answer is not who the key is for.
        wire = WireRequest(url=elsewhere.url, body=b"", headers={"accept": "application/json"}, method="GET")
        try:
            self._response = response = await self._send(wire, upstream)
        except ProviderError as error:
            return [AnswerFailed(error)]
        if response.status != 200:
            message = f"the answer that the provider left elsewhere could not be fetched (HTTP {response.status})"
            return [AnswerFailed(ServerError(message, upstream_status=response.status))]
        self._decoder = upstream.dialect.decoder(attempt.endpoint, stream=False, headers=response.headers)
        return []

    async def _read_error(self, response: WireResponse) -> bytes:
        """What a non-2xx answer says, as far as it is worth reading."""
        if response.body is not None:
            return response.body[:ERROR_BODY_MAX_BYTES]
        parts: list[bytes] = []
        size_bytes = 0
        try:
            while size_bytes < ERROR_BODY_MAX_BYTES and (data := await self._watch.guard(response.read())):
                parts.append(data)
                size_bytes += len(data)
        except ProviderError:
            pass  # its status alone decides; what it still had to say was cut off
        return b"".join(parts)

    def _end_failed(self, event: Event) -> None:
        """Book a failed Attempt, and decide whether the next candidate may try."""
        assert isinstance(event, AnswerFailed)  # noqa: S101 (the caller looked)
        error = event.error
        if not isinstance(error, ProviderError):
            error = ServerError("the provider's answer could not be understood")
        self._upstreams[self.attempts[-1].endpoint.id].redact(error)
        self._watch.disarm()
        if self._response is not None:
            self._response.close()
            self._response = None
        self._errors.append(error)
        self._settle("failed", error.code)
        if self.committed or not error.retryable:
            self._failure = error

    def _settle(self, outcome: Outcome, code: str | None) -> None:
        attempt = self.attempts[-1]
        attempt.outcome = outcome
        attempt.code = code
        attempt.duration_s = self._watch.now_s() - attempt.started_s


class _Allowance:
    """How much of one whole body is still acceptable. Streams are judged event by event instead."""

    __slots__ = ("_size_bytes", "_structure")

    def __init__(self) -> None:
        self._size_bytes = BODY_MAX_BYTES
        self._structure = BODY_STRUCTURE_MAX

    def covers(self, data: bytes) -> bool:
        """Take these bytes off. False once it is too much."""
        self._size_bytes -= len(data)
        self._structure -= count_structure(data)
        return self._size_bytes >= 0 and self._structure >= 0


_TOO_MUCH = "the provider's answer is larger than any answer is"

_MAY_FINISH = frozenset({ChoiceFinished, UsageReported})
"""What the events of a last chunk end with."""
