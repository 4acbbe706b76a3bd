"""Planted secrets, and every way in which a gateway says something: none of them is ever in any of it."""

import json
import logging
import subprocess
import traceback

import pytest

from gateway.config.load import load
from gateway.errors import ConfigError
from gateway.upstream import Upstream
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.process import MIXGATE, served
from tests.fakes.provider import fails, fake_provider, resets, says, stream_chunks, streams

CLIENT_KEY = "canary-client-7d1f0c2ab94e"
OTHER_KEY = "canary-wrong-5e6f7a8b9c0d"
PROVIDER_KEY = "canary-provider-93ab1c77de02"
PROXY_PASSWORD = "canary-proxy-4410ffeebb21"
SECRETS = (CLIENT_KEY, PROVIDER_KEY, PROXY_PASSWORD)
ENV = {"CLIENT": CLIENT_KEY, "PROVIDER": PROVIDER_KEY, "PROXY": f"http://user:{PROXY_PASSWORD}@127.0.0.1:9"}
AUTH = {"authorization": f"Bearer {CLIENT_KEY}"}
PATH = "/v1/chat/completions"


def config(url, policy="ordered"):
    """Model `m` at a provider with a key, `p` the same behind a proxy that does not answer."""
    return f"""
gateway: {{host: 127.0.0.1, client_keys: [env:CLIENT]}}
providers:
  straight:
    dialect: openai
    base_url: {url}
    api_key: env:PROVIDER
    models: {{up: {{serves: m, context_tokens: 4096}}}}
  proxied:
    dialect: openai
    base_url: {url}
    api_key: env:PROVIDER
    transport: aiohttp
    proxy: env:PROXY
    models: {{up: {{serves: p, context_tokens: 4096}}}}
routes:
  m: {{policy: {policy}}}
"""


def assert_clean(*texts, secrets=SECRETS):
    for text in texts:
        for secret in secrets:
            assert secret not in text
            assert secret.encode().hex() not in text


def echo(status):
    """An answer that repeats every header and the body it was asked with, as broken proxies do."""

    async def reply(request, seen):
        said = f"got {json.dumps(seen.headers)}"
        body = {"error": {"message": said, "type": said, "code": said, "param": said}}
        return await fails(status, body, {"x-request-id": seen.headers["authorization"]})(request, seen)

    return reply


def trailing_echo():
    """A stream that breaks off with the same."""

    async def reply(request, seen):
        error = json.dumps({"error": {"message": seen.headers["authorization"], "code": seen.headers["authorization"]}})
        parts = [*stream_chunks("a b c")[:2], b"data: " + error.encode() + b"\n\n"]
        return await streams(*parts)(request, seen)

    return reply


REPLIES = {
    **{
        f"{status} that repeats the request": echo(status)
        for status in (200, 302, 400, 401, 403, 404, 422, 429, 500, 503)
    },
    "reset": resets(),
    "a page": fails(502, "<html>no</html>"),
    "a broken stream": trailing_echo(),
    "good": says("fine"),
}


async def everything_said(client):
    """The bodies and headers of every kind of answer."""
    said = []
    wrong = {"authorization": f"Bearer {OTHER_KEY}"}
    asked = [
        *(client.get(path, headers=AUTH) for path in ("/v1/models", "/api/v1/models", "/v1/models/m", "/v1/models/p")),
        *(client.get(path) for path in ("/readyz", "/livez", "/v1/models", "/", "/nothing")),
        *(
            client.get("/v1/models", headers={**AUTH, name: CLIENT_KEY})
            for name in ("x-api-key", "origin", "x-request-id")
        ),
        client.get(f"/v1/models/{CLIENT_KEY[:10]}", headers=AUTH),
        client.post(PATH, json=chat(), headers=wrong),
        client.post(PATH, content=b"{broken", headers={**AUTH, "content-type": "application/json"}),
        client.request("TRACE", "/v1/models", headers=AUTH),
    ]
    for stream in (False, True):
        for model in ("m", "p"):
            asked.append(client.post(PATH, json=chat(stream=stream) | {"model": model}, headers=AUTH))
    for response in asked:
        answer = await response
        said.append(answer.text + str(answer.headers))
    return said


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_no_answer_and_no_log_line_holds_a_key(tmp_path, reply, caplog):
    caplog.set_level(logging.DEBUG)
    async with fake_provider(reply) as provider:
        async with running_gateway(config(provider.base_url), tmp_path, ENV) as running:
            said = await everything_said(running.client)
    assert provider.requests[0].headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert_clean(*said, secrets=(*SECRETS, OTHER_KEY))
    logs = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert_clean(logs, caplog.text if "httpcore" not in caplog.text else "", secrets=SECRETS)


async def test_a_process_prints_no_key_whatever_goes_wrong(tmp_path):
    path = tmp_path / "providers.yaml"
    async with fake_provider(echo(401), echo(500), echo(200), trailing_echo(), resets()) as provider:
        path.write_text(config(provider.base_url))
        async with served(path, env=ENV) as (process, client):
            for _ in range(3):
                assert_clean(*await everything_said(client), secrets=(*SECRETS, OTHER_KEY))
            path.write_text(config(provider.base_url) + f"\nnonsense: [{PROXY_PASSWORD}\n")
            await process.until("refused", "errors")
            path.write_text(config(provider.base_url, policy="balanced"))
            await process.until("read anew", "errors")
            everything_about = (process.output, process.errors)
        assert_clean(*everything_about)
        assert_clean(process.output, process.errors)


@pytest.mark.parametrize(
    "command", [("check",), ("check", "--help"), ("models",), ("doctor",), ("serve", "--port", "99999")]
)
def test_no_command_prints_a_key(tmp_path, command):
    path = tmp_path / "providers.yaml"
    path.write_text(config("http://127.0.0.1:9/v1"))
    env = {"PATH": "/usr/bin:/bin", "MIXGATE_HOME": str(tmp_path), "MIXGATE_CONFIG": str(path), **ENV}
    done = subprocess.run([MIXGATE, *command], capture_output=True, text=True, check=False, env=env, timeout=60)
    assert_clean(done.stdout, done.stderr)
    assert done.stdout + done.stderr


@pytest.mark.parametrize(
    "broken",
    [
        "{providers: {p: {dialect: openai, base_url: 'http://127.0.0.1:9', api_key: %s}}}",
        "{providers: {p: {dialect: openai, base_url: 'http://u:%s@127.0.0.1:9'}}}",
        "{providers: {p: {dialect: openai, base_url: 'http://127.0.0.1:9', proxy: 'http://u:%s@127.0.0.1:9'}}}",
        "{gateway: {client_keys: [%s]}}",
        "{providers: {p: {dialect: openai, base_url: 'http://127.0.0.1:9?api_key=%s'}}}",
    ],
)
def test_a_key_pasted_into_the_file_is_refused_without_repeating_it(tmp_path, broken):
    pasted = "sk-" + PROVIDER_KEY.replace("-", "")
    path = tmp_path / "providers.yaml"
    path.write_text(broken % pasted)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert_clean(str(caught.value), "".join(traceback.format_exception(caught.value)), secrets=(pasted,))


async def test_a_fault_of_our_own_is_logged_without_keys(tmp_path, caplog, monkeypatch):
    """Errors raised on purpose in every place that holds a key."""

    def explode(self, *args, **kwargs):
        raise RuntimeError(f"a fault in {self.__class__.__name__}")

    async with fake_provider() as provider:
        async with running_gateway(config(provider.base_url), tmp_path, ENV) as running:
            upstream = running.gateway.live.fleet().upstreams["straight/up"]
            for owner, name in (
                (Upstream, "authorize"),
                (type(upstream.dialect), "encode"),
                (type(upstream.dialect), "decoder"),
                (type(upstream.transport), "send"),
            ):
                with monkeypatch.context() as patched:
                    patched.setattr(owner, name, explode)
                    response = await running.client.post(PATH, json=chat(), headers=AUTH)
                    assert response.status_code == 500
                    assert_clean(response.text, str(response.headers))
                    assert "a fault in" not in response.text
    assert "Traceback" in caplog.text
    assert_clean("\n".join(logging.Formatter().format(r) for r in caplog.records if r.name.startswith("mixgate")))
    gateway = running.gateway
    fleet = gateway.live.fleet()
    for thing in (fleet.catalogue, fleet, fleet.upstreams["straight/up"], gateway.live, gateway.live.authenticator):
        assert_clean(repr(thing), str(thing))
