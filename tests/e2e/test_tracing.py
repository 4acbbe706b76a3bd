"""Traces and metrics as a collector gets them, decoded by the standard's own types."""

import asyncio
import time

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.config.load import load
from gateway.errors import ConfigError
from gateway.trace_context import span_id
from gateway.tracing import export, otlp
from tests.fakes.collector import attributes, collector
from tests.fakes.duo import Place, config_of
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import listen
from tests.fakes.money import ASK, FAST, odd
from tests.fakes.scripted import STORY, Tells, fails, scripted, tells

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "canary-collector-token-5f3a"
PROMPT = "canary-prompt-what-a-client-said"
ENV = {"COLLECTOR": SECRET}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(export, "EXPORT_EVERY_S", 0.1)
    monkeypatch.setattr(export, "CLOSE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(otlp, "RETRY_WAIT_S", 0.05)


def settings(url, sample=1):
    return f"gateway: {{telemetry: {{otlp_endpoint: {url}, headers: {{x-api: env:COLLECTOR}}, sample: {sample}}}}}"


def of_trace(spans, generation_id):
    """The request's own span, and those of its Attempts in order."""
    own = next(span for span in spans if span.span_id.hex() == span_id(generation_id, 0))
    rest = [span for span in spans if span.trace_id == own.trace_id and span is not own]
    return own, sorted(rest, key=lambda span: attributes(span)["mixgate.attempt"])


def check_attempt(own, span, generation_id, number, port):
    assert span.parent_span_id == own.span_id
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert span.name == "chat up"
    assert span.span_id.hex() == span_id(generation_id, number)
    assert own.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= own.end_time_unix_nano
    facts = attributes(span)
    assert (facts["server.address"], facts["server.port"]) == ("127.0.0.1", port)
    assert (facts["gen_ai.request.model"], facts["gen_ai.response.model"]) == ("up", "m")


async def test_a_failover_is_a_span_with_a_child_for_each_attempt(tmp_path):
    async with (
        collector() as taken,
        scripted(fails(503, {"error": {"message": PROMPT}})) as bad,
        scripted(tells()) as good,
    ):
        places = [Place(bad.base_url), Place(good.base_url)]
        began_ns = time.time_ns()
        async with running_gateway(
            config_of(*places, gateway=settings(taken.url)), tmp_path, ENV, limits=FAST
        ) as running:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=secret", "x-title": PROMPT}
            told = await running.client.post("/v1/chat/completions", json=chat(PROMPT, user=PROMPT), headers=headers)
            generation_id = told.headers["x-generation-id"]
            own, (failed, ok) = of_trace(await taken.until(3), generation_id)
        ended_ns = time.time_ns()
    assert own.trace_id.hex() == TRACE
    assert own.parent_span_id.hex() == PARENT
    assert own.kind == Span.SPAN_KIND_SERVER
    assert own.name == "chat m"
    assert began_ns <= own.start_time_unix_nano <= own.end_time_unix_nano <= ended_ns
    facts = attributes(own)
    assert facts["gen_ai.operation.name"] == "chat"
    assert facts["gen_ai.provider.name"] == "p1"
    assert facts["gen_ai.response.id"] == generation_id
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (7, len(STORY))
    assert facts["mixgate.attempts"] == 2
    for number, (span, provider) in enumerate(((failed, bad), (ok, good)), 1):
        check_attempt(own, span, generation_id, number, provider.port)
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == failed.status.message == "provider_overloaded"
    assert "error.type" not in attributes(ok)
    assert attributes(ok)["gen_ai.usage.output_tokens"] == len(STORY)
    assert attributes(ok)["mixgate.cost_in_nusd"] == 7 * 1000 + len(STORY) * 2000
    assert taken.resources[0]["service.name"] == "mixgate"
    for number, provider in enumerate((bad, good), 1):
        sent = provider.calls[0].headers
        assert sent["traceparent"] == f"00-{TRACE}-{span_id(generation_id, number)}-01"
        assert "tracestate" not in sent
    assert all(one["x-api"] == SECRET for one in taken.headers)
    for body in taken.bodies:
        assert PROMPT.encode() not in body
        assert "".join(STORY)[:20].encode() not in body
        assert SECRET.encode() not in body


async def test_a_rescued_stream_and_the_metrics_of_the_conventions(tmp_path):
    cut, whole = Tells(stop_after=10, prefill="openai"), Tells(prefill="openai")
    async with collector() as taken, scripted(cut) as first, scripted(whole) as second:
        places = [
            Place(**{**place.__dict__, "url": one.base_url})
            for place, one in zip(odd().values(), (first, second), strict=True)
        ]
        async with running_gateway(
            config_of(*places, gateway=settings(taken.url)), tmp_path, ENV, limits=FAST
        ) as running:
            told = await listen(running.client, ASK)
            own, (cut_span, ok) = of_trace(await taken.until(3), told.headers["x-generation-id"])
    assert attributes(own)["mixgate.rescued.by"] == "prefill"
    assert attributes(ok)["mixgate.attempt.why"] == "rescue"
    assert cut_span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(ok)["gen_ai.response.time_to_first_chunk"] > 0
    durations = taken.metrics["gen_ai.client.operation.duration"]
    assert {attributes(point)["gen_ai.provider.name"]: point.count for point in durations} == {"p0": 1, "p1": 1}
    tokens = taken.metrics["gen_ai.client.token.usage"]
    (output,) = [
        p
        for p in tokens
        if attributes(p)["gen_ai.token.type"] == "output" and attributes(p)["gen_ai.provider.name"] == "p1"
    ]
    assert output.sum == attributes(ok)["gen_ai.usage.output_tokens"]


async def test_what_is_not_sampled_is_not_traced_but_counted(tmp_path):
    async with collector() as taken, scripted(tells()) as good:
        config = config_of(Place(good.base_url), gateway=settings(taken.url, sample=0))
        async with running_gateway(config, tmp_path, ENV) as running:
            for _ in range(3):
                assert (await running.client.post("/v1/chat/completions", json=chat())).status_code == 200
            asked = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            await running.client.post("/v1/chat/completions", json=chat(), headers=asked)
            await taken.until(2)
    assert {span.trace_id.hex() for span in taken.spans} == {TRACE}
    (points,) = [taken.metrics["gen_ai.client.operation.duration"]]
    assert sum(point.count for point in points) == 4
    assert [call.headers["traceparent"][-2:] for call in good.calls] == ["00", "00", "00", "01"]


async def test_without_telemetry_providers_are_told_of_no_trace(tmp_path):
    async with scripted(tells()) as good:
        async with running_gateway(config_of(Place(good.base_url)), tmp_path) as running:
            asked = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            await running.client.post("/v1/chat/completions", json=chat(), headers=asked)
    assert "traceparent" not in good.calls[0].headers


@pytest.mark.parametrize("trouble", ["refused", "error", "hangs"])
async def test_a_collector_in_trouble_costs_no_request_anything_and_is_counted(tmp_path, trouble, monkeypatch):
    monkeypatch.setattr(export, "QUEUE_MAX", 4)
    monkeypatch.setattr(export, "BATCH_MAX", 2)
    async with collector() as taken, scripted(tells()) as good:
        taken.status, taken.hang = 400 if trouble == "error" else 200, trouble == "hangs"
        url = "http://127.0.0.1:1" if trouble == "refused" else taken.url
        async with running_gateway(config_of(Place(good.base_url), gateway=settings(url)), tmp_path, ENV) as running:
            for _ in range(12):
                assert (await running.client.post("/v1/chat/completions", json=chat())).status_code == 200
            watching = running.gateway.watching
            async with asyncio.timeout(10):
                while not watching.telemetry_dropped:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)
            text = (await running.client.get("/metrics")).text
            assert "mixgate_telemetry_dropped_total 0.0" not in text
            assert "mixgate_telemetry_dropped_total" in text
        assert watching.telemetry_dropped <= 12
        assert taken.spans == []


def test_a_token_written_out_is_refused_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text(config_of(Place("http://127.0.0.1:9/v1"), gateway=settings("http://127.0.0.1:4318")))
    with pytest.raises(ConfigError, match="COLLECTOR is not set"):
        load(path, {})
    path.write_text(path.read_text().replace("env:COLLECTOR", "sk-0123456789abcdef0123456789"))
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert "0123456789abcdef" not in str(caught.value)


async def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gateway.tracing.otlp", None)
    config = config_of(Place("http://127.0.0.1:9/v1"), gateway=settings("http://127.0.0.1:4318"))
    with pytest.raises(ConfigError, match=r"OpenTelemetry is not installed") as caught:
        async with running_gateway(config, tmp_path, ENV):
            pass
    assert "mixgate[otel]" in caught.value.problems[0].fix


async def test_the_environment_leads_no_export_elsewhere_and_changes_no_header(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with collector() as taken, collector() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        post = otlp.Post(f"{taken.url}/v1/traces", {"authorization": f"Bearer {SECRET}"}, 2.0)
        assert await asyncio.to_thread(post.send, b"")
    assert (taken.asked, proxy.asked) == (1, 0)
    assert taken.headers[0]["authorization"] == f"Bearer {SECRET}"
