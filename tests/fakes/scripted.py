"""A scripted provider on raw sockets: every byte, pause and reset is the test's choice. Its log and bill are oracles.

A Script is a coroutine that plays one exchange through its `Talk`. What the gateway asks without paying for
(`GET /models`, `/health`) is answered and kept apart, in `probes`.
"""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.provider import PRICE_INPUT_PUSD, PRICE_OUTPUT_PUSD

PROMPT_TOKENS = 7
LINE_MAX_BYTES = 64 * 1024 * 1024


@dataclass
class Call:
    """One request as it arrived, and what became of it. Times are `time.monotonic()`."""

    at_s: float
    connection: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    left_s: float | None = None
    """When the gateway hung up before the script was through."""
    over_s: float | None = None
    written_bytes: int = 0
    output_tokens: int = 0


class Talk:
    """One exchange from the provider's side."""

    def __init__(self, provider: "Scripted", call: Call, writer: asyncio.StreamWriter) -> None:
        self.provider = provider
        self.call = call
        self.keep = True
        self._writer = writer
        self._chunked = False

    async def raw(self, data: bytes) -> None:
        """These bytes, on the wire when it returns."""
        self._writer.write(data)
        await self._writer.drain()
        self.call.written_bytes += len(data)

    async def head(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        """Status line and headers of a body in chunks; `retry_after` becomes `retry-after`."""
        self._chunked = True
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def send(self, data: bytes) -> None:
        """A piece of the body."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def whole(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode() + body)

    def reset(self) -> None:
        """RST, now."""
        reset(self._writer)
        self.keep = False

    def close(self) -> None:
        """FIN, wherever the body is."""
        self._writer.close()
        self.keep = False

    def bill(self, prompt: int, output: int) -> None:
        self.call.output_tokens += output
        self.provider.billed_pusd += prompt * PRICE_INPUT_PUSD + output * PRICE_OUTPUT_PUSD


Script = Callable[[Talk], Awaitable[None]]


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Scripted:
    """Plays `scripts` in order, the last one for ever; or the one that `by_path` has for the request's path."""

    scripts: list[Script]
    by_path: dict[str, Script] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    probes: list[Call] = field(default_factory=list)
    connections: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    billed_pusd: int = 0
    port: int = 0
    wrong_prefixes: list[str] = field(default_factory=list)
    """Texts that it was asked to go on from and that are not the start of its own."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def running(self) -> int:
        """Exchanges that the gateway has not given up and the script not ended."""
        return sum(call.over_s is None for call in self.calls)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        self.connections += 1
        number = self.connections
        self.open.add(writer)
        if writer.get_extra_info("ssl_object") is None:  # whose flow control never wakes up from this
            writer.transport.set_write_buffer_limits(high=0)  # so that `drain` means sent
        try:
            while (call := await self._read(reader, number)) is not None:
                talk = Talk(self, call, writer)
                if not await self._play(talk, reader) or not talk.keep:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Call | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = line.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        call = Call(time.monotonic(), connection, path, headers, json.loads(raw) if raw else {})
        (self.calls if method == "POST" else self.probes).append(call)
        return call

    async def _play(self, talk: Talk, reader: asyncio.StreamReader) -> bool:
        """Run the script while watching whether the gateway hangs up; gives whether the connection still lives."""
        call = talk.call
        if call in self.probes:
            await talk.whole(200, b'{"object":"list","data":[]}', "application/json", {})
            return True
        script = self.by_path.get(call.path)
        if script is None:
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        playing = asyncio.ensure_future(script(talk))
        watching = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not playing.done() and not _told(watching):
                call.left_s = time.monotonic()
            return playing.done()
        finally:
            call.over_s = time.monotonic()
            for task in (playing, watching):
                task.cancel()
            for outcome in await asyncio.gather(playing, watching, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                    raise outcome


def _told(watching: "asyncio.Future[bytes]") -> bool:
    with suppress(ConnectionError):
        return bool(watching.result())
    return False


@asynccontextmanager
async def scripted(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """A provider that listens while the block runs."""
    provider = Scripted(list(scripts) or [tells()])
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=LINE_MAX_BYTES, backlog=1024, ssl=tls)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        for writer in tuple(provider.open):
            writer.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)


# ---- what it says

_PIECES = (
    "One",
    " and",
    " and",
    " ha",
    "ha",
    "ha",
    " \u20ac5",
    ".\n\n",
    " \u65e5\u672c",
    ",",
    " the",
    " the",
    '"q"',
    " ",
)


def story(count: int = 60) -> tuple[str, ...]:
    """A text in tokens, always the same. It repeats itself, so a seam that is merely trimmed shows."""
    return tuple(f" n{place}" if place % 10 == 9 else _PIECES[place % len(_PIECES)] for place in range(count))


STORY = story()
TEXT = "".join(STORY)


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, model: str = "scripted", **members: Any) -> bytes:
    choices = [] if "usage" in members else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    head = {"id": "chatcmpl-s", "object": "chat.completion.chunk", "created": 1, "model": model}
    return b"data: %b\n\n" % json.dumps({**head, "choices": choices, **members}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Tells:
    """Tells a text token by token, with everything that can go wrong on the way."""

    tokens: tuple[str, ...] = STORY
    prefill: str = "ignored"
    """When asked to go on from a start: `ignored` (tells all of it anew), `refused`, or goes on in this dialect's way
    (`openai`: a trailing assistant message; `mistral`: that with `prefix: true`, refused without)."""
    model: str = "scripted"
    late_s: float = 0.0
    """Silence after the head, before the first token."""
    gap_s: float = 0.0
    """Between tokens."""
    stop_after: int | None = None
    """After so many tokens: `how`."""
    how: str = "reset"
    """`reset`, `close` (FIN in mid-body), `end` (a body that is complete as HTTP), `stall`, `error` (in band)."""
    garble: tuple[int, ...] = ()
    """Before these tokens comes a chunk that is no JSON."""
    done: bool = True
    hold_s: float = 0.0
    """Holds the connection open behind the last byte of the body, before its end."""
    usage: bool = True
    finish: str = "stop"

    async def __call__(self, talk: Talk) -> None:
        start = await self._start(talk)
        if start is None:
            return
        text = "".join(self.tokens)[start:]
        tokens = _tail(self.tokens, start)
        counted = {
            "prompt_tokens": PROMPT_TOKENS + len(self.tokens) - len(tokens),
            "completion_tokens": len(tokens),
            "total_tokens": PROMPT_TOKENS + len(self.tokens),
        }
        talk.bill(counted["prompt_tokens"], 0)
        if not talk.call.body.get("stream"):
            talk.bill(0, len(tokens))
            await asyncio.sleep(self.late_s)
            await self._tell_whole(talk, text, counted)
            return
        await talk.head()
        await asyncio.sleep(self.late_s)
        if not await self._tell(talk, tokens):
            return
        await talk.send(chunk({}, self.finish, self.model))
        if self.usage:
            await talk.send(chunk({}, model=self.model, usage=counted))
        if self.done:
            await talk.send(b"data: [DONE]\n\n")
        await asyncio.sleep(self.hold_s)
        await talk.end()

    async def _start(self, talk: Talk) -> int | None:
        """Where in the text it begins; None when it refused."""
        last = talk.call.body["messages"][-1]
        if last["role"] != "assistant" or self.prefill == "ignored":
            return 0
        if self.prefill == "refused" or (self.prefill == "mistral" and last.get("prefix") is not True):
            said = (
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
            if self.prefill == "mistral":
                said = "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
            await fails(400, {"error": {"message": said, "type": "invalid_request_error", "code": None}})(talk)
            return None
        prefix = last["content"]
        if not "".join(self.tokens).startswith(prefix):
            talk.provider.wrong_prefixes.append(prefix)
        return len(prefix)

    async def _tell(self, talk: Talk, tokens: tuple[str, ...]) -> bool:
        await talk.send(chunk({"role": "assistant", "content": ""}, model=self.model))
        for place, token in enumerate(tokens):
            if place in self.garble:
                await talk.send(b'data: {"id": "chatcmpl-s", "choi\n\n')
            if place == self.stop_after:
                await self._stop(talk)
                return False
            talk.bill(0, 1)
            await talk.send(chunk({"content": token}, model=self.model))
            if self.gap_s:
                await asyncio.sleep(self.gap_s)
        if self.stop_after is not None and self.stop_after >= len(tokens):
            await self._stop(talk)
            return False
        return True

    async def _stop(self, talk: Talk) -> None:
        await asyncio.sleep(0.01)
        if self.how == "reset":
            talk.reset()
        elif self.how == "close":
            talk.close()
        elif self.how == "end":
            await talk.end()
        elif self.how == "error":
            await talk.send(b'data: {"error": {"message": "out of luck", "code": 502}}\n\n')
            await talk.end()
        else:
            await asyncio.sleep(3600)

    async def _tell_whole(self, talk: Talk, text: str, counted: dict[str, int]) -> None:
        message = {"role": "assistant", "content": text}
        body = {
            "id": "chatcmpl-s",
            "object": "chat.completion",
            "created": 1,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            "usage": counted,
        }
        await talk.whole(200, json.dumps(body).encode(), "application/json", {})


tells = Tells


def _tail(tokens: tuple[str, ...], start: int) -> tuple[str, ...]:
    """The tokens from that character on; the one that it cuts begins there."""
    if start == 0:
        return tokens
    rest, place = [], 0
    for token in tokens:
        if place + len(token) > start:
            rest.append(token[max(0, start - place) :])
        place += len(token)
    return tuple(rest)


def fails(status: int, body: Any = None, **headers: str) -> Script:
    """An error; a dict goes as JSON, text as a web page. `retry_after="2"` is a header."""

    async def script(talk: Talk) -> None:
        said = {"error": {"message": f"scripted {status}", "type": "x", "code": None}} if body is None else body
        data, kind = (said.encode(), "text/html") if isinstance(said, str) else (json.dumps(said).encode(), _JSON)
        await talk.whole(status, data, kind, {name.replace("_", "-"): value for name, value in headers.items()})

    return script


_JSON = "application/json"


def resets(after_bytes: bytes = b"") -> Script:
    """RST before any header, or behind these bytes."""

    async def script(talk: Talk) -> None:
        if after_bytes:
            await talk.raw(after_bytes)
            await asyncio.sleep(0.01)
        talk.reset()

    return script


def silent(seconds: float = 3600.0, *, head: bool = False) -> Script:
    """Nothing at all, or nothing behind the head."""

    async def script(talk: Talk) -> None:
        if head:
            await talk.head()
        await asyncio.sleep(seconds)
        talk.close()

    return script


def streams(*parts: bytes | float) -> Script:
    """These pieces of an event stream; a number is a pause in seconds."""

    async def script(talk: Talk) -> None:
        await talk.head()
        for part in parts:
            if isinstance(part, bytes):
                await talk.send(part)
            else:
                await asyncio.sleep(part)
        await talk.end()

    return script
