"""The windows that are measured and the bodies they send."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

MODEL = "bench-model"
MARKER = "mk-0000000000000000"
"""What the load client replaces by a marker of each request's own."""

BodyName = Literal["small", "large", "stream", "marked", "marked_stream"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One kind of load: so many connections, each asking again as soon as it has its answer."""

    name: str
    about: str
    connections: int
    window_s: float
    body: BodyName
    chunks: int = 0
    """Events of each stream; 0 for whole answers."""
    delay_us: int = 0
    """Mean gap between the events of a stream; 0 for a whole stream in one write."""


MODES = (
    Mode("c1", "1 KB body, 1 connection", 1, 2, "small"),
    Mode("c32", "1 KB body, 32 connections", 32, 3, "small"),
    Mode("c256", "1 KB body, 256 connections", 256, 3, "small"),
    Mode("large", "100 KB body, 32 connections", 32, 3, "large"),
    Mode("paced", "32 streams of 100 chunks, 20 ms apart", 32, 3, "stream", chunks=100, delay_us=20_000),
    Mode("burst", "32 streams of 100 chunks, each in one write", 32, 3, "stream", chunks=100),
    Mode("crossed", "32 connections, every request marked", 32, 1, "marked"),
    Mode("crossed-streams", "32 streams, every request marked", 32, 1, "marked_stream", chunks=20, delay_us=10_000),
)
WARM_UP = Mode("warm-up", "not measured", 32, 1, "small")
QUICK_WINDOW_S = 1.0


def shortened(mode: Mode) -> Mode:
    """The same load for a short window."""
    return replace(mode, window_s=min(mode.window_s, QUICK_WINDOW_S))


def write_bodies(folder: Path) -> None:
    """Write every body as `<name>.json`: the same bytes on every machine."""
    system = "You are a careful assistant that answers questions about logistics. "
    question = "Please explain how a warehouse schedules its trucks on a busy day, in detail and with numbers. "
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    small = _body(system * 4, [question * 4])
    bodies: dict[BodyName, dict[str, object]] = {
        "small": small,
        "large": _body(system * 4, [question * 105] * 11),
        "stream": small | streamed,
        "marked": _body(system * 4, [f"{MARKER} {question * 4}"]),
        "marked_stream": _body(system * 4, [f"{MARKER} {question * 4}"]) | streamed,
    }
    for name, body in bodies.items():
        (folder / f"{name}.json").write_text(json.dumps(body))


def _body(system: str, turns: list[str]) -> dict[str, object]:
    messages = [{"role": "system", "content": system}]
    for i, turn in enumerate(turns):
        messages.append({"role": "assistant" if i % 2 else "user", "content": turn})
    return {
        "model": MODEL,
        "messages": messages,
        "temperature": 0.7,
        "max_tokens": 256,
        "top_p": 1,
        "user": "user-1234",
    }
