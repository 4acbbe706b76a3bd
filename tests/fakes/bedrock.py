"""A scripted Bedrock on a real socket, and the encoder of its event streams."""

import asyncio
import base64
import json
import struct
from binascii import crc32
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

REQUEST_ID = "5aaaa521-d2c6-4980-ba0a-7bba19633a40"


def frame(payload, **headers):
    """One message of an event stream; `message_type="event"` becomes the header `:message-type`."""
    head = b""
    for name, value in headers.items():
        key = b":" + name.replace("_", "-").encode()
        text = value.encode()
        head += struct.pack("!B", len(key)) + key + b"\x07" + struct.pack("!H", len(text)) + text
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    start = prelude + struct.pack("!I", crc32(prelude))
    message = start + head + body
    return message + struct.pack("!I", crc32(message))


def event(name, payload):
    return frame(payload, event_type=name, content_type="application/json", message_type="event")


def exception(name, message):
    return frame({"message": message}, exception_type=name, content_type="application/json", message_type="exception")


def text_events(*pieces, reason="end_turn", usage=None, padding="abc"):
    """A ConverseStream of one text: text blocks have no start, usage comes last."""
    return [
        event("messageStart", {"role": "assistant", "p": padding}),
        *(
            event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}, "p": padding})
            for piece in pieces
        ),
        event("contentBlockStop", {"contentBlockIndex": 0, "p": padding}),
        event("messageStop", {"stopReason": reason, "p": padding}),
        event("metadata", {"metrics": {"latencyMs": 3}, "usage": usage or tokens(7, 5), "p": padding}),
    ]


def tokens(read, written):
    return {"inputTokens": read, "outputTokens": written, "totalTokens": read + written}


def answer(*blocks, reason="end_turn", usage=None):
    """A whole Converse answer."""
    return {
        "output": {"message": {"role": "assistant", "content": list(blocks)}},
        "stopReason": reason,
        "usage": usage or tokens(7, 5),
        "metrics": {"latencyMs": 310},
    }


def chunk(*, text="", reason=None, metrics=None):
    """One event of InvokeModelWithResponseStream for Mistral's models."""
    said = {"outputs": [{"text": text, "stop_reason": reason}]}
    if metrics is not None:
        said["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": metrics[0], "outputTokenCount": metrics[1]}
    return event(
        "chunk", {"bytes": base64.b64encode(json.dumps(said, ensure_ascii=False).encode()).decode(), "p": "ab"}
    )


@dataclass
class Asked:
    """One request as it arrived: its path exactly as sent."""

    path: str
    headers: dict
    body: dict
    raw: bytes


@dataclass
class FakeBedrock:
    """Answers with `replies` in order, the last one for ever: a dict, a list of frames, or (status, name, text)."""

    replies: list
    requests: list = field(default_factory=list)
    base_url: str = ""
    pause_s: float = 0.0

    async def handle(self, request):
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Asked(request.raw_path, headers, json.loads(raw), raw))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        known = {"x-amzn-requestid": REQUEST_ID}
        if isinstance(reply, tuple):
            status, name, text = reply
            known["x-amzn-errortype"] = f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"
            return web.json_response({"message": text}, status=status, headers=known)
        if isinstance(reply, dict):
            return web.json_response(reply, headers=known)
        response = web.StreamResponse(headers={"content-type": "application/vnd.amazon.eventstream", **known})
        await response.prepare(request)
        for piece in reply:
            await response.write(piece)
            await asyncio.sleep(self.pause_s)
        await response.write_eof()
        return response


@asynccontextmanager
async def fake_bedrock(*replies, pause_s=0.0):
    """A Bedrock that listens while the block runs."""
    bedrock = FakeBedrock(list(replies), pause_s=pause_s)
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("POST", "/{path:.*}", bedrock.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    bedrock.base_url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield bedrock
    finally:
        await runner.cleanup()
