"""What one routed request costs in process: the application, the decision and the HTTP client, without a socket.

Three Endpoints under `balanced` that all answer well. The upstream is a connection that hands the same answer to the
client's own parser, so what is left is our code and the event loop.
"""

import asyncio
import cProfile
import gc
import io
import json
import pstats
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.figures import Judgement, Status
from bench.modes import MODEL, write_bodies
from bench.tools import BenchError
from gateway.app import Gateway
from gateway.config.load import load
from gateway.explain.trace import Sink, Trace
from gateway.server.run import GC_THRESHOLD
from gateway.server.scope import FIELDS, HOST, LOOPBACK, ON_DISCONNECT, SEND_WHOLE
from gateway.trace_context import Propagator
from gateway.tracing.export import QUEUE_MAX
from providers.http_connection import Connection, Pool
from providers.http_transport import HttpTransport, Origin

REPEATS = 40
"""The fastest of so many batches counts: whatever disturbs one only makes it slower."""
LIMIT_US = 36.0
"""Of the loop's own thread, with a record of its decision: a quarter more than before there was anything to decide."""
WATCHED_LIMIT_US = 10.0
"""What metrics and traces may add to that."""
BATCH = 500
AT_ONCE = 20
KEPT = 4000
"""Requests of the run that the store's own thread is counted in: less than its queue holds."""
FLUSH_MAX_S = 10.0
FUNCTIONS_SHOWN = 45
ENDPOINTS = ("one", "two", "three")
ANSWER = {
    "id": "chatcmpl-9XQ2mVb3kLJ1cY7pT0aRz5uWnE4hG",
    "object": "chat.completion",
    "created": 1763760000,
    "model": "upstream-model",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "The quick brown fox jumps over the lazy dog, and then it sits down by the river. " * 2,
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 187,
        "completion_tokens": 33,
        "total_tokens": 220,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_3f58d112f7",
}
_CONTENT = json.dumps(ANSWER).encode()
WHOLE_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_8a3f7c21d9\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_CONTENT), _CONTENT)
)

Batch = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU for one request."""

    plain_us: float
    """Of the loop's thread, without the store."""
    stored_us: float
    """Of the loop's thread, with a record of each decision."""
    booked_us: float
    """Of the loop's thread, with the ledger too."""
    all_us: float
    """Of all threads: that of the store packs, compresses and writes."""
    watched_us: float = 0.0
    """Of the loop's thread, with the ledger, metrics and traces."""


def measure_in_process(repeats: int = REPEATS) -> Costs:
    """What a request costs. The fastest batch counts."""
    with tempfile.TemporaryDirectory() as home:
        return uvloop.run(_measure(Path(home), repeats))


def judge_in_process(costs: Costs) -> list[Judgement]:
    """Against the bar."""
    cost_us = costs.stored_us
    status: Status = "PASS" if cost_us <= LIMIT_US else "FAIL"
    more_us = costs.watched_us - costs.booked_us
    watched: Status = "PASS" if more_us <= WATCHED_LIMIT_US else "FAIL"
    return [
        Judgement("a routed request, its record included", "us", LIMIT_US, None, cost_us, status),
        Judgement("metrics and traces, more than without", "us", WATCHED_LIMIT_US, None, more_us, watched),
    ]


def profile_in_process(requests: int = KEPT) -> str:
    """The functions of a request by their own time."""

    async def run(home: Path) -> cProfile.Profile:
        batch = await _warm_batches(_gateway(home), home)
        with cProfile.Profile() as profile:
            await batch(requests)
        return profile

    with tempfile.TemporaryDirectory() as home:
        profile = uvloop.run(run(Path(home)))
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(FUNCTIONS_SHOWN)
    return text.getvalue()


async def _measure(home: Path, repeats: int) -> Costs:
    gateway = _gateway(home)
    batch = await _warm_batches(gateway, home)
    plain_us = await _fastest_us(batch, repeats, gateway)
    await gateway.start()
    engine = gateway.engine
    try:
        books, engine.books = engine.books, None
        watching, engine.sink = engine.sink, gateway.watching.store
        stored_us = await _fastest_us(batch, repeats, gateway)
        assert books is not None  # noqa: S101 (it was started)
        engine.books, books.on_settled = books, None
        booked_us = await _fastest_us(batch, repeats, gateway)
        all_us = await _all_us(gateway, batch)
        books.on_settled, engine.sink = gateway.watching.meter.settled, _Traced(watching)
        engine.propagator = Propagator(1.0)
        watched_us = await _fastest_us(batch, repeats, gateway)
        return Costs(plain_us, stored_us, booked_us, all_us, watched_us)
    finally:
        await gateway.aclose()


class _Traced:
    """Hands Traces to a queue, as the exporter's beside the store is."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self._queue: deque[Trace] = deque(maxlen=QUEUE_MAX)

    def put(self, trace: Trace, /) -> bool:
        """A request is over."""
        self._queue.append(trace)
        return self._sink is None or self._sink.put(trace)


async def _fastest_us(batch: Batch, repeats: int, gateway: Gateway) -> float:
    """Of the loop's own thread, in the fastest of several batches."""
    best_ns = float("inf")
    for _ in range(repeats):
        started_ns = time.thread_time_ns()
        await batch(BATCH)
        best_ns = min(best_ns, (time.thread_time_ns() - started_ns) / BATCH)
        _flush(gateway)
    return best_ns / 1000


async def _all_us(gateway: Gateway, batch: Batch) -> float:
    """Of all threads, until every record is in the file."""
    started_ns = time.process_time_ns()
    await batch(KEPT)
    _flush(gateway)
    return (time.process_time_ns() - started_ns) / KEPT / 1000


def _flush(gateway: Gateway) -> None:
    """Have every record so far in the file: one that is dropped costs less."""
    store = gateway.watching.store
    if store is not None and (not store.flush(FLUSH_MAX_S) or store.dropped):
        raise BenchError("the store did not keep every record, so the figure would mean nothing")


async def _warm_batches(gateway: Gateway, home: Path) -> Batch:
    """What runs so many requests, some at once. Garbage is collected as in the server from here on."""
    write_bodies(home)
    scope = _scope()
    body = {"type": "http.request", "body": (home / "small.json").read_bytes(), "more_body": False}
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return body

    async def send(message: MutableMapping[str, Any]) -> None:
        raise BenchError(f"the answer was not sent whole: {message}")

    async def send_whole(status: int, _block: bytes, _body: bytes) -> None:
        statuses.add(status)

    async def batch(requests: int) -> None:
        for _ in range(requests // AT_ONCE):
            # The server makes a scope for each request too.
            scopes = [scope | {SEND_WHOLE: send_whole} for _ in range(AT_ONCE)]
            await asyncio.gather(*[gateway.application(one, receive, send) for one in scopes])

    await batch(BATCH)
    if statuses != {200}:
        raise BenchError(f"requests were answered with {statuses}, so the figure would mean nothing")
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    return batch


def _scope() -> dict[str, Any]:
    fields = {
        b"host": b"127.0.0.1:8099",
        b"authorization": b"Bearer client-key-of-the-benchmark",
        b"content-type": b"application/json",
        b"content-length": b"830",
    }
    own = {FIELDS: fields, HOST: "127.0.0.1", LOOPBACK: True, ON_DISCONNECT: lambda _callback: None}
    return {"type": "http", "path": "/v1/chat/completions", "method": "POST"} | own


def _gateway(home: Path) -> Gateway:
    model = {"serves": MODEL, "context_tokens": 32768, "price": {"input": 1, "output": 2}}
    provider = {"dialect": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": "env:PROVIDER_KEY"}
    # JSON is YAML.
    configured = {
        "gateway": {"client_keys": ["env:CLIENT_KEY"]},
        "providers": {name: provider | {"models": {"upstream-model": model}} for name in ENDPOINTS},
    }
    path = home / "providers.yaml"
    path.write_text(json.dumps(configured))
    gateway = Gateway(
        load(path, {"CLIENT_KEY": "client-key-of-the-benchmark", "PROVIDER_KEY": "provider-key-of-the-benchmark"}), home
    )
    transport = _Transport()
    for upstream in gateway.live.fleet().upstreams.values():
        upstream.transport = transport
    return gateway


class _Wire(asyncio.Transport):
    """What a connection writes to: it is answered in the loop's next round."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        super().__init__()
        self._loop = loop
        self._connection = connection

    def write(self, _data: object) -> None:
        self._loop.call_soon(self._connection.data_received, WHOLE_ANSWER)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _Transport(HttpTransport):
    """The real client but for the socket."""

    async def _connect(
        self, _origin: Origin, pool: Pool, _timeout_s: float, loop: asyncio.AbstractEventLoop
    ) -> Connection:
        connection = Connection(pool, loop)
        connection.connection_made(_Wire(loop, connection))
        return connection
