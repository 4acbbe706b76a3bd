"""A gateway in front of a Bedrock: signed requests out, event streams in, nobody kept waiting."""

import asyncio
import json
import stat
from urllib.parse import urlsplit

import pytest
from blockbuster import blockbuster_ctx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from tests.fakes.bedrock import answer, chunk, exception, fake_bedrock, text_events
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fake_provider, says

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
MODEL = "mistral.mixtral-8x7b-instruct-v0:1"


@pytest.fixture(autouse=True)
def aws(monkeypatch, tmp_path):
    """Credentials in the environment of this process and nowhere else: botocore reads them itself."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def config(url, *lines, dialect="bedrock_converse", after=""):
    settings = "".join(f"    {line}\n" for line in lines)
    return f"""
providers:
  aws:
    dialect: {dialect}
    base_url: {url}
    region: us-east-1
{settings}    models:
      {MODEL}: {{serves: m, context_tokens: 32768, max_output_tokens: 4096, price: {{input: 0.45, output: 0.70}}}}
{after}"""


def with_fallback(url, other_url):
    """The Bedrock first, then an OpenAI server, in one Route."""
    first, second = config(url), openai_config(other_url).replace("p0/up", f"aws/{MODEL}, p0/up")
    return first + second.removeprefix("providers:\n")


def signature_of(asked, base_url):
    """The authorization that botocore gives to the request as it arrived, from its own date on."""
    _, _, rest = asked.headers["authorization"].partition("SignedHeaders=")
    covered = rest.partition(",")[0].split(";")
    request = AWSRequest(
        method="POST",
        url=base_url + asked.path,
        data=asked.raw,
        headers={name: asked.headers[name] for name in covered if name != "x-amz-date"},
    )
    request.context["timestamp"] = asked.headers["x-amz-date"]
    auth = SigV4Auth(ReadOnlyCredentials(*KEYS.values(), None), "bedrock", "us-east-1")
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return auth.signature(text, request)


async def stream_of(client, body):
    payloads = []
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                payloads.append(line[6:])
    chunks = [json.loads(payload) for payload in payloads if payload != "[DONE]"]
    text = "".join(choice["delta"].get("content") or "" for one in chunks for choice in one.get("choices", ()))
    return payloads, chunks, text


@pytest.mark.parametrize("transport", ["http", "aiohttp"])
async def test_a_whole_answer_comes_from_a_request_that_amazon_would_accept(tmp_path, transport):
    async with fake_bedrock(answer({"text": "Hello."})) as bedrock:
        async with running_gateway(config(bedrock.base_url, f"transport: {transport}"), tmp_path, KEYS) as running:
            body = chat(messages=[{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}])
            response = await running.client.post("/v1/chat/completions", json=body)
    said = response.json()
    assert response.status_code == 200, said
    assert said["choices"][0]["message"]["content"] == "Hello."
    assert said["choices"][0]["finish_reason"] == "stop"
    assert (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]) == (7, 5)
    (asked,) = bedrock.requests
    assert asked.path == "/model/mistral.mixtral-8x7b-instruct-v0%3A1/converse"
    assert asked.body["messages"] == [{"role": "user", "content": [{"text": "Be terse.\n\nHi"}]}]
    assert asked.headers["host"] == urlsplit(bedrock.base_url).netloc
    assert asked.headers["authorization"].endswith(f"Signature={signature_of(asked, bedrock.base_url)}")


async def test_a_stream_arrives_piece_by_piece_with_its_usage(tmp_path):
    pieces = [f"word{number} " for number in range(20)]
    async with fake_bedrock(text_events(*pieces), pause_s=0.01) as bedrock:
        async with running_gateway(config(bedrock.base_url), tmp_path, KEYS) as running:
            body = chat(stream=True, stream_options={"include_usage": True})
            payloads, chunks, text = await stream_of(running.client, body)
    assert text == "".join(pieces)
    assert sum(bool(one["choices"] and one["choices"][0]["delta"].get("content")) for one in chunks) > 1
    assert payloads[-1] == "[DONE]"
    assert chunks[-1]["usage"]["prompt_tokens"] == 7
    (asked,) = bedrock.requests
    assert asked.path.endswith("/converse-stream")
    assert asked.headers["authorization"].endswith(f"Signature={signature_of(asked, bedrock.base_url)}")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_native_prompt_works_as_well(tmp_path, stream):
    whole = {"outputs": [{"text": " Hello.", "stop_reason": "stop"}]}
    pieces = [chunk(text=" Hel"), chunk(text="lo."), chunk(reason="stop", metrics=(7, 5))]
    async with fake_bedrock(pieces if stream else whole) as bedrock:
        async with running_gateway(config(bedrock.base_url, dialect="bedrock_invoke"), tmp_path, KEYS) as running:
            if stream:
                _, _, text = await stream_of(running.client, chat(stream=True))
            else:
                response = await running.client.post("/v1/chat/completions", json=chat())
                text = response.json()["choices"][0]["message"]["content"]
    assert text == " Hello."
    assert bedrock.requests[0].body["prompt"] == "<s>[INST] hi [/INST]"


async def test_a_bearer_key_is_sent_instead_of_a_signature(tmp_path):
    env = {**KEYS, "AWS_BEARER_TOKEN_BEDROCK": "bedrock-api-key-planted"}
    async with fake_bedrock(text_events("Hi")) as bedrock:
        async with running_gateway(config(bedrock.base_url), tmp_path, env) as running:
            _, _, text = await stream_of(running.client, chat(stream=True))
    assert text == "Hi"
    assert bedrock.requests[0].headers["authorization"] == "Bearer bedrock-api-key-planted"
    assert "x-amz-date" not in bedrock.requests[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        (429, "ThrottlingException", "Too many requests, please wait before trying again."),
        (429, "ModelNotReadyException", "The model is not ready."),
        (424, "ModelErrorException", "It broke."),
        (403, "AccessDeniedException", "You don't have access to the model with the specified model ID."),
        (400, "ValidationException", "This model doesn't support system messages."),
        [exception("serviceUnavailableException", "Busy.")],
        [*text_events("x")[:1], exception("throttlingException", "Slow down.")],
        text_events("x")[:1],
        [b"\0" * 64],
        [b"<html>maintenance</html>"],
    ],
)
async def test_before_the_first_word_another_endpoint_answers(tmp_path, reply):
    async with fake_bedrock(reply) as bedrock, fake_provider(says("From elsewhere.")) as other:
        async with running_gateway(with_fallback(bedrock.base_url, other.base_url), tmp_path, KEYS) as running:
            _, _, text = await stream_of(running.client, chat(stream=True))
    assert text == "From elsewhere."
    assert len(bedrock.requests) == 1


async def test_an_exception_after_the_first_word_is_an_error_in_the_stream(tmp_path):
    frames = [*text_events("Hel")[:2], exception("throttlingException", "Too many tokens")]
    async with fake_bedrock(frames) as bedrock, fake_provider(says("From elsewhere.")) as other:
        both = with_fallback(bedrock.base_url, other.base_url).replace(
            "policy: ordered", "policy: ordered, rescue: false"
        )
        async with running_gateway(both, tmp_path, KEYS) as running:
            payloads, chunks, text = await stream_of(running.client, chat(stream=True))
    assert text == "Hel"
    assert chunks[-1]["error"]["code"] == "rate_limited"
    assert payloads[-1] == "[DONE]"
    assert not other.requests


async def test_a_refusal_reaches_the_client_in_its_class(tmp_path):
    refusal = (400, "ValidationException", "Input is too long for requested model.")
    async with fake_bedrock(refusal) as bedrock:
        async with running_gateway(config(bedrock.base_url), tmp_path, KEYS) as running:
            response = await running.client.post("/v1/chat/completions", json=chat())
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_no_call_of_a_request_blocks_the_loop(tmp_path, stream):
    async with fake_bedrock(text_events(*["word "] * 50) if stream else answer({"text": "Hello."})) as bedrock:
        roomy = config(bedrock.base_url).replace("context_tokens: 32768", "context_tokens: 1000000")
        async with running_gateway(roomy, tmp_path, KEYS) as running:
            with blockbuster_ctx():
                response = await running.client.post("/v1/chat/completions", json=chat("x" * 400_000, stream=stream))
    assert response.status_code == 200


async def test_nobody_else_waits_while_credentials_are_fetched(tmp_path, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    said = {"Version": 1, "AccessKeyId": "AKIDSLOW", "SecretAccessKey": "s"}
    (tmp_path / "said.json").write_text(json.dumps(said))
    program = tmp_path / "fetch"
    program.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/started\nn=0\n"
        f"while [ ! -e {tmp_path}/go ] && [ $n -lt 400 ]; do sleep 0.05; n=$((n+1)); done\ncat {tmp_path}/said.json\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "HOME": str(tmp_path)}
    async with fake_bedrock(answer({"text": "At last."})) as bedrock, fake_provider(says("At once.")) as other:
        text = config(bedrock.base_url, after=openai_config(other.base_url).removeprefix("providers:\n"))
        text = text.partition("routes:")[0]
        async with running_gateway(text, tmp_path, env) as running:
            body = chat(model=f"aws/{MODEL}")
            slow = asyncio.create_task(running.client.post("/v1/chat/completions", json=body))
            while not (tmp_path / "started").exists():  # noqa: ASYNC110 (another process makes it)
                await asyncio.sleep(0.01)
            quick = await running.client.post("/v1/chat/completions", json=chat(model="p0/up"))
            assert quick.json()["choices"][0]["message"]["content"] == "At once."
            assert not slow.done()
            (tmp_path / "go").touch()
            response = await slow
    assert response.json()["choices"][0]["message"]["content"] == "At last."
    assert "Credential=AKIDSLOW/" in bedrock.requests[0].headers["authorization"]
