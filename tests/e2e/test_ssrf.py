"""Nothing that a client or a provider writes makes the gateway talk to anybody who is not configured."""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
from aiohttp import web

from providers import DIALECTS
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.hostile import canary
from tests.fakes.provider import completion, fails, fake_provider
from tests.fakes.ssrf import FULL_BODY, HEADERS, MEMBERS, leaves, payloads, with_members, with_schema, with_text

FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
SAMPLE = 10
"""Every how manieth payload is used, but for a full run: there, `openai` gets each in every field."""
REMOTE = tuple(name for name in DIALECTS if name not in ("local", "litellm"))
PATH = "/v1/chat/completions"
KEYS = {f"KEY_{name.upper()}": f"planted-{name.replace('_', '-')}-0123456789" for name in REMOTE}
CAPABLE = "{system: true, tools: true, json_object: true, json_schema: true, vision: true, logprobs: true}"


@pytest.fixture(autouse=True)
def aws(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def config(url, dialect, capabilities=CAPABLE):
    region = "\n    region: us-east-1" if dialect.startswith("bedrock") else ""
    return f"""
providers:
  p0:
    dialect: {dialect}
    base_url: {url}
    api_key: env:KEY_{dialect.upper()}{region}
    models:
      up:
        serves: m
        context_tokens: 32768
        max_output_tokens: 999
        capabilities: {capabilities}
"""


class Watched:
    """Who was connected to or looked up, and which files were opened, while it watches."""

    def __init__(self):
        self.on = False
        self.addresses = set()
        self.names = set()
        self.files = set()

    def hook(self, event, args):
        if not self.on:
            return
        if event == "socket.connect":
            self.addresses.add(args[1] if isinstance(args[1], str | bytes) else tuple(args[1][:2]))
        elif event == "socket.getaddrinfo":
            self.names.add(args[0])
        elif event == "open" and isinstance(args[0], str):
            self.files.add(args[0])


_WATCHED = Watched()
sys.addaudithook(_WATCHED.hook)  # it cannot be taken away again, so it is made once and mostly asleep


@contextmanager
def watched():
    _WATCHED.__init__()
    _WATCHED.on = True
    try:
        yield _WATCHED
    finally:
        _WATCHED.on = False


def address_of(url):
    host, _, port = url.partition("//")[2].partition("/")[0].partition(":")
    return host, int(port)


async def good(request, seen):
    return web.json_response(completion("fine"))


def bodies(payload, place):
    """The requests that carry one payload: everywhere at once, in a schema, and in the texts of a full request."""
    yield chat(payload, user=payload, **dict.fromkeys(MEMBERS, payload))
    yield with_members(payload)
    yield with_schema(payload)
    paths = list(leaves(FULL_BODY))
    for path in paths if FULL else (paths[place % len(paths)], paths[(place * 7 + 3) % len(paths)]):
        yield with_text(path, payload)


@pytest.mark.parametrize("dialect", REMOTE)
async def test_no_text_in_a_body_leads_anywhere(tmp_path, dialect):
    statuses = Counter()
    socket = tmp_path / "canary.sock"
    async with canary() as bird, canary(socket) as unix_bird, fake_provider(good) as provider:
        everything = payloads(bird.port, str(socket))
        assert len(everything) >= 300
        async with running_gateway(config(provider.base_url, dialect), tmp_path, KEYS) as running:
            with watched() as seen:
                for place, payload in enumerate(everything[:: 1 if FULL and dialect == "openai" else SAMPLE]):
                    for body in bodies(payload, place):
                        running.forget()
                        response = await running.client.post(PATH, json=body)
                        statuses[response.status_code] += 1
                        assert response.status_code != 500, response.text
                        assert response.status_code == 200 or "error" in response.json()
        assert (bird.connections, unix_bird.connections) == (0, 0)
        assert seen.addresses <= {address_of(provider.base_url), address_of(running.url)}
        assert seen.names <= {"127.0.0.1", b"127.0.0.1", None}
        assert not any("passwd" in name for name in seen.files)
    assert provider.requests
    for sent in provider.requests:
        others = [key for name, key in KEYS.items() if name != f"KEY_{dialect.upper()}"]
        assert not any(key in str(sent.headers) + json.dumps(sent.body) for key in others)
    sys.stdout.write(f"\nssrf, {dialect}: {dict(statuses)}\n")


@pytest.mark.parametrize("capabilities", ["{system: true}", CAPABLE], ids=["emulated", "native"])
async def test_a_schema_is_never_fetched(tmp_path, capabilities):
    async with canary() as bird, fake_provider(good) as provider:
        async with running_gateway(config(provider.base_url, "openai", capabilities), tmp_path, KEYS) as running:
            with watched() as seen:
                for payload in payloads(bird.port, str(tmp_path / "none"))[:: 1 if FULL else 6]:
                    running.forget()
                    response = await running.client.post(PATH, json=with_schema(payload))
                    assert response.status_code in (200, 400, 502), response.text
        assert bird.connections == 0
        assert seen.addresses <= {address_of(provider.base_url), address_of(running.url)}


async def raw(url, head, body=b""):
    """What comes back for these bytes, until the connection ends or nothing more comes."""
    host, port = address_of(url)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(head + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_no_header_and_no_request_line_leads_anywhere(tmp_path):
    body = json.dumps(chat()).encode()
    statuses = Counter()
    async with canary() as bird, fake_provider(good) as provider:
        async with running_gateway(config(provider.base_url, "openai"), tmp_path, KEYS) as running:
            everything = payloads(bird.port, str(tmp_path / "none"))[:: 1 if FULL else 12]
            with watched() as seen:
                for place, payload in enumerate(everything):
                    text = payload.encode()
                    common = b"content-type: application/json\r\n"
                    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                    names = HEADERS if FULL else HEADERS[place % 3 :: 3]
                    heads = [start + common + b"%b: %b\r\n" % (name.encode(), text) for name in names]
                    heads += [
                        b"POST /v1/chat/completions HTTP/1.1\r\nhost: %b\r\n%b" % (text, common),
                        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\n%b" % (text, common),
                        b"POST %b/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n%b" % (text, common),
                        b"POST @%b HTTP/1.1\r\nhost: 127.0.0.1\r\n%b" % (text, common),
                        b"CONNECT %b HTTP/1.1\r\nhost: 127.0.0.1\r\n" % text,
                        start + b":path: %b\r\n" % text + common,
                        start + b":authority: %b\r\n" % text + common,
                        start + b"host: %b\r\n" % text + common,
                    ]
                    for head in heads:
                        answer = await raw(running.url, head, body)
                        assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) <= 1 or b"\r\n" in text
                        statuses[answer[9:12].decode()] += 1
                        assert answer[9:12] != b"500", answer
        assert bird.connections == 0
        assert seen.addresses <= {address_of(provider.base_url), address_of(running.url)}
    assert statuses["200"]
    assert {sent.headers["host"] for sent in provider.requests} == {provider.base_url[7:-3]}
    assert {sent.path for sent in provider.requests} == {"/v1/chat/completions"}
    assert not any(name in sent.headers for sent in provider.requests for name in HEADERS)
    sys.stdout.write(f"\nssrf, headers: {dict(statuses)}\n")


@pytest.mark.parametrize("dialect", REMOTE)
async def test_a_provider_cannot_send_us_or_our_key_elsewhere(tmp_path, dialect):
    """By a redirect, by a URL in its answer, by a header."""
    async with canary() as bird:
        replies = []
        for payload in payloads(bird.port, str(tmp_path / "none"))[:: 3 if FULL else 25]:
            clean = payload.replace("\r", "").replace("\n", "").replace("\0", "").encode("ascii", "ignore").decode()
            told = {"outputUrl": payload, "url": payload, "location": payload, "error": None, "next": payload}
            replies += [
                fails(302, {}, {"location": clean, "refresh": f"0;url={clean}"}),
                fails(308, {}, {"location": clean}),
                fails(
                    200, told, {"content-location": clean, "link": f"<{clean}>; rel=next", "alt-svc": f'h2="{clean}"'}
                ),
                fails(401, told, {"www-authenticate": f'Bearer realm="{clean}"'}),
                fails(429, told, {"retry-after": clean}),
                fails(503, told, {"location": clean}),
            ]
        async with fake_provider(*replies) as provider:
            async with running_gateway(config(provider.base_url, dialect), tmp_path, KEYS) as running:
                with watched() as seen:
                    while len(provider.requests) < len(replies):  # after some of them it is asked again at once
                        running.forget()
                        stream = len(provider.requests) % 2 == 1
                        response = await running.client.post(PATH, json=chat(stream=stream))
                        assert response.status_code != 200, response.text
                        assert KEYS[f"KEY_{dialect.upper()}"] not in response.text + str(response.headers)
        assert (bird.connections, bird.received) == (0, b"")
        assert seen.addresses <= {address_of(provider.base_url), address_of(running.url)}
        assert len(provider.requests) in (len(replies), len(replies) + 1)
