"""What the dialects themselves cost, without sockets: decoding a chunk, encoding a request, finding an event."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.figures import Judgement, Status
from bench.wire import PIECES, openings, request_body, streams
from gateway.server.openai_request import decode_chat
from providers import DIALECTS
from providers.base import Capabilities, Endpoint
from providers.messages import TextDelta
from providers.sse import SseParser

REPEATS = 60
"""The fastest of so many runs counts: whatever disturbs a run only makes it slower."""
DECODE_MAX_US = 8.0
ENCODE_MAX_US = 40.0
SSE_MAX_US = 2.0
NOT_STREAMED = frozenset({"mindstudio", "litellm"})
"""Dialects without a wire stream of their own."""
ENDPOINT = Endpoint(
    id="p/up",
    provider="p",
    model="m",
    upstream_model="up",
    base_url="http://127.0.0.1:1/v1",
    context_tokens=32768,
    max_output_tokens=4096,
    capabilities=Capabilities(system=True, tools=True),
)


def measure_codecs(repeats: int = REPEATS) -> list[Judgement]:
    """Every dialect's cost against its bar, in microseconds."""
    judged: list[Judgement] = []
    chunks, opening = streams(), openings()
    request = decode_chat(request_body())
    for name in DIALECTS:
        if name not in NOT_STREAMED:
            cost_us = None if name not in chunks else _decode_us(name, chunks[name], opening.get(name, b""), repeats)
            judged.append(_judge(f"decode a chunk, {name}", DECODE_MAX_US, cost_us))
    for name, dialect in DIALECTS.items():
        encode = partial(dialect.encode, request, ENDPOINT, stream=name not in NOT_STREAMED)
        cost_us = _fastest_us(encode, repeats)
        judged.append(_judge(f"encode 20 messages, {name}", ENCODE_MAX_US, cost_us))
    judged.append(_judge("find an event (SSE)", SSE_MAX_US, _sse_us(chunks["openai"], repeats)))
    return judged


def _judge(name: str, limit: float, value: float | None) -> Judgement:
    status: Status = "not run" if value is None else "PASS" if value <= limit else "FAIL"
    return Judgement(name, "us", limit, None, value, status)


def _decode_us(name: str, chunks: list[bytes], opening: bytes, repeats: int) -> float:
    """Each chunk as a read of its own, as a paced stream has them."""
    decoder = DIALECTS[name].decoder(ENDPOINT, stream=True)
    decoder.feed(opening)
    events = [event for data in chunks for event in decoder.feed(data)]
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(texts) == "".join(PIECES), f"{name} was not understood"  # noqa: S101 (or the figure means nothing)

    def run() -> Callable[[], None]:
        fresh = DIALECTS[name].decoder(ENDPOINT, stream=True)
        fresh.feed(opening)
        feed = fresh.feed

        def decode() -> None:
            for data in chunks:
                feed(data)

        return decode

    return min(_once_us(run()) for _ in range(repeats)) / len(chunks)


def _sse_us(chunks: list[bytes], repeats: int) -> float:
    feed = SseParser().feed

    def parse() -> None:
        for data in chunks:
            feed(data)

    return min(_once_us(parse) for _ in range(repeats)) / len(chunks)


def _fastest_us(work: Callable[[], object], repeats: int, times: int = 50) -> float:
    def run() -> None:
        for _ in range(times):
            work()

    run()  # what is built at first use is not the cost of the next one
    return min(_once_us(run) for _ in range(repeats)) / times


def _once_us(work: Callable[[], None]) -> float:
    with _no_collector():
        started_ns = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - started_ns) / 1000


@contextmanager
def _no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
