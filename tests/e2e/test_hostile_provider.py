"""Providers that mean harm, against a gateway process: memory stays bounded, the client gets a typed error."""

import asyncio
import json
import os
import re
import sys

import pytest

from tests.fakes.gateway import chat
from tests.fakes.hostile import (
    EVENTS,
    SCRIPT,
    Forever,
    Pause,
    canary,
    delta,
    events,
    hostile_provider,
    memory_bytes,
    reset_peak,
    said,
    whole,
)
from tests.fakes.hostile_answers import (
    CHUNKED,
    ENDLESS,
    FIGURES,
    FINISHED,
    MIB,
    NOT_CHAT,
    NOT_HTTP,
    UNBOUNDED_BY_LIBRARY,
)
from tests.fakes.process import served
from tests.fakes.provider import fake_provider, says, stream_chunks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
GROWTH_MAX_BYTES = 64 * MIB
BOMB_BYTES = (1024 if FULL else 96) * MIB
CLIENT_LIMIT_S = 90
MODELS = 100
"""One for each attack: what came of the last one must not keep a gateway from trying the next."""
BROKEN = {
    *("provider_garbled", "provider_error", "answer_truncated", "connect_failed", "provider_stalled"),
    *("connection_reset", "first_token_timeout", "context_length_exceeded", "invalid_request"),
}


def config(hostile, good, transport="http"):
    """Models `m`, `m1`, `m2`, ... at the hostile provider, and `g` at a good one."""
    names = {"bad": (hostile, ["m", *(f"m{number}" for number in range(1, MODELS))]), "good": (good, ["g"])}
    lines = ["gateway: {host: 127.0.0.1}", "providers:"]
    for name, (url, models) in names.items():
        row = "context_tokens: 32768, capabilities: {system: true}"
        lines += [f"  {name}: {{dialect: openai, base_url: '{url}', transport: {transport}, models: {{"]
        lines += [f"    up-{model}: {{serves: {model}, {row}}}," for model in models]
        lines += ["  }}"]
    return "\n".join(lines)


async def ask(client, *, stream, surface="/v1", model="m"):
    """Status, headers and what was said of the error: None where the answer is a good one."""
    body = {**chat(stream=stream, **({"stream_options": {"include_usage": True}} if stream else {})), "model": model}
    async with asyncio.timeout(CLIENT_LIMIT_S):
        response = await client.post(f"{surface}/chat/completions", json=body, timeout=CLIENT_LIMIT_S)
    text = response.text
    if response.headers["content-type"] == "application/json":
        return response, json.loads(text).get("error")
    assert response.headers["content-type"].startswith("text/event-stream")
    payloads = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert payloads[-1] == "[DONE]"
    return response, next((json.loads(p)["error"] for p in payloads[:-1] if "error" in json.loads(p)), None)


def check_error(name, response, error):
    """What is wrong with how a hostile answer was told to the client."""
    if error is None:
        return f"{name}: taken for an answer: {response.text[:200]}"
    if not {"message", "type", "param", "code", "source"} <= set(error) or error["source"] != "provider":
        return f"{name}: {error}"
    if error["code"] not in BROKEN or not (response.status_code == 200 or 400 <= response.status_code < 600):
        return f"{name}: {response.status_code} {error}"
    if response.status_code in (500, 501) or (response.status_code != 200 and len(response.content) > 8192):
        return f"{name}: {response.status_code}, {len(response.content)} bytes"
    return None


class Attack:
    """A gateway process between us and a hostile provider."""

    def __init__(self, client, process, provider):
        self.client = client
        self.pid = process.process.pid
        self.provider = provider
        self.problems = []
        self.runs = 0

    async def run(self, name, script, *, stream, surface="/v1"):
        """One hostile answer; what was wrong with the gateway's own goes to `problems`."""
        self.provider.script = script
        before = memory_bytes(self.pid, "VmRSS")
        reset_peak(self.pid)
        self.runs += 1
        response, error = await ask(self.client, stream=stream, surface=surface, model=f"m{self.runs}")
        grown = memory_bytes(self.pid, "VmHWM") - before
        if grown >= GROWTH_MAX_BYTES:
            self.problems.append(f"{name}: {grown / MIB:.0f} MiB more memory")
        return response, error

    async def expect_error(self, name, script, *, stream):
        response, error = await self.run(name, script, stream=stream)
        if problem := check_error(name, response, error):
            self.problems.append(problem)

    async def end(self):
        """Nothing was wrong, and others are still served."""
        response = await self.client.post("/v1/chat/completions", json=chat() | {"model": "g"})
        assert response.json()["choices"][0]["message"]["content"] == "Still here."
        assert self.problems == []


class attacked:  # noqa: N801 (reads as the block it opens)
    """`async with attacked(tmp_path) as attack`."""

    def __init__(self, folder, transport="http"):
        self._folder = folder
        self._transport = transport

    async def __aenter__(self):
        self._provider, self._good = hostile_provider(), fake_provider(says("Still here."))
        provider, good = await self._provider.__aenter__(), await self._good.__aenter__()
        path = self._folder / "providers.yaml"
        path.write_text(config(provider.base_url, good.base_url, self._transport))
        self._served = served(path)
        process, client = await self._served.__aenter__()
        self.process = process
        attack = Attack(client, process, provider)
        provider.script = (whole(said()),)
        for stream in (False, True):  # warm: what is loaded at first use is not growth
            await ask(client, stream=stream)
        return attack

    async def __aexit__(self, kind, error, trace):
        await self._served.__aexit__(kind, error, trace)
        await self._good.__aexit__(None, None, None)
        await self._provider.__aexit__(None, None, None)
        assert "Traceback" not in self.process.output + self.process.errors


@pytest.mark.parametrize("transport", ["http", "aiohttp"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_never_ends_is_cut_off_in_bounded_memory(tmp_path, stream, transport):
    async with attacked(tmp_path, transport) as attack:
        for name, script in ENDLESS.items():
            if transport == "aiohttp" and name in UNBOUNDED_BY_LIBRARY:
                continue
            bounded = tuple(Forever(p.unit, BOMB_BYTES) if isinstance(p, Forever) else p for p in script)
            await attack.expect_error(f"endless {name}", bounded, stream=stream)
        await attack.end()


@pytest.mark.parametrize("transport", ["http", "aiohttp"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_http_is_a_typed_error(tmp_path, stream, transport):
    async with attacked(tmp_path, transport) as attack:
        for name, script in NOT_HTTP.items():
            await attack.expect_error(name, script, stream=stream)
        await attack.end()


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_chat_completion_is_a_typed_error(tmp_path, stream):
    async with attacked(tmp_path) as attack:
        for name, (body,) in NOT_CHAT.items():
            await attack.expect_error(name, (whole(body),), stream=stream)
            if stream:
                payload = body.replace(b'"message"', b'"delta"')
                await attack.expect_error(f"{name}, as an event", (events(b"data: ", payload, b"\n\n"),), stream=True)
        await attack.end()


async def test_a_redirect_is_an_error_and_leads_nowhere(tmp_path):
    async with canary() as bird, attacked(tmp_path) as attack:
        for status in (300, 301, 302, 303, 307, 308, 399):
            for where in (f"http://127.0.0.1:{bird.port}/", f"//127.0.0.1:{bird.port}", "file:///etc/passwd"):
                extra = (b"location: " + where.encode(), b"refresh: 0; url=" + where.encode())
                script = (whole(b"{}", *extra, b"alt-svc: h2=':1'", status=b"%d Go" % status),)
                for stream in (False, True):
                    await attack.expect_error(f"{status} to {where}", script, stream=stream)
        await attack.end()
        assert bird.connections == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_absurd_usage_never_becomes_a_figure(tmp_path, stream):
    """The answer itself is good: it is given, and what cannot be a count is left out."""
    async with attacked(tmp_path) as attack:
        for figure in FIGURES:
            usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cost"), figure)
            usage["prompt_tokens_details"] = usage["completion_tokens_details"] = {
                "cached_tokens": figure,
                "reasoning_tokens": figure,
            }
            encoded = json.dumps({"choices": [], "usage": usage}).encode()
            good = stream_chunks("fine", usage=False)
            script = (events(*good[:-1], b"data: " + encoded + b"\n\n", good[-1]),)
            response, error = await attack.run(
                str(figure), script if stream else (whole(said(usage=usage)),), stream=stream
            )
            if error is not None:
                attack.problems.append(f"{figure!r:.50}: {error}")
            for name, number in re.findall(r'"(\w+)":(-?[\d.eE+-]+)', response.text):
                if not 0 <= float(number) <= 2e9:
                    attack.problems.append(f"{figure!r:.50}: {name} {number}")
        await attack.end()


async def test_script_is_never_reflected_where_it_could_run(tmp_path):
    """Texts of a provider stay inside JSON strings, in answers that say that they are JSON, and out of every header."""
    names = dict.fromkeys(("id", "model", "object", "system_fingerprint", "provider", "service_tier"), SCRIPT)
    told = {"error": {"message": SCRIPT, "type": SCRIPT, "code": SCRIPT, "param": SCRIPT}}
    async with attacked(tmp_path) as attack:
        for surface in ("/v1", "/api/v1"):
            for status in (b"200 OK", b"400 Bad", b"404 No", b"422 No", b"429 Slow", b"500 Oh", b"503 Busy"):
                for body in (told, {**told, "message": SCRIPT}, json.loads(said()) | names):
                    headers = (
                        b"x-request-id: " + SCRIPT.encode(),
                        b"set-cookie: a=b",
                        b"retry-after: " + SCRIPT.encode(),
                    )
                    script = (whole(json.dumps(body).encode(), *headers, status=status),)
                    for stream in (False, True):
                        response, _ = await attack.run("script", script, stream=stream, surface=surface)
                        assert SCRIPT not in str(response.headers)
                        assert "set-cookie" not in response.headers
                        assert response.headers["content-type"].startswith(("application/json", "text/event-stream"))
                        if response.status_code >= 400:
                            assert response.headers["x-content-type-options"] == "nosniff"
        await attack.end()


async def test_long_names_in_an_error_are_cut(tmp_path):
    long = {"error": {"message": "m" * 30_000, "type": "t" * 10_000, "code": "c" * 10_000, "param": "p" * 10_000}}
    async with attacked(tmp_path) as attack:
        script = (whole(json.dumps(long).encode(), status=b"400 Bad"),)
        await attack.expect_error("long names", script, stream=False)
        await attack.end()


@pytest.mark.parametrize("after", ["silence", "comments", "a cut", "usage for ever", "text for ever", "garbage"])
async def test_an_answer_with_its_finish_reason_is_complete_though_its_stream_never_ends(tmp_path, after):
    rest = {
        "silence": (Pause(60),),
        "comments": tuple(part for _ in range(200) for part in (b": still here\n\n", Pause(0.1))),
        "a cut": (),
        "usage for ever": (Forever(b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', BOMB_BYTES),),
        "text for ever": (Forever(delta("more "), BOMB_BYTES),),
        "garbage": (b"data: {\n\ndata: {\n\n", Pause(60)),
    }[after]
    async with attacked(tmp_path) as attack:
        head = EVENTS + (CHUNKED if after == "a cut" else b"") + b"\r\n"
        framed = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in FINISHED) if after == "a cut" else b"".join(FINISHED)
        response, error = await attack.run(after, (head + framed, *rest), stream=True)
        if after == "garbage":
            assert error["code"] == "provider_garbled"  # two unreadable chunks are a failure wherever they stand
        else:
            assert error is None
            assert '"finish_reason":"stop"' in response.text
        await attack.end()


async def test_64_mib_of_deltas_to_a_slow_client_wait_at_the_provider(tmp_path):
    async with attacked(tmp_path) as attack:
        attack.provider.script = (EVENTS + b"\r\n", Forever(delta("word " * 10), 64 * MIB))
        attack.provider.sent_bytes = 0
        before = memory_bytes(attack.pid, "VmRSS")
        reset_peak(attack.pid)
        address = attack.client.base_url
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=4096)
        body = json.dumps(chat(stream=True)).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        for _ in range(20):
            assert await reader.read(1024)
            await asyncio.sleep(0.05)
        assert memory_bytes(attack.pid, "VmHWM") - before < GROWTH_MAX_BYTES
        assert attack.provider.sent_bytes < 32 * MIB
        writer.transport.abort()
        await attack.end()
