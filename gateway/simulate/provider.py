"""A pretended provider: a Transport for one Endpoint that serves, refuses, stalls and hangs up as its Behaviour says.

It keeps a log of all that it was asked and its own bill: what the gateway says about itself is judged by these.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec
from msgspec import Struct

from gateway.simulate import answers
from gateway.simulate.dice import Dice
from gateway.simulate.scripts import Manner, Script, Step, script_of
from gateway.simulate.texts import MESSAGE_TOKENS, PROMPT_CHARS_PER_TOKEN, TOKEN_CHARS, VARIANTS, answer_text, number_in
from gateway.simulate.world import Behaviour, Fault, Job, TroubleKind, true_price
from gateway.virtual_time import START_UNIX_S
from providers.base import Endpoint, WireRequest
from providers.errors import ConnectError, ProviderError, TruncatedError

CONNECT_S: Final = 0.002
"""How long a refused connection takes."""
REFUSAL_S: Final = 0.03
"""How long an answer with an error status takes."""
PIECE_MAX_S: Final = 2.0
"""A stream that goes on is never silent for longer."""
MINUTE_S: Final = 60.0
SLOW_FACTOR: Final = 5.0
OVERLOAD_SHARE: Final = 0.5

Fate = Literal["running", "answered", "refused", "broken", "dropped"]
"""How a request to a provider ended. broken: the provider failed. dropped: the gateway hung up."""

_FORCED: Final[Mapping[TroubleKind, Fault]] = {
    "down": "refused",
    "errors": "http500",
    "silent": "silent",
    "unauthorised": "http401",
    "gone": "http404",
    "cuts": "cut",
}
_STATUSES: Final[Mapping[str, tuple[int, str, str | None]]] = {
    "http500": (500, "internal error", None),
    "http502": (502, "bad gateway", None),
    "http503": (503, "overloaded", None),
    "http529": (529, "overloaded", "overloaded_error"),
    "http401": (401, "invalid key", "invalid_api_key"),
    "http404": (404, "no such model", "model_not_found"),
}


class Received(Struct):
    """One request that a provider was sent. Its log has these in the order in which they came."""

    job: int
    endpoint: str
    at_s: float
    place: int
    """Its place among all requests to all providers."""
    nth: int
    """1 for the first of this client's request at this Endpoint."""
    stream: bool
    fate: Fate = "running"
    cause: str = ""
    """The status or the fault, where it was not answered."""
    prefill: str = ""
    """What it was given to go on from."""
    before: str = ""
    """What stands around `text` on the wire, where the answer is JSON: in front of it."""
    after: str = ""
    text: str = ""
    """What it handed over so far."""
    input_tokens: int = 0
    output_tokens: int = 0
    ended_s: float | None = None
    closed: bool = False
    """The gateway gave its response back."""
    responded: bool = False
    """The gateway was given a response, which it must close."""
    served: bool = False
    """It counts against the provider's limit."""
    stay_away_s: float = 0.0
    """How long it asked us to stay away."""
    cost_in_pusd: int = 0


class _Message(Struct):
    role: str = ""
    content: str | None = None


class _Body(Struct):
    messages: list[_Message] = []
    max_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")


_read_body: Final = msgspec.json.Decoder(_Body).decode


class Response:
    """An answer on its way: steps to hand over, each after a while."""

    __slots__ = ("_position", "_provider", "_received", "_steps", "body", "headers", "status")

    def __init__(self, provider: "Provider", received: Received, script: Script, body: bytes | None = None) -> None:
        self.status = script.status
        self.headers = script.headers
        self.body = body
        self._provider = provider
        self._received = received
        self._steps = script.steps
        self._position = 0
        received.responded = True

    async def read(self) -> bytes:
        """The next bytes, `b""` at the end."""
        received = self._received
        if received.closed or self._position >= len(self._steps):
            self._provider.end(received, "answered")
            return b""
        step = self._steps[self._position]
        self._position += 1
        await _pass_time(step)
        received.text += step.text
        received.output_tokens += step.tokens
        if step.error is not None:
            self._provider.end(received, "broken")
            raise step.error
        if step.last:
            self._provider.end(received, "broken" if received.cause else "answered")
        return step.data

    def close(self, *, ended: bool = False) -> None:  # noqa: ARG002 (part of the seam)
        """The gateway has no more use for it."""
        self._received.closed = True
        self._provider.end(self._received, "dropped")


class Provider:
    """Serves one Endpoint. `unavailable` and `in_flight` tell a judge how it really is."""

    def __init__(
        self, endpoint: Endpoint, behaviour: Behaviour, jobs: Mapping[int, Job], seed: int, places: Iterator[int]
    ) -> None:
        self.endpoint = endpoint
        self.behaviour = behaviour
        self.log: list[Received] = []
        self.in_flight = 0
        self._price = true_price(endpoint, behaviour)
        self._jobs = jobs
        self._places = places
        self._luck = (seed, sum(ord(letter) << (8 * (place % 7)) for place, letter in enumerate(endpoint.id)))
        self._times: dict[int, int] = defaultdict(int)
        self._minute: deque[float] = deque()
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> Response:  # noqa: ARG002 (the seam's)
        """Answer as this provider does.

        Raises:
            ProviderError: It refused the connection, or hung up.
        """
        number = number_in(request.body)
        self._times[number] += 1
        now_s = self._loop.time()
        received = Received(number, self.endpoint.id, now_s, next(self._places), self._times[number], request.stream)
        self.log.append(received)
        self.in_flight += 1
        try:
            return await self._serve(request, received, now_s)
        except ProviderError:
            self.end(received, "broken")
            raise
        except asyncio.CancelledError:
            self.end(received, "dropped")
            raise

    async def aclose(self) -> None:
        """Nothing is open that its Response does not know of."""

    def end(self, received: Received, fate: Fate) -> None:
        """It is over, for the first reason that is given."""
        if received.fate == "running":
            received.fate = fate
            received.ended_s = self._loop.time()
            self.in_flight -= 1
            price = self._price
            received.cost_in_pusd = (
                received.input_tokens * (price.input_in_pusd or 0)
                + received.output_tokens * (price.output_in_pusd or 0)
                + (price.request_in_pusd or 0 if received.input_tokens else 0)
            )

    def forced(self, now_s: float) -> Fault | None:
        """What goes wrong with every request at this moment."""
        for kind in self.troubles(now_s):
            if kind in _FORCED:
                return _FORCED[kind]
        return None

    def troubles(self, now_s: float) -> list[TroubleKind]:
        """What it suffers from at this moment of the loop's clock."""
        since_s = now_s - self._start_s
        return [one.kind for one in self.behaviour.troubles if one.start_s <= since_s < one.end_s]

    def capacity(self, now_s: float) -> int | None:
        """How many requests at the same time it bears."""
        limit = self.behaviour.concurrency
        if self.behaviour.troubles and "brownout" in self.troubles(now_s):
            return max(1, (limit or 6) // 3)
        return limit

    def full_for_s(self, now_s: float) -> float | None:
        """How long there is no room for one more; None where there is."""
        capacity, rate = self.capacity(now_s), self.behaviour.requests_per_min
        if rate is not None:
            while self._minute and self._minute[0] <= now_s - MINUTE_S:
                self._minute.popleft()
            if len(self._minute) >= rate:
                return self._minute[0] + MINUTE_S - now_s
        if capacity is not None and self.in_flight > capacity:
            return 1.0
        return None

    def would_answer(self, job: Job, at_s: float) -> bool:
        """Whether this request would have been answered here, had it come first at that moment. For afterwards."""
        fault = self._forced_or_drawn(Dice(*self._luck, job.number, 1), at_s)
        if fault is not None and fault != "garbled":
            return False
        busy = sum(1 for one in self.log if one.job != job.number and one.at_s <= at_s < (one.ended_s or at_s))
        capacity, rate = self.capacity(at_s), self.behaviour.requests_per_min
        served = 0 if rate is None else sum(1 for one in self.log if one.served and at_s - MINUTE_S < one.at_s < at_s)
        return (capacity is None or busy < capacity) and (rate is None or served < rate)

    async def _serve(self, request: WireRequest, received: Received, now_s: float) -> Response:
        job, behaviour = self._jobs[received.job], self.behaviour
        dice = Dice(*self._luck, received.job, received.nth)
        fault = self._forced_or_drawn(dice, now_s)
        if fault == "refused":
            received.cause = fault
            await asyncio.sleep(CONNECT_S)
            raise ConnectError("connection refused")
        if fault in ("reset", "silent"):
            received.cause = fault
            if fault == "silent":
                await self._loop.create_future()  # for ever: only the gateway's own limits end this
            await asyncio.sleep(behaviour.ttft_s * dice.unit())
            raise TruncatedError("the provider hung up in the middle of its answer")
        body = _read_body(request.body)
        refused = await self._refuse(body, received, job, fault, now_s)
        if refused is not None:
            return refused
        if behaviour.requests_per_min is not None:
            self._minute.append(now_s)
        received.served = True
        slow = SLOW_FACTOR if behaviour.troubles and "slow" in self.troubles(now_s) else 1.0
        median_s = behaviour.slow_ttft_s if dice.chance(behaviour.slow_share) else behaviour.ttft_s
        ttft_s = dice.around(median_s, behaviour.spread) * slow
        seconds_per_token = slow / dice.around(behaviour.tokens_per_s, behaviour.spread / 2)
        script = self._write(body, received, dice, fault, max(1, int(PIECE_MAX_S / seconds_per_token)))
        if request.stream:
            script.set_times(seconds_per_token)
            await asyncio.sleep(ttft_s)
            return Response(self, received, script)
        await asyncio.sleep(ttft_s + seconds_per_token * script.tokens)
        return await self._whole(received, script)

    async def _whole(self, received: Received, script: Script) -> Response:
        parts: list[bytes] = []
        for step in script.steps:
            if step.silent:
                await self._loop.create_future()
            if step.error is not None:
                raise step.error
            parts.append(step.data)
            received.text += step.text
            received.output_tokens += step.tokens
        self.end(received, "broken" if received.cause else "answered")
        return Response(self, received, script, b"".join(parts))

    def _forced_or_drawn(self, dice: Dice, now_s: float) -> Fault | None:
        behaviour = self.behaviour
        if behaviour.troubles:
            forced = self.forced(now_s)
            if forced is not None:
                return forced
            if "overload" in self.troubles(now_s) and dice.chance(OVERLOAD_SHARE):
                return "http503"
        if behaviour.faults:
            drawn = dice.unit()
            for fault, share in behaviour.faults:
                drawn -= share
                if drawn < 0:
                    return fault
        return None

    async def _refuse(
        self, body: _Body, received: Received, job: Job, fault: Fault | None, now_s: float
    ) -> Response | None:
        """An answer with an error status, where this request gets one."""
        headers: Mapping[str, str] = answers.JSON_HEADERS
        full_for_s = self.full_for_s(now_s)
        if fault is not None and fault in _STATUSES:
            status, message, code = _STATUSES[fault]
        elif full_for_s is not None:
            now_unix_s = START_UNIX_S + now_s - self._start_s
            more, stay_away_s = answers.retry_headers(self.behaviour.retry_after, full_for_s, now_unix_s)
            headers = {**headers, **more}
            # The head is only there after a while, and that is when the gateway begins to count.
            received.stay_away_s = stay_away_s + REFUSAL_S
            status, message, code = 429, "too many requests", "rate_limit_exceeded"
        elif job.kind == "forbidden":
            status, message, code = 400, "flagged by our content policy", "content_policy_violation"
        else:
            return await self._refuse_form(body, received)
        return await self._say_no(received, headers, status, message, code)

    async def _refuse_form(self, body: _Body, received: Received) -> Response | None:
        received.input_tokens = sum(
            MESSAGE_TOKENS - (-len(message.content or "") // PROMPT_CHARS_PER_TOKEN) for message in body.messages
        )
        fits = self.behaviour.context_tokens or self.endpoint.context_tokens
        if fits is not None and received.input_tokens + (body.max_tokens or 1) > fits:
            wanted, received.input_tokens = received.input_tokens, 0
            message = f"maximum context length is {fits} tokens, your prompt has {wanted}"
            return await self._say_no(received, answers.JSON_HEADERS, 400, message, "context_length_exceeded")
        if body.messages[-1].role == "assistant":
            received.prefill = body.messages[-1].content or ""
            if self.behaviour.refuses_prefill:
                received.input_tokens = 0
                message = "assistant prefill is not supported by this model"
                return await self._say_no(received, answers.JSON_HEADERS, 400, message, "unsupported_value")
        return None

    async def _say_no(
        self, received: Received, headers: Mapping[str, str], status: int, message: str, code: str | None
    ) -> Response:
        received.cause = str(status)
        self.end(received, "refused")  # it takes no room from those that are served
        await asyncio.sleep(REFUSAL_S)
        data = answers.refusal(message, code)
        if not received.stream:
            return Response(self, received, Script(status, headers, []), data)
        return Response(self, received, Script(status, headers, [Step(data, last=True)]))

    def _write(self, body: _Body, received: Received, dice: Dice, fault: Fault | None, piece_max_tokens: int) -> Script:
        """All that it is going to say."""
        job = self._jobs[received.job]
        prefilled = len(received.prefill)
        limits = (body.max_tokens, self.endpoint.max_output_tokens)
        wanted = max(0, job.output_tokens - prefilled // TOKEN_CHARS)
        tokens = min(wanted, *(limit for limit in limits if limit is not None)) if any(limits) else wanted
        variant = self.behaviour.variant
        for known in range(VARIANTS):  # a model goes on in the style of what it is given
            if prefilled and answer_text(job, known, job.output_tokens).startswith(received.prefill):
                variant = known
        text = answer_text(job, variant, job.output_tokens)[prefilled : prefilled + tokens * TOKEN_CHARS]
        manner = Manner(
            stream=received.stream,
            native_call=bytes(body.tools).startswith(b"["),
            reason="stop" if tokens == wanted else "length",
            input_tokens=received.input_tokens,
            says_done=self.behaviour.says_done,
            piece_max_tokens=piece_max_tokens,
        )
        script = script_of(job, text, dice, fault, manner)
        received.before, received.after, received.cause = script.before, script.after, script.cause
        return script


async def _pass_time(step: Step) -> None:
    if step.silent:
        await asyncio.get_running_loop().create_future()
    if step.after_s > 0:
        await asyncio.sleep(step.after_s)
