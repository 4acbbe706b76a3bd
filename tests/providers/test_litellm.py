"""The bridge to the litellm library: a closed list of arguments, its answers as OpenAI's, a thread of its own."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import providers.litellm_library as library_module
from gateway.config.load import load
from providers import DIALECTS
from providers.base import Endpoint
from providers.errors import (
    BadRequestError,
    ConnectError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
    UnsupportedError,
)
from providers.litellm import SENT
from providers.litellm_library import why_missing
from providers.litellm_transport import LitellmTransport
from providers.messages import AnswerFailed, ChatRequest, Message, Part, TextDelta, Tool, UsageReported
from tests.fakes import litellm_stub as stub
from tests.fakes.provider import fake_provider

STUB = "tests.fakes.litellm_stub"
LITELLM = DIALECTS["litellm"]
ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-planted-0123456789"
HELLO = ChatRequest(messages=(Message(role="user", content="Hi"),), model="m", temperature=0.5)


def endpoint(mode="says", base_url="http://127.0.0.1:1/v1"):
    return Endpoint(id="p/up", provider="p", model="m", upstream_model=f"vendor/{mode}", base_url=base_url)


@pytest.fixture
async def transport():
    stub.calls.clear()
    stub.events.clear()
    carried = LitellmTransport(STUB)
    yield carried
    await carried.aclose()


async def send(transport, mode="says", *, stream=False, base_url="http://127.0.0.1:1/v1", key=None):
    wire = LITELLM.encode(HELLO, endpoint(mode, base_url), stream=stream)
    if key is not None:
        wire = type(wire)(
            url=wire.url, body=wire.body, headers={**wire.headers, **LITELLM.authorize(key)}, stream=stream
        )
    return await transport.send(wire, connect_timeout_s=1)


async def events_of(response, *, stream):
    decoder = LITELLM.decoder(endpoint(), stream=stream)
    events = decoder.feed(response.body or b"")
    while response.body is None and (data := await response.read()):
        events += decoder.feed(data)
    return events + decoder.finish()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_the_library_is_read_as_openais(transport, stream: bool):
    response = await send(transport, stream=stream)
    events = await events_of(response, stream=stream)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert [event.usage.output_tokens for event in events if isinstance(event, UsageReported)] == [5]
    assert not isinstance(events[-1], AnswerFailed)


async def test_the_library_gets_key_and_place_of_the_configuration_and_no_will_of_its_own(transport):
    await send(transport, key=KEY, base_url="http://vendor.example/v1")
    await send(transport, base_url="")
    first, second = stub.calls
    assert (first["api_key"], first["api_base"]) == (KEY, "http://vendor.example/v1")
    assert not {"api_key", "api_base"} & set(second)
    assert (first["num_retries"], first["max_retries"], first["caching"]) == (0, 0, False)
    assert first["temperature"] == 0.5
    assert stub.PRICE_LIST_AT_HOME in (None, "True")
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert (stub.telemetry, stub.drop_params, stub.num_retries) == (False, False, 0)
    assert stub.callbacks == stub.success_callback == []


@pytest.mark.parametrize(
    ("mode", "kind", "status"),
    [
        ("ContextWindowExceededError", ContextLengthError, 400),
        ("ContentPolicyViolationError", ContentPolicyError, 400),
        ("UnsupportedParamsError", UnsupportedError, 400),
        ("AuthenticationError", CredentialsError, 401),
        ("NotFoundError", UnknownModelError, 404),
        ("Timeout", FirstTokenTimeoutError, 408),
        ("RateLimitError", RateLimitedError, 429),
        ("ServiceUnavailableError", OverloadedError, 503),
        ("BadRequestError", BadRequestError, 400),
        ("odd", ServerError, 500),
    ],
)
async def test_an_exception_is_the_answer_that_it_was_made_of(transport, mode: str, kind: type, status: int):
    response = await send(transport, mode)
    assert response.status == status
    error = LITELLM.error(response.status, response.headers, response.body, now_unix_s=0)
    assert type(error) is kind
    assert "secret words" not in error.message
    if mode != "odd":
        assert error.retry_after_s == 7


async def test_a_vendor_out_of_reach_is_a_failure_to_connect(transport):
    with pytest.raises(ConnectError):
        await send(transport, "APIConnectionError")


async def test_an_exception_in_mid_stream_is_told_in_the_stream(transport):
    events = await events_of(await send(transport, "breaks", stream=True), stream=True)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel"]
    assert type(events[-1].error) is OverloadedError
    assert "secret words" not in events[-1].error.message


async def until(word: str) -> None:
    for _ in range(1000):
        if word in stub.events:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{word} never came: {stub.events}")


async def test_cancelling_reaches_the_librarys_own_call(transport):
    task = asyncio.create_task(send(transport, "hangs"))
    await until("called")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until("call cancelled")


async def test_closing_a_stream_lets_go_of_it_there(transport):
    response = await send(transport, stream=True)
    assert await response.read()
    response.close()
    response.close()
    await until("closed")
    assert await response.read() == b""


async def test_closing_the_transport_ends_what_hangs(transport):
    task = asyncio.create_task(send(transport, "hangs"))
    await until("called")
    await transport.aclose()
    await until("call cancelled")
    with pytest.raises((asyncio.CancelledError, ConnectError)):
        await task


async def test_an_answer_over_the_limit_is_cut_off(transport, monkeypatch):
    monkeypatch.setattr("providers.litellm_transport.STREAM_MAX_BYTES", 10)
    with pytest.raises(Exception, match="size limit"):
        await events_of(await send(transport, stream=True), stream=True)


# ---- the package


async def test_a_package_that_is_not_there_is_said_with_how_to_install_it():
    transport = LitellmTransport("no_such_package_of_ours")
    with pytest.raises(ConnectError, match="pip install"):
        await send(transport)
    await transport.aclose()


@pytest.mark.parametrize("stolen", ["1.82.7", "1.82.8"])
def test_a_stolen_release_is_never_imported(monkeypatch, stolen: str):
    monkeypatch.setattr(library_module, "version", lambda _: stolen)
    reason, _ = why_missing(STUB)
    assert "stolen" in reason


def test_a_provider_is_off_while_its_package_is_missing(monkeypatch, tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("providers: {far: {dialect: litellm, models: {cohere/command: {}}}}\n")
    monkeypatch.setattr(library_module, "find_spec", lambda _: None)
    entry = load(path, {}).providers["far"]
    assert (entry.on, entry.transport) == (False, "litellm")
    assert "pip install 'mixgate[litellm]'" in entry.fix
    monkeypatch.setattr(library_module, "find_spec", lambda _: object())
    monkeypatch.setattr(library_module, "version", lambda _: "1.106.2")
    assert load(path, {}).providers["far"].on


# ---- what it is sent


URL = "http://169.254.169.254/latest/meta-data"
HOSTILE = dict.fromkeys(
    [
        *("api_base", "base_url", "api_key", "custom_llm_provider", "extra_headers", "extra_body", "headers"),
        *("mock_response", "model_list", "fallbacks", "vertex_credentials", "aws_sts_endpoint", "callbacks"),
        *(
            "litellm_call_id",
            "success_callback",
            "organization",
            "api_version",
            "deployment_id",
            "proxy_server_request",
        ),
        *("azure_ad_token_provider", "hf_model_name", "input_cost_per_token"),
    ],
    URL,
)


def test_nothing_that_a_client_adds_reaches_the_library():
    request = ChatRequest(
        messages=(Message(role="user", content="Hi"),),
        metadata=dict(HOSTILE),
        provider={"order": [URL]},
        top_k=3,
        extra=HOSTILE,
    )
    wire = LITELLM.encode(request, endpoint(), stream=False)
    assert set(json.loads(wire.body)) <= SENT
    assert URL.encode() not in wire.body
    dropped = {one.param for one in wire.adapted if one.action == "dropped"}
    assert {"metadata", "top_k", "api_base"} <= dropped
    assert "provider" not in dropped


@pytest.mark.parametrize(
    "part",
    [
        Part(type="image_url", image_url={"url": URL}),
        Part(type="image_url", image_url=URL),
        Part(type="image_url", image_url={"url": "gs://bucket/x"}),
        Part(type="file", file={"file_id": URL}),
        Part(type="file", file={"file_data": URL}),
        Part(type="input_audio", input_audio={"data": URL, "format": "wav"}),
        Part(type="video_url"),
    ],
)
def test_nothing_is_fetched_for_a_client(part: Part):
    request = ChatRequest(messages=(Message(role="user", content=(part,)),))
    with pytest.raises(UnsupportedError):
        LITELLM.encode(request, endpoint(), stream=False)


def test_content_that_is_all_there_goes_along():
    parts = (
        Part(type="text", text="see"),
        Part(type="image_url", image_url={"url": "data:image/png;base64,AA==", "detail": "low", "format": URL}),
        Part(type="input_audio", input_audio={"data": "AA==", "format": "wav"}),
        Part(type="refusal", refusal="no"),
    )
    request = ChatRequest(messages=(Message(role="developer", content=parts),))
    (message,) = json.loads(LITELLM.encode(request, endpoint(), stream=False).body)["messages"]
    assert message["role"] == "system"
    assert message["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "text", "text": "no"},
    ]


def test_a_tool_that_is_no_function_is_refused():
    with pytest.raises(UnsupportedError):
        LITELLM.encode(ChatRequest(messages=HELLO.messages, tools=(Tool(type="mcp"),)), endpoint(), stream=False)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12)), st.text(max_size=30), st.booleans())
@settings(deadline=None)
def test_the_arguments_are_a_closed_list_whatever_is_asked(extra, text, stream):
    request = ChatRequest(messages=(Message(role="user", content=text),), user=text, extra=extra, metadata=extra)
    wire = LITELLM.encode(request, endpoint(), stream=stream)
    assert set(json.loads(wire.body)) <= SENT
    assert wire.url == "litellm:http://127.0.0.1:1/v1"


# ---- the real thing, where it is installed beside us


REAL = r"""
import asyncio, sys
sys.path[:0] = [sys.argv[1]]
sys.path.append(sys.argv[2])
from providers.litellm import Litellm
from providers.litellm_transport import LitellmTransport
from providers.base import Endpoint
from providers.messages import ChatRequest, Message, TextDelta, UsageReported

async def ask(transport, stream, model="openai/mixtral"):
    dialect = Litellm()
    endpoint = Endpoint(id="p/u", provider="p", model="m", upstream_model=model, base_url=sys.argv[3])
    request = ChatRequest(messages=(Message(role="user", content="Hi"),), max_tokens=9)
    wire = dialect.encode(request, endpoint, stream=stream)
    wire = type(wire)(url=wire.url, body=wire.body, headers=dialect.authorize("sk-real-0123456789"), stream=stream)
    response = await transport.send(wire, connect_timeout_s=5)
    decoder = dialect.decoder(endpoint, stream=stream)
    if response.status != 200:
        return repr(dialect.error(response.status, response.headers, response.body, now_unix_s=0))
    events = decoder.feed(response.body or b"")
    while response.body is None and (data := await response.read()):
        events += decoder.feed(data)
    events += decoder.finish()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    usage = [event.usage.output_tokens for event in events if isinstance(event, UsageReported)]
    return f"{text} {usage[-1:]} {type(events[-1]).__name__}"

async def main():
    transport = LitellmTransport()
    for stream in (False, True):
        print(await ask(transport, stream), flush=True)
    await transport.aclose()

asyncio.run(main())
"""
INSTALLED = [
    python for name in (".venv-bench", ".venv-bench-litellm-1.80") if (python := ROOT / name / "bin/python").exists()
]


@pytest.mark.skipif(not INSTALLED, reason="no environment with litellm: `make bench-peers` builds one")
async def test_the_real_library_answers_through_the_bridge():
    site = next(path for path in sys.path if path.endswith("site-packages"))
    async with fake_provider() as provider:
        work = asyncio.to_thread(
            subprocess.run,
            [str(INSTALLED[0]), "-c", REAL, str(ROOT), site, provider.base_url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        )
        done = await work
    assert done.returncode == 0, done.stderr[-2000:]
    whole, streamed = done.stdout.strip().splitlines()[-2:]
    assert whole.startswith("Hello from the fake.")
    assert streamed.startswith("Hello from the fake.")
    assert "AnswerFailed" not in done.stdout
    assert len(provider.requests) == 2
    assert provider.requests[0].headers["authorization"] == "Bearer sk-real-0123456789"
    assert provider.requests[0].body["max_tokens"] == 9
