"""What both anchors do to a request and its answer: rewrite the model name, read the usage of every answer and chunk.

Frozen: see bench/README.md before changing a line.
"""

import os
from typing import Any

from msgspec.json import decode, encode

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:9000")
UPSTREAM_KEY = "sk-upstream"
MODELS = {"bench-model": "mock-model-upstream"}
NOT_FOUND = b'{"error":{"message":"model not found","type":"invalid_request_error"}}'
STATS = {"requests": 0, "prompt": 0, "completion": 0}


def prepare(body: bytes) -> tuple[bytes, bool] | None:
    """The body for the upstream and whether a stream is wanted, or `None` for a model that nobody serves."""
    document = decode(body)
    upstream_model = MODELS.get(document.get("model"))
    if upstream_model is None:
        return None
    document["model"] = upstream_model
    return encode(document), document.get("stream") is True


def finish(body: bytes) -> bytes:
    """Count the usage of a whole answer; the bytes go on as they are."""
    usage = decode(body).get("usage")
    if usage:
        _count(usage)
    return body


class UsageReader:
    """Parses the JSON of every event of a stream; the bytes themselves are relayed unchanged."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Parse the events that these bytes complete."""
        if self._rest:
            data = self._rest + data
        events = data.split(b"\n\n")
        self._rest = events.pop()
        for event in events:
            if event.startswith(b"data: ") and not event.startswith(b"data: [DONE]"):
                usage = decode(event[6:]).get("usage")
                if usage:
                    _count(usage)


def _count(usage: dict[str, Any]) -> None:
    STATS["requests"] += 1
    STATS["prompt"] += usage["prompt_tokens"]
    STATS["completion"] += usage["completion_tokens"]
