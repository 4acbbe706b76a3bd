"""One chat completion over HTTP: body in, answer out, whole or as a stream of server-sent events."""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import msgspec

from gateway.answer import Answer
from gateway.errors import RestingError, ShuttingDownError
from gateway.reused import AnyAnswer, cut
from gateway.server.answer_head import header_block
from gateway.server.cache_headers import Headers, cache_headers
from gateway.server.client import Client
from gateway.server.errors import error_answer, error_headers
from gateway.server.metadata import availability, names_of, openrouter_metadata
from gateway.server.openai_answer import PING, AnswerHead, ChunkEncoder, error_chunk, whole_answer
from providers.errors import MixgateError
from providers.messages import AnswerStarted, Event, Usage

DROPPED_MAX_CHARS: Final = 1000
LINES_MAX: Final = 1024
"""Endpoints whose lines in an answer's head are kept."""
_JSON_LINE: Final = b"content-type: application/json\r\n"
_NOT_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
"""Members of a request may have any name; a header may not."""
PING_FIRST_S: Final = 15.0
PING_EVERY_S: Final = 10.0
"""Silence after which a waiting client is told that we are still here; proxies in between cut silent connections."""


class ChatReply:
    """Writes one answer to one client."""

    __slots__ = (
        "_answer",
        "_client",
        "_created_unix_s",
        "_id",
        "_include_usage",
        "_openrouter",
        "_pinging",
        "_rates",
        "_sending",
        "_started",
        "_timer",
        "_wants_metadata",
        "usage",
    )

    def __init__(
        self,
        answer: AnyAnswer,
        client: Client,
        *,
        generation_id: str,
        created_unix_s: int,
        openrouter: bool,
        wants_metadata: bool = False,
        rates: Headers = (),
    ) -> None:
        self._rates = rates
        self._wants_metadata = wants_metadata
        self._answer = answer
        self._client = client
        self._id = generation_id
        self._created_unix_s = created_unix_s
        self._openrouter = openrouter
        options = answer.request.stream_options
        # OpenRouter always sends usage, and its clients rely on that.
        self._include_usage = openrouter or bool(options is not None and options.include_usage)
        self._started = False
        self._sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._pinging: asyncio.Task[None] | None = None
        self.usage: Usage | None = None
        """What the provider counted last, once the answer is complete."""

    def whole(self, events: Sequence[Event]) -> Awaitable[None] | None:
        """Answer with one JSON body; gives what has to be waited for, if anything has.

        Args:
            events: All of the answer.
        """
        answer = self._answer
        attempt = answer.attempt
        assert attempt is not None  # noqa: S101 (it answered)
        body = whole_answer(self._head(), events, self._notes(), self._metadata(), answer.cost_in_nusd)
        if attempt.adapted or answer.clamped_tokens is not None or self._rates or not isinstance(answer, Answer):
            block = _JSON_LINE + header_block(self._explain())
        else:
            # The same as that, at a fifth of the cost.
            tries = str(len(answer.attempts)).encode()
            who = _endpoint_line(attempt.endpoint.id)
            block = b"%bx-generation-id: %b\r\n%bx-mixgate-attempts: %b\r\n" % (
                _JSON_LINE,
                self._id.encode(),
                who,
                tries,
            )
        self.usage = attempt.usage
        return self._client.put(200, block, body)

    async def stream(self) -> None:
        """Answer with server-sent events. No head before the first content or the first ping.

        Raises:
            MixgateError: There is no answer and nothing has been sent; later failures are told in-band.
        """
        self._timer = asyncio.get_running_loop().call_later(PING_FIRST_S, self._ping_soon)
        try:
            await self._stream_events()
        except MixgateError as error:
            if not self._started:
                raise
            await self.fail(error)
        finally:
            self._timer.cancel()
            if self._pinging is not None:
                self._pinging.cancel()

    async def fail(self, error: MixgateError) -> None:
        """Tell the client that there is no answer, or no rest of it."""
        answer = self._answer
        why_nobody = None
        if isinstance(error, RestingError) and self._openrouter:
            plan = answer.plan
            now_s = asyncio.get_running_loop().time()
            why_nobody = availability(
                plan.excluded, requested=names_of(answer.request), resting=plan.resting, now_s=now_s
            )
        metadata = self._metadata()
        body = error_answer(error, answer.attempts, metadata=metadata, availability=why_nobody)
        if not self._started:
            block = header_block((*error_headers(error), *self._explain()))
            waiting = self._client.put(error.status, block, body)
            if waiting is not None:
                await waiting
            return
        chunk = error_chunk(body, self._head() if self._openrouter else None, error, metadata)
        await self._client.send({"type": "http.response.body", "body": chunk})

    async def shut_down(self) -> None:
        """The drain limit has passed: end the answer now, and say so."""
        error = ShuttingDownError("the gateway is shutting down; ask again", retry_after_s=1)
        cut(self._answer, error)
        await self.fail(error)

    async def _stream_events(self) -> None:
        answer = self._answer
        events = await answer.next()
        started = next((event for event in events if isinstance(event, AnswerStarted)), None)
        encoder = ChunkEncoder(
            self._head(),
            include_usage=self._include_usage,
            started=started,
            announce_usage=not self._openrouter,
            notes=self._notes,
        )
        while not answer.complete:
            if data := encoder.encode(events):
                await self._write(data)
            events = await answer.next()
        last = encoder.encode(events)
        self.usage = encoder.usage
        if not self._started:  # a stream is framed as one, even when it comes all at once
            await self._write(last)
            last = b""
        await self._write(last + encoder.end(self._notes(), self._metadata(), answer.cost_in_nusd), more=False)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        self._sending = True
        if not self._started:
            self._started = True
            await self._client.send({"type": "http.response.start", "status": 200, "headers": self._stream_headers()})
        await self._client.send({"type": "http.response.body", "body": data, "more_body": more})
        self._sending = False

    def _ping_soon(self) -> None:
        """The timer fired: ping, unless something is on its way anyway, and look again later."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PING_EVERY_S, self._ping_soon)
        if not self._sending:
            self._pinging = loop.create_task(self._write(PING))

    def _notes(self) -> dict[str, Any]:
        """What a client should know of how its answer came about; empty when it came as asked."""
        answer = self._answer
        attempt, skipped_chunks = answer.attempt, answer.skipped_chunks
        notes: dict[str, Any] = {}
        if skipped_chunks:
            notes["skipped_chunks"] = skipped_chunks
        if attempt is not None and attempt.emulated:
            notes["emulated"] = list(attempt.emulated)
        if answer.compressed is not None:
            notes["compressed"] = {
                "dropped_messages": answer.compressed.dropped_messages,
                "cut_texts": answer.compressed.cut_texts,
            }
        if answer.rescued is not None:
            notes["rescued"] = msgspec.to_builtins(answer.rescued)
        return notes

    def _metadata(self) -> dict[str, Any] | None:
        """OpenRouter's account of the routing, where the client asked for it."""
        answer = self._answer
        if not self._wants_metadata or (answer.complete and not answer.attempts):  # nobody was asked: it is given again
            return None
        return openrouter_metadata(
            answer.plan, answer.attempts, requested=names_of(answer.request)[0], compressed=answer.compressed
        )

    def _head(self) -> AnswerHead:
        endpoint = self._answer.endpoint
        return AnswerHead(self._id, self._created_unix_s, endpoint.model, endpoint.provider)

    def _stream_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *self._explain(),
        ]

    def _explain(self) -> list[tuple[bytes, bytes]]:
        """Which request this is, and who answered after how many tries."""
        headers = [(b"x-generation-id", self._id.encode())]
        headers += self._rates
        headers += cache_headers(self._answer)
        attempt = self._answer.attempt
        if attempt is not None:
            headers += (_who(attempt.endpoint.id), (b"x-mixgate-attempts", b"%d" % len(self._answer.attempts)))
            dropped = ",".join(one.param for one in attempt.adapted if one.action == "dropped")
            if self._answer.clamped_tokens is not None:
                headers.append((b"x-mixgate-max-tokens-clamped", b"%d" % self._answer.clamped_tokens))
            if dropped:
                headers.append(
                    (b"x-mixgate-dropped-params", _NOT_PRINTABLE.sub("?", dropped[:DROPPED_MAX_CHARS]).encode())
                )
        return headers


_known_lines: dict[str, bytes] = {}


def _endpoint_line(endpoint_id: str) -> bytes:
    """The line of an answer's head that says who answered."""
    line = _known_lines.get(endpoint_id)
    if line is None:
        if len(_known_lines) >= LINES_MAX:
            _known_lines.clear()
        line = _known_lines[endpoint_id] = header_block([_who(endpoint_id)])
    return line


def _who(endpoint_id: str) -> tuple[bytes, bytes]:
    return b"x-mixgate-endpoint", endpoint_id.encode("ascii", "replace")
