"""A Transport that carries nothing anywhere: it plays a script in place of a provider, and keeps its books."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from gateway.drill.scenarios import ANSWER, WELL, Act, Script
from gateway.drill.speech import said_after
from providers.base import Endpoint, WireRequest
from providers.errors import ConnectError, ProviderError, TruncatedError
from providers.pretence import EMPTY, PAGE, Pretender, Reply, Said, Spoken

CONNECT_S: Final = 0.02
BETWEEN_TOKENS_S: Final = 0.02
FOREVER_S: Final = 3600.0
"""Nobody waits that long: every limit is shorter."""
_IN_THE_MIDDLE: Final = frozenset({"cut", "hang_up", "stall", "garble", "fail"})
_LISTING: Final = Reply(200, {"content-type": "application/json"}, b'{"object":"list","data":[]}')


class Asked(Struct):
    """One request that reached a pretended provider, and what it bills for it."""

    endpoint: str
    at_s: float
    """Since the drill began."""
    act: Act
    streamed: bool
    prefill: str = ""
    """The text that it was asked to go on from."""
    refused_prefill: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    done: bool = False
    """All of the answer was sent."""


class Stage:
    """Where one scenario is played: who is asked first is the primary.

    Args:
        primary: What the first provider asked does.
        others: What all others do.
    """

    def __init__(self, primary: Script, others: Script = WELL) -> None:
        self._primary = primary
        self._others = others
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self.asked: list[Asked] = []
        """Every request for an answer, in order."""
        self.probes = 0
        """Requests that cost nothing: how are you."""
        self.unsayable: str | None = None
        """An Endpoint that was to refuse in a way in which no provider of its kind refuses."""

    @property
    def primary(self) -> str | None:
        """Who was asked first."""
        return self.asked[0].endpoint if self.asked else None

    def elapsed_s(self) -> float:
        """Since the scenario began."""
        return self._loop.time() - self._began_s

    def tries(self, endpoint_id: str | None) -> int:
        """How often somebody was asked."""
        return sum(asked.endpoint == endpoint_id for asked in self.asked)

    def ask(self, endpoint: Endpoint, request: WireRequest, prefill: str) -> tuple[Asked, Script]:
        """Note a request; gives the entry, with what is to happen, and whose script says so."""
        first = self.primary in (None, endpoint.id)
        script = self._primary if first else self._others
        act = script.act(self.tries(endpoint.id), self.elapsed_s())
        asked = Asked(endpoint.id, self.elapsed_s(), act, request.stream, prefill)
        self.asked.append(asked)
        return asked, script

    def probe(self, endpoint: Endpoint) -> bool:
        """Note a question that costs nothing; gives whether all is well."""
        self.probes += 1
        script = self._primary if self.primary in (None, endpoint.id) else self._others
        return script.act(self.tries(endpoint.id), self.elapsed_s()) == ANSWER


class HostileTransport:
    """Plays one Endpoint's provider. It has the shape of every Transport."""

    def __init__(self, stage: Stage, endpoint: Endpoint, pretender: Pretender) -> None:
        self._stage = stage
        self._endpoint = endpoint
        self._pretender = pretender

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> "HostileResponse":  # noqa: ARG002 (part of the seam)
        """As a provider would answer.

        Raises:
            ProviderError: ConnectError or TruncatedError, where the script has the connection break.
        """
        await asyncio.sleep(CONNECT_S)
        if request.method != "POST":
            well = self._stage.probe(self._endpoint)
            return HostileResponse(_LISTING if well else Reply(503, {}, b""))
        asked, script = self._stage.ask(self._endpoint, request, self._pretender.prefill(request.body))
        refusal = self._refuse(asked, script)
        if refusal is not None:
            return HostileResponse(refusal)
        if asked.act.does == "silence":
            await asyncio.sleep(asked.act.wait_s)
        if asked.act.does in ("reset", "silence"):
            raise ConnectError("the connection was reset before any answer")
        said = said_after(asked.prefill, self._endpoint.upstream_model)
        if request.stream and self._pretender.streams:
            return self._streamed(asked, said)
        return await self._whole(asked, said)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _refuse(self, asked: Asked, script: Script) -> Reply | None:
        """The answer of a provider that does not even begin; None where it begins."""
        act = asked.act
        if asked.prefill and not (script.takes_prefill and self._endpoint.capabilities.prefill):
            refusal = self._pretender.refuse("prefill")
            asked.refused_prefill = refusal is not None
            if refusal is not None:
                return refusal
        if act.does == "empty":
            return EMPTY
        if act.does == "page":
            return PAGE
        if act.does == "garble" and self._pretender.garble() is None:
            self._stage.unsayable = self._endpoint.id
        if act.does != "refuse":
            return None
        refusal = self._pretender.refuse(act.trouble)
        if refusal is None:
            self._stage.unsayable = self._endpoint.id
        elif act.retry_after is not None:
            return Reply(refusal.status, {**refusal.headers, "retry-after": act.retry_after}, refusal.body)
        return refusal

    def _streamed(self, asked: Asked, said: Said) -> "HostileResponse":
        spoken = self._pretender.stream(said)
        if asked.act.does == "fail" and not asked.act.after_tokens:
            body = self._pretender.fail_inside(stream=True)
            return HostileResponse(Reply(200, spoken.headers, b""), iter([_Step(body, asked.act.wait_s)]))
        steps = _limited(_steps(asked.act, spoken, self._pretender), asked.act, len(spoken.whole))
        asked.input_tokens = said.input_tokens
        return HostileResponse(Reply(200, spoken.headers, b""), steps, asked)

    async def _whole(self, asked: Asked, said: Said) -> "HostileResponse":
        """A whole answer: what would happen in the middle of a stream happens before anybody sees any of it."""
        act = asked.act
        if act.does == "fail":
            reply = self._pretender.whole(said)
            return HostileResponse(Reply(200, reply.headers, self._pretender.fail_inside(stream=False)))
        await asyncio.sleep(act.wait_s)
        if act.does == "stall":
            await asyncio.sleep(FOREVER_S)
        if act.does in ("cut", "hang_up", "stall"):
            raise TruncatedError("the connection broke before the answer was complete")
        await asyncio.sleep(BETWEEN_TOKENS_S * len(said.pieces))
        asked.input_tokens, asked.output_tokens, asked.done = said.input_tokens, said.output_tokens, True
        return HostileResponse(self._pretender.whole(said))


class _Step(Struct, frozen=True):
    """What comes next over a connection."""

    data: bytes
    after_s: float = 0.0
    error: ProviderError | None = None
    """Instead of bytes."""
    tokens: int = 0
    """How many tokens of the answer it brings."""
    last: bool = False
    """It completes the answer."""


def _steps(act: Act, spoken: Spoken, pretender: Pretender) -> Iterator[_Step]:
    """A stream as its script has it."""
    if spoken.opening:
        yield _Step(spoken.opening)
    wait_s = act.wait_s
    for place, piece in enumerate(spoken.pieces):
        if place == act.after_tokens and act.after_share is None and act.does in _IN_THE_MIDDLE:
            yield from _trouble(act, pretender)
            if act.does != "garble":
                return
        yield _Step(piece, wait_s, tokens=1)
        wait_s = BETWEEN_TOKENS_S
    yield _Step(spoken.closing, wait_s, last=True)
    if act.does == "stay_open":
        yield _Step(b"", FOREVER_S)
    elif act.does != "no_end" and spoken.end:
        yield _Step(spoken.end)


def _trouble(act: Act, pretender: Pretender) -> Iterator[_Step]:
    if act.does == "garble":
        yield _Step(pretender.garble() or b"")
    elif act.does == "fail":
        yield _Step(pretender.fail_inside(stream=True))
    elif act.does != "hang_up":
        yield _Step(b"", FOREVER_S if act.does == "stall" else 0.0, _cut())


def _cut() -> ProviderError:
    return TruncatedError("the connection broke before the answer was complete")


def _limited(steps: Iterator[_Step], act: Act, size_bytes: int) -> Iterator[_Step]:
    """The same in other pieces, or up to a byte."""
    left = None if act.after_share is None else int(act.after_share * size_bytes)
    for step in steps:
        data = step.data if left is None else step.data[:left]
        size = act.read_bytes or max(1, len(data))
        for start in range(0, max(1, len(data)), size):
            piece = data[start : start + size]
            ends = start + size >= len(step.data)
            yield _Step(
                piece, step.after_s if start == 0 else 0.0, step.error, step.tokens * ends, last=step.last and ends
            )
        if left is not None:
            left -= len(data)
            if left <= 0:
                yield _Step(b"", 0.0, _cut())
                return


class HostileResponse:
    """An answer whose bytes come when the script says so."""

    def __init__(self, reply: Reply, steps: Iterator[_Step] | None = None, asked: Asked | None = None) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self.body: bytes | None = reply.body if steps is None else None
        self._steps = steps
        self._asked = asked
        """The entry that is kept up as the bytes go out."""

    async def read(self) -> bytes:
        """The next bytes, `b""` after the last.

        Raises:
            ProviderError: TruncatedError, where the script has the connection break.
        """
        while self._steps is not None and (step := next(self._steps, None)) is not None:
            if step.after_s > 0:
                await asyncio.sleep(step.after_s)
            if step.error is not None:
                self._steps = None
                raise step.error
            if self._asked is not None:
                self._asked.output_tokens += step.tokens
                self._asked.done = self._asked.done or step.last
            if step.data:
                return step.data
        return b""

    def close(self, *, ended: bool = False) -> None:  # noqa: ARG002 (part of the seam)
        """Nobody reads on."""
        self._steps = None
